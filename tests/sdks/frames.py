"""The same events of a stream, framed in every way that a server might frame them, and in ways that none should."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Events = Sequence[tuple[str, str]]  # the name of an event, which may be empty, and its data
HEAD, TAIL = "zug", "zwang"  # the forbidden word, as two events say it


def framed(
    events: Events,
    end: str = "\n",
    *,
    colon: str = ": ",
    data: str = "data",
    event: str = "event",
    mark: str = "",
    before: str = "",
    lines: bool = False,
) -> bytes:
    """`mark` begins every line; `before` begins every event; `lines`: the data stands in two lines."""
    out = ""
    for name, said in events:
        out += before + (f"{mark}{event}{colon}{name}{end}" if name else "")
        cut = lines and said.startswith("{")
        out += "".join(f"{mark}{data}{colon}{part}{end}" for part in ([said[:1], said[1:]] if cut else [said])) + end
    return out.encode()


def _each(change: Callable[[str, str], tuple[str, str]]) -> Callable[[Events], bytes]:
    return lambda events: framed([change(name, data) for name, data in events])


def _named(name: str) -> Callable[[Events], bytes]:
    return _each(lambda _, data: (name, data))


def _said(change: Callable[[str], str]) -> Callable[[Events], bytes]:
    return _each(lambda name, data: (name, change(data)))


def _ends(between: bytes) -> Callable[[Events], bytes]:
    return lambda events: framed(events).replace(b"\n\n", between)


def _first(block: str) -> Callable[[Events], bytes]:
    return lambda events: block.encode() + framed(events)


def _last(line: str) -> Callable[[Events], bytes]:
    """This line at the end of every event."""
    blocks = lambda events: [(f"event: {name}\n" if name else "") + f"data: {data}\n" for name, data in events]  # noqa: E731
    return lambda events: "".join(f"{block}{line}\n\n" for block in blocks(events)).encode()


def _twice(data: str) -> str:
    """Each text twice under one name: the second one counts."""
    return data.replace(f'"{HEAD}"', f'"a", "content": "{HEAD}", "text": "{HEAD}", "delta": "{HEAD}"')


FRAMES: dict[str, Callable[[Events], bytes]] = {
    "line feeds": framed,
    "carriage returns": lambda events: framed(events, "\r"),
    "both": lambda events: framed(events, "\r\n"),
    "both, the wrong way round": lambda events: framed(events, "\n\r"),
    "mixed ends 1": _ends(b"\r\n\n"),
    "mixed ends 2": _ends(b"\n\r\n"),
    "mixed ends 3": _ends(b"\r\r\n"),
    "many blank lines": lambda events: b"\n\n\n" + framed(events).replace(b"\n\n", b"\n\n\n\n"),
    "U+2028": lambda events: framed(events, "\u2028"),
    "U+0085": lambda events: framed(events, "\x85"),
    "vertical tabs": lambda events: framed(events, "\x0b"),
    "form feeds": lambda events: framed(events, "\x0c"),
    "file separators": lambda events: framed(events, "\x1c"),
    "no space": lambda events: framed(events, colon=":"),
    "two spaces": lambda events: framed(events, colon=":  "),
    "a tab": lambda events: framed(events, colon=":\t"),
    "a space before the colon": lambda events: framed(events, data="data "),
    "a space before the name": lambda events: framed(events, data=" data"),
    "BOM first": lambda events: b"\xef\xbb\xbf" + framed(events),
    "BOM in every line": lambda events: framed(events, mark="\ufeff"),
    "two BOMs in every line": lambda events: framed(events, mark="\ufeff\ufeff"),
    "BOM before the JSON": _said(lambda data: "\ufeff" + data),
    "no-break space before the JSON": _said(lambda data: "\xa0" + data),
    "spaces around the JSON": _said(lambda data: f"  {data}  "),
    "data in two lines": lambda events: framed(events, lines=True),
    "DATA": lambda events: framed(events, data="DATA"),
    "Data": lambda events: framed(events, data="Data"),
    "EVENT": lambda events: framed(events, event="EVENT"),
    "NUL in a name": lambda events: framed(events, event="eve\0nt"),
    "comments": lambda events: framed(events, before=": hi\n"),
    "ids": lambda events: framed(events, before="id: 1\n"),
    "retry": lambda events: framed(events, before="retry: 1\n"),
    "data without a colon first": _first("data\n\n"),
    "a colon first": _first(":\n\n"),
    "no names": _named(""),
    "message": _named("message"),
    "completion": _named("completion"),
    "ping": _named("ping"),
    "error": _named("error"),
    "thread.message.delta": _named("thread.message.delta"),
    "another name first": lambda events: framed(events, before="event: ping\n"),
    "another name last": _last("event: ping"),
    "an empty name last": _last("event:"),
    "the name behind the data": lambda events: "".join(
        f"data: {data}\n" + (f"event: {name}\n" if name else "") + "\n" for name, data in events
    ).encode(),
    "no blank line at the end": lambda events: framed(events)[:-1],
    "no line end at the end": lambda events: framed(events)[:-2],
    "no [DONE], no blank line": lambda events: framed([one for one in events if one[1] != "[DONE]"])[:-2],
    "behind [DONE]": _first("data: [DONE]\n\n"),
    "behind [DONE] x": _first("data: [DONE] x\n\n"),
    "behind [DONE] and a space": _first("data: [DONE] \n\n"),
    "behind [done]": _first("data: [done]\n\n"),
    "behind [DONE] of two lines": _first("data: [DONE]\ndata: x\n\n"),
    "behind [DONE] and an empty line": _first("data: [DONE]\ndata: \n\n"),
    "behind [DONE] without a space": _first("data:[DONE]\n\n"),
    "behind [DONE] with a name": _first("event: done\ndata: [DONE]\n\n"),
    "behind [DONE] with a BOM": _first("data: \ufeff[DONE]\n\n"),
    "no UTF-8 in the text": lambda events: framed(events).replace(HEAD.encode(), b"zu\xffg"),
    "no UTF-8 elsewhere": lambda events: b": \xff\n\n" + framed(events),
    "NUL in the text": _said(lambda data: data.replace(HEAD, "z\0ug")),
    "escapes": _said(lambda data: data.replace(HEAD, "\\u007aug")),
    "half a surrogate": _said(lambda data: data.replace(HEAD, "\\ud800" + HEAD)),
    "NaN": _said(lambda data: data.replace("{", '{"q": NaN, ', 1)),
    "a number without an end": _said(lambda data: data.replace("{", '{"q": 1e999, ', 1)),
    "a comma too many": _said(lambda data: data.replace("}}", "},}")),
    "single quotes": _said(lambda data: data.replace('"', "'")),
    "more behind the JSON": _said(lambda data: data + " x"),
    "two documents": _said(lambda data: data + data),
    "keys twice": _said(_twice),
}
