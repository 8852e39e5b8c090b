"""A text that grows piece by piece.

Rule 1: adding a piece costs what the piece is long; the pieces are joined only when the text is read.
"""

from __future__ import annotations


class Growing:
    """A text in pieces. `size`: its length in characters."""

    __slots__ = ("_pieces", "size")

    def __init__(self, text: str = "") -> None:
        self._pieces = [text] if text else []
        self.size = len(text)

    def add(self, piece: str) -> None:
        """More of the text."""
        if piece:
            self._pieces.append(piece)
            self.size += len(piece)

    def text(self) -> str:
        """The text so far."""
        if len(self._pieces) > 1:
            self._pieces[:] = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""
