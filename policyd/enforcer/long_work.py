"""Work on one message that may take long: in a thread, for a limited time, or in pieces on the loop.

Rule 1: a piece of work in a thread owns the exchange until it is done. A caller that is cancelled waits for it.
Rule 2: work that is not done in time is stopped at the next instruction of Python's. One call of a library, such as a
        search in a long text, is not interrupted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from ctypes import c_ulong, py_object, pythonapi
from threading import Lock, get_ident

from policyd.core.model.steps import Step

THREADS = 4  # pieces of work at once
FIRST = 2_048  # bytes of the first piece of a message of a streamed response
SMALLEST, GREATEST = 256, 16_384
QUICK_S, SLOW_S = 0.0003, 0.001  # a quicker piece is followed by a larger one, a slower one by a smaller one

Work = Callable[[], list[Step]]


class Overdue(Exception):  # noqa: N818 - no error: what becomes of it is a policy's to say
    """The work is not done in time. `running`: it goes on; None where it had not begun and never will."""

    def __init__(self, running: Future[list[Step]] | None) -> None:
        super().__init__()
        self.running = running


class Stopped(BaseException):
    """Raised in a thread whose work is overdue. What catches every Exception does not catch it."""


class Abandoned(Exception):  # noqa: N818
    """The caller was cancelled while a thread worked. `steps`: what the work came to."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = steps


class Threads:
    """The threads of one process."""

    def __init__(self, count: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="policyd-large")

    async def do(self, work: Work, until: float | None = None) -> list[Step]:
        """Do it there. `until`: on this clock of the loop. Raises Overdue, and Abandoned in place of CancelledError."""
        task = _Task(work)
        future = self._pool.submit(task)
        done = asyncio.wrap_future(future)
        patience = None if until is None else max(0.0, until - asyncio.get_running_loop().time())
        try:
            await asyncio.wait((done,), timeout=patience)
        except asyncio.CancelledError:
            raise Abandoned(() if task.drop(future) else await _result_of(future)) from None
        if done.done():
            return done.result()
        if task.drop(future):
            raise Overdue(None)
        task.stop()
        raise Overdue(future)


class _Task:
    """Work that waits for a thread. Dropped, it keeps nothing alive for as long as the queue still has it."""

    __slots__ = ("_lock", "_thread", "_work")

    def __init__(self, work: Work) -> None:
        self._work: Work | None = work
        self._lock = Lock()
        self._thread: int | None = None  # while it may be stopped

    def __call__(self) -> list[Step]:
        work, self._work = self._work, None
        try:
            self._thread = get_ident()
            try:
                return work() if work is not None else []
            finally:
                with self._lock:
                    self._thread = None
        except Stopped:
            return []

    def stop(self) -> None:
        """Stop it where it is. INVARIANT: under the lock the thread is still in `__call__`, which catches that."""
        with self._lock:
            if self._thread is not None:
                pythonapi.PyThreadState_SetAsyncExc(c_ulong(self._thread), py_object(Stopped))

    def drop(self, future: Future[list[Step]]) -> bool:
        """Whether it had not begun, and never will."""
        if future.cancel():
            self._work = None
        return future.cancelled()


async def _result_of(future: Future[list[Step]]) -> Sequence[Step]:
    """What became of work that has begun."""
    await asyncio.wait((asyncio.wrap_future(future),))
    return () if future.exception() else future.result()


class Pieces:
    """A message of a streamed response, cut up so that no piece takes long. How its bytes are cut changes nothing."""

    __slots__ = ("_size",)

    def __init__(self) -> None:
        self._size = FIRST

    def whole(self, data: bytes) -> bool:
        """Whether this is a piece by itself."""
        return len(data) <= self._size

    def of(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """Each piece, and whether it is the last."""
        start, size = 0, len(data)
        while start < size:
            stop = start + self._size
            yield data[start:stop], stop >= size
            start = stop

    def took(self, seconds: float) -> None:
        """So long took a piece: it says how large the next may be."""
        if seconds < QUICK_S:
            self._size = min(2 * self._size, GREATEST)
        elif seconds > SLOW_S:
            self._size = max(self._size // 2, SMALLEST)
