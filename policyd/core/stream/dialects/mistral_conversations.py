"""Conversations of Mistral's: a model and its connectors run, and the conversation is kept.

Rule 1: what connectors read (`connector_tokens`) is input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import AnswerReader, Path
from policyd.core.stream.dialects.providers import provider_of
from policyd.core.stream.dialects.run_dialect import RunDialect
from policyd.core.stream.dialects.run_reader import RunReader, members, number
from policyd.core.stream.dialects.shared import Bill

_PATH = re.compile(r"^/v1/conversations(?:/[^/]+)?(?:/restart)?$")


class MistralConversations(RunDialect):
    """The dialect `mistral.conversations`."""

    limit: ClassVar[tuple[str, ...]] = ("completion_args", "max_tokens")

    def __init__(self) -> None:
        super().__init__("mistral.conversations")

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:
        """`chat` for a POST to a conversation of Mistral's; others only keep theirs."""
        host = headers.get(":authority", headers.get("host", ""))
        return "chat" if method == "POST" and _PATH.search(path) and provider_of(host) == "mistral" else None

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "mistral"

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one response."""
        return ConversationReader(request, response)


class ConversationReader(RunReader):
    """Reads one response, whole or event by event."""

    def _whole(self, document: dict[str, object]) -> None:
        for place, one in members(document, "outputs"):
            self._output(one, ("outputs", place))
        self._over(document)

    def _event(self, name: str, document: dict[str, object]) -> bool:
        kind = document.get("type", name)
        if kind == "message.output.delta":
            self._content(document.get("content"), ("content",))
            self._named(document)
        elif kind == "function.call.delta":
            self._use(document.get("name"), ("arguments",), document.get("arguments"))
        elif kind == "tool.execution.started":
            self._use(document.get("name"), ("arguments",), document.get("arguments"), "hosted")
        elif kind == "conversation.response.done":
            self._over(document)
        return False

    def _output(self, said: dict[str, object], path: Path) -> None:
        kind = said.get("type")
        if kind == "message.output":
            self._content(said.get("content"), (*path, "content"))
        elif kind == "function.call":
            self._use(said.get("name"), (*path, "arguments"), said.get("arguments"))
        elif kind == "tool.execution":
            self._use(said.get("name"), (*path, "arguments"), said.get("arguments"), "hosted")
        self._named(said)

    def _content(self, content: object, path: Path) -> None:
        if isinstance(content, str):
            self._say(path, content)
        elif isinstance(content, dict) and content.get("type") == "text" and isinstance(content.get("text"), str):
            self._say((*path, "text"), str(content["text"]))
        for place, one in enumerate(content if isinstance(content, list) else []):
            self._content(one, (*path, place))

    def _named(self, said: dict[str, object]) -> None:
        model = said.get("model")
        self._model(model if isinstance(model, str) else None)

    def _over(self, document: dict[str, object]) -> None:
        usage = document.get("usage")
        given, made = number(usage, "prompt_tokens"), number(usage, "completion_tokens")
        self._reason(0, "tool_calls" if any(one.kind == "function" for one in self.response.tool_calls) else "stop")
        if given is not None or made is not None:
            read = number(usage, "connector_tokens") or 0
            self._paid(Bill((given or 0) + read, made or 0), None, later=False)
