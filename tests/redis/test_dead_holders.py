"""A thousand holders are killed at random moments: what they held comes back, what they were seen to use stays."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.adapters.counters_redis.keys import call_key, counter_key, tag_of
from policyd.core.model.steps import Read
from tests.architecture.source import ROOT
from tests.redis import holders
from tests.redis.audit import look
from tests.redis.servers import RedisServer, wait_until
from tests.sizes import size

KILLS = size(1000, 100)
TAG = tag_of("default")


@pytest.mark.timeout(300)
def test_what_dead_holders_held_comes_back_and_what_they_used_stays(redis_server: RedisServer, tmp_path: Path) -> None:
    with redis_server.client() as client:
        client.flushall()
        words = [sys.executable, "-m", "tests.redis.holders", redis_server.url, str(tmp_path), str(KILLS), "7"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        ended = time.monotonic()
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"kills": KILLS, "unbalanced": []}

        wait_until(lambda: _held(redis_server) == 0, "what the dead hold", holders.LEASE_S + 1)
        assert time.monotonic() - ended <= holders.LEASE_S + 1
        audit = look(client)
    assert audit.unbalanced() == []
    calls = _ledgers(tmp_path)
    assert len(calls) > KILLS / 2
    for counter in holders.COUNTERS:
        key, total = counter_key(counter), 0
        for call, said in calls.items():
            at = call_key(TAG, call)
            if at in audit.settled:
                assert said.settled is not None
                total += said.settled
                continue
            stake = audit.stakes.get(at, {}).get(key)
            charged = stake[3] if stake else 0
            assert not said.is_settled, f"call {call} was settled, and is not"
            assert charged in said.seen, f"call {call}: {charged} was charged, {said.seen} may have been seen"
            total += charged
        assert audit.counters[key][2] == total, "the counter is the sum of its calls"


@dataclass
class Said:
    """What a holder told Redis of one call, as far as it knows itself."""

    seen: set[int] = field(default_factory=lambda: {0})  # the last one answered, and those said after it
    settled: int | None = None
    is_settled: bool = False  # it was answered


def _held(server: RedisServer) -> int:
    async def ask() -> int:
        store = RedisCounters(server.url, patience=Patience(5, 5))
        found = await store.read(Read(holders.COUNTERS))
        await store.close()
        return sum(reading.held for reading in found.counters)

    return asyncio.run(ask())


def _ledgers(folder: Path) -> dict[str, Said]:
    calls: dict[str, Said] = defaultdict(Said)
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            mark, what, call, amount = line.split()
            said = calls[call]
            if what == "settled":
                said.settled, said.is_settled = int(amount), mark == "!"
            else:
                said.seen = {int(amount)} if mark == "!" else said.seen | {int(amount)}
    return calls
