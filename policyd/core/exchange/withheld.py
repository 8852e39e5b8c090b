"""Stored responses that policyd has cut, rejected or redacted: providers keep them whole, so nobody may fetch them.

Rule 1: the memory is bounded, and the oldest ids are forgotten first. It holds pseudonyms, not ids.
"""

from __future__ import annotations

from collections import OrderedDict

from policyd.core.model.credentials import pseudonym
from policyd.core.model.decision import Terminate

MOST = 100_000  # responses
_MESSAGE = "this stored response was stopped or changed by a policy, and cannot be fetched"
WITHHELD = Terminate(403, "response_withheld", _MESSAGE, _MESSAGE)


class Withheld:
    """The ids of these responses."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[str, None] = OrderedDict()

    def add(self, id: str) -> None:
        """Remember a response."""
        name = pseudonym(id)
        self._known[name] = None
        self._known.move_to_end(name)
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def __contains__(self, id: str) -> bool:
        return bool(self._known) and pseudonym(id) in self._known
