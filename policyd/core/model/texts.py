"""Texts of one response that grow side by side: what `response.content` and `response.reasoning` are made of.

Rule 1: a text has a key. Pieces of one key are one string; texts of different keys are separated by newlines, in the
        order in which each began.
Rule 2: pieces are kept only where somebody reads them (`kept`); their length is always counted.
"""

from __future__ import annotations

from collections.abc import Hashable


class Texts:
    """Texts by key. `kept`: the pieces themselves are kept."""

    __slots__ = ("_chars", "_pieces", "_seen", "kept")

    def __init__(self) -> None:
        self.kept = False
        self._chars = 0
        self._seen = 0  # texts without a key
        self._pieces: dict[Hashable, list[str]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Texts) and (self.size, self.each()) == (other.size, other.each())

    __hash__ = None  # type: ignore[assignment]  # it grows

    @property
    def size(self) -> int:
        """Characters of `text()`."""
        return self._chars + max(len(self._pieces) - 1, 0)

    def add(self, key: Hashable, text: str) -> None:
        """The next piece of the text of this key; None: a text of its own."""
        if key is None:
            self._seen += 1
            key = self._seen
        self._chars += len(text)
        pieces = self._pieces.get(key)
        if pieces is None:
            pieces = self._pieces[key] = []
        if self.kept:
            pieces.append(text)

    def text(self) -> str:
        """Every text, joined with newlines."""
        return "\n".join(self.each())

    def each(self) -> list[str]:
        """Every text by itself."""
        for pieces in self._pieces.values():
            if len(pieces) > 1:
                pieces[:] = ["".join(pieces)]
        return [pieces[0] for pieces in self._pieces.values() if pieces]
