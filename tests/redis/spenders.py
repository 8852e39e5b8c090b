"""Processes that spend one budget together: `python -m tests.redis.spenders URL SCHEME CALLS TOGETHER SEED LIMIT`.

A call is a stream of tokens; what it emits is billed at once, whatever happens to it. Its estimate is twice what it
really comes to, on average. Two schemes: `hold` is policyd's; `check` is what gateways do that look first and charge
after.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.core.model.counters import CounterId, Hold, Window, WindowKind
from policyd.core.model.steps import Extend, Read, Reserve, Settle
from tests.architecture.source import ROOT

BUDGET = CounterId("ns/p", "budget", (), "OutputTokens", Window(WindowKind.LIFETIME, 1e6))
ESTIMATE = 40  # tokens; a call really takes 1 to 40, 20.5 on average
SLICE = 16  # tokens that one hold covers
CANCELLED = 0.05  # how many calls are broken off while they wait for Redis
PROCESSES = 4


@dataclass(slots=True)
class Ledger:
    """What the provider billed, and what became of the calls."""

    billed: int = 0
    calls: int = 0
    refused: int = 0
    cut: int = 0
    cancelled: int = 0

    def add(self, other: Ledger) -> None:
        for name, amount in asdict(other).items():
            setattr(self, name, getattr(self, name) + amount)


class _Cancelled(Exception):  # noqa: N818
    pass


@dataclass(slots=True)
class Spender:
    """One process's calls."""

    store: RedisCounters
    limit: int
    chance: random.Random
    ledger: Ledger

    async def hold(self, call: str) -> None:
        """Hold a slice, spend it, ask for more; cut where there is none; settle what was billed."""
        wanted, spent = self.chance.randint(1, ESTIMATE), 0
        try:
            hold = (Hold(BUDGET, 1, SLICE, self.limit),)
            answer = await self._perhaps_cancelled(self.store.reserve(Reserve(f"{call}:r", call, hold)))
            if answer.refused is not None:
                self.ledger.refused += 1
                return
            while True:
                granted = answer.counters[0].granted
                while spent < min(granted, wanted):
                    await asyncio.sleep(0)
                    spent += 1
                    self.ledger.billed += 1
                if spent == wanted:
                    return
                op = f"{call}:e{spent}"
                answer = await self._perhaps_cancelled(self.store.extend(Extend(op, call, hold, (spent,))))
                if answer.refused is not None:
                    self.ledger.cut += 1
                    return
        except _Cancelled:
            self.ledger.cancelled += 1
        finally:
            await self._settle(call, spent)

    async def check(self, call: str) -> None:
        """Look whether there is room; then spend, then charge."""
        wanted = self.chance.randint(1, ESTIMATE)
        found = await self.store.read(Read((BUDGET,)))
        if found.counters[0].value + ESTIMATE > self.limit:
            self.ledger.refused += 1
            return
        for _ in range(wanted):
            await asyncio.sleep(0)
            self.ledger.billed += 1
        await self._settle(call, wanted)

    async def _settle(self, call: str, spent: int) -> None:
        answer = await self.store.settle(Settle(f"{call}:s", call, ((BUDGET, spent),)))
        assert not answer.failure, answer

    async def _perhaps_cancelled(self, operation):  # type: ignore[no-untyped-def]
        task = asyncio.ensure_future(operation)
        if self.chance.random() < CANCELLED:
            for _ in range(self.chance.randint(0, 4)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            raise _Cancelled
        answer = await task
        assert not answer.failure, answer
        return answer


async def _spend(url: str, scheme: str, calls: int, together: int, seed: int, limit: int) -> Ledger:
    store = RedisCounters(url, patience=Patience(30, 30))
    spender = Spender(store, limit, random.Random(seed), Ledger())
    one = spender.hold if scheme == "hold" else spender.check
    names: Iterator[str] = (f"{seed}:{n}" for n in range(calls))

    async def worker() -> None:
        for call in names:
            spender.ledger.calls += 1
            await one(call)

    await asyncio.gather(*(worker() for _ in range(together)))
    await store.close()
    return spender.ledger


def spend_together(url: str, scheme: str, *, calls: int, together: int, limit: int) -> Ledger:
    """Four processes, so many calls and so many at a time in all; one at a time means one process at a time too."""
    processes = min(PROCESSES, together)
    shares = [
        [sys.executable, "-m", "tests.redis.spenders", url, scheme, *map(str, share)]
        for share in ((calls // processes, together // processes, seed, limit) for seed in range(processes))
    ]
    running = [subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) for words in shares]
    ledger = Ledger()
    for process in running:
        out, _ = process.communicate()
        assert process.returncode == 0
        ledger.add(Ledger(**json.loads(out)))
    return ledger


if __name__ == "__main__":
    url, scheme, *numbers = sys.argv[1:]
    print(json.dumps(asdict(asyncio.run(_spend(url, scheme, *map(int, numbers))))))
