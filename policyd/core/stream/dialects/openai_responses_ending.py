"""What policyd says in the voice of OpenAI Responses: how a stream ends, an answer of its own.

Rule 1: a stream is ended from what its client has seen: `Mark` is what has been released, `texts` what it said.
Rule 2: what is open is closed as "incomplete"; the last words are a message of their own.
Rule 3: the closing response holds messages only: nothing in it asks a client to run what was cut, or to send back
        half of what a model thought.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import Body, Channel, Ending
from policyd.core.stream.dialects.content import is_id
from policyd.core.stream.dialects.half_json import remainder
from policyd.core.stream.dialects.shared import Bill
from policyd.core.stream.json_strict import dumps
from policyd.core.stream.sse import render


class PartStand(NamedTuple):
    """One part of an item that its client knows of. `left`: how many events still close it (its text's, its own)."""

    kind: str  # "text", "refusal", "summary", "reasoning", "args", "other"
    place: int
    channel: Channel
    left: int = 2


class ItemStand(NamedTuple):
    """One item that its client knows of."""

    at: int  # its output_index
    type: str
    names: tuple[tuple[str, str], ...] = ()  # what identifies it: id, call_id, name
    parts: tuple[PartStand, ...] = ()
    open: bool = True

    @property
    def id(self) -> str:
        return dict(self.names).get("id", "")


class Mark(NamedTuple):
    """What an ending is made from."""

    head: Mapping[str, object] | None = None  # the response as it was announced; None: it has not been
    items: tuple[ItemStand, ...] = ()  # of an ending
    sequence: int = -1  # the last number sent
    told: int = 0  # how much of the reader's journal
    bill: Bill = Bill(0, 0)
    done: bool = False
    shaped: int = 0  # how much of the journal of items


class _Script:
    """Events, numbered on from where the stream stands."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.data = b""

    def add(self, kind: str, **fields: object) -> None:
        self.sequence += 1
        self.data += render(dumps({"type": kind, "sequence_number": self.sequence, **fields}), kind)


def ending(request: RequestFacts, mark: Mark, texts: Mapping[Channel, str], end: Ending, id: str = "policyd") -> bytes:
    """The events that end a stream that stands here."""
    if mark.done:
        return b""
    script = _Script(mark.sequence)
    head = _head(request, mark.head, id)
    if mark.head is None:
        script.add("response.created", response={**head, "status": "in_progress"})
        script.add("response.in_progress", response={**head, "status": "in_progress"})
    output = []
    for item in sorted(mark.items, key=lambda one: one.at):
        if item.open:
            _close_item(script, item, texts)
        if item.type == "message":
            output.append(_item(item, texts))
    if end.text:
        output.append(_last_words(script, end.text, max((item.at for item in mark.items), default=-1) + 1))
    closing = {**head, **_status(end), "output": output, "usage": _usage(mark.bill)}
    # Helpers of the official SDKs take a stream without `response.completed` for one that broke off and lose its text;
    # the response in it says that it is incomplete, and why.
    script.add("response.completed", **end.marked({"response": end.marked(closing)}))
    return script.data


def _status(end: Ending) -> dict[str, object]:
    """The status of the closing response, and why it is incomplete."""
    reason = end.word("content_filter", "max_output_tokens", "")
    return {"status": "incomplete", "incomplete_details": {"reason": reason}} if reason else {"status": "completed"}


def _head(request: RequestFacts, told: Mapping[str, object] | None, id: str) -> dict[str, object]:
    """The response without its output. The caller's own texts, which may have been redacted, are not told again."""
    usual: dict[str, object] = {
        "id": f"resp_{id}",
        "object": "response",
        "created_at": 0,
        "model": request.model or "",
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": request.temperature,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "max_output_tokens": request.max_tokens,
    }
    known = {key: value for key, value in (told or {}).items() if key != "completed_at" and _is_plain(value)}
    own: dict[str, object] = {
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "output": [],
        "usage": None,
    }
    return {**usual, **known, **own}


def _is_plain(value: object) -> bool:
    """Whether this is a number, an id or a word: nothing that may have been redacted."""
    return value is None or isinstance(value, int | float) or is_id(value)


def _close_item(script: _Script, item: ItemStand, texts: Mapping[Channel, str]) -> None:
    where = {"item_id": item.id, "output_index": item.at}
    texts = dict(texts)
    for part in item.parts:
        said = texts.get(part.channel, "")
        if part.kind == "args" and item.type == "function_call":
            rest = remainder(said) if part.left == 2 else ""
            if rest:
                script.add("response.function_call_arguments.delta", **where, delta=rest)
            said = texts[part.channel] = said + rest
        _close_part(script, item, part, said)
    script.add("response.output_item.done", output_index=item.at, item=_item(item, texts))


# By kind: the event that ends its text, the field that says it again, the event that ends the part, how it counts.
_CLOSINGS = {
    "text": ("response.output_text.done", "text", "response.content_part.done", "content_index"),
    "refusal": ("response.refusal.done", "refusal", "response.content_part.done", "content_index"),
    "reasoning": ("response.reasoning_text.done", "text", "response.content_part.done", "content_index"),
    "summary": (
        "response.reasoning_summary_text.done", "text", "response.reasoning_summary_part.done", "summary_index",
    ),
}  # fmt: skip


def _close_part(script: _Script, item: ItemStand, part: PartStand, said: str) -> None:
    where: dict[str, object] = {"item_id": item.id, "output_index": item.at}
    if part.kind == "args":
        if item.type not in ("function_call", "custom_tool_call"):
            return
        field = "arguments" if item.type == "function_call" else "input"
        base = "function_call_arguments" if item.type == "function_call" else "custom_tool_call_input"
        if part.left == 2:
            script.add(f"response.{base}.done", **where, **{field: said})
        return
    if part.kind not in _CLOSINGS:
        return
    of_text, field, of_part, index = _CLOSINGS[part.kind]
    where[index] = part.place
    if part.left == 2:
        logprobs: dict[str, object] = {"logprobs": []} if part.kind == "text" else {}
        script.add(of_text, **where, **{field: said}, **logprobs)
    if part.left >= 1:
        script.add(of_part, **where, part=_part(part.kind, said))


def _part(kind: str, said: str) -> dict[str, object]:
    match kind:
        case "text":
            return {"type": "output_text", "annotations": [], "logprobs": [], "text": said}
        case "refusal":
            return {"type": "refusal", "refusal": said}
        case "summary":
            return {"type": "summary_text", "text": said}
        case _:
            return {"type": "reasoning_text", "text": said}


def _item(item: ItemStand, texts: Mapping[Channel, str]) -> dict[str, object]:
    """The item as far as its client has seen it."""
    said: dict[str, object] = {**dict(item.names), "type": item.type}
    said["status"] = "incomplete" if item.open else "completed"
    parts = sorted(item.parts, key=lambda part: part.place)
    told = [(part.kind, _part(part.kind, texts.get(part.channel, ""))) for part in parts]
    match item.type:
        case "message":
            content = [part for kind, part in told if kind in ("text", "refusal")]
            return {**said, "role": "assistant", "content": content}
        case "reasoning":
            said["summary"] = [part for kind, part in told if kind == "summary"]
            return said
        case "function_call" | "custom_tool_call":
            field = "arguments" if item.type == "function_call" else "input"
            return {**said, field: "".join(texts.get(part.channel, "") for part in parts)}
        case _:
            return said


def _last_words(script: _Script, text: str, index: int) -> dict[str, object]:
    part = PartStand("text", 0, ("text", 0, -1))
    item = ItemStand(index, "message", (("id", f"msg_policyd_{index}"),), (part,))
    started = {**_item(item, {}), "status": "in_progress", "content": []}
    where = {"item_id": item.id, "output_index": index, "content_index": 0}
    script.add("response.output_item.added", output_index=index, item=started)
    script.add("response.content_part.added", **where, part=_part("text", ""))
    script.add("response.output_text.delta", **where, delta=text, logprobs=[])
    _close_part(script, item, part, text)
    done = _item(item._replace(open=False), {part.channel: text})
    script.add("response.output_item.done", output_index=index, item=done)
    return done


def _usage(bill: Bill) -> dict[str, object]:
    return {
        "input_tokens": bill.input,
        "input_tokens_details": {"cached_tokens": bill.cached},
        "output_tokens": bill.output,
        "output_tokens_details": {"reasoning_tokens": bill.reasoning},
        "total_tokens": bill.input + bill.output,
    }


def completion(request: RequestFacts, end: Ending, id: str) -> Body:
    """A response that says the text: JSON, or a stream when one was asked for."""
    if request.stream:
        return Body("text/event-stream; charset=utf-8", ending(request, Mark(), {}, end, id))
    part = PartStand("text", 0, ("text", 0, 0))
    item = ItemStand(0, "message", (("id", f"msg_{id}"),), (part,), open=False)
    output = [_item(item, {part.channel: end.text})] if end.text else []
    document = {**_head(request, None, id), **_status(end), "output": output, "usage": _usage(Bill(0, 0))}
    return Body("application/json", dumps(end.marked(document)).encode())
