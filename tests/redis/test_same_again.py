"""Operations repeated, late and out of order: each is done once. Against the plain model, and against a ledger.

POLICYD_MODEL_EXAMPLES says how many stories of up to fifty operations are told (default 80).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.core.model.counters import CounterId, Hold, Reading, Readings, SessionCharge, SessionId, Window, WindowKind
from policyd.core.model.steps import Extend, Read, Reserve, Settle
from tests.properties.test_counters_model import CountersAgainstModel, ValuesAgainstModel
from tests.redis.servers import RedisServer
from tests.sizes import size

PATIENT = Patience(connect_s=5, answer_s=5)
EXAMPLES = int(os.environ.get("POLICYD_MODEL_EXAMPLES", size(80, 12)))
pytestmark = pytest.mark.timeout(120 if EXAMPLES <= 80 else 3600)
CALLS, TOGETHER = 5_000, 64  # calls of four operations, each done one to ten times: more than 10^5 operations


class _AtOnce:
    """Redis, asked without waiting."""

    def __init__(self, store: RedisCounters, runner: asyncio.Runner) -> None:
        self.store, self.runner = store, runner

    def read_now(self, need: Read) -> Readings:
        return self.runner.run(self.store.read(need))

    def reserve_now(self, need: Reserve) -> Readings:
        return self.runner.run(self.store.reserve(need))

    def extend_now(self, need: Extend) -> Readings:
        return self.runner.run(self.store.extend(need))

    def settle_now(self, step: Settle) -> Readings:
        return self.runner.run(self.store.settle(step))


@pytest.mark.parametrize("machine", [CountersAgainstModel, ValuesAgainstModel], ids=["amounts", "values"])
@pytest.mark.parametrize("forgetful", [False, True], ids=["one process", "a process an operation"])
def test_redis_against_the_model(
    redis_server: RedisServer, forgetful: bool, machine: type[CountersAgainstModel]
) -> None:
    """`forgetful`: every operation comes from a process that knows nothing of the call's others."""
    with asyncio.Runner() as runner:

        class RedisAgainstModel(machine):  # type: ignore[valid-type, misc]
            def new_store(self) -> _AtOnce:
                with redis_server.client() as client:
                    client.flushall()
                self.own = RedisCounters(redis_server.url, clock=self.clock, patience=PATIENT, remember_s=1e9)
                return _AtOnce(self.own, runner)

            def _op(self) -> str:
                if forgetful:
                    self.own._calls.clear()
                return super()._op()

            def teardown(self) -> None:
                if hasattr(self, "own"):
                    runner.run(self.own.close())

        short = settings(
            max_examples=EXAMPLES, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        )
        run_state_machine_as_test(RedisAgainstModel, settings=short)


def _operations(call: int, chance: random.Random) -> Iterator[tuple[Any, int]]:
    """One call's operations, in order, and what they come to: a settlement says it."""
    id, amount = f"call {call}", chance.randint(0, 50)
    holds = tuple(Hold(counter, 1, 20, None) for counter in COUNTERS)
    yield Reserve(f"{id}:r", id, holds), 0
    for n in range(2):
        yield Extend(f"{id}:e{n}", id, holds, (5 * n, 5 * n)), 0
    charge = SessionCharge(SESSION, amount, 1)
    yield Settle(f"{id}:s", id, tuple((counter, amount) for counter in COUNTERS), charge), amount


SESSION = SessionId("default", "s")
COUNTERS = tuple(
    CounterId("ns/p", "c", (), "Requests", window)
    for window in (
        Window(WindowKind.LIFETIME, 1e6),
        Window(WindowKind.CALENDAR, calendar="Year", time_zone="Asia/Tokyo"),
    )
)


def test_a_hundred_thousand_operations_repeated_in_any_order_charge_once(redis_server: RedisServer) -> None:
    chance = random.Random(7)
    work: list[Any] = []
    ledger = 0
    for call in range(CALLS):
        for operation, amount in _operations(call, chance):
            work += [(call // 500, chance.random(), operation)] * chance.randint(1, 10)
            ledger += amount
    work.sort(key=lambda each: each[:2])  # in any order, among five hundred calls at a time
    assert len(work) > 100_000

    async def worker(store: RedisCounters, mine: Iterator[Any]) -> None:
        for _, _, operation in mine:
            match operation:
                case Reserve():
                    await store.reserve(operation)
                case Extend():
                    await store.extend(operation)
                case Settle():
                    assert not (await store.settle(operation)).failure

    async def story() -> None:
        store = RedisCounters(redis_server.url, patience=PATIENT)
        shared = iter(work)
        await asyncio.gather(*(worker(store, shared) for _ in range(TOGETHER)))
        found = await store.read(Read(COUNTERS, SESSION))
        assert found.counters == (Reading(value=ledger), Reading(value=ledger))
        assert found.session is not None
        assert (found.session.calls, found.session.cost_nano, found.session.tokens) == (CALLS, ledger, CALLS)
        await store.close()

    with redis_server.client() as client:
        client.flushall()
    asyncio.run(story())
