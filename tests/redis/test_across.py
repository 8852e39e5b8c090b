"""Many tenants at once, one counter over all of them: neither their own limits nor everyone's is ever overshot."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.core.model.counters import CounterId, Hold, Reading, Readings, Window, WindowKind
from policyd.core.model.steps import Extend, Read, Reserve, Settle
from tests.redis.servers import RedisServer

DAY = Window(WindowKind.LIFETIME, 86400.0)
EVERYONE = CounterId("ns/p", "all", (), "OutputTokens", DAY, scope="Global")
TENANTS = tuple(f"tenant-{n}" for n in range(8))
CALLS, TOGETHER, SLICE, MOST = 600, 48, 8, 30
OWN_LIMIT, LIMIT = 700, 4_000  # tokens; the calls want 9,300
PATIENT = Patience(5, 5)


def own(tenant: str) -> CounterId:
    return CounterId("ns/p", "own", (), "OutputTokens", DAY, tenant)


class Spenders:
    """Calls of all tenants, some broken off while they wait for the store; and what was billed."""

    def __init__(self, store: RedisCounters) -> None:
        self.store, self.chance, self.billed = store, random.Random(3), Counter[str]()
        self.refused = self.broken = 0

    async def call(self, id: str) -> None:
        tenant, wanted, spent = self.chance.choice(TENANTS), self.chance.randint(1, MOST), 0
        holds = (Hold(own(tenant), 1, SLICE, OWN_LIMIT), Hold(EVERYONE, 1, SLICE, LIMIT))
        answer = await self._perhaps(self.store.reserve(Reserve(f"{id}:r", id, holds)))
        while answer is not None and answer.refused is None:
            allowed = min(wanted, *(reading.granted for reading in answer.counters))
            self.billed[tenant] += allowed - spent
            spent = allowed
            await asyncio.sleep(0)
            if spent == wanted:
                break
            answer = await self._perhaps(self.store.extend(Extend(f"{id}:e{spent}", id, holds, (spent, spent))))
        self.refused += answer is not None and answer.refused is not None
        done = await self.store.settle(Settle(f"{id}:s", id, ((own(tenant), spent), (EVERYONE, spent))))
        assert not done.failure

    async def _perhaps(self, operation) -> Readings | None:  # type: ignore[no-untyped-def]
        task = asyncio.ensure_future(operation)
        if self.chance.random() < 0.1:
            for _ in range(self.chance.randint(0, 4)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            self.broken += 1
            return None
        answer: Readings = await task
        assert not answer.failure, answer
        return answer


@pytest.mark.parametrize("nodes", ["redis_server", "redis_cluster"])
def test_no_limit_is_overshot_and_nothing_stays_held(nodes: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(nodes)
    servers: list[RedisServer] = found if isinstance(found, list) else [found]
    for server in servers:
        with server.client() as client:
            client.flushall()

    async def story() -> None:
        store = RedisCounters(servers[0].tcp_url, patience=PATIENT)
        spenders, names = Spenders(store), iter(range(CALLS))

        async def worker(mine: Iterator[int]) -> None:
            for n in mine:
                await spenders.call(f"call {n}")

        await asyncio.gather(*(worker(names) for _ in range(TOGETHER)))
        standing = (await store.read(Read((EVERYONE, *map(own, TENANTS))))).counters
        await store.close()
        billed = spenders.billed
        assert standing == (Reading(value=billed.total()), *(Reading(value=billed[tenant]) for tenant in TENANTS))
        assert 0.9 * LIMIT < billed.total() <= LIMIT
        assert max(billed.values()) <= OWN_LIMIT
        assert spenders.refused > 50 and spenders.broken > 50

    asyncio.run(story())
