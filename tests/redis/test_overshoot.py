"""A budget is never overshot, at any concurrency, by any number of processes; and nearly all of it can be used."""

from __future__ import annotations

import asyncio

import pytest

from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.core.model.counters import Reading
from policyd.core.model.steps import Read
from tests.redis.servers import RedisServer
from tests.redis.spenders import BUDGET, spend_together

CALLS = 4_000  # a level; `python -m bench.counters` does 10^5
LIMIT = CALLS * 12  # tokens: they want 20.5 each


@pytest.mark.parametrize("together", [1, 16, 64, 256])
def test_holding_never_overshoots_and_uses_nearly_all(redis_server: RedisServer, together: int) -> None:
    with redis_server.client() as client:
        client.flushall()
    ledger = spend_together(redis_server.url, "hold", calls=CALLS, together=together, limit=LIMIT)
    assert ledger.billed <= LIMIT
    assert ledger.billed >= 0.98 * LIMIT, ledger
    assert ledger.cancelled > 0 and ledger.refused > 0
    assert _reading(redis_server) == Reading(value=ledger.billed), "the counter is the ledger, and nothing is held"


def test_the_same_calls_overshoot_when_they_look_first_and_charge_after(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.flushall()
    ledger = spend_together(redis_server.url, "check", calls=CALLS // 2, together=256, limit=LIMIT // 2)
    assert ledger.billed > LIMIT // 2, "else this harness could not tell"


def _reading(server: RedisServer) -> Reading:
    async def ask() -> Reading:
        store = RedisCounters(server.url, patience=Patience(5, 5))
        found = await store.read(Read((BUDGET,)))
        await store.close()
        return found.counters[0]

    return asyncio.run(ask())
