"""How long one turn of the event loop takes: for tests and benchmarks, on with the environment variable below.

Rule 1: it is the processor time of the loop's thread that counts, not the clock's: what else the machine does is not
        the loop's doing, and neither is a wait for a thread that holds the interpreter.
"""

from __future__ import annotations

import asyncio
import os
from time import thread_time

VARIABLE = "POLICYD_WATCH_LOOP"
LOOK_S = 0.001


def wanted() -> bool:
    """Whether the loop is to be watched."""
    return bool(os.environ.get(VARIABLE))


class LoopWatch:
    """The longest stretch in which the loop came to no other task, seconds."""

    def __init__(self) -> None:
        self._longest = 0.0

    async def run(self) -> None:
        """Watch, until cancelled."""
        while True:
            before = thread_time()
            await asyncio.sleep(LOOK_S)
            self._longest = max(self._longest, thread_time() - before)

    def take(self) -> float:
        """The longest since this was last asked."""
        longest, self._longest = self._longest, 0.0
        return longest
