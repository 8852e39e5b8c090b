"""Server-sent events: bytes in, events out, by the rules of the WHATWG HTML standard.

Clients differ: some strip a byte order mark from every line, some take lines of JSON without a field. So an event is
read as the most lenient of them reads it, and `tidy` is what all of them read alike.

Rule 1: the raws of all events, joined, are the input; nothing is dropped, nothing is added.
Rule 2: how the network cut the bytes changes no event. So a CR at the end of what has come waits for the next byte: it
        may be half of a CRLF, and that LF belongs to this event.
Rule 3: blank lines and comments that stand together are one block without data, as far as they have come together.
Rule 4: time is linear in the bytes, memory is bounded by the limit.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from policyd.core.errors import Malformed
from policyd.core.model.bounds import MAX_EVENT
from policyd.core.stream.dialects import Path
from policyd.core.stream.dialects.response_openai import EVENT_NAMES

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
# Blocks without a field: blank lines, and comments that a blank line follows. There may be a million of them.
_IDLE = re.compile(rb"(?:(?::[^\n\x80-\xff]*+\n)*+\n)++")
_IDLE_LINES = re.compile(rb"(?:(?::[^\r\n\x80-\xff]*+(?:\r\n|\n|\r(?!\n|\Z)))*+(?:\r\n|\n|\r(?!\n|\Z)))++")
_IDLE_STARTS = frozenset(b"\n\r:")
_REMARK = re.compile(rb":[^\r\n]")
_COMMENTS = re.compile(rb"(?::[^\r\n]*+(?:\r\n|\n|\r))++(?:\r\n|\n|\r)")  # and the blank line that ends them


class SseEvent(NamedTuple):
    """One event, or a block that dispatches none.

    `raw` holds its exact bytes with the blank line that ends it and all comments before it. `data` is None for a block
    without data (a comment, a keep-alive, a blank line): it is no protocol event. `complete` is false for what was left
    when the body ended. `malformed`: not UTF-8; `data` then has U+FFFD in place of what could not be decoded.
    `tidy`: the same event without what no client needs (comments, ids, names that no dialect has); None: it is `raw`.
    `damage`: why it holds what is no part of an event; empty when it holds nothing of that kind. `beside`: texts that
    it carries outside of its data, by where they stand.
    """

    raw: bytes
    name: str
    data: str | None
    complete: bool = True
    malformed: bool = False
    tidy: bytes | None = None
    damage: str = ""
    beside: tuple[tuple[Path, str], ...] = ()


class SseParser:
    """Feed it bytes as they come; it answers with the events that they completed.

    An event over the limit fails the stream: `failure` says why as soon as it is seen, `rest` holds what was not read,
    the events before it are still handed out, and every later call raises Malformed.
    """

    __slots__ = ("_buffer", "_crs", "_first", "_line", "_scan", "failure", "limit", "rest")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self.limit = limit
        self.failure = ""
        self.rest = b""
        self._buffer = bytearray()  # what has come of the next event
        self._scan = 0  # where in the buffer the search for its end goes on
        self._line = 0  # where in the buffer the line begins that `_scan` is in
        self._crs = False  # a CR has come: line ends are looked at one by one
        self._first = True  # no event yet: a byte order mark may stand here

    @property
    def pending(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that these bytes complete. Raises Malformed once an event is larger than the limit."""
        if self.failure:
            raise Malformed(self.failure)
        if not self._crs and b"\r" in data:
            self._crs = True
            self._line = self._buffer.rfind(b"\n") + 1
        events: list[SseEvent] = []
        if self._crs:
            self._feed_lines(data, events)
        else:
            self._feed_blocks(data, events)
        if len(self._buffer) > self.limit:
            self._fail(bytes(self._buffer))
        if self.failure and not events:
            raise Malformed(self.failure)
        return events

    def finish(self) -> SseEvent | None:
        """The body is over: what is left. A block that only waited for the byte after its CR is complete."""
        if self.failure:
            raise Malformed(self.failure)
        left = bytes(self._buffer)
        self._buffer.clear()
        self._scan = self._line = 0
        if not left:
            return None
        # WHATWG discards a block that no blank line ends: an incomplete event is for whoever judges it to refuse.
        return self._event(left, complete=_ends_blank(left))

    def _feed_blocks(self, data: bytes, events: list[SseEvent]) -> None:
        """Line feeds only: an event ends at the first blank line, found by a plain search."""
        start = 0
        if self._buffer:
            start = self._complete_buffered(data, events)
            if start < 0 or self.failure:
                return
        find, end = data.find, len(data)
        while start < end:
            if data[start] in _IDLE_STARTS and (idle := _IDLE.match(data, start)):
                events.append(self._idle(idle[0]))
                start = idle.end()
                continue
            blank = find(b"\n\n", start)
            if blank == -1:
                break
            stop = blank + 2
            if not self._add(data[start:stop], events):
                self._fail(data[start:])
                return
            start = stop
        if start < end:
            self._buffer += data[start:]
            self._scan = len(self._buffer)

    def _complete_buffered(self, data: bytes, events: list[SseEvent]) -> int:
        """Where the bytes after the buffered event begin; -1 when it is not complete yet."""
        buffer = self._buffer
        if buffer[-1] == 10 and data[:1] == b"\n":
            stop = 1
        else:
            stop = data.find(b"\n\n") + 2
            if stop == 1:
                buffer += data
                self._scan = len(buffer)
                return -1
        buffer += data[:stop]
        block = bytes(buffer)
        buffer.clear()
        self._scan = 0
        if not self._add(block, events):
            self._fail(block + data[stop:])
        return stop

    def _feed_lines(self, data: bytes, events: list[SseEvent]) -> None:
        """Any mix of line ends, a line at a time."""
        buffer = self._buffer
        buffer += data
        start, line, scan = 0, self._line, self._scan
        while match := _LINE_END.search(buffer, scan):
            if scan == start and buffer[start] in _IDLE_STARTS and (idle := _IDLE_LINES.match(buffer, start)):
                events.append(self._idle(bytes(idle[0])))
                start = line = scan = idle.end()
                continue
            stop = match.end()
            if stop == len(buffer) and buffer[stop - 1] == 13:
                scan = match.start()
                break
            scan = stop
            if match.start() > line:
                line = stop
                continue
            if not self._add(bytes(buffer[start:stop]), events):
                self._fail(bytes(buffer[start:]))
                return
            start = line = stop
        else:
            scan = len(buffer)
        del buffer[:start]
        self._scan, self._line = scan - start, line - start

    def _add(self, block: bytes, events: list[SseEvent]) -> bool:
        """False when the event is larger than the limit."""
        if len(block) > self.limit:
            return False
        events.append(self._event(block, complete=True))
        return True

    def _idle(self, blocks: bytes) -> SseEvent:
        """Blocks that dispatch nothing, as one. INVARIANT: they leave as they would one by one."""
        self._first = False
        tidy = _COMMENTS.sub(_silenced, blocks) if _REMARK.search(blocks) else None
        return SseEvent(blocks, "", None, tidy=tidy)

    def _fail(self, rest: bytes) -> None:
        self.failure = f"an event is larger than {self.limit} bytes (bound event_bytes)"
        self.rest = rest
        self._buffer.clear()

    def _event(self, block: bytes, *, complete: bool) -> SseEvent:
        body = block
        if self._first:
            self._first = False
            body = block.removeprefix(_BOM)
        if body.startswith(b"data: ") and body.find(b"\n") == len(body) - 2 and not (self._crs and 13 in body):
            try:
                return SseEvent(block, "", body[6:-2].decode(), complete)
            except UnicodeDecodeError:
                return SseEvent(block, "", body[6:-2].decode(errors="replace"), complete, True)
        return _parse(block, body, complete)


