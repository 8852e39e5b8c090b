"""Cohere: chat in its first and second version, generate, embed.

Rule 1: `message` in a body is the first version, `messages` the second; an answer tells by its own shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyd.core.model.facts import Message, RequestFacts, ResponseFacts
from policyd.core.stream.dialects import UNMARKED, AnswerReader, Body, Edit, Ending, RequestChange, Segment
from policyd.core.stream.dialects import cohere_ending as voice
from policyd.core.stream.dialects import cohere_request as requests
from policyd.core.stream.dialects.answer import strings
from policyd.core.stream.dialects.asking import Fields, Texts, at, fill, plain_edits
from policyd.core.stream.dialects.cohere_reader import CohereChatAnswer, CohereGenerateAnswer, billed
from policyd.core.stream.dialects.embeddings import EmbeddingAnswer
from policyd.core.stream.dialects.providers import provider_of
from policyd.core.stream.dialects.shared import count, listing, mapping, text
from policyd.core.stream.json_strict import dumps


class _Cohere:
    """What the doors share."""

    name = ""
    _paths: tuple[str, ...] = ()
    _operation = ""

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:
        """A POST to one of these doors; Writer's chat has the same path and speaks another language."""
        host = headers.get(":authority", headers.get("host", ""))
        if method != "POST" or not path.endswith(self._paths) or provider_of(host) == "writer":
            return None
        return self._operation

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "cohere"

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        return plain_edits(doc, change, Fields(limit=("max_tokens",), system=False))[0]

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in Cohere's shape."""
        return voice.error(status, reason, message, end)


class CohereChat(_Cohere):
    """The dialect `cohere.chat`."""

    name = "cohere.chat"
    _paths = ("/v1/chat", "/v2/chat")
    _operation = "chat"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        requests.read_chat(doc, facts)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        return requests.chat_segments(doc)

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        return requests.chat_edits(doc, change)

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return CohereChatAnswer(request, response)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:
        """An answer that says the text."""
        return voice.completion(request, end, id)


class CohereGenerate(_Cohere):
    """The dialect `cohere.generate`."""

    name = "cohere.generate"
    _paths = ("/v1/generate",)
    _operation = "completion"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        document = requests.begin(doc, facts)
        facts.choices = max(1, min(count(document.get("num_generations"), "num_generations") or 1, 1024))
        prompt = text(document.get("prompt"), "prompt") or ""
        fill(facts, [Message("user", prompt)], [], self.request_segments(document), 0, None)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        texts = Texts()
        texts.add(("prompt",), mapping(doc, "the body").get("prompt"))
        return texts.found

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return CohereGenerateAnswer(request, response)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:
        """An answer that says the text."""
        return voice.generation(request, end, id)


class CohereEmbed(_Cohere):
    """The dialect `cohere.embed`."""

    name = "cohere.embed"
    _paths = ("/v1/embed", "/v2/embed")
    _operation = "embedding"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        document = requests.begin(doc, facts)
        for field in ("texts", "images", "inputs"):
            listing(document.get(field), field)
        images = len(listing(document.get("images"), "images"))
        fill(facts, [], [], self.request_segments(document), images, None)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        document, texts = mapping(doc, "the body"), Texts()
        texts.add_all(strings(("texts",), document.get("texts")))
        for index, item in enumerate(listing(document.get("inputs"), "inputs")):
            texts.add_all(requests.content(("inputs", index, "content"), at(item, ("content",))))
        return texts.found

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return EmbeddingAnswer(request, response, lambda document, _: billed(document.get("meta")))

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:  # noqa: ARG002 - vectors say nothing
        """An answer without a vector."""
        return Body("application/json", dumps({"id": id, "embeddings": [], "texts": []}).encode())
