"""A budget is never overshot, at any concurrency, by any number of processes; and nearly all of it can be used.

POLICYD_SPENDERS_CALLS says how many calls share the budget, a level (default 4,000); `pytest -s` prints the outcome.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.core.model.counters import Reading
from policyd.core.model.steps import Read
from tests.redis.servers import RedisServer
from tests.redis.spenders import BUDGET, Ledger, spend_together
from tests.sizes import long

CALLS = int(os.environ.get("POLICYD_SPENDERS_CALLS", "4000"))  # a level
LIMIT = CALLS * 12  # tokens: they want 20.5 each
pytestmark = pytest.mark.timeout(120 if CALLS <= 4_000 else 3600)


@pytest.mark.parametrize(
    "together", [pytest.param(1, marks=long), pytest.param(16, marks=long), 64, pytest.param(256, marks=long)]
)
def test_holding_never_overshoots_and_uses_nearly_all(redis_server: RedisServer, together: int) -> None:
    with redis_server.client() as client:
        client.flushall()
    ledger = spend_together(redis_server.url, "hold", calls=CALLS, together=together, limit=LIMIT)
    _tell("hold", together, ledger, LIMIT)
    assert ledger.billed <= LIMIT
    assert ledger.billed >= 0.98 * LIMIT, ledger
    assert ledger.cancelled > 0 and ledger.refused > 0
    assert _reading(redis_server) == Reading(value=ledger.billed), "the counter is the ledger, and nothing is held"


LOOKED_FIRST = (1, 16, 64, 256) if CALLS > 4000 else (256,)  # side by side where there is time for it


@pytest.mark.parametrize("together", LOOKED_FIRST)
def test_the_same_calls_overshoot_when_they_look_first_and_charge_after(
    redis_server: RedisServer, together: int
) -> None:
    with redis_server.client() as client:
        client.flushall()
    ledger = spend_together(redis_server.url, "check", calls=CALLS // 2, together=together, limit=LIMIT // 2)
    _tell("check", together, ledger, LIMIT // 2)
    assert together == 1 or ledger.billed > LIMIT // 2, "else this harness could not tell"


def _tell(scheme: str, together: int, ledger: Ledger, limit: int) -> None:
    over, used = max(0, ledger.billed - limit) / limit, min(limit, ledger.billed) / limit
    print(
        f"\n{ledger.calls} calls, {together} at a time, {scheme}: budget {limit}, billed {ledger.billed}, "
        f"overshoot {over:.3%}, used {used:.2%}, refused {ledger.refused}, cut {ledger.cut}, "
        f"broken off {ledger.cancelled}"
    )


def _reading(server: RedisServer) -> Reading:
    async def ask() -> Reading:
        store = RedisCounters(server.url, patience=Patience(5, 5))
        found = await store.read(Read((BUDGET,)))
        await store.close()
        return found.counters[0]

    return asyncio.run(ask())
