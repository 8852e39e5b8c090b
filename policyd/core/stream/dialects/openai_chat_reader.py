"""Answers of OpenAI Chat Completions and of those who speak it: Azure, Groq, Mistral, DeepSeek, xAI, vLLM and more."""

from __future__ import annotations

from policyd.core.stream.dialects.openai_chat_ending import Mark, OpenCall, ending
from policyd.core.stream.dialects.openai_chat_message import MessageReader


class OpenAIChatReader(MessageReader):
    """Reads one answer, whole or event by event."""

    _rewound: Mark | None = None

    def mark(self) -> Mark:
        """Where the stream stands."""
        return Mark(self._stand, self._bill(), self._open_calls() if self._open else ())

    def rewind(self, mark: object) -> None:
        """Stand where `mark` was taken."""
        assert isinstance(mark, Mark)
        self._rewound = mark

    def ending(self, text: str, reason: str) -> bytes:  # noqa: ARG002 - the dialect has no place for the reason
        """The bytes that end the stream from here."""
        return ending(self.request, self._rewound or self.mark(), text)

    def _open_calls(self) -> tuple[OpenCall, ...]:
        return tuple(OpenCall(call.choice, call.index, call.fact.arguments) for call in self._open)
