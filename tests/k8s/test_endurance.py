"""The long runs within one process: a server gone for a minute and compacted, and changes without end.

`POLICYD_K8S_ENDURANCE=1` runs them. Ten thousand policies: test_many.py; broken watches: test_broken_watches.py.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path

import pytest

from policyd.adapters.aside import OutOfSight
from policyd.adapters.reloads import Reload
from policyd.core.compile.compiler import Compiler
from tests.k8s.objects import Desk, policy, until
from tests.k8s.server import ApiServer
from tests.k8s.test_policies_kube import reasons, source, watching

FEW = 1_000  # policies beside the one that changes
AWAY_S = 60.0
HURRY_S = 30.0
RATE = 100  # changes a second
pytestmark = [
    pytest.mark.skipif(not os.environ.get("POLICYD_K8S_ENDURANCE"), reason="minutes long: POLICYD_K8S_ENDURANCE=1"),
    pytest.mark.timeout(1800),
]


def test_a_minute_without_a_server_and_a_compacted_past(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(20)]
    for name in names:
        desk.apply(policy(name, "before"))

    async def story() -> float:
        async with watching(source(api.access, tmp_path)) as policies:
            api.stop_apiserver()
            with pytest.raises(AssertionError):
                await until(lambda: len(reasons(policies)) != len(names), "nothing", AWAY_S)
            api.start_apiserver()
            with api.access.client() as client:
                fresh = Desk(client)
                for name in names[::2]:
                    fresh.delete(policy(name, ""))
                for name in names[1::2]:
                    fresh.apply(policy(name, "after"))
            api.compact()
            wanted = {f"default/{name}": "after" for name in names[1::2]}
            return await until(lambda: reasons(policies) == wanted, "what happened meanwhile")

    print(f"in force {asyncio.run(story()):.2f} s after the last change")


async def stand_stills(found: list[float]) -> None:
    """How long, in seconds, this loop did nothing for anybody, again and again."""
    before = time.monotonic()
    while True:
        await asyncio.sleep(0.001)
        now = time.monotonic()
        found.append(now - before)
        before = now


def test_a_policy_changed_a_hundred_times_a_second_among_many(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    """What calls would feel of it: the loop that serves them never stands still for long."""
    for number in range(FEW):
        desk.apply(policy(f"p{number}", "before"))

    async def story() -> tuple[int, list[float], float]:
        loads: list[Reload] = []
        still: list[float] = []
        policies = source(api.access, tmp_path, loads, state=tmp_path / "state")
        policies.compile = Compiler(fresh=OutOfSight())
        async with watching(policies):
            gc.collect()
            gc.freeze()  # as a data plane does when it begins to serve; what pytest holds is not its business
            ticking = asyncio.create_task(stand_stills(still))
            began, number = time.monotonic(), 0
            while (now := time.monotonic()) < began + HURRY_S:
                await asyncio.to_thread(desk.apply, policy("p7", f"v{number}"))
                number += 1
                await asyncio.sleep(max(0.0, began + number / RATE - now))
            last = await until(lambda: reasons(policies)["default/p7"] == f"v{number - 1}", "the last one")
            ticking.cancel()
            gc.unfreeze()
        print(f"{number} changes in {HURRY_S:g} s came to {len(loads)} sets; the last in force after {last:.3f} s")
        return number, sorted(still), last

    _, still, last = asyncio.run(story())
    print(
        f"the loop stood still for {still[-1] * 1e3:.0f} ms at most, p99 {still[len(still) * 99 // 100] * 1e3:.0f} ms"
    )
    assert last < 1.0
