"""Redis slow, gone, restarted empty, loading, full, read-only, and networks that lose answers: docs/LIMITS.md, tested.

Rule 1: every outage is a real one: a real server is stopped, killed, filled or told to be a replica.
Rule 2: where it is about time the patience is the one that ships: a call is refused within 100 ms, Redis is used again
        within 2 s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.core.model.counters import CounterId, Hold, Reading, Readings, Window, WindowKind
from policyd.core.model.steps import Extend, Read, Reserve, Settle
from tests.redis.proxy import proxy
from tests.redis.servers import MISSING, RedisServer, binary, redis_server

REFUSED_S, BACK_S = 0.1, 2.0
SHIPPED = Patience()
PATIENT = Patience(5, 5)  # where the machine's haste is not the matter
SPEND = CounterId("ns/p", "spend", ("k",), "Cost", Window(WindowKind.LIFETIME, 86400.0))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    if binary() is None:
        pytest.skip(MISSING)
    with redis_server() as own:
        yield own


@asynccontextmanager
async def counters(
    url: str, state: Path | None = None, patience: Patience | None = None
) -> AsyncIterator[RedisCounters]:
    store = RedisCounters(url, state=state, patience=patience or PATIENT)
    store.open()
    try:
        yield store
    finally:
        await store.close()


def reserve(call: str, amount: int = 10, limit: int = 100) -> Reserve:
    return Reserve(f"{call}:r", call, (Hold(SPEND, amount, amount, limit),))


def extend(call: str, amount: int, seen: int, n: int = 1) -> Extend:
    return Extend(f"{call}:e{n}", call, (Hold(SPEND, amount, amount, 100),), (seen,))


def settle(call: str, amount: int) -> Settle:
    return Settle(f"{call}:s", call, ((SPEND, amount),))


async def reading(store: RedisCounters) -> Reading:
    found = await until_answered(lambda: store.read(Read((SPEND,))))
    return found.counters[0]


async def until_answered(ask: Callable[[], object], seconds: float = BACK_S) -> Readings:
    """The first answer that is no failure, which must come within this time."""
    async with asyncio.timeout(seconds):
        while True:
            found: Readings = await ask()  # type: ignore[misc]
            if not found.failure:
                return found
            await asyncio.sleep(0.01)


async def fails_at_once(store: RedisCounters, call: str = "new") -> str:
    """A new call is refused in time, and a hundred more cost next to nothing. Gives the last reason."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    first = await store.reserve(reserve(f"{call} first"))
    assert first.failure and first.counters == ()
    assert loop.time() - begun < REFUSED_S
    await asyncio.sleep(0.06)  # by now whatever hangs is known to hang
    begun = loop.time()
    for n in range(100):
        found = await store.reserve(reserve(f"{call} {n}"))
        assert found.failure
    assert (loop.time() - begun) / 100 < 0.005
    return found.failure


def test_a_redis_that_is_killed_costs_nothing_and_is_used_again_when_it_is_back(server: RedisServer) -> None:
    async def story() -> None:
        async with counters(server.url, patience=SHIPPED) as store:
            await until_answered(lambda: store.reserve(reserve("a")))
            server.kill()
            assert await fails_at_once(store) == "redis is away"
            assert "kept" in (await store.settle(settle("a", 7))).failure
            server.start()
            await until_answered(lambda: store.reserve(reserve("b", 20)))
            assert await settled(store, 7) == Reading(value=7, held=20)

    asyncio.run(story())


async def settled(store: RedisCounters, value: int) -> Reading:
    """What is kept is settled within two seconds."""

    async def asked() -> Readings:
        found = await store.read(Read((SPEND,)))
        return found if found.failure or found.counters[0].value == value else Readings(failure="not yet")

    return (await until_answered(asked)).counters[0]


def test_a_frozen_redis_is_noticed_and_what_it_did_late_counts_once(server: RedisServer) -> None:
    async def story() -> None:
        async with counters(server.url, patience=SHIPPED) as store:
            await until_answered(lambda: store.reserve(reserve("a")))
            server.freeze()
            assert (await store.settle(settle("a", 7))).failure.startswith("timeout")
            assert await fails_at_once(store) == "redis does not answer"
            server.thaw()
            found = await settled(store, 7)
            assert found.held == 0, "the first holder's hold is gone, and the refused ones hold nothing"

    asyncio.run(story())


