"""Watches that break in the middle of an event: nothing is lost, and nothing is stale after five seconds."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.k8s.objects import PATIENCE_S, Desk, policy, until
from tests.k8s.proxy import ABORTED, ENDED, STOPPED, proxied
from tests.k8s.server import CLUSTER, ApiServer
from tests.k8s.test_policies_kube import reasons, source, watching

ROUNDS = int(os.environ.get("POLICYD_K8S_BREAKS", "30"))  # of changes
pytestmark = pytest.mark.skipif(bool(CLUSTER), reason="the way to a cluster of somebody else's is not broken into")


def changes(desk: Desk, wanted: dict[str, str], count: int) -> None:
    """So many changes of five policies, and what has to be in force then."""
    for number in range(count):
        name = f"p{number % 5}"
        if number % 7 == 6:
            desk.apply(policy(name, "gone"))
            desk.delete(policy(name, ""))
            wanted.pop(f"default/{name}", None)
        else:
            desk.apply(policy(name, f"v{number}"))
            wanted[f"default/{name}"] = f"v{number}"


@pytest.mark.parametrize("way", [ABORTED, ENDED])
def test_a_watch_that_breaks_within_an_event_loses_nothing(
    api: ApiServer, desk: Desk, tmp_path: Path, way: str
) -> None:
    async def story() -> int:
        async with proxied(api.access) as network:
            network.ways = (way,)
            async with watching(source(network.way_in, tmp_path)) as policies:
                wanted: dict[str, str] = {}
                await asyncio.to_thread(changes, desk, wanted, ROUNDS)
                took = await until(lambda: reasons(policies) == wanted, "the last of each")
                print(f"{ROUNDS} changes, {network.spoilt}: the last in force after {took:.2f} s")
            return network.spoilt[way]

    assert asyncio.run(story()) > 3


def test_a_watch_that_says_nothing_any_more_is_found_out(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    """The connection stands, so that no probe of the kernel's tells."""

    async def story() -> None:
        async with proxied(api.access) as network, watching(source(network.way_in, tmp_path)) as policies:
            network.ways = (STOPPED,)
            wanted: dict[str, str] = {}
            while not network.spoilt:
                await asyncio.to_thread(changes, desk, wanted, 5)
            network.ways = ()
            await asyncio.to_thread(desk.apply, policy("late", "unheard"))
            took = await until(lambda: "default/late" in reasons(policies), "what was not heard", PATIENCE_S)
            print(f"in force {took:.2f} s after a watch went silent")

    asyncio.run(story())


def test_a_slow_watch_is_behind_by_its_delay_and_no_more(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    async def story() -> None:
        async with proxied(api.access) as network, watching(source(network.way_in, tmp_path)) as policies:
            network.delay_s = 0.2
            wanted: dict[str, str] = {}
            await asyncio.to_thread(changes, desk, wanted, 5)
            await until(lambda: reasons(policies) == wanted, "the last of each")

    asyncio.run(story())
