"""application/vnd.amazon.eventstream: bytes in, events out, both checksums of each checked.

A message is a prelude (its length, the length of its headers, the CRC-32 of those eight bytes), headers, a payload and
the CRC-32 of all before it.

Rule 1: the raws of all events, joined, are the input; how the network cut the bytes changes no event.
Rule 2: a message whose own checksum is wrong is a malformed event; one whose prelude is wrong ends the stream: where
        the next one begins cannot be known.
Rule 3: `name` is the :event-type or :exception-type; "error" for a message of type error.
Rule 4: a path that goes on below "bytes" leads into the document that stands there in base64; one below HEADER leads to
        a header.
Rule 5: `tidy` has no header but those that name the event, its content type and its error.
"""

from __future__ import annotations

import re
import struct
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Sequence
from zlib import crc32

from policyd.core.errors import Malformed
from policyd.core.model.bounds import MAX_EVENT
from policyd.core.stream import json_text
from policyd.core.stream.dialects import Edit, Path
from policyd.core.stream.sse import SseEvent

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_SMALLEST = 16  # bytes of a message without headers and payload
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # bytes of a header's value, by its type
_STRING = 7
HEADER = "\0header"  # the first key of a path to a header
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_KEPT = {
    ":message-type": frozenset({"event", "exception", "error"}),
    ":content-type": frozenset(
        {"application/json", "application/octet-stream", "text/plain", "application/x-amz-json-1.1"}
    ),
    ":event-type": None,
    ":exception-type": None,
    ":error-code": None,
}
_BYTES = 6