def test_a_redis_that_stays_frozen_gets_a_new_connection(server: RedisServer) -> None:
    async def story() -> None:
        async with counters(server.url, patience=SHIPPED) as store:
            await until_answered(lambda: store.reserve(reserve("a")))
            server.freeze()
            await asyncio.sleep(0)
            for _ in range(30):
                await store.read(Read((SPEND,)))
                await asyncio.sleep(0.05)
            assert (await store.read(Read((SPEND,)))).failure == "redis is away"
            server.thaw()
            assert (await reading(store)).held == 10

    asyncio.run(story())


def test_running_calls_take_their_holds_again_from_a_redis_that_has_lost_them(server: RedisServer) -> None:
    async def story() -> None:
        async with counters(server.url) as store:
            await store.settle(settle("before", 50))
            await store.reserve(reserve("a", 40))
            with server.client() as client:
                client.flushall()
                client.script_flush()
            assert await reading(store) == Reading(), "what was counted is lost with it"
            answer = await store.extend(extend("a", 0, seen=30))
            assert answer.counters[0] == Reading(granted=40)
            assert (await store.extend(extend("a", 5, seen=38, n=2))).counters[0].granted == 45
            assert (await store.reserve(reserve("b", 60))).refused == 0
            await store.settle(settle("a", 44))
            assert await reading(store) == Reading(value=44)

    asyncio.run(story())


def test_a_hold_that_redis_has_lost_and_that_no_longer_fits_is_refused(server: RedisServer) -> None:
    async def story() -> None:
        async with counters(server.url) as store:
            await store.reserve(reserve("a", 40))
            with server.client() as client:
                client.flushall()
            await store.reserve(reserve("b", 70))
            assert (await store.extend(extend("a", 0, seen=30))).refused == 0
            await store.settle(settle("a", 35))
            assert await reading(store) == Reading(value=35, held=70)

    asyncio.run(story())


def test_flushall_under_load_raises_nothing_and_leaves_no_hold_behind(server: RedisServer) -> None:
    async def one(store: RedisCounters, n: int) -> None:
        call = f"call {n}"
        assert not (await store.reserve(reserve(call, 1, 10**9))).failure
        assert not (await store.extend(extend(call, 1, 1))).failure
        assert not (await store.settle(settle(call, 1))).failure

    async def story() -> None:
        async with counters(server.url) as store:
            with server.client() as client:
                for begun in range(0, 1000, 50):
                    running = [asyncio.create_task(one(store, begun + n)) for n in range(50)]
                    await asyncio.sleep(0.005)
                    client.flushall()
                    await asyncio.gather(*running)
            assert (await reading(store)).held == 0

    asyncio.run(story())


