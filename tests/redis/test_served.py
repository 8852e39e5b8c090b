"""policyd as it is served, its counters in Redis: what a stream costs, and what it does while Redis is not there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.adapters.envoy.config import Address
from policyd.core.model.options import Options
from policyd.server.plane import DataPlane
from policyd.server.settings import Settings
from tests.driving import Bed, FlatPrices, Outcome, chat, policy, stream_of
from tests.envoy.harness import a_moment
from tests.redis import servers
from tests.redis.servers import MISSING, RedisServer, binary

EVENTS = 2_000
BUDGET = """
counters:
  - {name: spend, key: caller.user, charge: OutputTokens, window: {lifetime: 24h}, limit: LIMIT tokens}
rules:
  - {name: words, when: response.output_tokens > 1000000, terminate: {}}
"""
CALLER = (("x-user-id", "u"), ("x-session-id", "s"))


def driven(url: str, story: Callable[[Bed], Awaitable[None]], limit: int, **options: object) -> None:
    async def whole() -> None:
        store = RedisCounters(url, patience=Patience(5, 5))
        bed = Bed(policy(BUDGET.replace("LIMIT", str(limit))), prices=FlatPrices("gpt-4o"), counters=store, **options)
        try:
            await story(bed)
        finally:
            await store.close()

    asyncio.run(whole())


async def streamed(bed: Bed, events: int = EVENTS) -> Outcome:
    body = chat("hello", stream=True)
    return await bed.acall(body, headers=CALLER, chunks=stream_of(*["word "] * events), step_s=0.0)


@pytest.mark.parametrize("slice_tokens", [100, 512, 10_000])
def test_a_stream_asks_redis_once_a_slice_and_never_for_a_chunk(redis_server: RedisServer, slice_tokens: int) -> None:
    with redis_server.client() as client:
        client.flushall()
    tokens = 0

    async def story(bed: Bed) -> None:
        nonlocal tokens
        await streamed(bed, 3)  # Redis learns the scripts
        redis_server.reset_commands()
        out = await streamed(bed)
        assert out.rejected is None and out.ended
        tokens = int(str(out.record.usage["output_tokens"]))

    driven(redis_server.url, story, 10**9, slice_tokens=slice_tokens)
    asked = redis_server.commands()["evalsha"]
    slices = -(-tokens // slice_tokens)
    assert tokens >= EVENTS
    assert asked <= 2 + slices, f"{asked} for {slices} slices: reserve, extensions, settle"


def test_a_stream_is_cut_where_the_budget_ends_and_the_bill_is_exact(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.flushall()

    async def story(bed: Bed) -> None:
        out = await streamed(bed)
        assert out.ended and not out.broken
        assert 0 < out.text.count("word") < EVENTS
        assert out.record.ended == "cut"
        refused = await streamed(bed)
        assert refused.rejected is not None and refused.rejected.status == 429

    driven(redis_server.url, story, 700, slice_tokens=100)


async def _says(plane: DataPlane, ready: str, metric: str) -> None:
    async with asyncio.timeout(5):
        while ready not in plane._ready().body.decode() or metric not in plane._metrics().body.decode():
            await asyncio.to_thread(a_moment)


def test_it_serves_before_redis_is_there_and_stops_cleanly_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if binary() is None:
        pytest.skip(MISSING)
    (tmp_path / "p.yaml").write_text(policy(BUDGET.replace("LIMIT", "9")))

    async def story(server: RedisServer) -> None:
        plane = DataPlane(
            Settings((tmp_path / "p.yaml",), Address("127.0.0.1", 0), Options(), redis=server.url, state=tmp_path / "s")
        )
        running = asyncio.create_task(plane.run())
        await asyncio.wait_for(plane.ready.wait(), 20)
        assert plane._ready().status == 200, "what becomes of calls is the policies' business"
        await _says(plane, "redis is away", "policyd_redis_up 0.0")
        server.start()
        await _says(plane, "redis: in reach", "policyd_redis_up 1.0")
        server.freeze()
        await _says(plane, "redis does not answer", "policyd_redis_up 0.0")
        server.thaw()
        await _says(plane, "redis: in reach", "policyd_redis_up 1.0")
        for words in (
            "policyd_redis_calls 0.0",
            "policyd_redis_owed_settlements 0.0",
            "policyd_redis_journal_bytes 0.0",
        ):
            assert words in plane._metrics().body.decode()
        server.kill()
        await _says(plane, "redis is away", "policyd_redis_up 0.0")
        plane.stop()
        await asyncio.wait_for(running, 20)

    with servers.redis_server() as server, caplog.at_level(logging.INFO, "policyd"):
        server.kill()
        asyncio.run(story(server))
    assert "stopped" in caplog.text and not list((tmp_path / "s").iterdir())