class EventStream:
    """Feed it bytes as they come; it answers with the messages that they completed."""

    __slots__ = ("_buffer", "failure", "limit", "rest")
    damage = "the checksum of an event is wrong"

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self.limit = limit
        self.failure = ""
        self.rest = b""
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that these bytes complete. Raises Malformed when nothing more can be read."""
        if self.failure:
            raise Malformed(self.failure)
        buffer = self._buffer
        buffer += data
        events: list[SseEvent] = []
        at = 0
        while total := self._length(at):
            if len(buffer) - at < total:
                break
            events.append(_event(bytes(buffer[at : at + total])))
            at += total
        del buffer[:at]
        if self.failure:
            self.rest = bytes(buffer)
            buffer.clear()
            if not events:
                raise Malformed(self.failure)
        return events

    def _length(self, at: int) -> int:
        """How long the message is that begins here; 0 when that is not known yet, or cannot be."""
        if len(self._buffer) - at < _PRELUDE.size:
            return 0
        total, headers, checksum = _PRELUDE.unpack_from(self._buffer, at)
        if crc32(self._buffer[at : at + 8]) != checksum or headers > total - _SMALLEST:
            self.failure = "the prelude of an event is broken"
        elif total > self.limit:
            self.failure = f"an event is larger than {self.limit} bytes (bound event_bytes)"
        return 0 if self.failure else int(total)

    def finish(self) -> SseEvent | None:
        """The body is over: what is left. Raises Malformed when nothing more can be read."""
        if self.failure:
            raise Malformed(self.failure)
        left = bytes(self._buffer)
        self._buffer.clear()
        return SseEvent(left, "", "", complete=False) if left else None

    def edit(self, raw: bytes, edits: Sequence[tuple[Path, object]]) -> bytes:
        """One message with these texts at these paths of its payload, its lengths and checksums made anew."""
        start = _PRELUDE.size + _PRELUDE.unpack_from(raw)[1]
        said = {path[1]: str(text) for path, text in edits if path[0] == HEADER}
        headers = raw[_PRELUDE.size : start]
        if said:
            headers = b"".join(_header(name, said.get(name, value)) for name, _, value in _headers(headers))
        return _message(headers, _spliced(raw[start:-4], [edit for edit in edits if edit[0][0] != HEADER]))


def _spliced(payload: bytes, edits: Sequence[tuple[Path, object]]) -> bytes:
    inner = [Edit(path[1:], text) for path, text in edits if path[0] == "bytes" and len(path) > 1]
    outer = [Edit(path, text) for path, text in edits if path[0] != "bytes" or len(path) == 1]
    if inner:
        outer.append(Edit(("bytes",), b64encode(json_text.splice(unwrap(json_text.loads(payload)), inner)).decode()))
    return json_text.splice(payload, outer)


def unwrap(document: object) -> bytes:
    """What stands under "bytes" in base64. Raises Malformed."""
    said = document.get("bytes") if isinstance(document, dict) else None
    if not isinstance(said, str):
        raise Malformed("an event has no bytes")
    try:
        return b64decode(said, validate=True)
    except (Base64Error, ValueError):
        raise Malformed("the bytes of an event are not base64") from None


def _event(raw: bytes) -> SseEvent:
    start = _PRELUDE.size + _PRELUDE.unpack_from(raw)[1]
    sound = crc32(raw[:-4]) == _CRC.unpack_from(raw, len(raw) - 4)[0]
    try:
        headers = list(_headers(raw[_PRELUDE.size : start]))
        data = raw[start:-4].decode()
    except (Malformed, UnicodeDecodeError):
        return SseEvent(raw, "", raw[start:-4].decode(errors="replace"), malformed=True)
    kept = [header for header in headers if _needed(*header)]
    beside = tuple(((HEADER, name), value) for name, _, value in kept if name == ":error-message")
    tidy = None
    if len(kept) < len(headers) or len({name for name, _, _ in kept}) < len(kept):
        tidy = _message(
            b"".join(_header(name, value) for name, value in {one[0]: one[2] for one in kept}.items()), raw[start:-4]
        )
    return SseEvent(
        raw, _name({name: value for name, _, value in headers}), data, malformed=not sound, tidy=tidy, beside=beside
    )


def _needed(name: str, kind: int, value: str) -> bool:
    """Whether a client needs this header to read the event."""
    if kind != _STRING:
        return False
    if name == ":error-message":
        return True
    words = _KEPT.get(name, frozenset[str]())
    return _WORD.fullmatch(value) is not None if words is None else value in words


def _name(headers: dict[str, str]) -> str:
    if headers.get(":message-type") == "error":
        return "error"
    return headers.get(":event-type") or headers.get(":exception-type", "")


def _headers(data: bytes) -> Iterator[tuple[str, int, str]]:
    """Names, types and values; a value that is no string reads as empty. Raises Malformed."""
    at = 0
    while at < len(data):
        size = data[at]
        name, kind = data[at + 1 : at + 1 + size], data[at + 1 + size : at + 2 + size]
        at += 2 + size
        if not kind:
            raise Malformed("a header of an event is broken")
        length = _FIXED.get(kind[0], -1)
        if kind[0] in (_STRING, _BYTES):
            length = int.from_bytes(data[at : at + 2])
            at += 2
        if length < 0 or at + length > len(data):
            raise Malformed("a header of an event is broken")
        yield name.decode(), kind[0], data[at : at + length].decode() if kind[0] == _STRING else ""
        at += length


# ---- messages of our own --------------------------------------------------------------------------------------------


def render(data: str, name: str) -> bytes:
    """An event of our own, its payload JSON."""
    said = ((":event-type", name), (":content-type", "application/json"), (":message-type", "event"))
    return _message(b"".join(_header(key, value) for key, value in said), data.encode())


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return bytes([len(key)]) + key + bytes([_STRING]) + len(text).to_bytes(2) + text


def _message(headers: bytes, payload: bytes) -> bytes:
    prelude = struct.pack(">II", _SMALLEST + len(headers) + len(payload), len(headers))
    message = prelude + _CRC.pack(crc32(prelude)) + headers + payload
    return message + _CRC.pack(crc32(message))