def _parse(raw: bytes, body: bytes, complete: bool) -> SseEvent:
    """The general case: any fields in any order, any line ends."""
    malformed = False
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text, malformed = body.decode(errors="replace"), True
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = _Lines()
    for line in text.split("\n"):
        lines.add(line)
    data = "\n".join(lines.data) if lines.data else None
    if data is None and not lines.odd:
        return SseEvent(raw, lines.name, None, complete, malformed)
    # INVARIANT: bytes that are no UTF-8 do not leave in what is no data: clients that decode them otherwise may read
    # the end of a line there.
    tidy = lines.tidy(data) if lines.odd and complete else None
    return SseEvent(raw, lines.name, data, complete, malformed, tidy, lines.damage)


class _Lines:
    """The lines of one event. `odd`: they are not what all clients read alike, or not only what one needs."""

    __slots__ = ("comment", "damage", "data", "name", "odd")

    def __init__(self) -> None:
        self.name, self.damage = "", ""
        self.data: list[str] = []
        self.comment = self.odd = False

    def add(self, line: str) -> None:
        """The next line, without its end."""
        if line.startswith("\ufeff"):
            line, self.odd = line.lstrip("\ufeff"), True
        if not line:
            return
        field, colon, value = line.partition(":")
        if value.startswith(" "):
            value = value[1:]
        match field:
            case "data":
                self.data.append(value)
                self.odd = self.odd or not colon
            case "event":
                self.odd = self.odd or bool(self.name) or value not in EVENT_NAMES
                self.name = value
            case "":
                self.comment = True
                self.odd = self.odd or bool(value)
            case "id" | "retry":
                self.odd = True
            case _:
                self.odd, self.damage = True, "a line of an event is no field of an event"

    def tidy(self, data: str | None) -> bytes:
        """The event as all clients read it."""
        comment = b":\n" if self.comment else b""
        if data is None:
            return comment + b"\n" if comment else b""
        return comment + render(data, self.name if self.name in EVENT_NAMES else "")


def _silenced(comments: re.Match[bytes]) -> bytes:
    """Comments that say something leave as one that says nothing: a sign of life."""
    return b":\n\n" if _REMARK.search(comments[0]) else comments[0]


def _ends_blank(block: bytes) -> bool:
    """Whether the last line of a block is blank and ended."""
    lines = _LINE_END.split(block)
    return len(lines) >= 2 and not lines[-1] and not lines[-2]


def render(data: str, name: str = "") -> bytes:
    """An event of our own."""
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return (f"event: {name}\n{lines}\n" if name else f"{lines}\n").encode()
