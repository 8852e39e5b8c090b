"""How a streamed answer is cut into events, told by its content type. One class a framing, all of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from policyd.core.stream.dialects import Path
from policyd.core.stream.sse import SseEvent, SseParser
from policyd.core.stream.sse_edit import edit_event


class Framing(Protocol):
    """Feed it bytes as they come; it answers with the events that they completed.

    INVARIANT: the raws of all events, joined, are the input, and how the network cut the bytes changes no event.
    """

    failure: str  # why nothing more can be read; empty while it can

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that these bytes complete. Raises Malformed when nothing more can be read."""
        ...

    def finish(self) -> SseEvent | None:
        """The body is over: what is left. Raises Malformed when nothing more can be read."""
        ...

    def edit(self, raw: bytes, edits: Sequence[tuple[Path, str]]) -> bytes:
        """One event with these texts at these paths of its document; every other byte as it came."""
        ...


class Sse(SseParser):
    """Server-sent events."""

    __slots__ = ()

    def edit(self, raw: bytes, edits: Sequence[tuple[Path, str]]) -> bytes:
        return edit_event(raw, edits)


def framing_of(content_type: str, dialect: str, *, asked: bool) -> Framing | None:
    """The framing of an answer, or None when it comes in one piece. `asked`: the request asked for a stream."""
    kind = content_type.split(";", 1)[0].strip().lower()
    if kind == "text/event-stream" or (asked and not kind and dialect):
        return Sse()
    return None
