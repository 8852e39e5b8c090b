"""What policyd says in the voice of OpenAI Chat Completions: how a stream ends, an error, an answer of its own.

Rule 1: a stream is ended from what its client has seen: `Stand` is what has been released.
Rule 2: no choice ends with "tool_calls", also one that was calling a tool: nothing asks the client to run what was cut.
Rule 3: a response that ends as a refusal says why in `refusal`, too: frameworks pass that on, and lose the rest.
"""

from __future__ import annotations

from typing import NamedTuple

from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import Body, Ending
from policyd.core.stream.dialects.half_json import remainder
from policyd.core.stream.dialects.openai_shared import DONE, Stand, usage
from policyd.core.stream.dialects.shared import Bill
from policyd.core.stream.json_strict import dumps
from policyd.core.stream.sse import render


class OpenCall(NamedTuple):
    """A tool call whose choice is not finished."""

    choice: int
    place: int  # its index; below 0 for a legacy function_call
    arguments: str


class Mark(NamedTuple):
    """What an ending is made from."""

    stand: Stand
    bill: Bill
    calls: tuple[OpenCall, ...]


def ending(request: RequestFacts, mark: Mark, end: Ending) -> bytes:
    """The events that end a stream that stands here."""
    stand = mark.stand
    if stand.done:
        return b""
    if stand.failed:
        return DONE
    asked = range(max(request.choices, 1, *(choice + 1 for choice in stand.begun)))
    # A choice that has its reason already still gets the words when no other can carry them.
    choices = [choice for choice in asked if choice not in stand.finished] or [0]
    out = b""
    last: dict[str, object] = {}
    for choice in choices:
        out += _event(last) if last else b""
        out += b"".join(_half_calls(request, stand, choice, mark.calls))
        begin: dict[str, object] = {} if choice in stand.begun else {"role": "assistant", "content": ""}
        if end.text or begin:
            out += _chunk(request, stand, choice, {**begin, **({"content": end.text} if end.text else {})}, None)
        last = _delta(request, stand, choice, {"refusal": end.refusal} if end.refusal else {}, finish_reason(end))
    if request.wants_usage and not stand.usage:
        out += _event(last)
        last = {**_head(request, stand), "choices": [], "usage": usage(mark.bill)}
    return out + _event(end.marked(last)) + DONE


def finish_reason(end: Ending) -> str:
    """The finish reason of every choice."""
    return end.word("content_filter", "length", "stop")


def _half_calls(request: RequestFacts, stand: Stand, choice: int, calls: tuple[OpenCall, ...]) -> list[bytes]:
    """Ends the arguments that broke off, so that a client which parses them does not fail on them."""
    out = []
    for call in calls:
        if call.choice != choice or not (rest := remainder(call.arguments)):
            continue
        if call.place < 0:
            delta: dict[str, object] = {"function_call": {"arguments": rest}}
        else:
            delta = {"tool_calls": [{"index": call.place, "function": {"arguments": rest}}]}
        out.append(_chunk(request, stand, choice, delta, None))
    return out


def _head(request: RequestFacts, stand: Stand, kind: str = "chat.completion.chunk") -> dict[str, object]:
    return {
        "id": stand.id or "chatcmpl-policyd",
        "object": kind,
        "created": stand.created,
        "model": stand.model or request.model or "",
    }


def _chunk(request: RequestFacts, stand: Stand, choice: int, delta: dict[str, object], reason: str | None) -> bytes:
    return _event(_delta(request, stand, choice, delta, reason))


def _delta(
    request: RequestFacts, stand: Stand, choice: int, delta: dict[str, object], reason: str | None
) -> dict[str, object]:
    said = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {**_head(request, stand), "choices": [said]}


def _event(document: dict[str, object]) -> bytes:
    return render(dumps(document))


def completion(request: RequestFacts, end: Ending, id: str) -> Body:
    """A response that says the text in every choice: JSON, or a stream when one was asked for."""
    stand = Stand(id=f"chatcmpl-{id}")
    if request.stream:
        return Body("text/event-stream; charset=utf-8", ending(request, Mark(stand, Bill(0, 0), ()), end))
    message = {"role": "assistant", "content": end.text, "refusal": end.refusal or None}
    choices = [
        {"index": choice, "message": message, "logprobs": None, "finish_reason": finish_reason(end)}
        for choice in range(max(1, request.choices))
    ]
    document = {**_head(request, stand, "chat.completion"), "choices": choices, "usage": usage(Bill(0, 0))}
    return Body("application/json", dumps(end.marked(document)).encode())
