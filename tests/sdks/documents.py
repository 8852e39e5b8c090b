"""Streams whose events are odd: text where it is not expected, and text in pieces that an SDK puts together.

An event is an object, the data of one as it stands, or a pair of a name and either. The forbidden word is `zugzwang`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from tests.responses import Script

Streams = dict[str, Sequence[Any]]
WORD = "zugzwang"

# ---- Chat Completions ------------------------------------------------------------------------------------------------

HEAD: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}


def chunk(delta: Any, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": reason, **more}]}


def chosen(*choices: Any) -> dict[str, Any]:
    return {**HEAD, "choices": list(choices)}


def said(text: Any) -> dict[str, Any]:
    return chunk({"content": text})


def called(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    """A piece of a tool call's arguments."""
    name = {"name": "f"} if "id" in more else {}
    return {"index": index, **more, "function": {**name, "arguments": arguments}}


def calls(*pieces: Any) -> dict[str, Any]:
    return chunk({"tool_calls": list(pieces)})


NEW = {"id": "c1", "type": "function"}
_TEXT = json.dumps(chunk({"@": WORD}))
CHAT: Streams = {
    "a list of strings": [said([WORD])],
    "a list of parts": [said([{"type": "text", "text": WORD}])],
    "two parts": [said([{"type": "text", "text": "zug"}, {"type": "text", "text": "zwang"}])],
    "an object": [said({"text": WORD})],
    "a number, then text": [said(1), said(WORD)],
    "pieces": [said("zug"), said(None), said("zwang")],
    "pieces around the finish": [said("zug"), chunk({}, "stop"), said("zwang")],
    "text behind the finish": [chunk({"content": "a"}, "stop"), said(WORD)],
    "choices as an object": [{**HEAD, "choices": {"0": {"delta": {"content": WORD}}}}],
    "no index": [chosen({"delta": {"content": WORD}})],
    "an index of text": [chosen({"index": "0", "delta": {"content": WORD}})],
    "an index below 0": [chosen({"index": -1, "delta": {"content": WORD}})],
    "an index with a point": [chosen({"index": 0.0, "delta": {"content": "zug"}}), said("zwang")],
    "an index of false": [chosen({"index": False, "delta": {"content": "zug"}}), said("zwang")],
    "an index of null": [chosen({"index": None, "delta": {"content": one}}) for one in ("zug", "zwang")],
    "one choice twice": [chosen(*({"index": 0, "delta": {"content": one}} for one in ("zug", "zwang")))],
    "choices in another order": [
        chosen({"index": 1, "delta": {"content": "x"}}, {"index": 0, "delta": {"content": "zug"}}),
        said("zwang"),
    ],
    "a message": [chosen({"index": 0, "message": {"content": WORD}, "delta": {}})],
    "text in the choice": [chosen({"index": 0, "text": WORD, "delta": {}})],
    "refusal": [chunk({"refusal": "zug"}), chunk({"refusal": "zwang"})],
    "reasoning": [chunk({"reasoning_content": "zug"}), chunk({"reasoning_content": "zwang"})],
    "an escaped key": [_TEXT.replace("@", "\\u0063ontent")],
    "a key twice": [_TEXT.replace('{"@"', '{}, "delta": {"content"')],
    "a prototype": [json.dumps(chunk({"__proto__": {"content": WORD}}))],
    "arguments": [calls(called(0, '{"a":"zug', **NEW)), calls(called(0, 'zwang"}'))],
    "arguments, cut in an escape": [calls(called(0, '{"a":"\\u00', **NEW)), calls(called(0, '7augzwang"}'))],
    "arguments in another order": [
        calls(called(0, '{"a":"zug', **NEW), called(1, "{}", id="c2", type="function")),
        calls(called(1, ""), called(0, 'zwang"}')),
    ],
    "arguments under another id": [calls(called(0, '{"a":"zug', **NEW)), calls(called(0, 'zwang"}', id="c2"))],
    "arguments of another type": [calls(called(0, '{"a":"zug', **NEW)), calls(called(0, 'zwang"}', type="custom"))],
    "arguments at an index below 0": [calls(called(0, '{"a":"zug', **NEW)), calls(called(-1, 'zwang"}'))],
    "arguments at a late index": [calls(called(7, '{"a":"zug', **NEW)), calls(called(0, 'zwang"}'))],
    "input": [
        calls({"index": 0, "id": "c1", "type": "custom", "custom": {"name": "f", "input": "zug"}}),
        calls({"index": 0, "custom": {"input": "zwang"}}),
    ],
    "a transcript": [chunk({"audio": {"id": "a", "transcript": "zug"}}), chunk({"audio": {"transcript": "zwang"}})],
    "an error": [said("a"), {"error": {"message": WORD}}],
    "an error of text": [{"error": WORD}],
    "an error of a list": [{"error": [WORD]}],
    "a string": [json.dumps(WORD)],
    "a list": [json.dumps([WORD])],
    "a field beside": [{**HEAD, "choices": [], "0": WORD}],
    "an unknown list": [chunk({"extra": [{"index": 0, "t": one}]}) for one in ("zug", "zwang")],
    "an unknown list in another order": [
        chunk({"extra": [{"index": 0, "t": "zug"}, {"index": 1, "t": "x"}]}),
        chunk({"extra": [{"index": 1, "t": "y"}, {"index": 0, "t": "zwang"}]}),
    ],
    "an unknown list in one event": [chunk({"extra": [{"index": 0, "t": "zug"}, {"index": 0, "t": "zwang"}]})],
    "an unknown object": [
        chunk({"extra": {"a": {"b": "zug"}}}),
        said("x"),
        chunk({"extra": {"a": {"b": "zwang"}}}),
    ],
    "a thread": [("thread.message.delta", {"x": WORD})],
}

