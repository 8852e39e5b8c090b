"""Counters in Redis: `python -m bench.counters [--calls N]`.

First what an operation takes over a unix socket, beside an empty script, a ping, and redis-py's own client; then how
many whole calls a second two cores carry, client and server; then one budget spent by four processes, policyd's way
and by looking first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from statistics import quantiles
from typing import Any

import redis.asyncio
import uvloop

from policyd.adapters.counters_redis import Patience, RedisCounters, server_of
from policyd.adapters.counters_redis.asking import Asking, Calendars, Question, answer, owed_by
from policyd.adapters.counters_redis.keys import tag_of
from policyd.adapters.counters_redis.lane import Lane
from policyd.adapters.counters_redis.scripts import SCRIPTS
from policyd.core.model.counters import CounterId, Hold, Window, WindowKind
from policyd.core.model.steps import Reserve, Settle
from tests.redis.servers import MISSING, RedisServer, binary, redis_server
from tests.redis.spenders import spend_together

WINDOWS = (
    Window(WindowKind.LIFETIME, 86400.0),
    Window(WindowKind.IDLE, 3600.0),
    Window(WindowKind.SLIDING, 60.0),
    Window(WindowKind.CALENDAR, calendar="Day"),
)
SOME = 3000
TAG = tag_of("default")


def counters(count: int) -> tuple[CounterId, ...]:
    """So many, of the four windows in turn."""
    return tuple(CounterId("ns/p", f"c{n}", ("k",), "Cost", WINDOWS[n % 4]) for n in range(count))


def whole_call(id: str, ids: Sequence[CounterId]) -> tuple[Reserve, Settle]:
    """A call's two operations."""
    return (
        Reserve(f"{id}:r", id, tuple(Hold(each, 1, 20, 10**12) for each in ids)),
        Settle(f"{id}:s", id, tuple((each, 10) for each in ids)),
    )


@contextlib.asynccontextmanager
async def ours(server: RedisServer) -> AsyncIterator[RedisCounters]:
    store = RedisCounters(server.url, patience=Patience(5, 5))
    try:
        yield store
    finally:
        await store.close()


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Microseconds."""
    begun = time.perf_counter()
    await work()
    return (time.perf_counter() - begun) * 1e6


def line(name: str, micros: Sequence[float], floor: Sequence[float] = ()) -> None:
    cuts = quantiles(micros, n=100)
    ratio = f"   {cuts[49] / quantiles(floor, n=100)[49]:4.1f} times an empty script" if floor else ""
    print(f"  {name:28} p50 {cuts[49]:5.0f} us   p99 {cuts[98]:5.0f} us{ratio}")


async def latency(server: RedisServer) -> None:
    """Each operation in turn with an empty script and a ping on the same connection: all meet the same machine."""
    print("one operation at a time, unix socket")
    bare = Lane(server_of(server.url), Patience(5, 5))
    sha = await bare.ask(("SCRIPT", "LOAD", "return 1"))
    async with ours(server) as store:
        await store.reserve(whole_call("first", counters(4))[0])
        for count in (1, 4, 16):
            took: list[list[float]] = [[], [], [], []]
            for n in range(SOME):
                reserve, settle = whole_call(f"{count}:{n}", counters(count))
                took[0].append(await timed(lambda r=reserve: store.reserve(r)))
                took[1].append(await timed(lambda s=settle: store.settle(s)))
                took[2].append(await timed(lambda: bare.ask(("EVALSHA", sha, "0"))))
                took[3].append(await timed(lambda: bare.ask(("PING",))))
            line(f"reserve, {count} counters", took[0], took[2])
            line(f"settle, {count} counters", took[1], took[2])
            line("an empty script", took[2])
            line("ping", took[3])
    await bare.close()
    async with redis.asyncio.Redis.from_url(server.url) as client:
        line("redis-py: ping", [await timed(client.ping) for _ in range(SOME)])


async def throughput(server: RedisServer, together: int) -> None:
    async with ours(server) as store:

        async def ask(pair: tuple[Reserve, Settle]) -> None:
            assert not (await store.reserve(pair[0])).failure
            assert not (await store.settle(pair[1])).failure

        await carried(server, f"ours, {together} at a time", together, ask)
    pool = redis.asyncio.BlockingConnectionPool.from_url(server.url, max_connections=64)
    async with redis.asyncio.Redis(connection_pool=pool) as client:
        calendars = Calendars()

        async def do(question: Question) -> None:
            words = (*question.keys, *question.args)
            answer(await client.evalsha(SCRIPTS[question.script].sha, len(question.keys), *words))

        async def beside(pair: tuple[Reserve, Settle]) -> None:
            asking = Asking(calendars, time.time(), 0.0, 900.0)
            await do(asking.hold(pair[0], TAG, (0,) * 4))
            await do(asking.settle(owed_by(pair[1], TAG, 0.0)))

        await carried(server, f"redis-py, {together} at a time", together, beside)
    await pool.aclose()


async def carried(
    server: RedisServer, name: str, together: int, ask: Callable[[tuple[Reserve, Settle]], Awaitable[None]]
) -> None:
    """Calls a second, the CPU that each side takes for one, and what the busier side could do on a core of its own."""
    ids, every = counters(4), iter(range(SOME * 5))

    async def worker() -> None:
        for n in every:
            await ask(whole_call(f"{name} {n}", ids))

    begun, cpu, theirs = time.perf_counter(), time.process_time(), server_cpu(server)
    await asyncio.gather(*(worker() for _ in range(together)))
    took, cpu, theirs = time.perf_counter() - begun, time.process_time() - cpu, server_cpu(server) - theirs
    pairs = SOME * 5
    print(
        f"  {name:28} {pairs / took:6.0f} pairs/s   CPU a pair: client {cpu / pairs * 1e6:4.0f} us, "
        f"server {theirs / pairs * 1e6:4.0f} us: two idle cores carry {pairs / max(cpu, theirs):6.0f}"
    )


def server_cpu(server: RedisServer) -> float:
    """Seconds of CPU that the server has used."""
    with server.client() as client:
        found: Any = client.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def budgets(server: RedisServer, calls: int) -> None:
    limit = calls * 12
    print(f"one budget of {limit} tokens, {calls} calls that want 20.5 each, estimated at 40, 4 processes")
    for together in (1, 16, 64, 256):
        for scheme in ("hold", "check"):
            with server.client() as client:
                client.flushall()
            ledger = spend_together(server.url, scheme, calls=calls, together=together, limit=limit)
            over, used = max(0, ledger.billed - limit) / limit, min(1, ledger.billed / limit)
            print(
                f"  {together:4} at a time, {scheme:5}: overshoot {over:7.2%}   used {used:7.2%}"
                f"   refused {ledger.refused}   cut {ledger.cut}   broken off {ledger.cancelled}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="how many share the budget, a level")
    calls = parser.parse_args().calls
    if binary() is None:
        raise SystemExit(MISSING)
    with redis_server() as server:
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        uvloop.run(latency(server))
        print("whole calls, reserve and settle, 4 counters")
        for together in (32, 128):
            uvloop.run(throughput(server, together))
        budgets(server, calls)


if __name__ == "__main__":
    main()
