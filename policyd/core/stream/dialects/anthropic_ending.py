"""What policyd says in the voice of Anthropic Messages: how a stream ends, an error, an answer of its own.

Rule 1: a stream is ended from what its client has seen: `Mark` is what has been released.
Rule 2: it never ends with "tool_use", also one that was calling a tool: nothing asks the client to run what was cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import UNMARKED, Body, Ending
from policyd.core.stream.dialects.half_json import remainder
from policyd.core.stream.dialects.open_calls import NO_CALLS
from policyd.core.stream.json_strict import dumps
from policyd.core.stream.sse import render


class Stand(NamedTuple):
    """Where a stream stands: what its client knows of it."""

    started: bool = False  # message_start has been sent
    open: tuple[int, ...] = ()  # blocks, in order of appearance
    after: int = 0  # the first index that no block has
    stopped: bool = False  # message_delta with its stop_reason has been sent
    done: bool = False  # message_stop or an error has been sent


class Mark(NamedTuple):
    """What an ending is made from."""

    stand: Stand
    input_tokens: int
    output_tokens: int
    at: int = 0  # the place in the journal of open tool calls
    half: Mapping[int, str] = NO_CALLS  # of an ending: open tool calls, the block's index and its arguments so far


def ending(request: RequestFacts, mark: Mark, end: Ending, id: str = "policyd") -> bytes:
    """The events that end a stream that stands here."""
    stand = mark.stand
    if stand.done:
        return b""
    out = b"" if stand.started else _message_start(request, id, mark.input_tokens)
    half = mark.half
    for index in stand.open:
        if rest := remainder(half[index]) if index in half else "":
            out += _delta(index, {"type": "input_json_delta", "partial_json": rest})
        out += _event({"type": "content_block_stop", "index": index})
    if end.text:
        block = {"type": "text", "text": ""}
        out += _event({"type": "content_block_start", "index": stand.after, "content_block": block})
        out += _delta(stand.after, {"type": "text_delta", "text": end.text})
        out += _event({"type": "content_block_stop", "index": stand.after})
    if end.text or not stand.stopped:
        out += _event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": _stop_reason(end), "stop_sequence": None, **_stop_details(end)},
                "usage": {"output_tokens": mark.output_tokens},
            }
        )
    return out + _event(end.marked({"type": "message_stop"}))


def _stop_reason(end: Ending) -> str:
    return end.word("refusal", "max_tokens", "end_turn")


def _stop_details(end: Ending) -> dict[str, object]:
    """Why, in Anthropic's own member, where the response ends as a refusal."""
    details = {"type": "refusal", "category": None, "explanation": end.refusal}
    return {"stop_details": details} if end.refusal else {}


def _message_start(request: RequestFacts, id: str, input_tokens: int) -> bytes:
    message = _message(request, id, [], None, input_tokens)
    return _event({"type": "message_start", "message": message})


def _message(
    request: RequestFacts, id: str, content: list[object], stop_reason: str | None, input_tokens: int
) -> dict[str, object]:
    return {
        "id": f"msg_{id}",
        "type": "message",
        "role": "assistant",
        "model": request.model or "",
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": input_tokens, "output_tokens": 0},
    }


def _delta(index: int, delta: dict[str, object]) -> bytes:
    return _event({"type": "content_block_delta", "index": index, "delta": delta})


def _event(document: dict[str, object]) -> bytes:
    return render(dumps(document), str(document["type"]))


def completion(request: RequestFacts, end: Ending, id: str) -> Body:
    """A response that says the text: JSON, or a stream when one was asked for."""
    if request.stream:
        data = ending(request, Mark(Stand(), 0, 0), end, id)
        return Body("text/event-stream; charset=utf-8", data)
    content: list[object] = [{"type": "text", "text": end.text}] if end.text else []
    message = {**_message(request, id, content, _stop_reason(end), 0), **_stop_details(end)}
    return Body("application/json", dumps(end.marked(message)).encode())


_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error(status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
    """An error in Anthropic's shape; `code`, which Anthropic does not have, carries the reason."""
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    inner = end.marked({"type": kind, "message": message, "code": reason})
    said = {"type": "error", "error": inner, "request_id": None}
    return Body("application/json", dumps(said).encode())
