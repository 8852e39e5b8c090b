"""What waits to leave: one lane a channel, one entry an event, and the pieces of a lane's text that it carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policyd.core.stream.dialects import Channel, Path
from policyd.core.stream.holdback import HoldBack
from policyd.core.stream.redactor import Redactor
from policyd.core.stream.watch import Watch


class Lane:
    """One channel: what of it may leave."""

    __slots__ = ("closed_by", "hold", "keep", "released", "said", "watch")

    def __init__(self, channel: Channel, redactors: Sequence[Redactor], watch: Watch | None, keep: int) -> None:
        self.hold = HoldBack(redactors, arguments=channel[0] == "args")
        self.watch = watch
        self.keep = keep
        self.released = 0  # characters
        self.said: list[str] = []  # what has left, as it left
        self.closed_by: int | None = None  # the entry that closed it

    @property
    def safe(self) -> int:
        """Text before this offset is final and may leave."""
        hold = self.hold
        return hold.decided if hold.closed else min(hold.decided, hold.length - self.keep)

    def told(self) -> str:
        """What has left of this channel."""
        if len(self.said) > 1:
            self.said[:] = ["".join(self.said)]
        return self.said[0] if self.said else ""

    def closed_before(self, event: int) -> bool:
        """Whether an entry before this one has closed the channel."""
        return self.hold.closed and self.closed_by is not None and self.closed_by < event

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
    waits: bool  # until its channel is closed


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
    veiled: Sequence[tuple[Path, object]] = ()  # what leaves blank where any of the texts leaves changed

    def may_leave(self) -> bool:
        for piece in self.pieces:
            if piece.end > piece.lane.safe or (piece.waits and not piece.lane.hold.closed):
                return False
        return True
