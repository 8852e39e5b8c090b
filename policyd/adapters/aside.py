"""Compiling beside calls that run: in a thread, and so that none of them waits long for it.

Rule 1: Python runs one thread at a time. While one compiles, they change over each `SWITCH_S` and not each 5 ms: a
        message of a call changes threads more than once.
Rule 2: what was compiled stays, and the garbage collector need not look at it: at ten thousand policies one look at all
        of them takes half a second, in which no call moves.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

SWITCH_S = 0.0005
LOT = 250  # texts; a collector's look at what they come to takes some ten milliseconds

T = TypeVar("T")


@dataclass(slots=True)
class Turns:
    """Threads change over quickly while any block of this is open."""

    _open: int = 0
    _usual: float = 0.0  # seconds

    def __enter__(self) -> None:
        if not self._open:
            self._usual = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_S)
        self._open += 1

    def __exit__(self, *_: object) -> None:
        self._open -= 1
        if not self._open:
            sys.setswitchinterval(self._usual)


_TURNS = Turns()


async def aside(work: Callable[[], T]) -> T:
    """Do this in a thread of its own, politely."""
    with _TURNS:
        return await asyncio.to_thread(work)


@dataclass(slots=True)
class OutOfSight:
    """Told of each file that was compiled, it takes them out of the collector's sight, lot by lot.

    INVARIANT: what goes out of sight needs no collector to be freed later: compiled policies never refer in circles.
    What else is there at that moment and does could stay, so a file that changes all the time counts once.
    """

    _files: set[str] = field(default_factory=set)

    def __call__(self, file: str) -> None:
        self._files.add(file)
        if len(self._files) >= LOT:
            self._files.clear()
            gc.collect()
            gc.freeze()
