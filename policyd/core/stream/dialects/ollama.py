"""Ollama's own doors: /api/chat, /api/generate, /api/embed and /api/embeddings.

Rule 1: a call that does not say `stream` streams.
Rule 2: num_predict below zero is no limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyd.core.model.facts import Message, RequestFacts, ResponseFacts, ToolResult
from policyd.core.stream.dialects import UNMARKED, AnswerReader, Body, Edit, Ending, RequestChange, Segment
from policyd.core.stream.dialects.answer import strings
from policyd.core.stream.dialects.asking import Fields, Texts, at, fill, plain_edits
from policyd.core.stream.dialects.embeddings import EmbeddingAnswer
from policyd.core.stream.dialects.offers import openai_tools, without_tools
from policyd.core.stream.dialects.ollama_reader import OllamaAnswer, completion, embed_bill, error
from policyd.core.stream.dialects.shared import count, flag, listing, mapping, number, section, text
from policyd.core.stream.json_strict import dumps, refuse_twins

READ = frozenset({"model", "stream", "messages", "prompt", "system", "suffix", "input", "tools", "options"})
FIELDS = Fields(limit=("options", "num_predict"), temperature=("options", "temperature"))


class _Ollama:
    """What the doors share."""

    name = ""
    _path = ""
    _operation = ""

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """A POST to this door."""
        return self._operation if method == "POST" and path.endswith(self._path) else None

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "ollama"

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in Ollama's shape."""
        return error(status, reason, message, end)

    def _begin(self, doc: object, facts: RequestFacts) -> dict[str, object]:
        document = mapping(doc, "the body")
        refuse_twins(document, READ)
        facts.model = text(document.get("model"), "model")
        options = section(document.get("options"), "options")
        limit = options.get("num_predict")
        unlimited = type(limit) is int and limit < 0
        facts.max_tokens = None if unlimited else count(limit, "num_predict")
        facts.temperature = number(options.get("temperature"), "temperature")
        facts.wants_usage = True
        return document


class OllamaChat(_Ollama):
    """The dialect `ollama.chat`."""

    name = "ollama.chat"
    _path = "/api/chat"
    _operation = "chat"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        document = self._begin(doc, facts)
        facts.stream = flag(document.get("stream"), "stream") is not False
        facts.tools = [one.tool for one in openai_tools(document, "tools")]
        messages, results, images = [], [], 0
        for item in listing(document.get("messages"), "messages"):
            message = mapping(item, "a message")
            role = text(message.get("role"), "the role of a message") or ""
            said = text(message.get("content"), "the content of a message") or ""
            name = text(message.get("tool_name"), "tool_name")
            messages.append(Message(role, said, name))
            if role == "tool":
                results.append(ToolResult(name or "", text(message.get("tool_call_id"), "tool_call_id") or "", said))
            images += len(listing(message.get("images"), "images"))
        system = [message.text for message in messages if message.role == "system"]
        fill(facts, messages, system, self.request_segments(document), images, document.get("tools"), results)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        texts = Texts()
        for index, item in enumerate(listing(mapping(doc, "the body").get("messages"), "messages")):
            message = mapping(item, "a message")
            for field in ("content", "thinking"):
                texts.add(("messages", index, field), message.get(field))
            for place, call in enumerate(listing(message.get("tool_calls"), "tool_calls")):
                path = ("messages", index, "tool_calls", place, "function", "arguments")
                texts.add_all(strings(path, at(call, ("function", "arguments"))), "args")
        return texts.found

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        out, document = plain_edits(doc, change, FIELDS)
        out += without_tools(document, openai_tools(document, "tools"), change)
        lead = 0
        for item in listing(document.get("messages"), "messages"):
            if not isinstance(item, dict) or item.get("role") != "system":
                break
            lead += 1
        for place, words in enumerate(change.inject_system):
            said = {"role": "system", "content": words}
            out.append(Edit(("messages", lead + place), said, insert=True))
        return out

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return OllamaAnswer(request, response, chat=True)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:  # noqa: ARG002 - it has no id
        """An answer that says the text."""
        return completion(request, end, chat=True)


class OllamaGenerate(_Ollama):
    """The dialect `ollama.generate`."""

    name = "ollama.generate"
    _path = "/api/generate"
    _operation = "completion"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        document = self._begin(doc, facts)
        facts.stream = flag(document.get("stream"), "stream") is not False
        prompt = text(document.get("prompt"), "prompt") or ""
        system = text(document.get("system"), "system")
        images = len(listing(document.get("images"), "images"))
        messages = [Message("user", prompt)]
        fill(facts, messages, [system] if system else [], self.request_segments(document), images, None)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        document, texts = mapping(doc, "the body"), Texts()
        for field in ("system", "prompt", "suffix", "template"):
            texts.add((field,), document.get(field))
        return texts.found

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        out, document = plain_edits(doc, change, FIELDS)
        if change.inject_system:
            before = document.get("system")
            words = [before] if isinstance(before, str) and before else []
            out.append(Edit(("system",), "\n\n".join([*words, *change.inject_system])))
        return out

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return OllamaAnswer(request, response, chat=False)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:  # noqa: ARG002 - it has no id
        """An answer that says the text."""
        return completion(request, end, chat=False)


class OllamaEmbed(_Ollama):
    """The dialect `ollama.embed`."""

    name = "ollama.embed"
    _operation = "embedding"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`embedding` for a POST to either door."""
        return "embedding" if method == "POST" and path.endswith(("/api/embed", "/api/embeddings")) else None

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        document = self._begin(doc, facts)
        if not isinstance(document.get("input"), str):
            for item in listing(document.get("input"), "input"):
                text(item, "an input")
        text(document.get("prompt"), "prompt")
        fill(facts, [], [], self.request_segments(document), 0, None)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        document, texts = mapping(doc, "the body"), Texts()
        for field in ("input", "prompt"):
            texts.add_all(strings((field,), document.get(field)))
        return texts.found

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        return plain_edits(doc, change, Fields(limit=None, system=False))[0]

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return EmbeddingAnswer(request, response, embed_bill)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:  # noqa: ARG002 - vectors say nothing
        """An answer without a vector."""
        return Body("application/json", dumps({"model": request.model or "", "embeddings": []}).encode())
