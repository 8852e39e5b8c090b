"""Google's interactions: whole, streamed, and in the background.

Rule 1: thoughts stand beside the output; what `total_tokens` has more than the sum of both is not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import AnswerReader, Path
from policyd.core.stream.dialects.run_dialect import RunDialect
from policyd.core.stream.dialects.run_reader import RunReader, below, members, number
from policyd.core.stream.dialects.shared import Bill

_PATH = re.compile(r"/v\d+(?:alpha|beta)\d*/(?:.+/)?interactions$")
_OVER = frozenset({"completed", "failed", "cancelled", "incomplete", "requires_action"})
_LISTS = ("outputs", "steps")


class GoogleInteractions(RunDialect):
    """The dialect `google.interactions`."""

    limit: ClassVar[tuple[str, ...]] = ("generation_config", "max_output_tokens")

    def __init__(self) -> None:
        super().__init__("google.interactions")

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`chat` for a POST to interactions."""
        return "chat" if method == "POST" and _PATH.search(path) else None

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "google"

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one response."""
        return InteractionReader(request, response)


class InteractionReader(RunReader):
    """Reads one interaction, whole or event by event."""

    def _whole(self, document: dict[str, object]) -> None:
        self._outputs(document, ())
        self._over(document)

    def _event(self, name: str, document: dict[str, object]) -> bool:
        kind = document.get("event_type", name)
        if not isinstance(kind, str):
            return False
        if kind.endswith(".delta"):
            self._content(below(document, "delta"), ("delta",))
        elif kind.endswith(".start") and kind != "interaction.start":
            self._content(below(document, "content") or below(document, "step"), ("content",))
        elif kind.startswith("interaction."):
            interaction = below(document, "interaction") or document
            if not self._tally.said:
                self._outputs(interaction, ("interaction",))
            self._over(interaction)
        return False

    def _outputs(self, document: dict[str, object], path: Path) -> None:
        for field in _LISTS:
            for place, one in members(document, field):
                self._content(one, (*path, field, place))

    def _content(self, said: dict[str, object], path: Path) -> None:
        kind, text = said.get("type"), said.get("text")
        if kind == "function_call":
            self._use(said.get("name"), (*path, "arguments"), said.get("arguments"))
        elif isinstance(kind, str) and kind.endswith("_call"):
            self._use(kind.removesuffix("_call"), (*path, "arguments"), said.get("arguments"), "hosted")
        elif kind in ("thought", "thought_summary"):
            self._thought(said, path)
        elif kind == "text" and isinstance(text, str):
            self._say((*path, "text"), text)
        elif kind == "model_output":
            for place, one in members(said, "content"):
                self._content(one, (*path, "content", place))

    def _thought(self, said: dict[str, object], path: Path) -> None:
        inner = below(said, "content").get("text")
        if isinstance(inner, str):
            self._think((*path, "content", "text"), inner)
        for place, one in members(said, "summary"):
            if isinstance(words := one.get("text"), str):
                self._think((*path, "summary", place, "text"), words)

    def _over(self, interaction: dict[str, object]) -> None:
        status, model = interaction.get("status"), interaction.get("model")
        self._model(model if isinstance(model, str) else None)
        if not isinstance(status, str):
            return
        if status in _OVER:
            self._reason(0, status)
        bill = _bill(interaction.get("usage"))
        if bill is not None:
            self._paid(bill, interaction.get("id"), later=interaction.get("background") is True)
        elif status not in _OVER and not self._tally.said:
            self._unpaid()


def _bill(usage: object) -> Bill | None:
    given, made = number(usage, "total_input_tokens"), number(usage, "total_output_tokens")
    if given is None and made is None:
        return None
    thoughts = number(usage, "total_thought_tokens", "total_reasoning_tokens") or 0
    tools = number(usage, "total_tool_use_tokens") or 0
    given, made = (given or 0) + tools, made or 0
    total = number(usage, "total_tokens")
    beside = thoughts if total is None or total >= given + made + thoughts else 0
    return Bill(given, made + beside, number(usage, "total_cached_tokens") or 0, 0, thoughts)