# ---- Messages --------------------------------------------------------------------------------------------------------

_MESSAGE: dict[str, Any] = {
    "id": "m", "type": "message", "role": "assistant", "content": [], "model": "claude", "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
}  # fmt: skip


def started(**more: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {**_MESSAGE, **more}}


def block(index: Any = 0, **of: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": of or {"type": "text", "text": ""}}


def delta(index: Any = 0, **of: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": of}


def text(value: str, index: Any = 0) -> dict[str, Any]:
    return delta(index, type="text_delta", text=value)


def partial(value: str) -> dict[str, Any]:
    return delta(type="input_json_delta", partial_json=value)


def stopped(reason: str = "end_turn", **more: Any) -> dict[str, Any]:
    said = {"stop_reason": reason, "stop_sequence": None, **more}
    return {"type": "message_delta", "delta": said, "usage": {"output_tokens": 3}}


START, STOP = started(), {"type": "content_block_stop", "index": 0}
END = [STOP, stopped(), {"type": "message_stop"}]
_TOOL = {"id": "t", "name": "f", "input": {}}
MESSAGES: Streams = {
    "pieces": [START, block(), text("zug"), text("zwang"), *END],
    "text in the block's start": [START, block(type="text", text="zug"), text("zwang"), *END],
    "text in the message": [started(content=[{"type": "text", "text": "zug"}]), text("zwang"), *END],
    "text in the message and a block": [
        started(content=[{"type": "text", "text": "zug"}]), block(), text("zwang"), *END,
    ],
    "content of text": [started(content=WORD), *END[1:]],
    "two blocks at once": [START, block(), text("zug"), block(1), text("x", 1), text("zwang"), *END],
    "a tool between": [START, block(), text("zug"), block(1, type="tool_use", **_TOOL), text("zwang"), *END],
    "one index twice": [START, block(), text("zug"), block(), text("zwang"), *END],
    "behind the block's end": [START, block(), text("zug"), STOP, text("zwang"), *END[1:]],
    "no block": [START, text(WORD), *END],
    "no message": [block(), text(WORD), *END],
    "no index": [START, block(), {"type": "content_block_delta", "delta": text(WORD)["delta"]}, *END],
    "an index of text": [START, block(), text(WORD, "0"), *END],
    "an index below 0": [START, block(), text("zug"), text("zwang", -1), *END],
    "an index of true": [START, block(), block(1), text("zug", 1), text("zwang", True), *END],
    "an index with a point": [START, block(), text("zug"), text("zwang", 0.0), *END],
    "thinking in text": [START, block(), delta(type="thinking_delta", thinking=WORD), *END],
    "text in thinking": [START, block(type="thinking", thinking="", signature=""), text(WORD), *END],
    "thinking": [
        START, block(type="thinking", thinking="zug", signature=""), delta(type="thinking_delta", thinking="zwang"),
        *END,
    ],
    "arguments": [START, block(type="tool_use", **_TOOL), partial('{"a":"zug'), partial('zwang"}'), *END],
    "arguments, cut in an escape": [
        START, block(type="tool_use", **_TOOL), partial('{"a":"\\u00'), partial('7augzwang"}'), *END,
    ],
    "arguments without an end": [START, block(type="tool_use", **_TOOL), partial('{"a":"\\u007augzwang'), *END],
    "arguments in text": [START, block(), partial('{"a":"zugzwang"}'), *END],
    "arguments of an unknown tool": [
        START, block(type="new_tool", **_TOOL), partial('{"a":"zug'), partial('zwang"}'), *END,
    ],
    "arguments of a server's tool": [
        START, block(type="server_tool_use", **_TOOL), partial('{"a":"zug'), partial('zwang"}'), *END,
    ],
    "an unknown delta": [START, block(), delta(type="new_delta", text=WORD), *END],
    "an unknown delta in pieces": [
        START, block(), *(delta(type="new_delta", text=one) for one in ("zug", "zwang")), *END,
    ],
    "a delta without a type": [START, block(), delta(text=WORD), *END],
    "a summary": [
        START, block(type="compaction", content=""),
        *(delta(type="compaction_delta", content=one) for one in ("zug", "zwang")), *END,
    ],
    "a ping": [START, {"type": "ping", "text": WORD}, block(), text("a"), *END],
    "text by the name of a ping": [START, block(), ("ping", text(WORD)), *END],
    "an unknown event": [START, {"type": "new_event", "text": WORD}, *END],
    "an event of another API": [START, ("completion", {"type": "completion", "completion": WORD}), *END],
    "an error": [START, {"type": "error", "error": {"type": "overloaded_error", "message": WORD}}],
    "an error of text": [START, ("error", WORD)],
    "an error's name": [START, ("error", {WORD: 1})],
    "a stop sequence": [START, block(), text("a"), STOP, stopped("stop_sequence", stop_sequence=WORD), END[2]],
    "why it refused": [
        START, block(), text("a"), STOP,
        stopped("refusal", stop_details={"type": "refusal", "category": "cyber", "explanation": WORD}), END[2],
    ],
    "a second message": [START, block(), text("a"), STOP, started(content=[{"type": "text", "text": WORD}]), *END[1:]],
    "behind the end": [START, block(), text("a"), *END, text(WORD)],
    "no text in the start": [START, block(type="text", text=None), text(WORD), *END],
}  # fmt: skip

# ---- Responses -------------------------------------------------------------------------------------------------------

_RESPONSE: dict[str, Any] = {
    "id": "r", "object": "response", "created_at": 1, "status": "in_progress", "model": "m", "output": [],
    "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
}  # fmt: skip


def response(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "response": {**_RESPONSE, **more}}


def item(**of: Any) -> dict[str, Any]:
    own = {"id": "m0", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    return {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {**(own if "type" not in of else {}), **of},
    }


def output(value: str) -> dict[str, Any]:
    return {"type": "output_text", "text": value, "annotations": []}


def part(index: int = 0, **of: Any) -> dict[str, Any]:
    where = {"item_id": "m0", "output_index": 0, "content_index": index}
    return {"type": "response.content_part.added", **where, "part": of or output("")}


def piece(value: str, kind: str = "output_text", **more: Any) -> dict[str, Any]:
    where = {"item_id": "m0", "output_index": 0, "content_index": 0}
    return {"type": f"response.{kind}.delta", **where, "delta": value, "logprobs": [], **more}


def pieces(kind: str, *values: str) -> list[dict[str, Any]]:
    return [piece(value, kind) for value in values]


CREATED = response("created")
COMPLETED = response("completed", status="completed")
_ITEM = {"id": "m0", "type": "message", "role": "assistant", "status": "completed"}
_CALL = {"id": "fc", "type": "function_call", "call_id": "c", "name": "f"}
RESPONSES: Streams = {
    "pieces": [CREATED, item(), part(), piece("zug"), piece("zwang"), COMPLETED],
    "text in the part's start": [CREATED, item(), part(**output("zug")), piece("zwang"), COMPLETED],
    "text in the item's start": [CREATED, item(content=[output("zug")]), piece("zwang"), COMPLETED],
    "text in the response's start": [
        response("created", output=[{**_ITEM, "content": [output("zug")]}]), piece("zwang"), COMPLETED,
    ],
    "another item's id": [CREATED, item(), part(), piece("zug"), piece("zwang", item_id="other"), COMPLETED],
    "no part": [CREATED, item(), piece("zug"), piece("zwang"), COMPLETED],
    "no item": [CREATED, piece("zug"), piece("zwang"), COMPLETED],
    "two parts at once": [
        CREATED, item(), part(), part(1), piece("zug"), piece("x", content_index=1), piece("zwang"), COMPLETED,
    ],
    "an index of text": [CREATED, item(), part(), piece("zug"), piece("zwang", content_index="0"), COMPLETED],
    "an index below 0": [CREATED, item(), part(), piece("zug"), piece("zwang", content_index=-1), COMPLETED],
    "an item below 0": [CREATED, item(), part(), piece("zug"), piece("zwang", output_index=-1), COMPLETED],
    "a part twice": [CREATED, item(), part(), part(), piece("zug"), piece("zwang"), COMPLETED],
    "a refusal of a text": [CREATED, item(), part(), *pieces("refusal", "zug", "zwang"), COMPLETED],
    "reasoning": [
        CREATED, item(id="rs", type="reasoning", summary=[], content=[]), part(type="reasoning_text", text=""),
        *pieces("reasoning_text", "zug", "zwang"), COMPLETED,
    ],
    "arguments": [
        CREATED, item(**_CALL, arguments=""), *pieces("function_call_arguments", '{"a":"zug', 'zwang"}'), COMPLETED,
    ],
    "arguments in the item's start": [
        CREATED, item(**_CALL, arguments='{"a":"zug'), *pieces("function_call_arguments", 'zwang"}'), COMPLETED,
    ],
    "input": [
        CREATED, item(**{**_CALL, "type": "custom_tool_call"}, input=""),
        *pieces("custom_tool_call_input", "zug", "zwang"), COMPLETED,
    ],
    "arguments of a server's tool": [
        CREATED, item(id="fc", type="mcp_call", name="f", server_label="s", arguments=""),
        *pieces("mcp_call_arguments", '{"a":"zug', 'zwang"}'), COMPLETED,
    ],
    "code": [
        CREATED,
        item(id="ci", type="code_interpreter_call", code="", container_id="c", outputs=[], status="in_progress"),
        *pieces("code_interpreter_call_code", "zug", "zwang"), COMPLETED,
    ],
    "an unknown delta": [CREATED, item(), part(), *pieces("new", "zug", "zwang"), COMPLETED],
    "an unknown event": [CREATED, {"type": "response.new", "text": WORD}, COMPLETED],
    "only the whole": [CREATED, response("completed", output=[{**_ITEM, "content": [output(WORD)]}])],
    "a text that differs": [
        CREATED, item(), part(), piece("zug"),
        {**piece(""), "type": "response.output_text.done", "text": WORD}, COMPLETED,
    ],
    "a failure": [CREATED, response("failed", status="failed", error={"code": "server_error", "message": WORD})],
    "an error": [CREATED, {"type": "error", "code": "x", "message": WORD, "param": None}],
    "an error of another API": [CREATED, {"type": "error", "error": {"message": WORD}}],
    "instructions": [response("created", instructions=WORD), COMPLETED],
    "a key twice": ['{"type": "response.created", "type": "response.new", "x": "zugzwang"}'],
}  # fmt: skip

ODD: dict[str, Streams] = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES}

# ---- every place -----------------------------------------------------------------------------------------------------

_DETAILS = [{"type": "reasoning.text", "text": "x", "index": 0}]
_LOGPROB = {"token": "b", "logprob": -1, "bytes": None, "top_logprobs": []}
_CITED = {"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}
FULL: dict[str, list[Any]] = {
    "chat": [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "a", "refusal": "r", "reasoning_content": "t", "annotations": [_CITED]}),
        chunk({"audio": {"id": "a", "transcript": "t"}, "reasoning_details": _DETAILS}),
        calls(called(0, "{", **NEW)),
        chunk({"function_call": {"name": "f", "arguments": "{"}}),
        chunk({"content": "b"}, logprobs={"content": [_LOGPROB]}),
        chunk({}, "stop"),
    ],
    "responses": list(Script().say("a", "b").think("x").call("f", '{"a":', "1}").call("g", "x", custom=True).end()),
    "messages": [
        START, block(type="thinking", thinking="", signature=""), delta(type="thinking_delta", thinking="t"), STOP,
        block(1), text("a", 1), {"type": "content_block_stop", "index": 1},
        block(2, type="tool_use", **_TOOL), delta(2, type="input_json_delta", partial_json="{}"),
        {"type": "content_block_stop", "index": 2}, *END[1:],
    ],
}  # fmt: skip
# Ids are structural: no text of a program's user. An SDK that joins two of them makes another id.
IDS = frozenset({"id", "item_id", "call_id"})


def in_two(api: str) -> Iterator[tuple[str, list[Any]]]:
    """A full stream, one of its events twice: the word in two pieces in one of its places, and in an unknown one."""
    events = FULL[api]
    for number, event in enumerate(events):
        if event.get("type", "").endswith((".done", "_stop")):
            continue
        for path in places(event):
            if path != ("type",) and path[-1] not in IDS:
                both = [planted(event, path, one) for one in ("zug", "zwang")]
                yield f"event {number}, {'.'.join(map(str, path))}", [*events[:number], *both, *events[number + 1 :]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a string stands or may stand: values, and a member of its own in every object."""
    if isinstance(value, dict):
        yield (*path, "extra")
        for name, inner in value.items():
            yield from places(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))
    elif value is None or isinstance(value, str):
        yield path


def planted(event: Any, path: tuple[Any, ...], value: str) -> Any:
    """The event with this string at this place."""
    event = copy.deepcopy(event)
    inner = event
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return event


def encoded(api: str, events: Sequence[Any]) -> bytes:
    """The events of a stream, named as its API does."""
    out = b""
    for event in events:
        name, said = event if isinstance(event, tuple) else ("", event)
        if not name and api != "chat" and isinstance(said, dict):
            name = said["type"]
        data = said if isinstance(said, str) and said[:1] in ('"', "[", "{") else json.dumps(said)
        out += (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()
    return out + (b"data: [DONE]\n\n" if api == "chat" else b"")
