"""One JSON array that comes element by element: Gemini's stream without `alt=sse`. Each element is an event.

Rule 1: the raws of all events, joined, are the input: what stands before an element (the bracket, the comma) belongs to
        it, so that it is complete with its own last byte, however the network cut the bytes.
Rule 2: an array without its end is a stream without its end.
Rule 3: one object in place of the array is one event: so errors come.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from policyd.core.errors import Malformed
from policyd.core.model.bounds import MAX_EVENT
from policyd.core.stream import json_text
from policyd.core.stream.dialects import Edit, Path
from policyd.core.stream.sse import SseEvent

_WITHIN = re.compile(rb'[\[\]{}"]')
_IN_TEXT = re.compile(rb'["\\]')
_BETWEEN = re.compile(rb"[^ \t\r\n]")
_OPEN, _CLOSE = frozenset(b"[{"), frozenset(b"]}")
_QUOTE, _BACKSLASH = 34, 92

# What may come next between elements.
_START, _FIRST, _NEXT, _COMMA, _OVER = "start", "first", "next", "comma", "over"
_MOVES = {
    (_START, b"["): _FIRST,
    (_FIRST, b"]"): _OVER,
    (_COMMA, b","): _NEXT,
    (_COMMA, b"]"): _OVER,
}
_AFTER_ELEMENT = {_START: _OVER, _FIRST: _COMMA, _NEXT: _COMMA}


class JsonArray:
    """Feed it bytes as they come; it answers with the elements that they completed."""

    __slots__ = ("_buffer", "_depth", "_element", "_escaped", "_scan", "_state", "_text", "failure", "limit", "rest")
    damage = "an event is not utf-8"

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self.limit = limit
        self.failure = ""
        self.rest = b""
        self._buffer = bytearray()  # what has come of the next event
        self._scan = 0  # where in the buffer the search goes on
        self._element = -1  # where in the buffer the element begins; below 0: none has
        self._depth = 0  # open brackets of the element
        self._text = False  # within a string
        self._escaped = False  # the next byte of the string is escaped
        self._state = _START

    @property
    def pending(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that these bytes complete. Raises Malformed when nothing more can be read."""
        if self.failure:
            raise Malformed(self.failure)
        self._buffer += data
        events: list[SseEvent] = []
        while not self.failure and (event := self._next()) is not None:
            events.append(event)
        if len(self._buffer) > self.limit:
            self.failure = self.failure or f"an event is larger than {self.limit} bytes (bound event_bytes)"
        if self.failure:
            self.rest = bytes(self._buffer)
            self._buffer.clear()
            if not events:
                raise Malformed(self.failure)
        return events

    def _next(self) -> SseEvent | None:
        while self._scan < len(self._buffer):
            end = self._within() if self._depth else self._between()
            if end:
                return self._take(end)
            if self.failure:
                return None
        return None

    def _between(self) -> int:
        """Looks for the next element; where the array's end is when that came instead."""
        found = _BETWEEN.search(self._buffer, self._scan)
        if found is None:
            self._scan = len(self._buffer)
            return 0
        self._scan = found.end()
        if move := _MOVES.get((self._state, found[0])):
            self._state = move
            return self._scan if move is _OVER else 0
        if found[0] != b"{" or self._state not in _AFTER_ELEMENT:
            self.failure = "data after the end" if self._state is _OVER else "the answer is no array of objects"
            return 0
        self._state = _AFTER_ELEMENT[self._state]
        self._element, self._depth = found.start(), 1
        return 0

    def _within(self) -> int:
        """Looks for the end of the element."""
        if self._escaped:
            self._scan, self._escaped = self._scan + 1, False
            return 0
        found = (_IN_TEXT if self._text else _WITHIN).search(self._buffer, self._scan)
        if found is None:
            self._scan = len(self._buffer)
            return 0
        self._scan, sign = found.end(), found[0][0]
        if sign == _QUOTE:
            self._text = not self._text
        elif sign == _BACKSLASH:
            self._escaped = True
        else:
            self._depth += (sign in _OPEN) - (sign in _CLOSE)
        return 0 if self._depth else self._scan

    def _take(self, end: int) -> SseEvent | None:
        if end > self.limit:
            self.failure = f"an event is larger than {self.limit} bytes (bound event_bytes)"
            return None
        raw, start = bytes(self._buffer[:end]), self._element
        del self._buffer[:end]
        self._scan, self._element = 0, -1
        return SseEvent(raw, "", None) if start < 0 else _event(raw, start)

    def finish(self) -> SseEvent | None:
        """The body is over: what is left; incomplete when the array has no end."""
        if self.failure:
            raise Malformed(self.failure)
        left = bytes(self._buffer)
        self._buffer.clear()
        self._scan = 0
        if self._state is _OVER and not self._depth:
            return SseEvent(left, "", None) if left else None
        return SseEvent(left, "", "", complete=False) if left or self._state is not _START else None

    def edit(self, raw: bytes, edits: Sequence[tuple[Path, object]]) -> bytes:
        """One element with these texts at these paths; what stands before it stays."""
        start = raw.index(b"{")
        return raw[:start] + json_text.splice(raw[start:], [Edit(path, text) for path, text in edits])


def _event(raw: bytes, start: int) -> SseEvent:
    try:
        return SseEvent(raw, "", raw[start:].decode())
    except UnicodeDecodeError:
        return SseEvent(raw, "", raw[start:].decode(errors="replace"), malformed=True)
