"""Anthropic's text completions: a prompt continued, the door before Messages.

Rule 1: the last event of a stream is the one with a stop_reason. No usage is named: the estimate stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyd.core.errors import Malformed
from policyd.core.model.facts import Message, RequestFacts, ResponseFacts
from policyd.core.stream import sse
from policyd.core.stream.dialects import (
    UNMARKED,
    AnswerReader,
    Body,
    Edit,
    Ending,
    RequestChange,
    Segment,
    anthropic_ending,
)
from policyd.core.stream.dialects.answer import Answer, Mark
from policyd.core.stream.dialects.asking import Fields, Texts, fill, plain_edits
from policyd.core.stream.dialects.response_openai import ANTHROPIC_COMPLETE_RESPONSE
from policyd.core.stream.dialects.shared import count, flag, mapping, number, text
from policyd.core.stream.json_strict import dumps, refuse_twins

READ = frozenset({"model", "prompt", "max_tokens_to_sample", "temperature", "stream"})
FIELDS = Fields(limit=("max_tokens_to_sample",), system=False)


class AnthropicComplete:
    """The dialect `anthropic.complete`."""

    name = "anthropic.complete"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`completion` for a POST to .../v1/complete."""
        return "completion" if method == "POST" and path.endswith("/v1/complete") else None

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "anthropic"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        document = mapping(doc, "the body")
        refuse_twins(document, READ)
        facts.model = text(document.get("model"), "model")
        facts.stream = flag(document.get("stream"), "stream")
        facts.max_tokens = count(document.get("max_tokens_to_sample"), "max_tokens_to_sample")
        facts.temperature = number(document.get("temperature"), "temperature")
        prompt = text(document.get("prompt"), "prompt") or ""
        fill(facts, [Message("user", prompt)], [], self.request_segments(document), 0, None)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        texts = Texts()
        texts.add(("prompt",), mapping(doc, "the body").get("prompt"))
        return texts.found

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        return plain_edits(doc, change, FIELDS)[0]

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return CompleteAnswer(request, response)

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in Anthropic's shape."""
        return anthropic_ending.error(status, reason, message, end)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:
        """An answer that says the text."""
        document = dumps(end.marked(_said(request, end.text, _reason(end), f"compl_{id}")))
        if request.stream:
            return Body("text/event-stream; charset=utf-8", sse.render(document, "completion"))
        return Body("application/json", document.encode())


class CompleteAnswer(Answer):
    """Reads one answer."""

    structure = ANTHROPIC_COMPLETE_RESPONSE
    deltas = frozenset({()})
    payload = frozenset({"completion"})

    def _whole(self, document: dict[str, object]) -> None:
        if not isinstance(document.get("completion"), str):
            raise Malformed("the answer is no completion")
        self._read(document)

    def _event(self, name: str, document: dict[str, object]) -> bool:
        if name == "ping" or document.get("type") == "ping":
            return False
        if name not in ("", "completion") or "completion" not in document:
            self._partial("an unknown event type")
        self._read(document)
        if self._stand.stopped:
            self._end()
        return self._stand.done

    def _read(self, document: dict[str, object]) -> None:
        self._model(text(document.get("model"), "model"))
        self._say(("completion",), text(document.get("completion"), "completion") or "")
        if (reason := text(document.get("stop_reason"), "stop_reason")) is not None:
            self._reason(0, reason)

    def _ending(self, mark: Mark, end: Ending) -> bytes:
        said = _said(self.request, end.text, _reason(end), mark.stand.id)
        return sse.render(dumps(end.marked(said)), "completion")


def _reason(end: Ending) -> str:
    return end.word("refusal", "max_tokens", "stop_sequence")


def _said(request: RequestFacts, said: str, reason: str, id: str) -> dict[str, object]:
    head = {"type": "completion", "id": id or "compl_policyd", "completion": said, "stop_reason": reason}
    return {**head, "model": request.model or "", "stop": None, "log_id": id or "compl_policyd"}
