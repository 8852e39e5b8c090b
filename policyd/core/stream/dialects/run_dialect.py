"""Dialects that are read by their strings and run a model all the same: where their output limit stands.

Rule 1: a cap that has no place rejects the call: no obligation is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import Edit, RequestChange
from policyd.core.stream.dialects.asking import LIMIT_NAMES
from policyd.core.stream.dialects.generic import Generic
from policyd.core.stream.dialects.shared import cap_edit, count, section


class RunDialect(Generic):
    """A dialect whose requests hold the limit of output tokens at `limit`."""

    limit: ClassVar[tuple[str, ...]]

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        super().read_request(doc, facts)
        if isinstance(doc, dict):
            held = self._holder(doc)
            facts.max_tokens = count(held.get(self.limit[-1]), self.limit[-1])
            many = (count(held.get(name), name) or 1 for name in ("candidateCount", "sampleCount", "candidate_count"))
            facts.choices = max(1, min(max(many), 1024))

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """Sets, the model, tools, and a limit of output tokens. Raises Malformed for everything else."""
        out = list(super().edits(doc, change))
        document = doc if isinstance(doc, dict) else {}
        for field, cap in change.caps:
            if field not in LIMIT_NAMES:
                raise Malformed(f"this kind of call has no place for a cap of {field}")
            out += self._capped(document, cap)
        return out

    def _holder(self, document: dict[str, object]) -> dict[str, object]:
        held: object = document
        for name in self.limit[:-1]:
            held = section(held, name).get(name) if isinstance(held, dict) else None
        return section(held, ".".join(self.limit[:-1]))

    def _capped(self, document: dict[str, object], cap: int) -> list[Edit]:
        *outer, name = self.limit
        if not outer:
            return cap_edit(document, name, cap)
        if not isinstance(document.get(outer[0]), dict):
            return [Edit((outer[0],), {name: cap})]
        return [Edit((outer[0], *edit.path), edit.value) for edit in cap_edit(self._holder(document), name, cap)]
