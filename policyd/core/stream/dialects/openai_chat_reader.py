"""Answers of OpenAI Chat Completions and of those who speak it: Azure, Groq, Mistral, DeepSeek, xAI, vLLM and more."""

from __future__ import annotations

from typing import Any

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Changed, Ending, Reading
from policyd.core.stream.dialects.likeness import Likeness
from policyd.core.stream.dialects.openai_chat_ending import Mark, OpenCall, ending
from policyd.core.stream.dialects.openai_chat_message import SILENT, MessageReader
from policyd.core.stream.dialects.shared import CHANGES, Bill
from policyd.core.stream.json_strict import loads_event

TEXT = int(Changed.TEXT)


class OpenAIChatReader(MessageReader):
    """Reads one answer, whole or event by event."""

    _rewound: tuple[Any, ...] | None = None

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        super().__init__(request, response)
        self._like = Likeness("content", padding="obfuscation")
        self._like_name, self._like_index = "", -1  # of its event, and of the choice that speaks there

    # ---- events ----------------------------------------------------------------------------------------------------

    def read_event(self, name: str, data: str) -> Reading:
        """One event of a stream."""
        if name == self._like_name and (said := self._like.text(data)) and not self._stand.done:
            return self._again(said)
        reading = super().read_event(name, data)
        if self._changed == TEXT:
            self._learn(name, data)
        return reading

    def _again(self, said: str) -> Reading:
        """An event like one before: only its text is new."""
        self.response.delta = ""
        self._changed = 0
        if self.want_segments:
            self._segments = []
        self._text(self._like_index, 0, "delta", said)
        return Reading(self._segments, (), CHANGES[self._changed])

    def _learn(self, name: str, data: str) -> None:
        """INVARIANT: learned is only what, read again, does nothing but to add its text."""
        if not self._like.curious or not self._stand.id:
            return
        document: Any = loads_event(data)
        choice = document["choices"][0]
        delta = choice.get("delta") or {}
        said = delta.get("content")
        if type(said) is not str or len(document["choices"]) > 1 or document.get("usage") or "x_groq" in document:
            return
        if any(value is not None and key not in SILENT for key, value in delta.items() if key != "content"):
            return
        if choice.keys() & {"text", "message", "usage"}:
            return
        if not self.completion.plain(document, ("choices", 0, "delta", "content")):
            return
        self._like.learn(data, said, document.get("obfuscation"))
        self._like_name, self._like_index = name, choice.get("index", 0)

    # ---- the end ---------------------------------------------------------------------------------------------------

    def mark(self) -> tuple[Any, ...]:
        """Where the stream stands: what a `Mark` is made from. Taken at every event, so it is no more than a tuple."""
        said = self.response
        cached, reasoning = said.cached_input_tokens, said.reasoning_tokens
        return self._stand, said.input_tokens, said.output_tokens, cached, reasoning, self._open_calls.at

    def rewind(self, mark: object) -> None:
        """Stand where `mark` was taken."""
        assert isinstance(mark, tuple)
        self._rewound = mark

    def ending(self, end: Ending) -> bytes:
        """The bytes that end the stream from here."""
        stand, given, spoken, cached, reasoning, at = self._rewound or self.mark()
        half = self._open_calls.half(at)
        calls = tuple(OpenCall(call.choice, call.index, said) for call, said in half.items())
        return ending(self.request, Mark(stand, Bill(given, spoken, cached, 0, reasoning), calls), end)
