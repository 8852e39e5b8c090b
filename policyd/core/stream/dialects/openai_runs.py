"""Runs of OpenAI's Assistants, and of Azure's: whole, streamed, and fetched when they are over.

Rule 1: a run that is not over has no usage; it is charged when it is fetched, once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import AnswerReader
from policyd.core.stream.dialects.openai_shared import provider_of_path
from policyd.core.stream.dialects.openai_usage import bill_of
from policyd.core.stream.dialects.run_dialect import RunDialect
from policyd.core.stream.dialects.run_reader import RunReader, below, members

_RUN = re.compile(r"(?:^|/)threads(?:/[^/]+)?/runs(?:/[^/]+/submit_tool_outputs)?$")
_SILENT = frozenset({"", "done", "error"})
_OVER = frozenset({"completed", "incomplete", "failed", "cancelled", "expired"})


class OpenAIRuns(RunDialect):
    """The dialect `openai.runs`."""

    limit: ClassVar[tuple[str, ...]] = ("max_completion_tokens",)

    def __init__(self) -> None:
        super().__init__("openai.runs")

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`chat` for a POST that starts a run or goes on with one."""
        return "chat" if method == "POST" and _RUN.search(path) else None

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return provider_of_path(path)

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one response."""
        return RunsReader(request, response)


class RunsReader(RunReader):
    """Reads one run, whole or event by event."""

    def _whole(self, document: dict[str, object]) -> None:
        self._run(document)

    def _event(self, name: str, document: dict[str, object]) -> bool:
        kind = document.get("event", name)
        data = below(document, "data") or document
        if kind == "thread.message.delta":
            self._message(below(data, "delta"), ("data",) if "data" in document else ())
        elif isinstance(kind, str) and kind.startswith("thread.run.") and not kind.startswith("thread.run.step"):
            self._run(data)
        elif isinstance(kind, str) and not kind.startswith("thread.") and kind not in _SILENT:
            self._partial("an unknown event type")
        return False

    def _message(self, delta: dict[str, object], path: tuple[str, ...]) -> None:
        for place, part in members(delta, "content"):
            value = below(part, "text").get("value")
            if isinstance(value, str):
                self._say((*path, "delta", "content", place, "text", "value"), value)

    def _run(self, run: dict[str, object]) -> None:
        status, model = run.get("status"), run.get("model")
        self._model(model if isinstance(model, str) else None)
        if status == "requires_action":
            wanted = below(below(run, "required_action"), "submit_tool_outputs")
            for place, call in members(wanted, "tool_calls"):
                function = below(call, "function")
                path = ("required_action", "submit_tool_outputs", "tool_calls", place, "function", "arguments")
                self._use(function.get("name"), path, function.get("arguments"))
        if status in _OVER or status == "requires_action":
            self._reason(0, str(status))
        if status in _OVER and run.get("usage"):
            self._paid(bill_of(run["usage"]), run.get("id"), later=True)
        elif not self._tally.said:
            self._unpaid()
