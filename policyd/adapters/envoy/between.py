"""What a conversation does between two messages, although it waits in a read that nothing but a message can end.

Rule 1: nothing is done while a message is handled: what was begun before it came is finished first.
Rule 2: a read has no layer around it: most of a stream's life is spent there, and a task for each would cost more than
        all that is done with what it brings. So it is not woken: somebody stands in for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any


class Between:
    """One conversation's: `work` does what there is to do, `due` says when there will be more (monotonic seconds)."""

    __slots__ = ("_bell", "_clock", "_due", "_resting", "_work", "parked", "rung", "standing_in")

    def __init__(
        self, work: Callable[[], Awaitable[None]], due: Callable[[], float | None], clock: Callable[[], float]
    ) -> None:
        self._work, self._due, self._clock = work, due, clock
        self._bell: asyncio.Future[None] | None = None
        self._resting = False
        self.rung = False  # there is something to do that no message asks for
        self.parked = False  # the conversation is in a read
        self.standing_in: asyncio.Task[None] | None = None

    def ring(self) -> None:
        """There is something to do."""
        self.rung = True
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)
        if self.parked and self.standing_in is None:
            self.standing_in = asyncio.ensure_future(self._stand_in())

    def heard(self) -> None:
        """It is being done."""
        self.rung, self._bell = False, None

    async def wait(self, others: Iterable[asyncio.Future[Any] | None], due: float | None) -> None:
        """Until one of these is done, the bell rings, or it is time."""
        if self._bell is None:
            self._bell = asyncio.get_running_loop().create_future()
            if self.rung:
                self._bell.set_result(None)
        waited = {self._bell, *(other for other in others if other is not None)}
        timeout = None if due is None else max(0.0, due - self._clock())
        await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    async def _stand_in(self) -> None:
        # INVARIANT: once the conversation is back nothing new is begun here: it waits for this to end.
        while self.parked:
            await self._work()
            if self.parked:
                self._resting = True
                await self.wait((), self._due())
                self._resting = False

    async def come_back(self, standing_in: asyncio.Task[None]) -> None:
        """A message is there. Raises what went wrong meanwhile."""
        self.standing_in = None
        if self._resting:
            self._resting = False
            standing_in.cancel()
        await asyncio.wait((standing_in,))
        if not standing_in.cancelled():
            standing_in.result()

    def end(self) -> None:
        """The conversation is over."""
        if self.standing_in is not None and not self.standing_in.cancel() and not self.standing_in.cancelled():
            self.standing_in.exception()  # the peer has gone, and the conversation knows
