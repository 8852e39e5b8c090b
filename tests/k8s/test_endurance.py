"""The long runs: a server gone for a minute and compacted, a watch broken mid-event, many policies, many changes.

`POLICYD_K8S_ENDURANCE=1` runs them; `POLICYD_K8S_POLICIES` says how many policies are many (default 10,000).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.envoy.harness import free_port
from tests.k8s.objects import Desk, policy, until
from tests.k8s.server import Access, ApiServer
from tests.k8s.test_policies_kube import reasons, source, watching

MANY = int(os.environ.get("POLICYD_K8S_POLICIES", "10000"))
AWAY_S = 60.0
HURRY_S = 30.0
RATE = 100  # changes a second
pytestmark = [
    pytest.mark.skipif(not os.environ.get("POLICYD_K8S_ENDURANCE"), reason="minutes long: POLICYD_K8S_ENDURANCE=1"),
    pytest.mark.timeout(1800),
]


def resident() -> float:
    """MiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


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


def test_a_watch_that_breaks_in_the_middle_of_an_event(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    """Between it and the server stands one who cuts every connection after so many bytes, whatever is in them."""

    async def story() -> int:
        cuts = itertools.count()

        async def one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int) -> None:
            while most > 0 and (piece := await reader.read(min(most, 700))):
                most -= len(piece)
                writer.write(piece)
                await writer.drain()

        async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", api.port)
            up = asyncio.create_task(one_way(reader, far_writer, 1 << 30))
            try:
                await one_way(far_reader, writer, 60_000)
                next(cuts)
            except ConnectionError:
                pass
            finally:
                up.cancel()
                await asyncio.gather(up, return_exceptions=True)
                far_writer.close()
                writer.close()

        port = free_port()
        async with await asyncio.start_server(between, "127.0.0.1", port):
            access = Access(f"https://127.0.0.1:{port}", api.access.ca, api.token)
            async with watching(source(access, tmp_path)) as policies:
                for number in range(400):
                    await asyncio.to_thread(desk.apply, policy(f"p{number % 5}", f"v{number}"))
                wanted = {f"default/p{number % 5}": f"v{number}" for number in range(395, 400)}
                await until(lambda: reasons(policies) == wanted, "the last of each")
        return next(cuts)

    broken = asyncio.run(story())
    print(f"{broken} connections cut")
    assert broken > 3


def test_a_policy_changed_a_hundred_times_a_second(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    async def story() -> tuple[int, float, list[float]]:
        loads: list[object] = []
        sizes: list[float] = []
        async with watching(source(api.access, tmp_path, loads)) as policies:  # type: ignore[arg-type]
            began, number = time.monotonic(), 0
            while (now := time.monotonic()) < began + HURRY_S:
                await asyncio.to_thread(desk.apply, policy("p", f"v{number}"))
                number += 1
                if number % RATE == 0:
                    sizes.append(resident())
                await asyncio.sleep(max(0.0, began + number / RATE - now))
            took = await until(lambda: reasons(policies) == {"default/p": f"v{number - 1}"}, "the last one")
        print(f"{number} changes in {HURRY_S:g} s came to {len(loads)} sets; the last in force after {took:.3f} s")
        return number, took, sizes

    _, took, sizes = asyncio.run(story())
    print(f"resident: {sizes[len(sizes) // 3]:.0f} MiB after a third, {sizes[-1]:.0f} MiB at the end")
    assert took < 1.0
    assert sizes[-1] - sizes[len(sizes) // 3] < 16


def test_many_policies(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    def make(number: int) -> None:
        desk.apply(policy(f"p{number}", f"v{number}", when=f'request.model == "m{number}"'))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(MANY)))

    async def story() -> None:
        began = time.monotonic()
        async with watching(source(api.access, tmp_path, patience_s=300.0, state=tmp_path / "state")) as policies:
            assert len(reasons(policies)) == MANY
            print(f"{MANY} policies in force {time.monotonic() - began:.1f} s after the start, {resident():.0f} MiB")
            for number in range(5):
                await asyncio.to_thread(desk.apply, policy("p7", f"again{number}"))
                took = await until(lambda n=number: reasons(policies)["default/p7"] == f"again{n}", "one change", 30)
                print(f"one of them changed: {took:.2f} s, {resident():.0f} MiB")

    asyncio.run(story())
