"""A text as RE2 searches it fastest: UTF-8, encoded once."""

from __future__ import annotations

from bisect import bisect_left
from itertools import compress

_BEGINS = bytes(byte & 0xC0 != 0x80 for byte in range(256))  # a character in UTF-8


class Window:
    """A text and its UTF-8. Offsets are in characters unless they are said to be in bytes."""

    __slots__ = ("_starts", "data", "size", "text")

    def __init__(self, text: str) -> None:
        self.text, self.size = text, len(text)
        self.data = text.encode()
        self._starts: list[int] | None = None  # of each character in `data`, once it is asked for

    def _table(self) -> list[int]:
        if self._starts is None:
            self._starts = [*compress(range(len(self.data)), self.data.translate(_BEGINS)), len(self.data)]
        return self._starts

    def byte(self, place: int) -> int:
        """Where this character begins."""
        return place if len(self.data) == self.size or not place else self._table()[place]

    def place(self, byte: int) -> int:
        """The character that begins here."""
        return byte if len(self.data) == self.size else bisect_left(self._table(), byte)