@pytest.mark.parametrize(
    ("settings", "undo", "reason"),
    [
        ({"maxmemory": "1"}, {"maxmemory": "0"}, "redis is out of memory"),
        ({"replicaof": "127.0.0.1 1"}, {"replicaof": "no one"}, "redis is read-only"),
        ({"min-replicas-to-write": "1"}, {"min-replicas-to-write": "0"}, "redis has too few replicas"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_redis_that_takes_no_writes_changes_nothing_by_halves(
    server: RedisServer, settings: dict[str, str], undo: dict[str, str], reason: str
) -> None:
    def tell(words: dict[str, str]) -> None:
        with server.client() as client:
            for name, value in words.items():
                if name == "replicaof":
                    client.replicaof(*value.split())
                else:
                    client.config_set(name, value)

    async def story() -> None:
        async with counters(server.url) as store:
            await store.reserve(reserve("a", 40))
            tell(settings)
            assert await fails_at_once(store) == reason
            assert (await store.settle(settle("a", 30))).failure.startswith(reason)
            tell(undo)
            assert await settled(store, 30) == Reading(value=30)

    asyncio.run(story())


def test_a_redis_that_is_loading_is_used_when_it_has_loaded(server: RedisServer) -> None:
    with server.client() as client:
        for n in range(600):
            client.set(f"filler {n}", n)
        client.save()
    server.kill()
    server.options |= {"key-load-delay": "2000", "loading-process-events-interval-bytes": "1024"}

    async def story() -> None:
        async with counters(server.url) as store:
            server.start(wait=False)
            async with asyncio.timeout(10):
                reasons = set()
                while failure := (await store.reserve(reserve("a", 40))).failure:
                    reasons.add(failure)
                    await asyncio.sleep(0.02)
            assert "redis is loading" in reasons
            assert (await reading(store)).held == 40

    asyncio.run(story())


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_a_broken_connection_loses_is_asked_again_and_done_once(server: RedisServer, times: int) -> None:
    async def story() -> None:
        async with proxy(server.path) as network, counters(network.url) as store:
            await store.read(Read((SPEND,)))
            for n, ask in enumerate(
                (
                    lambda: store.reserve(reserve("a", 40)),
                    lambda: store.extend(extend("a", 10, 35)),
                    lambda: store.settle(settle("a", 45)),
                )
            ):
                network.break_after = times
                answer = await ask()
                assert (answer.failure, answer.refused) == ("", None)
                assert network.broken == times * (n + 1)
            assert await reading(store) == Reading(value=45)

    asyncio.run(story())


def test_a_slow_redis_is_not_waited_for(server: RedisServer) -> None:
    async def story() -> None:
        async with proxy(server.path) as network, counters(network.url, patience=SHIPPED) as store:
            await until_answered(lambda: store.reserve(reserve("a", 40)))
            network.delay_s = 0.2
            loop = asyncio.get_running_loop()
            for n in range(5):
                begun = loop.time()
                assert (await store.reserve(reserve(f"slow {n}"))).failure
                assert loop.time() - begun < REFUSED_S
            assert "kept" in (await store.settle(settle("a", 30))).failure
            network.delay_s = 0.0
            assert (await settled(store, 30)).value == 30

    asyncio.run(story())


def test_it_begins_before_redis_does(tmp_path: Path) -> None:
    if binary() is None:
        pytest.skip(MISSING)
    with redis_server() as server:
        server.kill()

        async def story() -> None:
            async with counters(server.url, tmp_path) as store:
                assert (await store.reserve(reserve("a"))).failure == "redis is away"
                server.start()
                assert (await until_answered(lambda: store.reserve(reserve("b")))).counters[0].granted == 10

        asyncio.run(story())


# ---- what is owed ---------------------------------------------------------------------------------------------------


def kept(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.iterdir())


def tear(folder: Path) -> int:
    """Write half a line, as a crash would; gives how many whole ones there are."""
    (file,) = folder.iterdir()
    with file.open("a") as lines:
        lines.write('{"call":"torn')
    return len(kept(folder).splitlines()) - 1


def test_what_a_process_could_not_settle_the_next_one_does(server: RedisServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with counters(server.url, tmp_path) as store:
            await store.reserve(reserve("a", 40))
            server.kill()
            for n in range(20):
                assert "kept" in (await store.settle(settle(f"call {n}", 5))).failure
            await store.settle(settle("a", 7))
        assert tear(tmp_path) == 21
        server.start()
        async with counters(server.url, tmp_path) as store:
            assert (await settled(store, 107)) == Reading(value=107)
        assert kept(tmp_path) == "", "nothing is left once everything is settled"

    asyncio.run(story())


def test_the_debts_of_a_living_process_are_its_own(server: RedisServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with counters(server.url, tmp_path) as one:
            server.kill()
            await one.settle(settle("a", 5))
            async with counters(server.url, tmp_path) as two:
                await two.settle(settle("b", 6))
                server.start()
                await settled(one, 11)

    asyncio.run(story())


def test_no_key_and_no_session_stands_in_what_is_kept(server: RedisServer, tmp_path: Path) -> None:
    async def story() -> None:
        server.kill()
        secret = CounterId("ns/p", "spend", ("user@example.com",), "Cost", Window(WindowKind.LIFETIME, 60.0))
        async with counters(server.url, tmp_path) as store:
            await store.settle(Settle("s", "call", ((secret, 5),)))
        assert '"call"' in kept(tmp_path)
        assert "user" not in kept(tmp_path) and "spend" not in kept(tmp_path)

    asyncio.run(story())


def test_a_process_that_is_busy_at_its_start_does_not_take_the_server_for_gone(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Compiling policies keeps the loop for longer than a connection may take."""

    async def run() -> None:
        async with counters(server.url, patience=SHIPPED) as store, asyncio.timeout(5):
            asyncio.get_running_loop().call_soon(_busy, 0.3)
            while store.condition().away:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(run())
    assert [record.message for record in caplog.records] == []


def _busy(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
