"""Answers of Ollama, one document or one a line, and what policyd says in its voice.

Rule 1: usage comes with the line that says `done`: prompt_eval_count and eval_count. What was read from Ollama's own
        prompt cache is left out of prompt_eval_count by some versions, and it names no other number.
Rule 2: a tool call comes whole.
"""

from __future__ import annotations

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import UNMARKED, Body, Ending
from policyd.core.stream.dialects.answer import Answer, Mark, Stand
from policyd.core.stream.dialects.content import a_time
from policyd.core.stream.dialects.response_others import OLLAMA_RESPONSE
from policyd.core.stream.dialects.shared import Bill, count, listing, mapping, section, text
from policyd.core.stream.dialects.unread_calls import CallPlaces
from policyd.core.stream.json_strict import dumps
from policyd.core.stream.ndjson import render

CALLS = frozenset({("message", "tool_calls", 0, "function")})
STAMP = "1970-01-01T00:00:00Z"


class OllamaAnswer(Answer):
    """Reads one answer. `chat`: the text is a message's, not the answer's own."""

    structure = OLLAMA_RESPONSE
    deltas = frozenset({(), ("message",)})
    payload = frozenset({"message", "response"})
    calls = CallPlaces(CALLS, CALLS)

    def __init__(self, request: RequestFacts, response: ResponseFacts, *, chat: bool) -> None:
        super().__init__(request, response)
        self._chat = chat

    def _event(self, name: str, document: dict[str, object]) -> bool:  # noqa: ARG002 - lines have no names
        self._read(document)
        if document.get("done") is not True:
            return False
        self._end()
        return True

    def _whole(self, document: dict[str, object]) -> None:
        if ("message" if self._chat else "response") not in document:
            raise Malformed("the answer says nothing")
        self._read(document)

    def _read(self, document: dict[str, object]) -> None:
        self._model(text(document.get("model"), "model"))
        stamp = document.get("created_at")
        self._stand = self._stand._replace(
            begun=True, stamp=stamp if isinstance(stamp, str) and a_time(stamp, {}) else ""
        )
        if self._chat:
            self._message(section(document.get("message"), "message"))
        else:
            self._think(("thinking",), text(document.get("thinking"), "thinking") or "")
            self._say(("response",), text(document.get("response"), "response") or "")
        for field in ("logprobs", "context"):
            self._blank((field,), document.get(field))
        if document.get("done") is True:
            self._stand = self._stand._replace(stopped=True)
            if (reason := text(document.get("done_reason"), "done_reason")) is not None:
                self._reason(0, reason)
            self._usage(document)

    def _message(self, message: dict[str, object]) -> None:
        self._think(("message", "thinking"), text(message.get("thinking"), "thinking") or "")
        self._say(("message", "content"), text(message.get("content"), "content") or "")
        for place, item in enumerate(listing(message.get("tool_calls"), "tool_calls")):
            said = mapping(mapping(item, "a tool call").get("function"), "function")
            name = text(said.get("name"), "the name of a tool") or ""
            self._call(name, ("message", "tool_calls", place, "function", "arguments"), said.get("arguments"))

    def _usage(self, document: dict[str, object]) -> None:
        try:
            self._bill(bill_of(document), final=True)
        except Malformed as failure:
            self._partial(failure.reason)  # the estimate stays

    def _ending(self, mark: Mark, end: Ending) -> bytes:
        return ending(self.request, mark, end, chat=self._chat)


def bill_of(document: dict[str, object]) -> Bill | None:
    """The numbers of the last line. Raises Malformed."""
    given, made = (count(document.get(field), field) for field in ("prompt_eval_count", "eval_count"))
    return None if given is None and made is None else Bill(given or 0, made or 0)


def embed_bill(document: dict[str, object], response: ResponseFacts) -> Bill | None:  # noqa: ARG001
    """The numbers of an embedding. Raises Malformed."""
    given = count(document.get("prompt_eval_count"), "prompt_eval_count")
    return None if given is None else Bill(given, 0)


# ---- our own voice --------------------------------------------------------------------------------------------------


def _line(request: RequestFacts, stand: Stand, said: str, *, chat: bool) -> dict[str, object]:
    head: dict[str, object] = {"model": stand.model or request.model or "", "created_at": stand.stamp or STAMP}
    return {**head, **({"message": {"role": "assistant", "content": said}} if chat else {"response": said})}


def _last(bill: Bill, end: Ending) -> dict[str, object]:
    durations = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
    counts = {"prompt_eval_count": bill.input, "eval_count": bill.output}
    reason = end.word("content_filter", "length", "stop")
    return {"done": True, "done_reason": reason, **dict.fromkeys(durations, 0), **counts}


def ending(request: RequestFacts, mark: Mark, end: Ending, *, chat: bool) -> bytes:
    """The lines that end a stream that stands here."""
    words = {**_line(request, mark.stand, end.text, chat=chat), "done": False}
    last = end.marked({**_line(request, mark.stand, "", chat=chat), **_last(mark.bill, end)})
    return (render(dumps(words)) if end.text else b"") + render(dumps(last))


def completion(request: RequestFacts, end: Ending, *, chat: bool) -> Body:
    """A response that says the text: one document, or lines when a stream was asked for."""
    if request.stream:
        return Body("application/x-ndjson", ending(request, Mark(Stand(), Bill(0, 0)), end, chat=chat))
    document = end.marked({**_line(request, Stand(), end.text, chat=chat), **_last(Bill(0, 0), end)})
    return Body("application/json; charset=utf-8", dumps(document).encode())


def error(status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:  # noqa: ARG001 - the status says it all
    """An error in Ollama's shape; `code`, which Ollama does not have, carries the reason."""
    return Body("application/json; charset=utf-8", dumps(end.marked({"error": message, "code": reason})).encode())
