"""What the calls in flight take of this process's memory, as far as their bytes tell.

Rule 1: it counts what was brought, times what working on it takes. It measures nothing.
Rule 2: what a call has taken is given back when it ends, whatever happened to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

WHILE_JUDGED = 8  # bytes for each of a body that is being evaluated
KEPT = 4  # bytes for each of a request's body until its call ends: its facts, as rules may read them
EXPANDS = 8  # an encoded body is taken to be so many times as large
WORTH_TRIMMING = 16 << 20  # bytes that were in use, and are no more


class Memory:
    """The budget of one process, bytes; None: no limit. `freed` is called when much of it is free again."""

    def __init__(self, most: int | None = None, freed: Callable[[], object] = lambda: None) -> None:
        self.most, self.freed = most, freed
        self.used = 0
        self._peak = 0

    @property
    def full(self) -> bool:
        """Whether there is no room for the body of another call."""
        return self.most is not None and self.used >= self.most

    def room_for(self, size: int) -> bool:
        """Whether so much more fits."""
        return self.most is None or self.used + size <= self.most

    def change(self, size: int) -> None:
        """So much more is taken; less where it is negative."""
        self.used += size
        self._peak = max(self._peak, self.used)
        if self._peak > WORTH_TRIMMING and self.used * 4 < self._peak:
            self._peak = self.used
            self.freed()


class Share:
    """What one call has taken of it."""

    __slots__ = ("_held", "_memory", "_request")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._request = self._held = 0

    def judging(self, size: int) -> bool:
        """A body of so many bytes is to be evaluated; False: there is no room for that."""
        needed = WHILE_JUDGED * size
        if not self._memory.room_for(needed):
            return False
        self._memory.change(needed)
        self._held += needed
        return True

    def judged(self, keeps: int = 0) -> None:
        """It has been; of a request so many bytes are kept."""
        self._request += KEPT * keeps
        self._memory.change(KEPT * keeps - self._held)
        self._held = 0

    def holds(self, size: int) -> None:
        """So many bytes of a response wait."""
        if size != self._held:
            self._memory.change(size - self._held)
            self._held = size

    def lend(self, running: Future[Any]) -> None:
        """What is taken now is taken for as long as this work runs in its thread, whenever the call ends."""
        taken, loop = self._request + self._held, asyncio.get_running_loop()
        self._request = self._held = 0
        running.add_done_callback(lambda _: _on(loop, lambda: self._memory.change(-taken)))

    def end(self) -> None:
        """The call is over."""
        self._memory.change(-self._request - self._held)
        self._request = self._held = 0


def _on(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """Do it on this loop, if it still runs: the budget has no lock."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(work)
