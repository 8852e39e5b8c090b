"""What waits to leave: one lane a channel, one entry an event, and the pieces of a lane's text that it carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from policyd.core.stream.dialects import Channel, Path, Segment
from policyd.core.stream.holdback import ArgumentsHold, HoldBack
from policyd.core.stream.redactor import Redactor
from policyd.core.stream.watch import Watch


class Keep(NamedTuple):
    """How many characters of a text wait; `blind` of them for rules that do not say which text they look for."""

    most: int = 0
    blind: int = 0


class Lane:
    """One channel: what of it may leave."""

    __slots__ = (
        "blind", "closed_by", "complete_by", "first_closed_by", "hold", "keep", "kind", "released", "reopened", "said",
        "watch",
    )  # fmt: skip

    def __init__(self, channel: Channel, redactors: Sequence[Redactor], watch: Watch | None, keep: Keep) -> None:
        self.kind = channel[0]
        self.hold: HoldBack | ArgumentsHold = (ArgumentsHold if channel[0] == "args" else HoldBack)(redactors)
        self.watch = watch
        self.keep, self.blind = keep
        self.released = 0  # characters
        self.said: list[str] = []  # what has left, as it left
        self.closed_by: int | None = None  # the entry that closed it
        self.first_closed_by: int | None = None  # the entry that closed it before text followed after all
        self.complete_by: int | None = None  # the entry that completed the tool call
        self.reopened = False  # text has followed after it was closed: only the end of the body closes it again

    @property
    def safe(self) -> int:
        """Text before this offset is final and may leave: where every text that is looked for is known, all that no
        continuation can make part of a match."""
        hold = self.hold
        if hold.closed or not self.keep:
            return hold.decided
        kept, floor = hold.length - self.keep, hold.floor
        if self.watch is not None and not self.blind:
            kept = max(kept, self.watch.undecided(max(kept, self.released, floor), hold.length))
        return max(min(hold.decided, kept), floor)

    def told(self) -> str:
        """What has left of this channel."""
        if len(self.said) > 1:
            self.said[:] = ["".join(self.said)]
        return self.said[0] if self.said else ""

    def closed_before(self, event: int) -> bool:
        """Whether an entry before this one has closed the channel."""
        return self.hold.closed and self.closed_by is not None and self.closed_by < event

    def closed_at(self, event: int, end: int) -> bool:
        """Whether it was closed when this entry came, and it was `end` characters long: text that has followed since
        makes no difference to what could leave then."""
        if self.hold.floor < max(end, 1):
            return self.closed_before(event)
        return self.first_closed_by is not None and self.first_closed_by < event

    def complete_before(self, event: int) -> bool:
        """Whether an entry before this one has completed the tool call."""
        return self.complete_by is not None and self.complete_by < event

    def push(self, text: str) -> None:
        """The next piece of the text."""
        self.reopened = self.reopened or (self.hold.closed and bool(text))
        self.complete_by = None
        self.hold.push(text)

    def forget(self, offset: int) -> None:
        self.released = offset
        self.hold.forget(offset)
        if self.watch is not None:
            self.watch.forget(offset)


@dataclass(slots=True)
class Piece:
    """One segment, placed: `start` and `end` are offsets in its channel."""

    lane: Lane
    path: Path
    text: str
    start: int
    end: int
    waits: bool  # until the tool call is complete


@dataclass(slots=True)
class Echo:
    """A text that says the whole of its channel again: it leaves as what has left of that channel."""

    lane: Lane
    path: Path
    text: str


@dataclass(slots=True)
class Entry:
    """One event, or comment block, that has not left."""

    raw: bytes
    pieces: Sequence[Piece]
    echoes: Sequence[Echo] = ()
    veils: Sequence[Segment] = ()  # what leaves blank where any of the texts leaves changed
    veiled: Sequence[Segment] = ()  # the text that each of them holds
    alone: Sequence[Segment] = ()  # strings that begin and end here
    redactors: tuple[Redactor, ...] = ()  # of those strings
    free: int = 0  # the first entry that could not leave before this one was known

    def may_leave(self) -> bool:
        for piece in self.pieces:
            if piece.end > piece.lane.safe or (piece.waits and piece.lane.complete_by is None):
                return False
        return True
