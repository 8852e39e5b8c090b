"""What lies in Redis: under which keys, for how long, and in how many round trips it got there."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.adapters.counters_redis.keys import call_key, counter_key, leases_key, session_key, tag_of
from policyd.core.model.counters import CounterId, Hold, Reading, SessionCharge, SessionId, Window, WindowKind
from policyd.core.model.steps import Extend, Read, Reserve, Settle
from tests.redis.servers import RedisServer, wait_until

PATIENT = Patience(5, 5)
HOUR = Window(WindowKind.LIFETIME, 3600.0)
NASTY = [
    "",
    "{",
    "}",
    "{}",
    "a}:{b",
    "default",
    "~",
    "a:b",
    "a;b",
    "a=b",
    "nul\0",
    "x" * 10_000,
    "ü",
    "\ud800",
    " ",
    "A",
]

texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=30))


def counter(key: tuple[str, ...] = (), tenant: str = "default", name: str = "c", window: Window = HOUR) -> CounterId:
    return CounterId("ns/p", name, key, "Requests", window, tenant=tenant)


@given(tenant=texts, key=st.lists(texts, max_size=3), call=texts, session=texts)
def test_all_keys_of_a_tenant_lie_together_and_no_part_from_outside_says_where(
    tenant: str, key: list[str], call: str, session: str
) -> None:
    tag = tag_of(tenant)
    keys = [
        leases_key(tag),
        call_key(tag, call),
        counter_key(counter(tuple(key), tenant)),
        session_key(SessionId(tenant, session)),
    ]
    assert re.fullmatch(r"pd:\{[A-Za-z0-9._~-]{1,64}\}", tag)
    assert {each.count("{") for each in keys} == {each.count("}") for each in keys} == {1}
    assert len({key_slot(each.encode()) for each in keys}) == 1
    assert all(len(each) < 150 and each.isascii() for each in keys)


@given(one=st.tuples(texts, st.lists(texts, max_size=3)), other=st.tuples(texts, st.lists(texts, max_size=3)))
def test_different_counters_have_different_keys(one: tuple[str, list[str]], other: tuple[str, list[str]]) -> None:
    plain = [(tenant or "default", key) for tenant, key in (one, other)]
    keys = [counter_key(counter(tuple(key), tenant)) for tenant, key in (one, other)]
    assert (keys[0] == keys[1]) == (plain[0] == plain[1])


@given(owner=texts, other=texts, key=st.lists(texts, max_size=3))
def test_a_session_has_one_key_for_each_owner(owner: str, other: str, key: list[str]) -> None:
    counters = [counter_key(replace(counter(tuple(key)), owner=name)) for name in (owner, other)]
    sessions = [session_key(SessionId("default", "s", name)) for name in (owner, other)]
    assert (counters[0] == counters[1], sessions[0] == sessions[1]) == (owner == other,) * 2


def test_tenants_have_different_tags() -> None:
    assert all(
        tag_of(one) != tag_of(other)
        for one, other in combinations(NASTY, 2)
        if (one or "default") != (other or "default")
    )


def test_sixteen_counters_and_a_session_take_one_round_trip(redis_server: RedisServer) -> None:
    windows = (
        HOUR,
        Window(WindowKind.IDLE, 60.0),
        Window(WindowKind.SLIDING, 60.0),
        Window(WindowKind.CALENDAR, calendar="Day"),
    )
    ids = tuple(counter((str(n),), window=windows[n % 4]) for n in range(16))
    holds, session = tuple(Hold(each, 1, 5, 10**9) for each in ids), SessionId("default", "s")

    async def story() -> None:
        store = RedisCounters(redis_server.url, patience=PATIENT)
        for n in range(2):  # the first time, Redis learns the scripts
            redis_server.reset_commands()
            for call in (f"{n}:{m}" for m in range(50)):
                await store.reserve(Reserve(f"{call}:r", call, holds, session=session))
                await store.extend(Extend(f"{call}:e", call, holds, (3,) * 16))
                charge = SessionCharge(session, 1, 1)
                await store.settle(Settle(f"{call}:s", call, tuple((each, 4) for each in ids), charge))
            await store.read(Read(ids, session))
        await store.close()

    with redis_server.client() as client:
        client.flushall()  # the dead of another test would be looked at too
    asyncio.run(story())
    commands = redis_server.commands()
    assert commands["evalsha"] == 50 * 3 + 1
    inside = {"time", "mget", "set", "zadd", "zrem", "pexpire", "zrangebyscore"}
    assert set(commands) - inside <= {
        "evalsha",
        "info",
        "config|resetstat",
        "hello",
        "client|setinfo",
        "client|setname",
        "ping",
    }


def run(server: RedisServer, story: Callable[[RedisCounters], Awaitable[None]], **options: Any) -> None:
    with server.client() as client:
        client.flushall()

    async def whole() -> None:
        store = RedisCounters(server.url, patience=PATIENT, **options)
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(whole())


def test_every_key_has_an_end_and_what_is_over_leaves_nothing(redis_server: RedisServer) -> None:
    short = counter(window=Window(WindowKind.LIFETIME, 0.3))

    async def story(store: RedisCounters) -> None:
        await store.reserve(Reserve("r", "a", (Hold(short, 1, 5, 9),)))
        await store.extend(Extend("e", "a", (Hold(short, 1, 5, 9),), (2,)))
        await store.reserve(Reserve("r", "refused", (Hold(short, 9, 9, 9),)))
        with redis_server.client() as client:
            keys: Any = client.keys("*")
            assert len(keys) == 4
            assert all(client.pttl(key) > 0 for key in keys)
        await store.settle(Settle("s", "a", ((short, 3),)))

    run(redis_server, story, remember_s=0.2)
    with redis_server.client() as client:
        wait_until(lambda: client.dbsize() == 0, "what is over", 2.0)


def test_time_is_redis_time_and_leases_end_by_it(redis_server: RedisServer) -> None:
    async def story(store: RedisCounters) -> None:
        hold = (Hold(counter(), 1, 5, 9),)
        await store.reserve(Reserve("r", "a", hold, lease_s=0.3))
        await store.extend(Extend("e", "a", hold, (4,), lease_s=0.3))
        assert (await store.read(Read((counter(),)))).counters[0] == Reading(held=9)
        for _ in range(200):
            if (await store.read(Read((counter(),)))).counters[0] == Reading(value=4):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the lease did not end")

    run(redis_server, story)


@pytest.mark.parametrize("off", [-3600.0, 3600.0, 400 * 86400.0])
def test_our_clock_may_be_wrong(redis_server: RedisServer, off: float) -> None:
    """Only the calendars are ours; Redis says when they do not cover its time."""
    day = counter(window=Window(WindowKind.CALENDAR, calendar="Day"))

    async def story(store: RedisCounters) -> None:
        assert (await store.reserve(Reserve("r", "a", (Hold(day, 1, 5, 9),)))).counters[0].granted == 5
        await store.settle(Settle("s", "a", ((day, 3),)))
        assert (await store.read(Read((day,)))).counters[0] == Reading(value=3)

    run(redis_server, story, own_clock=lambda: time.time() + off)


@pytest.mark.parametrize("which", [":c:", ":k:", ":l"])
def test_a_record_that_vanishes_in_the_middle_breaks_nothing(redis_server: RedisServer, which: str) -> None:
    """By an administrator, or a Redis that evicts what it should not."""

    async def story(store: RedisCounters) -> None:
        hold = (Hold(counter(), 1, 5, 9),)
        await store.reserve(Reserve("r", "a", hold))
        with redis_server.client() as client:
            keys: Any = client.keys("*")
            client.delete(*(key for key in keys if which.encode() in key))
        assert not (await store.extend(Extend("e", "a", (Hold(counter(), 0, 1, 9),), (2,)))).failure
        assert not (await store.settle(Settle("s", "a", ((counter(), 3),)))).failure
        assert (await store.read(Read((counter(),)))).counters[0].value == 3

    run(redis_server, story)


def test_giving_back_without_a_charge_finds_the_tenant(redis_server: RedisServer) -> None:
    acme = counter(tenant="acme")

    async def story(store: RedisCounters) -> None:
        await store.reserve(Reserve("r", "a", (Hold(acme, 1, 5, 9),)))
        await store.settle(Settle("s", "a", ()))
        assert (await store.read(Read((acme,)))).counters[0] == Reading()

    run(redis_server, story)


# ---- counters across tenants ----------------------------------------------------------------------------------------

EVERYONE = CounterId("ns/p", "all", (), "Requests", HOUR, scope="Global")


def for_acme(own: int, everyone: int) -> tuple[Hold, ...]:
    return (Hold(counter(tenant="acme"), 1, own, 100), Hold(EVERYONE, 1, everyone, 50))


@pytest.fixture(params=["one server", "a cluster"])
def somewhere(request: pytest.FixtureRequest) -> str:
    if request.param == "one server":
        server: RedisServer = request.getfixturevalue("redis_server")
        nodes = [server]
    else:
        nodes = request.getfixturevalue("redis_cluster")
    for node in nodes:
        with node.client() as client:
            client.flushall()
    return nodes[0].tcp_url


def across(url: str, story: Callable[[RedisCounters], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = RedisCounters(url, patience=PATIENT)
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(whole())


def test_a_global_counter_counts_across_tenants(somewhere: str) -> None:
    async def story(store: RedisCounters) -> None:
        answer = await store.reserve(Reserve("r", "a", for_acme(30, 30)))
        assert [reading.granted for reading in answer.counters] == [30, 30]
        other = (Hold(counter(tenant="other"), 1, 30, 100), Hold(EVERYONE, 1, 30, 50))
        answer = await store.reserve(Reserve("r", "b", other))
        assert [reading.granted for reading in answer.counters] == [30, 20]
        await store.settle(Settle("s", "a", ((counter(tenant="acme"), 9), (EVERYONE, 8))))
        found = await store.read(Read((counter(tenant="acme"), EVERYONE, counter(tenant="other"))))
        assert found.counters == (Reading(value=9), Reading(value=8, held=20), Reading(held=30))
        await store.settle(Settle("s", "b", ()))
        assert (await store.read(Read((EVERYONE,)))).counters == (Reading(value=8),)

    across(somewhere, story)


@pytest.mark.parametrize("full", [0, 1], ids=["the tenant's", "everyone's"])
def test_what_one_part_refuses_no_part_holds(somewhere: str, full: int) -> None:
    ids = (counter(tenant="acme"), EVERYONE)

    async def story(store: RedisCounters) -> None:
        await store.settle(Settle("s", "before", ((ids[full], 100 if full == 0 else 50),)))
        standing = (await store.read(Read(ids))).counters
        for _ in range(2):  # the same again gives the same
            answer = await store.reserve(Reserve("r", "a", for_acme(30, 30)))
            assert (answer.refused, [reading.granted for reading in answer.counters]) == (full, [0, 0])
            assert (await store.read(Read(ids))).counters == standing

    across(somewhere, story)


@pytest.mark.parametrize("full", [0, 1], ids=["the tenant's", "everyone's"])
def test_an_extension_that_one_part_refuses_leaves_what_was_held(somewhere: str, full: int) -> None:
    ids = (counter(tenant="acme"), EVERYONE)

    async def story(store: RedisCounters) -> None:
        await store.reserve(Reserve("r", "a", for_acme(30, 30)))
        await store.settle(Settle("s", "other", ((ids[full], 70 if full == 0 else 20),)))
        answer = await store.extend(Extend("e", "a", for_acme(10, 10), (25, 26)))
        assert (answer.refused, [reading.granted for reading in answer.counters]) == (full, [30, 30])
        assert [reading.held for reading in (await store.read(Read(ids))).counters] == [30, 30]
        renewed = tuple(Hold(each, 0, 0, 100) for each in ids)
        assert (await store.extend(Extend("e2", "a", renewed, (27, 28)))).refused is None
        await store.settle(Settle("s", "a", ((ids[0], 1), (ids[1], 2))))
        assert [reading.held for reading in (await store.read(Read(ids))).counters] == [0, 0]

    across(somewhere, story)
