"""OpenAI Completions, the legacy dialect of a bare prompt: OpenAI, Azure, vLLM, Together, DeepSeek and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import UNMARKED, AnswerReader, Body, Edit, Ending, RequestChange, Segment
from policyd.core.stream.dialects import openai_completions_reader as answers
from policyd.core.stream.dialects import openai_completions_request as requests
from policyd.core.stream.dialects.openai_shared import error, provider_of_path
from policyd.core.stream.dialects.shared import mapping


class OpenAICompletions:
    """The dialect `openai.completions`."""

    name = "openai.completions"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`completion` for a POST to any .../completions that is no chat."""
        if method != "POST" or not path.endswith("/completions"):
            return None
        return None if path.endswith(("/chat/completions", "/agents/completions", "/fim/completions")) else "completion"

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return provider_of_path(path)

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        requests.read_request(doc, facts)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        return requests.segments(mapping(doc, "the body"))

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        return requests.edits(doc, change)

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return answers.CompletionReader(request, response)

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in OpenAI's shape."""
        return error(status, reason, message, end)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:
        """An answer that says the text in every choice."""
        return answers.completion(request, end, id)
