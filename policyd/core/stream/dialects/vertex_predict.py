"""Vertex AI's `:predict`: the text, chat and embedding models before Gemini, and models of one's own endpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import AnswerReader, Path
from policyd.core.stream.dialects.run_dialect import RunDialect
from policyd.core.stream.dialects.run_reader import RunReader, below, members, number
from policyd.core.stream.dialects.shared import Bill

_CALL = re.compile(r"/(?:models|endpoints)/([^/]+):(?:predict|serverstreamingpredict)$")
_PICTURES = re.compile(r"^(?:imagen|imagegeneration|imagetext|veo|lyria)")
_VECTORS = re.compile(r"embed|gecko")
_CHATS = re.compile(r"^(?:code)?chat-")


class VertexPredict(RunDialect):
    """The dialect `vertex.predict`."""

    limit: ClassVar[tuple[str, ...]] = ("parameters", "maxOutputTokens")

    def __init__(self) -> None:
        super().__init__("vertex.predict")

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """By the model's name; None for models that paint or film."""
        found = _CALL.search(path) if method == "POST" else None
        if found is None or _PICTURES.match(found[1]):
            return None
        return "embedding" if _VECTORS.search(found[1]) else "chat" if _CHATS.match(found[1]) else "completion"

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "google"

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one response."""
        return PredictReader(request, response)


class PredictReader(RunReader):
    """Reads one response."""

    def _event(self, name: str, document: dict[str, object]) -> bool:  # noqa: ARG002
        self._whole(document)
        return False

    def _whole(self, document: dict[str, object]) -> None:
        listed = document.get("predictions")
        for place, one in enumerate(listed if isinstance(listed, list) else []):
            self._prediction(one, ("predictions", place), place)
        self._stand = self._stand._replace(stopped=True)
        self._paid(_bill(document), None, later=False)

    def _prediction(self, said: object, path: Path, choice: int) -> None:
        if isinstance(said, str):
            self._say(path, said, ("text", choice, 0))
        elif isinstance(said, dict) and isinstance(said.get("content"), str):
            self._say((*path, "content"), str(said["content"]), ("text", choice, 0))
        for place, one in members(said, "candidates"):
            if isinstance(words := one.get("content"), str):
                self._say((*path, "candidates", place, "content"), words, ("text", choice + place, 0))


def _bill(document: dict[str, object]) -> Bill | None:
    told = below(below(document, "metadata"), "tokenMetadata")
    given, made = (number(below(told, name), "totalTokens") for name in ("inputTokenCount", "outputTokenCount"))
    if given is not None or made is not None:
        return Bill(given or 0, made or 0)
    counts = [
        number(below(below(one, "embeddings"), "statistics"), "token_count", "tokenCount")
        for _, one in members(document, "predictions")
    ]
    known = [one for one in counts if one is not None]
    return Bill(sum(known), 0) if known else None
