"""Processes that hold, spend and are killed: `python -m tests.redis.holders URL FOLDER KILLS SEED`.

Each child writes to its own file what it is about to say (`?`) and what has been answered (`!`), so that afterwards it
is known what Redis may have seen. The parent kills them at random moments and looks at the balance while they run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
from pathlib import Path

import redis

from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.core.model.counters import CounterId, Hold, Window, WindowKind
from policyd.core.model.steps import Extend, Reserve, Settle
from tests.redis.audit import look

COUNTERS = tuple(CounterId("ns/p", name, (), "Cost", Window(WindowKind.LIFETIME, 1e6)) for name in ("one", "two"))
LEASE_S = 1.0
TOGETHER = 6
HOLDS = tuple(Hold(counter, 1, 10, None) for counter in COUNTERS)


async def _hold(url: str, ledger: int, seed: int) -> None:
    store, chance = RedisCounters(url, patience=Patience(5, 5)), random.Random(seed)
    for n in range(1_000_000):
        call, seen = f"{seed}:{n}", 0

        def note(mark: str, what: str, amount: int, call: str = call) -> None:
            os.write(ledger, f"{mark} {what} {call} {amount}\n".encode())

        await store.reserve(Reserve(f"{call}:r", call, HOLDS, LEASE_S))
        for e in range(chance.randint(0, 5)):
            seen += chance.randint(0, 9)
            note("?", "seen", seen)
            await store.extend(Extend(f"{call}:e{e}", call, HOLDS, (seen, seen), LEASE_S))
            note("!", "seen", seen)
        if chance.random() < 0.3:
            note("?", "settled", seen + 1)
            await store.settle(Settle(f"{call}:s", call, tuple((counter, seen + 1) for counter in COUNTERS)))
            note("!", "settled", seen + 1)
        elif chance.random() < 0.5:
            await asyncio.Event().wait()  # a long call


def _fork(url: str, folder: Path, seed: int) -> int:
    child = os.fork()
    if child:
        return child
    ledger = os.open(folder / str(seed), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        asyncio.run(_hold(url, ledger, seed))
    finally:
        os._exit(1)


def main(url: str, folder: Path, kills: int, seed: int) -> None:
    chance, never = random.Random(seed), threading.Event()
    client = redis.Redis.from_url(url)
    children: list[int] = []
    unbalanced: list[str] = []
    for n in range(kills + TOGETHER):
        if n < kills:
            children.append(_fork(url, folder, n))
        never.wait(chance.uniform(0, 0.01))
        if len(children) >= TOGETHER or n >= kills:
            victim = children.pop(chance.randrange(len(children)))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
        if n % 50 == 0:
            unbalanced += look(client).unbalanced()
        if not children and n >= kills:
            break
    print(json.dumps({"kills": kills, "unbalanced": unbalanced}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
