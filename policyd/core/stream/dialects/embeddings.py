"""Answers that hold vectors: no text comes back, only numbers, and what the input cost.

Rule 1: nothing of an embedding is text that a policy reads; its usage is all input.
"""

from __future__ import annotations

from collections.abc import Callable

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Ending
from policyd.core.stream.dialects.answer import Answer, Mark
from policyd.core.stream.dialects.response_others import EMBEDDING_RESPONSE
from policyd.core.stream.dialects.shared import Bill, mapping
from policyd.core.stream.dialects.stated import stated_nano

Usage = Callable[[dict[str, object], ResponseFacts], Bill | None]
VECTORS = ("data", "embedding", "embeddings", "embeddingsByType")


class EmbeddingAnswer(Answer):
    """Reads one answer; `usage` finds its bill."""

    structure = EMBEDDING_RESPONSE

    def __init__(self, request: RequestFacts, response: ResponseFacts, usage: Usage) -> None:
        super().__init__(request, response)
        self._find = usage

    def _whole(self, document: dict[str, object]) -> None:
        if not any(field in document for field in VECTORS):
            raise Malformed("the answer is no embedding")
        model = document.get("model")
        self._model(model if isinstance(model, str) else None)
        try:
            bill = self._find(document, self.response)
        except Malformed as failure:
            self._partial(failure.reason)
        else:
            if bill is not None:
                bill.stated_nano = stated_nano(self.request.provider, document)
            self._bill(bill, final=True)

    def _event(self, name: str, document: dict[str, object]) -> bool:  # noqa: ARG002
        mapping(document, "an event")
        raise Malformed("an embedding does not stream")

    def _ending(self, mark: Mark, end: Ending) -> bytes:  # noqa: ARG002 - it does not stream
        return b""
