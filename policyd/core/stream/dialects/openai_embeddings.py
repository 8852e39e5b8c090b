"""OpenAI Embeddings: the language of OpenAI, Azure, Mistral, Together, Voyage, vLLM and others.

Rule 1: an embedding says nothing: there is no text to judge or edit, no output to cap, and nobody to be told anything;
        what an obligation asks of such things is met by there being none.
Rule 2: an input of token ids is no text: it counts as many tokens as it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyd.core.errors import Malformed
from policyd.core.model.facts import Message, RequestFacts, ResponseFacts
from policyd.core.stream.dialects import UNMARKED, AnswerReader, Body, Edit, Ending, RequestChange, Segment
from policyd.core.stream.dialects.embeddings import EmbeddingAnswer
from policyd.core.stream.dialects.openai_shared import deployment, error, estimate_input, prompts_of, provider_of_path
from policyd.core.stream.dialects.shared import Bill, count, mapping, set_edits, text
from policyd.core.stream.json_strict import dumps, refuse_twins

READ = frozenset({"model", "input", "stream"})


class OpenAIEmbeddings:
    """The dialect `openai.embeddings`."""

    name = "openai.embeddings"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`embedding` for a POST to any .../embeddings but Ollama's own."""
        return "embedding" if method == "POST" and path.endswith("/embeddings") and path != "/api/embeddings" else None

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return provider_of_path(path)

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        document = mapping(doc, "the body")
        refuse_twins(document, READ)
        facts.model = deployment(facts.path) or text(document.get("model"), "model")
        facts.choices = 1
        texts, tokens, parts = _inputs(document.get("input"))
        facts.messages = [Message("user", said) for _, said in texts]
        facts.text = "\n".join(said for _, said in texts)
        estimate_input(facts, [said for _, said in texts], 0, parts, (), ids=sum(tokens))

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        texts, _, _ = _inputs(mapping(doc, "the body").get("input"))
        return [Segment(("text", place, 0), path, said) for place, (path, said) in enumerate(texts) if said]

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        out = set_edits(mapping(doc, "the body"), change.sets)
        return [*out, Edit(("model",), change.model)] if change.model else out

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return EmbeddingAnswer(request, response, _bill)

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in OpenAI's shape."""
        return error(status, reason, message, end)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:  # noqa: ARG002 - it cannot say anything
        """An answer without a vector: a client that needs one says that there is none."""
        document = {
            "object": "list",
            "data": [],
            "model": request.model or "",
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        }
        return Body("application/json", dumps(document).encode())


def _inputs(given: object) -> tuple[list[tuple[tuple[str | int, ...], str]], list[int], int]:
    """The texts of an input and where they stand, the lengths of what is token ids, and how many are neither: some
    take images too. Raises Malformed."""
    if not isinstance(given, list) or not any(isinstance(one, dict) for one in given):
        texts, tokens = prompts_of(given, "input")
        return texts, tokens, 0
    found: list[tuple[tuple[str | int, ...], str]] = []
    others = 0
    for place, one in enumerate(given):
        if isinstance(one, str):
            found.append((("input", place), one))
        elif isinstance(one, dict) and isinstance(said := one.get("text"), str):
            found.append((("input", place, "text"), said))
        elif isinstance(one, dict):
            others += 1
        else:
            raise Malformed("input holds what is neither text nor token ids")
    return found, [], others


def _bill(document: dict[str, object], response: ResponseFacts) -> Bill | None:  # noqa: ARG001
    """All input; some name only the total. Raises Malformed."""
    usage = document.get("usage")
    if usage is None:
        return None
    said = mapping(usage, "usage")
    tokens = count(said.get("prompt_tokens"), "prompt_tokens")
    if tokens is None:
        tokens = count(said.get("total_tokens"), "total_tokens")
    return None if tokens is None else Bill(tokens, 0)
