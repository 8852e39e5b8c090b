"""What policyd says in Cohere's voice: how a stream ends, an error, an answer of its own.

Rule 1: it never ends with TOOL_CALL: nothing asks the client to run what was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream import ndjson, sse
from policyd.core.stream.dialects import UNMARKED, Body, Ending
from policyd.core.stream.dialects.answer import Mark, Stand
from policyd.core.stream.dialects.half_json import remainder
from policyd.core.stream.dialects.shared import Bill
from policyd.core.stream.json_strict import dumps

DONE = b"data: [DONE]\n\n"
START = Mark(Stand(), Bill(0, 0))


def is_second(path: str) -> bool:
    """Whether this path is the second version's."""
    return "/v2/" in path.lower()


def ending(request: RequestFacts, response: ResponseFacts, mark: Mark, end: Ending, before: str) -> bytes:
    """The events that end a stream that stands here, in the version that it speaks; `before` is what it has said."""
    if is_second(request.path):
        return second_ending(mark, end)
    streams = "event-stream" in response.headers.get("content-type", "")
    return first_ending(mark, end, before, sse.render if streams else ndjson.render)


# ---- the first version ----------------------------------------------------------------------------------------------


def first_ending(mark: Mark, end: Ending, before: str, render: Callable[[str], bytes] = ndjson.render) -> bytes:
    """The lines (or events) that end a stream of the first version."""
    stand, name = mark.stand, mark.stand.id or "policyd"
    events: list[dict[str, object]] = []
    if not stand.begun:
        events.append({"is_finished": False, "event_type": "stream-start", "generation_id": name})
    if end.text:
        events.append({"is_finished": False, "event_type": "text-generation", "text": end.text})
    last: dict[str, object] = {"is_finished": True, "event_type": "stream-end", "finish_reason": _reason(end)}
    events.append(end.marked({**last, "response": _first(name, before + end.text, mark.bill, _reason(end))}))
    return b"".join(render(dumps(event)) for event in events)


def _reason(end: Ending) -> str:
    """The finish reason of the first version, and of generate."""
    return end.word("ERROR_TOXIC", "MAX_TOKENS", "COMPLETE")


def _first(name: str, said: str, bill: Bill, reason: str) -> dict[str, object]:
    head = {"response_id": name, "text": said, "generation_id": name, "chat_history": [], "finish_reason": reason}
    return {**head, "meta": {"api_version": {"version": "1"}, **_units(bill)}}


def _units(bill: Bill) -> dict[str, object]:
    numbers = {"input_tokens": bill.input, "output_tokens": bill.output}
    return {"billed_units": numbers, "tokens": numbers}


# ---- the second version ---------------------------------------------------------------------------------------------


def second_ending(mark: Mark, end: Ending, id: str = "policyd") -> bytes:
    """The events that end a stream of the second version."""
    stand, half = mark.stand, mark.half
    out = b"" if stand.begun else _start(id)
    for index, kind in stand.open:
        if kind == "tool-call" and (rest := remainder(half.get(index, ""))):
            out += _event("tool-call-delta", index, {"tool_calls": {"function": {"arguments": rest}}})
        out += _event(f"{kind}-end", index)
    if end.text:
        out += _event("content-start", stand.after, {"content": {"type": "text", "text": ""}})
        out += _event("content-delta", stand.after, {"content": {"text": end.text}})
        out += _event("content-end", stand.after)
    if end.text or not stand.stopped:
        delta = {"finish_reason": second_reason(end), "usage": _units(mark.bill)}
        out += sse.render(dumps(end.marked({"type": "message-end", "delta": delta})), "message-end")
    return out + DONE


def second_reason(end: Ending) -> str:
    """The finish reason of the second version."""
    return end.word("ERROR", "MAX_TOKENS", "COMPLETE")


def _start(id: str) -> bytes:
    message = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    return sse.render(dumps({"id": id, "type": "message-start", "delta": {"message": message}}), "message-start")


def _event(kind: str, index: int, message: dict[str, object] | None = None) -> bytes:
    said: dict[str, object] = {"type": kind, "index": index}
    return sse.render(dumps({**said, "delta": {"message": message}} if message else said), kind)


# ---- generate -------------------------------------------------------------------------------------------------------


def generation_ending(
    request: RequestFacts, mark: Mark, end: Ending, before: Sequence[str] = (), id: str = "policyd"
) -> bytes:
    """The lines that end a stream of generate; `before` is what it has said, by choice."""
    events: list[dict[str, object]] = []
    if end.text:
        events.append({"text": end.text, "is_finished": False, "event_type": "text-generation"})
    last: dict[str, object] = {"is_finished": True, "event_type": "stream-end", "finish_reason": _reason(end)}
    response = _generations(request, end, id, before)
    events.append(end.marked({**last, "response": response, "meta": _units(mark.bill)}))
    return b"".join(ndjson.render(dumps(event)) for event in events)


def _generations(request: RequestFacts, end: Ending, id: str, before: Sequence[str] = ()) -> dict[str, object]:
    # Words of ours stand in the first choice of a stream, and in every one of an answer that says nothing else.
    texts = [(before[at] if at < len(before) else "") for at in range(max(1, request.choices))]
    each = [
        {"id": f"{id}-{at}", "text": text + (end.text if at == 0 or not before else ""), "finish_reason": _reason(end)}
        for at, text in enumerate(texts)
    ]
    return {"id": id, "generations": each, "prompt": ""}


# ---- answers of our own ---------------------------------------------------------------------------------------------


def completion(request: RequestFacts, end: Ending, id: str) -> Body:
    """A response of chat that says the text: JSON, or a stream when one was asked for."""
    if not is_second(request.path):
        if request.stream:
            return Body("application/stream+json", first_ending(START, end, ""))
        return Body("application/json", dumps(end.marked(_first(id, end.text, Bill(0, 0), _reason(end)))).encode())
    if request.stream:
        return Body("text/event-stream", second_ending(START, end, id))
    message = {"role": "assistant", "content": [{"type": "text", "text": end.text}]}
    document = {"id": id, "message": message, "finish_reason": second_reason(end), "usage": _units(Bill(0, 0))}
    return Body("application/json", dumps(end.marked(document)).encode())


def generation(request: RequestFacts, end: Ending, id: str) -> Body:
    """A response of generate that says the text."""
    if request.stream:
        return Body("application/stream+json", generation_ending(request, START, end, (), id))
    document = {**_generations(request, end, id), "meta": _units(Bill(0, 0))}
    return Body("application/json", dumps(end.marked(document)).encode())


def error(status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:  # noqa: ARG001 - the status says it all
    """An error in Cohere's shape; `code`, which Cohere does not have, carries the reason."""
    return Body("application/json", dumps(end.marked({"message": message, "code": reason})).encode())
