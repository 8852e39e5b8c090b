"""What is owed, on disk: processes that start at once in one folder share out what a dead one has left."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from policyd.adapters.counters_redis.owed import Backlog, Due, Outcome, Owed, to_line
from policyd.core.model.counters import Window, WindowKind

PROCESSES, ROUNDS, DEBTS = 4, 40, 3


def debt(call: str) -> Owed:
    return Owed(call, "{default}", (Due("key", 5, Window(WindowKind.LIFETIME, 60.0)),), None, at=1.0)


def begin(folder: Path, together: threading.Barrier) -> list[str]:
    """One process's life; a lock of a file belongs to who opened it, so threads will do. Gives what it settled."""
    settled: list[str] = []

    async def settle(owed: Owed) -> Outcome:
        settled.append(owed.call)
        return Outcome.DONE

    async def live() -> None:
        backlog = Backlog(settle, folder=folder, remember_s=900.0, clock=lambda: 1.0)
        together.wait(20)
        backlog.open()
        together.wait(20)
        backlog.keep(debt("own"))
        assert backlog._file is not None and os.fstat(backlog._file.fileno()).st_nlink, (
            "it writes where it can be found"
        )
        assert backlog._working is not None
        await backlog._working
        await backlog.close()
        together.wait(20)

    asyncio.run(live())
    return settled


@pytest.fixture
def as_unlike_as_processes() -> Iterator[None]:
    """Threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("as_unlike_as_processes")
def test_processes_that_start_at_once_settle_each_debt_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(PROCESSES) as pool:
        for n in range(ROUNDS):
            folder = tmp_path / str(n)
            folder.mkdir()
            names = [f"call {number}" for number in range(DEBTS)]
            (folder / "owed-1-left.jsonl").write_text("".join(f"{to_line(debt(name))}\n" for name in names))
            together = threading.Barrier(PROCESSES)
            lives = [pool.submit(begin, folder, together) for _ in range(PROCESSES)]
            settled = sorted(name for life in lives for name in life.result(30))
            assert settled == [*names, *["own"] * PROCESSES]
            assert not [*folder.iterdir()]
