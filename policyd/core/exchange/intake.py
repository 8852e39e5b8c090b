"""What has come of a streamed answer: events to be read, and what lies behind the point where reading ended.

Rule 1: what follows a failure is not read; the events before it are, wherever the network cut.
Rule 2: not a byte is lost: the raws of all events, and `beyond`, are what came, or what could be decoded of it.
"""

from __future__ import annotations

from collections import deque

from policyd.core.errors import Malformed
from policyd.core.stream.encodings import Decoding
from policyd.core.stream.framing import Framing
from policyd.core.stream.sse import SseEvent


class Intake:
    """The upstream's side of one stream."""

    def __init__(self, framing: Framing, decoding: Decoding | None = None) -> None:
        self.framing, self.decoding = framing, decoding
        self.queue: deque[SseEvent] = deque()
        self.ended = False  # the upstream has sent everything
        self.broken = ""  # why nothing more can be read
        self.beyond = bytearray()  # what came and was not read

    def take(self, data: bytes, *, end: bool) -> None:
        """More of the answer."""
        self.ended = end
        if self.decoding is not None:
            self._decode(self.decoding, data, end=end)
            return
        self._frame(data, end=end)

    @property
    def lost(self) -> bool:
        """Whether there is more of the answer that nobody can decode."""
        return self.decoding is not None and self.decoding.lost

    def _decode(self, decoding: Decoding, data: bytes, *, end: bool) -> None:
        if decoding.failure:
            return
        plain = decoding.feed(data)
        if end:
            decoding.finish()
        self._frame(plain, end=end and not decoding.failure)
        if decoding.failure and not self.broken:
            left = self.framing.finish()
            self.beyond += left.raw if left else b""
            self.broken = decoding.failure

    def _frame(self, data: bytes, *, end: bool) -> None:
        if self.broken:
            self.beyond += data
            return
        try:
            self.queue.extend(self.framing.feed(data))
            left = self.framing.finish() if end and not self.framing.failure else None
        except Malformed as failure:
            self.broken = failure.reason
        else:
            if left is not None:
                self.queue.append(left)
            self.broken = self.framing.failure
        if self.broken:
            self.beyond += self.framing.rest
