"""OpenAI Chat Completions: the language of OpenAI, Azure OpenAI, Groq, Mistral, DeepSeek, vLLM and many others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import UNMARKED, AnswerReader, Body, Edit, Ending, RequestChange, Segment
from policyd.core.stream.dialects import openai_chat_ending as voice
from policyd.core.stream.dialects import openai_chat_request as requests
from policyd.core.stream.dialects.openai_chat_reader import OpenAIChatReader
from policyd.core.stream.dialects.openai_shared import error, provider_of_path
from policyd.core.stream.dialects.providers import provider_of
from policyd.core.stream.dialects.shared import mapping

_ON_VERTEX = re.compile(r"/publishers/mistralai/models/[^/]+:(?:stream)?rawpredict$")


class OpenAIChat:
    """The dialect `openai.chat`."""

    name = "openai.chat"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:
        """`chat` for a POST to any .../chat/completions, and to what Mistral, Perplexity and Writer have like it."""
        if method != "POST":
            return None
        if path.endswith("/fim/completions"):
            return "completion"  # a bare prompt, answered as in a chat
        if path.endswith(("/chat/completions", "/agents/completions")) or path == "/v1/sonar":
            return "chat"
        if _ON_VERTEX.search(path):
            return "chat"
        host = headers.get(":authority", headers.get("host", ""))
        return "chat" if path == "/v1/chat" and provider_of(host) == "writer" else None

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
        return OpenAIChatReader(request, response)

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in OpenAI's shape."""
        return error(status, reason, message, end)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:
        """An answer that says the text in every choice."""
        return voice.completion(request, end, id)
