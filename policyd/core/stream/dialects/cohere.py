"""Cohere: chat in its first and second version, generate, embed.

Rule 1: `message` in a body is the first version, `messages` the second; an answer tells by its own shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from policyd.core.model.facts import Message, RequestFacts, ResponseFacts
from policyd.core.stream.dialects import AnswerReader, Body, Edit, Path, RequestChange, Segment
from policyd.core.stream.dialects import cohere_ending as voice
from policyd.core.stream.dialects.answer import strings
from policyd.core.stream.dialects.asking import Fields, Texts, at, fill, function_names, plain_edits, tool_edits
from policyd.core.stream.dialects.cohere_reader import CohereChatAnswer, CohereGenerateAnswer, billed
from policyd.core.stream.dialects.embeddings import EmbeddingAnswer
from policyd.core.stream.dialects.shared import count, flag, listing, mapping, number, text
from policyd.core.stream.json_strict import dumps, refuse_twins

READ = frozenset(
    {"model", "stream", "message", "messages", "preamble", "chat_history", "prompt", "texts", "tools", "max_tokens"}
)
FIELDS = Fields(limit=("max_tokens",))


class _Cohere:
    """What the doors share."""

    name = ""
    _paths: tuple[str, ...] = ()
    _operation = ""

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:
        """A POST to one of these doors; Writer's chat has the same path and speaks another language."""
        host = headers.get(":authority", headers.get("host", ""))
        if method != "POST" or not path.endswith(self._paths) or "writer.com" in host:
            return None
        return self._operation

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "cohere"

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        return plain_edits(doc, change, FIELDS)[0]

    def error(self, status: int, reason: str, message: str) -> Body:
        """An error in Cohere's shape."""
        return voice.error(status, reason, message)

    def _begin(self, doc: object, facts: RequestFacts) -> dict[str, object]:
        document = mapping(doc, "the body")
        refuse_twins(document, READ)
        facts.model = text(document.get("model"), "model")
        facts.stream = flag(document.get("stream"), "stream")
        facts.max_tokens = count(document.get("max_tokens"), "max_tokens")
        facts.temperature = number(document.get("temperature"), "temperature")
        facts.wants_usage = True
        return document


class CohereChat(_Cohere):
    """The dialect `cohere.chat`."""

    name = "cohere.chat"
    _paths = ("/v1/chat", "/v2/chat")
    _operation = "chat"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        document = self._begin(doc, facts)
        facts.tools = function_names(document)
        messages = _first(document) if "message" in document else _second(document)
        system = [message.text for message in messages if message.role == "system"]
        preamble = text(document.get("preamble"), "preamble")
        parts = sum(_others(message) for message in listing(document.get("messages"), "messages"))
        system = [*([preamble] if preamble else []), *system]
        fill(facts, messages, system, self.request_segments(document), parts, document.get("tools"))

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        document, texts = mapping(doc, "the body"), Texts()
        for field in ("preamble", "message"):
            texts.add((field,), document.get(field))
        for field in ("chat_history", "messages"):
            for index, item in enumerate(listing(document.get(field), field)):
                _message_texts(texts, (field, index), mapping(item, "a message"))
        for field in ("documents", "tool_results"):
            texts.add_all(strings((field,), document.get(field)))
        return texts.found

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        out, document = plain_edits(doc, change, FIELDS)
        out += tool_edits(function_names(document), ("tools",), change, choice=("tool_choice",))
        if change.inject_system and "message" in document:
            before = document.get("preamble")
            words = [before] if isinstance(before, str) and before else []
            out.append(Edit(("preamble",), "\n\n".join([*words, *change.inject_system])))
            return out
        lead = 0
        for item in listing(document.get("messages"), "messages"):
            if not isinstance(item, dict) or item.get("role") not in ("system", "developer"):
                break
            lead += 1
        for place, words_ in enumerate(change.inject_system):
            out.append(Edit(("messages", lead + place), {"role": "system", "content": words_}, insert=True))
        return out

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return CohereChatAnswer(request, response)

    def completion(self, request: RequestFacts, text: str, id: str) -> Body:
        """An answer that says `text`."""
        return voice.completion(request, text, id)


def _first(document: dict[str, object]) -> list[Message]:
    """The messages of the first version."""
    said = [mapping(item, "a message") for item in listing(document.get("chat_history"), "chat_history")]
    messages = [
        Message(
            (text(one.get("role"), "the role of a message") or "").lower(), text(one.get("message"), "message") or ""
        )
        for one in said
    ]
    return [*messages, Message("user", text(document.get("message"), "message") or "")]


def _second(document: dict[str, object]) -> list[Message]:
    """The messages of the second version."""
    messages = []
    for item in listing(document.get("messages"), "messages"):
        message = mapping(item, "a message")
        role = text(message.get("role"), "the role of a message") or ""
        said = "\n".join(words for _, words in _content((), message.get("content")))
        messages.append(Message("system" if role == "developer" else role, said))
    return messages


def _content(path: Path, content: object) -> Iterator[tuple[Path, str]]:
    if isinstance(content, str):
        yield path, content
        return
    for place, item in enumerate(listing(content, "the content of a message")):
        part = mapping(item, "a part of a message")
        if part.get("type") == "document":
            yield from strings((*path, place, "document", "data"), at(part, ("document", "data")))
        elif isinstance(said := part.get("text"), str):
            yield (*path, place, "text"), said


def _others(message: object) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    parts = content if isinstance(content, list) else []
    return sum(isinstance(part, dict) and part.get("type") in ("image", "image_url") for part in parts)


def _message_texts(texts: Texts, path: Path, message: dict[str, object]) -> None:
    texts.add((*path, "message"), message.get("message"))
    texts.add((*path, "tool_plan"), message.get("tool_plan"))
    if "content" in message:
        texts.add_all(_content((*path, "content"), message["content"]))
    for place, call in enumerate(listing(message.get("tool_calls"), "tool_calls")):
        where = (*path, "tool_calls", place)
        texts.add((*where, "function", "arguments"), at(call, ("function", "arguments")), "args")
        texts.add_all(strings((*where, "parameters"), at(call, ("parameters",))), "args")
    texts.add_all(strings((*path, "tool_results"), message.get("tool_results")))


class CohereGenerate(_Cohere):
    """The dialect `cohere.generate`."""

    name = "cohere.generate"
    _paths = ("/v1/generate",)
    _operation = "completion"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        document = self._begin(doc, facts)
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

    def completion(self, request: RequestFacts, text: str, id: str) -> Body:
        """An answer that says `text`."""
        return voice.generation(request, text, id)


class CohereEmbed(_Cohere):
    """The dialect `cohere.embed`."""

    name = "cohere.embed"
    _paths = ("/v1/embed", "/v2/embed")
    _operation = "embedding"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        document = self._begin(doc, facts)
        for field in ("texts", "images", "inputs"):
            listing(document.get(field), field)
        images = len(listing(document.get("images"), "images"))
        fill(facts, [], [], self.request_segments(document), images, None)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        document, texts = mapping(doc, "the body"), Texts()
        texts.add_all(strings(("texts",), document.get("texts")))
        for index, item in enumerate(listing(document.get("inputs"), "inputs")):
            texts.add_all(_content(("inputs", index, "content"), at(item, ("content",))))
        return texts.found

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return EmbeddingAnswer(request, response, lambda document, _: billed(document.get("meta")))

    def completion(self, request: RequestFacts, text: str, id: str) -> Body:  # noqa: ARG002 - vectors say nothing
        """An answer without a vector."""
        return Body("application/json", dumps({"id": id, "embeddings": [], "texts": []}).encode())
