"""Answers of OpenAI Chat Completions and of those who speak it: Azure, Groq, Mistral, DeepSeek, xAI, vLLM and others.

Rule 1: usage is final once every choice is finished; before that the provider's numbers are a running count.
Rule 2: numbers that are no counts are not believed: the estimate stays and the answer is partial.
"""

from __future__ import annotations

from policyd.core.errors import Malformed
from policyd.core.stream.dialects import Changed, Reading
from policyd.core.stream.dialects.openai_chat_ending import Mark, OpenCall, ending
from policyd.core.stream.dialects.openai_chat_message import MessageReader
from policyd.core.stream.dialects.openai_chat_usage import bill_of
from policyd.core.stream.dialects.shared import CHANGES, Bill, mark_partial, text
from policyd.core.stream.json_strict import loads_event

USAGE, MODEL, ERROR = int(Changed.USAGE), int(Changed.MODEL), int(Changed.ERROR)

EVENT_NAMES = frozenset({"", "message", "data", "error", "ping", "chat.completion.chunk"})
OBJECTS = frozenset({"chat.completion.chunk", "chat.completion", "", None})


class OpenAIChatReader(MessageReader):
    """Reads one answer, whole or event by event."""

    _rewound: Mark | None = None

    # ---- the protocol ------------------------------------------------------------------------------------------

    def read_event(self, name: str, data: str) -> Reading:
        """One event of a stream."""
        response = self.response
        response.delta = ""
        self._changed = 0
        self._segments, self._closes = [], []
        if data.startswith("[DONE]"):
            return self._end(data)
        try:
            document = loads_event(data)
            if type(document) is not dict:
                raise Malformed("an event is not an object")
            if self._stand.done:
                self._partial("an event after the end")
            choices = document.get("choices")
            if type(choices) is not list or name not in EVENT_NAMES or "error" in document:
                self._odd_event(name, document, choices)
            elif document.get("object") not in OBJECTS:
                self._partial("an unknown event type")
            if not self._stand.id or self.response.model is None:
                self._begin(document)
            if choices:
                self._choices(choices, "delta")
            if (usage := document.get("usage")) is not None or "x_groq" in document:
                self._usage(usage or _groq_usage(document), alone=not choices)
        except Malformed as failure:
            self._partial(failure.reason)
            return Reading(self._segments, self._closes, CHANGES[self._changed], malformed=True)
        return Reading(self._segments, self._closes, CHANGES[self._changed])

    def read_json(self, doc: object) -> Reading:
        """The whole answer, or an error."""
        response = self.response
        self._changed = 0
        self._segments, self._closes = [], []
        response.delta = ""
        document = doc if isinstance(doc, dict) else {}
        choices = document.get("choices")
        if not isinstance(choices, list):
            if response.status < 400 and not document.get("error"):
                raise Malformed("the answer is no chat completion")
            response.is_error = True
            self._tally.nothing()
            return Reading(changed=CHANGES[ERROR | USAGE])
        self._begin(document)
        self._choices(choices, "message")
        self._usage(document.get("usage") or _groq_usage(document), alone=True)
        self._close_all()
        return Reading(self._segments, self._closes, CHANGES[self._changed], last=True)

    def finish(self) -> None:
        """The body is over."""
        self._tally.settle()
        if self.response.is_error or self._stand.done:
            return
        # Some who speak this dialect leave [DONE] out: an answer whose choices all have their reason is whole.
        if not self._stand.begun or self._unfinished():
            mark_partial(self.response, "the stream ends without its end")

    def mark(self) -> Mark:
        """Where the stream stands."""
        said = self.response
        bill = Bill(said.input_tokens, said.output_tokens, said.cached_input_tokens, 0, said.reasoning_tokens)
        return Mark(self._stand, bill, self._open_calls() if self._open else ())

    def rewind(self, mark: object) -> None:
        """Stand where `mark` was taken."""
        assert isinstance(mark, Mark)
        self._rewound = mark

    def ending(self, text: str, reason: str) -> bytes:  # noqa: ARG002 - the dialect has no place for the reason
        """The bytes that end the stream from here."""
        return ending(self.request, self._rewound or self.mark(), text)

    def _open_calls(self) -> tuple[OpenCall, ...]:
        return tuple(OpenCall(call.choice, call.index, call.fact.arguments) for call in self._open)

    # ---- events ----------------------------------------------------------------------------------------------------

    def _end(self, data: str) -> Reading:
        if data != "[DONE]":
            self._partial("data after the end")
        before = self.response.usage_source
        self._tally.settle()
        if self.response.usage_source != before:
            self._changed |= USAGE
        if not self._stand.done and not self.response.is_error and (not self._stand.begun or self._unfinished()):
            self._partial("the stream ends before its choices do")
        self._stand = self._stand._replace(done=True)
        self._close_all()
        return Reading(self._segments, self._closes, CHANGES[self._changed], last=True)

    def _odd_event(self, name: str, document: dict[str, object], choices: object) -> None:
        """What is no ordinary chunk: an error, a chunk without choices, or something unknown."""
        if document.get("error") or name == "error":
            self.response.is_error = True
            self._changed |= ERROR
            self._stand = self._stand._replace(failed=True)
            return
        if name not in EVENT_NAMES:
            self._partial("an unknown event type")
        elif choices is not None and not isinstance(choices, list):
            raise Malformed("choices is not a list")
        elif choices is None and name != "ping" and not (document.get("object") in OBJECTS and _is_chunk(document)):
            self._partial("an unknown event type")

    def _begin(self, document: dict[str, object]) -> None:
        model = text(document.get("model"), "model")
        if model and self.response.model is None:
            self.response.model = model
            self._changed |= MODEL
        name, created = document.get("id"), document.get("created")
        if isinstance(name, str) and name and not self._stand.id:
            when = created if isinstance(created, int) else 0
            self._stand = self._stand._replace(id=name, created=when, model=model or self._stand.model)
        elif model and not self._stand.model:
            self._stand = self._stand._replace(model=model)

    def _usage(self, usage: object, *, alone: bool) -> None:
        try:
            bill = bill_of(usage)
        except Malformed as failure:
            self._partial(failure.reason)  # the estimate stays
            return
        if bill is not None:
            self._tally.take(bill, final=alone or not self._unfinished())
            self._changed |= USAGE
            self._stand = self._stand._replace(usage=True)

    def _unfinished(self) -> bool:
        return any(choice not in self._reasons for choice in self._stand.begun)


def _is_chunk(document: dict[str, object]) -> bool:
    return bool(document.get("object")) or isinstance(document.get("usage"), dict)


def _groq_usage(document: dict[str, object]) -> object:
    extra = document.get("x_groq")
    return extra.get("usage") if isinstance(extra, dict) else None
