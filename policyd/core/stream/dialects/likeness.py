"""An event that says what one before it said, but for its text: most of a stream, recognised without parsing it anew.

Rule 1: what is recognised reads exactly as it would have been parsed; in any doubt it is parsed.
Rule 2: without a backslash every quote delimits a string. So where all bytes around a string are those of a document
        that was parsed, and the string holds no quote, no backslash and no control character, the document is the
        same but for that string.
"""

from __future__ import annotations

import re

TRIES = 64  # documents that are learned from, at most: a stream that is never alike pays for no more
_PADDING = re.compile(r"[A-Za-z0-9]*\Z")
_OPENS = re.compile(r':\s*"')


class Likeness:
    """The last such document. `field`: the key of its text. `padding`: a key whose string says nothing."""

    __slots__ = ("_after", "_before", "_between", "_field", "_padding", "_tries")

    def __init__(self, field: str, padding: str = "") -> None:
        self._field, self._padding = f'"{field}"', f'"{padding}"' if padding else ""
        self._before = ""  # up to the text; empty while nothing is known
        self._between: str | None = None  # from behind the text up to the padding, when there is one
        self._after = ""
        self._tries = TRIES

    @property
    def curious(self) -> bool:
        """Whether it would still learn."""
        return self._tries > 0

    def learn(self, data: str, text: str, padding: object = None) -> None:
        """`data` was parsed: `text` is the string at `field`, `padding` what stands at the other key."""
        self._before = ""
        if not self._tries or "\\" in data:
            return
        self._tries -= 1
        start = _value(data, self._field, text)
        if not start:
            return
        after, self._between = data[start + len(text) :], None
        if self._padding and isinstance(padding, str):
            place = _value(after, self._padding, padding)
            if not place or self._padding in data[:start]:
                return
            self._between, after = after[:place], after[place + len(padding) :]
        self._before, self._after = data[:start], after

    def text(self, data: str) -> str:
        """The text of a document that is like the one that was learned; empty when it is not."""
        before = self._before
        if not before or not data.startswith(before) or "\\" in data:
            return ""
        start = len(before)
        stop = data.find('"', start)
        between = self._between
        if between is None:
            end = stop
        else:
            if not data.startswith(between, stop):
                return ""
            place = stop + len(between)
            end = data.find('"', place)
            if not _PADDING.match(data, place, end):
                return ""
        if data[end:] != self._after:
            return ""
        found = data[start:stop]
        return found if found.isprintable() else ""


def _value(data: str, key: str, value: str) -> int:
    """Where this string stands, as the value of the only key of that name; 0 when that is not plain to see."""
    place = data.find(key)
    if place < 0 or data.find(key, place + 1) >= 0:
        return 0
    opens = _OPENS.match(data, place + len(key))
    if opens is None or not data.startswith(f'{value}"', opens.end()):
        return 0
    return opens.end()
