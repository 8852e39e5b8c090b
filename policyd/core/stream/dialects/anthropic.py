"""Anthropic Messages, on Anthropic's own door and on Vertex, where the model stands in the path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.model.paths import resolve
from policyd.core.stream.dialects import UNMARKED, AnswerReader, Body, Edit, Ending, RequestChange, Segment
from policyd.core.stream.dialects import anthropic_ending as voice
from policyd.core.stream.dialects import anthropic_request as requests
from policyd.core.stream.dialects.anthropic_reader import AnthropicReader
from policyd.core.stream.dialects.shared import mapping

_VERTEX = re.compile(r"/publishers/anthropic/models/(?!count-tokens[@:])([^/]+):(rawpredict|streamrawpredict)$", re.I)


class AnthropicMessages:
    """The dialect `anthropic.messages`."""

    name = "anthropic.messages"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`chat` for a POST to any .../v1/messages, or to a model's rawPredict or streamRawPredict."""
        return "chat" if method == "POST" and (path.endswith("/v1/messages") or _VERTEX.search(path)) else None

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "google" if _VERTEX.search(path) else "anthropic"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        requests.read_request(doc, facts)
        if called := _VERTEX.search(resolve(facts.path)):
            facts.model = called[1]
            facts.stream = facts.stream or called[2].lower() == "streamrawpredict"

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        return requests.segments(mapping(doc, "the body"))

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        return requests.edits(doc, change)

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return AnthropicReader(request, response)

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in Anthropic's shape."""
        return voice.error(status, reason, message, end)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:
        """An answer that says the text."""
        return voice.completion(request, end, id)
