"""How a streamed answer is cut into events, told by its content type. One class a framing, all of one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from policyd.core.model.bounds import MAX_EVENT
from policyd.core.stream.dialects import Path
from policyd.core.stream.eventstream import EventStream
from policyd.core.stream.json_array import JsonArray
from policyd.core.stream.ndjson import Ndjson
from policyd.core.stream.sse import SseEvent, SseParser
from policyd.core.stream.sse_edit import edit_event


class Framing(Protocol):
    """Feed it bytes as they come; it answers with the events that they completed.

    INVARIANT: the raws of all events, joined, are the input, and how the network cut the bytes changes no event.
    """

    failure: str  # why nothing more can be read; empty while it can
    rest: bytes  # once it has failed: what of the bytes that came was not read
    damage: str  # what is wrong with an event that is malformed

    @property
    def pending(self) -> int:
        """Bytes that have come of an event that is not whole yet."""
        ...

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that these bytes complete. Raises Malformed when nothing more can be read."""
        ...

    def finish(self) -> SseEvent | None:
        """The body is over: what is left. Raises Malformed when nothing more can be read."""
        ...

    def edit(self, raw: bytes, edits: Sequence[tuple[Path, object]]) -> bytes:
        """One event with these texts at these paths of its document; every other byte as it came."""
        ...


class Sse(SseParser):
    """Server-sent events."""

    __slots__ = ()
    damage = "an event is not utf-8"

    def edit(self, raw: bytes, edits: Sequence[tuple[Path, object]]) -> bytes:
        return edit_event(raw, edits)


# The stream that a dialect speaks when the answer does not say what it is.
_USUAL: dict[str, Callable[[int], Framing]] = {
    "bedrock.converse": EventStream,
    "bedrock.invoke": EventStream,
    "ollama.chat": Ndjson,
    "ollama.generate": Ndjson,
}
_ARRAYS = frozenset({"gemini.generate"})  # an array of answers, under the name of plain JSON


def framing_of(content_type: str, dialect: str, *, asked: bool, most: int = MAX_EVENT) -> Framing | None:
    """The framing of an answer, or None when it comes in one piece. `asked`: the request asked for a stream; `most`:
    bytes of one event."""
    match content_type.split(";", 1)[0].strip().lower():
        case "text/event-stream":
            return Sse(most)
        case "application/vnd.amazon.eventstream":
            return EventStream(most)
        case "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/stream+json":
            return Ndjson(most)
        case "application/x-jsonl" | "application/x-jsonlines" | "application/json-lines" | "application/jsonlines":
            return Ndjson(most)
        case "application/octet-stream" | "application/binary" | "" if dialect == "batch.results":
            return Ndjson(most)
        case "application/json" if asked and dialect in _ARRAYS:
            return JsonArray(most)
        case "" if asked and dialect:
            return _USUAL.get(dialect, Sse)(most)
        case _:
            return None
