"""OpenAI Responses: OpenAI, Azure, Groq, xAI, OpenRouter, vLLM and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import UNMARKED, AnswerReader, Body, Edit, Ending, RequestChange, Segment
from policyd.core.stream.dialects import openai_responses_ending as voice
from policyd.core.stream.dialects import openai_responses_request as requests
from policyd.core.stream.dialects.openai_responses_reader import ResponsesReader
from policyd.core.stream.dialects.openai_shared import error, provider_of_path
from policyd.core.stream.dialects.shared import mapping


class OpenAIResponses:
    """The dialect `openai.responses`."""

    name = "openai.responses"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`chat` for a POST to any .../responses, and to what compacts one."""
        return "chat" if method == "POST" and path.endswith(("/responses", "/responses/compact")) else None

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
        return ResponsesReader(request, response)

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in OpenAI's shape."""
        return error(status, reason, message, end)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:
        """An answer that says the text."""
        return voice.completion(request, end, id)
