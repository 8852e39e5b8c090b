"""Google Gemini: generateContent, streamGenerateContent and embedContent, on Google's own door and on Vertex.

Rule 1: the model and whether it streams stand in the path; no edit of the body changes either.
Rule 2: Google reads names in camelCase and in snake_case alike: a body that says one thing in both is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.model.paths import resolve
from policyd.core.stream.dialects import UNMARKED, AnswerReader, Body, Edit, Ending, RequestChange, Segment
from policyd.core.stream.dialects import gemini_request as requests
from policyd.core.stream.dialects.embeddings import EmbeddingAnswer
from policyd.core.stream.dialects.gemini_reader import GeminiAnswer, completion, embed_bill, error
from policyd.core.stream.dialects.shared import mapping

_CALL = re.compile(
    r"/(?:models|tunedmodels|endpoints)/([^/]+):(generatecontent|streamgeneratecontent|embedcontent|batchembedcontents)$",
    re.IGNORECASE,
)
_EMBEDS = frozenset({"embedcontent", "batchembedcontents"})


def call_of(path: str) -> tuple[str, str]:
    """(model, verb in lower case) of a path; empty for another's."""
    found = _CALL.search(resolve(path))
    return (found[1], found[2].lower()) if found else ("", "")


class _Gemini:
    """What the doors share."""

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "google"

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in Google's shape."""
        return error(status, reason, message, end)


class GeminiGenerate(_Gemini):
    """The dialect `gemini.generate`."""

    name = "gemini.generate"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`chat` for a POST to a model's generateContent or streamGenerateContent."""
        verb = call_of(path)[1]
        return "chat" if method == "POST" and verb and verb not in _EMBEDS else None

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        facts.model, verb = call_of(facts.path)
        facts.stream = verb == "streamgeneratecontent"
        requests.read_request(doc, facts)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        return requests.segments(mapping(doc, "the body"))

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        return requests.edits(doc, change)

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return GeminiAnswer(request, response)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:
        """An answer that says the text in every candidate."""
        return completion(request, end, id)


class GeminiEmbed(_Gemini):
    """The dialect `gemini.embed`."""

    name = "gemini.embed"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`embedding` for a POST to a model's embedContent or batchEmbedContents."""
        return "embedding" if method == "POST" and call_of(path)[1] in _EMBEDS else None

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        facts.model = call_of(facts.path)[0]
        requests.read_embedding(doc, facts)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        return requests.embedding_segments(mapping(doc, "the body"))

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        return requests.plain(doc, change)

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return EmbeddingAnswer(request, response, embed_bill)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:  # noqa: ARG002 - vectors say nothing
        """An answer without a vector."""
        if "batch" in request.path.lower():
            return Body("application/json; charset=UTF-8", b'{"embeddings":[]}')
        return Body("application/json; charset=UTF-8", b'{"embedding":{"values":[]}}')
