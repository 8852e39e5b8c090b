r"""The JSON text of a tool call's arguments, decoded piece by piece: what detectors see, and where it stands.

Rule 1: every escape becomes the character that it means (`\u0040` is an @), so offsets of the decoded text and of the
        text as it came differ: `raw` and `plain` lead from one to the other.
Rule 2: an escape that is not whole yet is not decoded: it waits for the rest.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right

_QUOTE_OR_ESCAPE = re.compile(r'["\\]')
_HEX = re.compile(r"\\u([0-9a-fA-F]{4})")
_HALF = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_SIMPLE = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LOST = "\ufffd"


class JsonView:
    """Decoded JSON text, and a memory of where strings begin and end in it."""

    __slots__ = ("_at", "_begun", "_ends", "_pending", "_quotes", "_shift", "_shifts", "_size", "_trimmed")

    def __init__(self) -> None:
        self._begun = False
        self._pending = ""  # the beginning of an escape
        self._size = 0  # characters, decoded
        self._quotes: list[int] = []  # offsets of quotes that begin or end a string
        self._trimmed = 0  # how many of them were dropped
        self._shift = 0  # how much longer the text was, up to the oldest escape that is remembered
        self._at: list[int] = []  # of each escape: the offset behind its character,
        self._ends: list[int] = []  # the offset behind it as it came,
        self._shifts: list[int] = []  # and how much longer the text was there

    def push(self, text: str) -> str | None:
        """The next piece, decoded; None when this is no JSON after all (a tool may take any text)."""
        if not self._begun and (plain := text.lstrip()):
            self._begun = True
            if plain[0] not in '{["':
                return None
        text, self._pending = self._pending + text, ""
        pieces: list[str] = []
        at = 0
        while found := _QUOTE_OR_ESCAPE.search(text, at):
            place = found.start()
            pieces.append(text[at:place])
            self._size += place - at
            if text[place] == '"':
                self._quotes.append(self._size)
                self._size += 1
                pieces.append('"')
                at = place + 1
                continue
            if (escape := _escape(text, place)) is None:
                self._pending = text[place:]
                return "".join(pieces)
            pieces.append(escape[0])
            self._note(escape[1])
            at = place + escape[1]
        pieces.append(text[at:])
        self._size += len(text) - at
        return "".join(pieces)

    def finish(self) -> str:
        """What was kept because it looked like the beginning of an escape, as it came."""
        left, self._pending = self._pending, ""
        self._size += len(left)
        return left

    def _note(self, length: int) -> None:
        """An escape of this length has become one character."""
        self._size += 1
        shift = (self._shifts[-1] if self._shifts else self._shift) + length - 1
        self._at.append(self._size)
        self._shifts.append(shift)
        self._ends.append(self._size + shift)

    # ---- offsets ---------------------------------------------------------------------------------------------------

    def raw(self, offset: int) -> int:
        """Where the character at this offset of the decoded text stood in the text as it came."""
        index = bisect_right(self._at, offset)
        return offset + (self._shifts[index - 1] if index else self._shift)

    def plain(self, offset: int) -> int:
        """Where in the decoded text the character is that this offset of the text as it came belongs to."""
        index = bisect_right(self._ends, offset)
        place = offset - (self._shifts[index - 1] if index else self._shift)
        return min(place, self._at[index] - 1) if index < len(self._at) else min(place, self._size)

    # ---- strings, by offsets of the decoded text -------------------------------------------------------------------

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
        past = bisect_right(self._at, offset)
        if 2 * past > len(self._at):
            self._shift = self._shifts[past - 1]
            del self._at[:past], self._shifts[:past], self._ends[:past]


def _escape(text: str, place: int) -> tuple[str, int] | None:
    """The character that the escape here means, and its length as it came; None when it is not whole yet."""
    if _HALF.match(text, place):
        return None
    found = _HEX.match(text, place)
    if found is None:
        said = text[place + 1]
        return ("\\", 1) if said == "u" else (_SIMPLE.get(said, said), 2)
    code = int(found[1], 16)
    if not 0xD800 <= code <= 0xDFFF:
        return chr(code), 6
    if code >= 0xDC00:
        return _LOST, 6
    rest = place + 6
    if rest == len(text) or _HALF.match(text, rest):
        return None
    low = _HEX.match(text, rest)
    if low is None or not 0xDC00 <= int(low[1], 16) <= 0xDFFF:
        return _LOST, 6
    return chr(0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00), 12
