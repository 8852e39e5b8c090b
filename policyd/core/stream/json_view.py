"""The JSON text of a tool call's arguments, as redaction should see it."""

from __future__ import annotations

import re
from bisect import bisect_left

_QUOTE_OR_ESCAPE = re.compile(r'["\\]')


class JsonView:
    """JSON text as detectors should see it: each escape as two blanks (`\\n4111` holds a number, not a word), and a
    memory of where strings begin and end. Lengths and offsets stay as they are."""

    __slots__ = ("_begun", "_escaped", "_length", "_quoted_before", "_quotes", "_trimmed")

    def __init__(self) -> None:
        self._begun = False
        self._escaped = False  # the last character was a backslash that escapes the next
        self._length = 0
        self._quotes: list[int] = []  # offsets of quotes that begin or end a string
        self._trimmed = 0  # how many of them were dropped

    def push(self, text: str) -> str | None:
        """The next piece, as it should be searched; None when this is no JSON after all (a tool may take any text)."""
        if not self._begun and (plain := text.lstrip()):
            self._begun = True
            if plain[0] not in '{["':
                return None
        pieces: list[str] = []
        at = 0
        if self._escaped and text:
            pieces.append(" ")
            at, self._escaped = 1, False
        while found := _QUOTE_OR_ESCAPE.search(text, at):
            place = found.start()
            pieces.append(text[at:place])
            if text[place] == '"':
                self._quotes.append(self._length + place)
                pieces.append('"')
                at = place + 1
                continue
            pieces.append("  " if place + 1 < len(text) else " ")
            self._escaped = place + 1 == len(text)
            at = place + 2
        pieces.append(text[at:])
        self._length += len(text)
        return "".join(pieces)

    def in_string(self, offset: int) -> bool:
        return bool((self._trimmed + bisect_left(self._quotes, offset)) % 2)

    def next_quote(self, offset: int) -> int | None:
        """The first quote at or after this offset that begins or ends a string."""
        at = bisect_left(self._quotes, offset)
        return self._quotes[at] if at < len(self._quotes) else None

    def forget(self, offset: int) -> None:
        """Nobody will ask about what lies before. It is dropped once it is half of what is kept."""
        gone = bisect_left(self._quotes, offset)
        if 2 * gone > len(self._quotes):
            self._trimmed += gone
            del self._quotes[:gone]
