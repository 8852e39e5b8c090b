"""How much more a larger input costs: ratios of CPU time and of memory, never the time itself."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable

LINEAR = 3.0
"""Twice the input may cost so much more: work that grows with the square of its input costs four times as much."""


def grows(work: Callable[[int], object], size: int, *, tries: int = 6) -> float:
    """How much more CPU time twice the size takes: the least of several ratios, for others share the machine."""
    least = float("inf")
    for _ in range(tries):
        least = min(least, cpu(lambda: work(2 * size)) / cpu(lambda: work(size)))
        if least < LINEAR:
            break
    return least


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    gc.collect()
    gc.disable()
    try:
        began = time.process_time()
        work()
        return time.process_time() - began
    finally:
        gc.enable()


def peak(work: Callable[[], object]) -> int:
    """The most memory that was in use beyond what there was before, bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
