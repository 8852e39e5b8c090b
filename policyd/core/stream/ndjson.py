"""JSON documents, one a line: what Ollama and Cohere's first version stream.

Rule 1: the raws of all events, joined, are the input; how the network cut the bytes changes no event.
Rule 2: the last line needs no line end: whether it is whole its own JSON tells.
Rule 3: what we write holds no U+0085, U+2028 or U+2029: clients that split text into lines split there too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from policyd.core.errors import Malformed
from policyd.core.model.bounds import MAX_EVENT
from policyd.core.stream import json_text
from policyd.core.stream.dialects import Edit, Path
from policyd.core.stream.sse import SseEvent

_BLANK = re.compile(rb"(?:[ \t\r]*+\n)++")
_BREAKS = re.compile("\x85|\u2028|\u2029".encode())


class Ndjson:
    """Feed it bytes as they come; it answers with the lines that they completed."""

    __slots__ = ("_buffer", "failure", "limit", "rest")
    damage = "an event is not utf-8"

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self.limit = limit
        self.failure = ""
        self.rest = b""
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that these bytes complete. Raises Malformed once a line is larger than the limit."""
        if self.failure:
            raise Malformed(self.failure)
        events: list[SseEvent] = []
        start = 0
        while stop := data.find(b"\n", start) + 1:
            if not self._buffer and (blank := _BLANK.match(data, start)):  # there may be a million of them
                events.append(SseEvent(blank[0], "", None))
                start = blank.end()
                continue
            line = bytes(self._buffer) + data[start:stop]
            if len(line) > self.limit:
                return self._failed(events, data[start:])
            self._buffer.clear()
            events.append(_event(line))
            start = stop
        if len(self._buffer) + len(data) - start > self.limit:
            return self._failed(events, data[start:])
        self._buffer += data[start:]
        return events

    def _failed(self, events: list[SseEvent], left: bytes) -> list[SseEvent]:
        self.failure = f"an event is larger than {self.limit} bytes (bound event_bytes)"
        self.rest = bytes(self._buffer) + left
        self._buffer.clear()
        if not events:
            raise Malformed(self.failure)
        return events

    def finish(self) -> SseEvent | None:
        """The body is over: what is left."""
        if self.failure:
            raise Malformed(self.failure)
        left = bytes(self._buffer)
        self._buffer.clear()
        return _event(left) if left else None

    def edit(self, raw: bytes, edits: Sequence[tuple[Path, object]]) -> bytes:
        """One line with these texts at these paths of its document."""
        edited = json_text.splice(raw, [Edit(path, text) for path, text in edits])
        return edited if _BREAKS.search(raw) else _BREAKS.sub(_escaped, edited)


def _event(line: bytes) -> SseEvent:
    body = line.strip(b" \t\r\n")
    if not body:
        return SseEvent(line, "", None)
    try:
        return SseEvent(line, "", body.decode())
    except UnicodeDecodeError:
        return SseEvent(line, "", body.decode(errors="replace"), malformed=True)


def _escaped(found: re.Match[bytes]) -> bytes:
    return f"\\u{ord(found[0].decode()):04x}".encode()


def render(data: str) -> bytes:
    """An event of our own."""
    return unbroken(data).encode() + b"\n"


def unbroken(data: str) -> str:
    """JSON without a character that anybody takes for the end of a line."""
    return _BREAKS.sub(_escaped, data.encode()).decode()
