"""The operator on a real API server: what stands in a policy's status, who writes it, and that one of several does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from policyd.adapters.policies_kube.access import find_access
from policyd.operator.operate import Operator
from tests.k8s.objects import Desk, policy, until
from tests.k8s.server import ApiServer
from tests.k8s.test_policies_kube import WRONG, place_of, reasons, source, watching


def operator(api: ApiServer, folder: Path, identity: str = "one") -> Operator:
    config = api.access.kubeconfig(folder / f"operator-{identity}")
    return Operator(find_access(environ={"KUBECONFIG": str(config)}), identity)


@contextlib.asynccontextmanager
async def operating(one: Operator) -> AsyncIterator[Operator]:
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        one.stopping.set()
        await task


def conditions(desk: Desk, document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The conditions of a policy that are about its newest text."""
    found = desk.get(document)
    generation = found["metadata"]["generation"]
    for ancestor in found.get("status", {}).get("ancestors", ()):
        return {one["type"]: one for one in ancestor["conditions"] if one["observedGeneration"] == generation}
    return {}


def says(desk: Desk, document: dict[str, Any], kind: str, reason: str) -> bool:
    return conditions(desk, document).get(kind, {}).get("reason") == reason


def test_the_status_says_what_became_of_a_policy(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    good, spoilt = policy("p", "one"), policy("p", "two", when=WRONG)

    async def story() -> None:
        async with operating(operator(api, tmp_path)):
            desk.apply(good)
            await until(lambda: says(desk, good, "Programmed", "NoReplicas"), "a status", 10)
            async with (
                watching(source(api.access, tmp_path / "a", name="replica-a")) as first,
                watching(source(api.access, tmp_path / "b", name="replica-b", namespace="default")),
                watching(source(api.access, tmp_path / "c", name="replica-c", namespace="elsewhere")),
            ):
                # Two, for the third does not read it; that one of one runs it may be said before.
                both = {"programmed": 2, "total": 2}
                await until(lambda: desk.get(good)["status"]["replicas"] == both, "both replicas")
                assert "2 of 2 replicas" in conditions(desk, good)["Programmed"]["message"]
                since = conditions(desk, good)["Accepted"]["lastTransitionTime"]

                desk.apply(spoilt)
                await until(lambda: says(desk, spoilt, "Accepted", "Invalid"), "the refusal")
                told = conditions(desk, spoilt)["Accepted"]["message"]
                assert told.startswith(f"{place_of(desk.get(spoilt))}: error CEL002")
                assert "did you mean `request.model`" in told
                assert says(desk, spoilt, "Programmed", "Invalid")
                assert reasons(first) == {"default/p": "one"}

                desk.apply(policy("p", "three"))
                await until(lambda: says(desk, good, "Programmed", "Programmed"), "the mended one")
                assert desk.get(good)["status"]["digest"].startswith("sha256:")
                assert conditions(desk, good)["Accepted"]["lastTransitionTime"] >= since

                writes = desk.get(good)["metadata"]["resourceVersion"]
                desk.apply(policy("q", "beside"))
                await until(lambda: says(desk, policy("q", ""), "Programmed", "Programmed"), "the one beside")
                assert desk.get(good)["metadata"]["resourceVersion"] == writes, "its own fate has not changed"

    asyncio.run(story())


def test_of_several_operators_one_leads_and_the_next_takes_over(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    async def story() -> None:
        one, two = operator(api, tmp_path, "one"), operator(api, tmp_path, "two")
        async with operating(two):
            await until(lambda: two._leadership.leads, "a leader", 10)
            async with operating(one):
                await until(lambda: one._replicas.synced.is_set(), "the other one")
                assert not one._leadership.leads
                two.stopping.set()
                await until(lambda: one._leadership.leads, "the next one", 10)
                desk.apply(policy("p", "one"))
                await until(lambda: says(desk, policy("p", ""), "Accepted", "Accepted"), "its status", 10)

    asyncio.run(story())


def test_a_namespace_that_would_loosen_a_cluster_policy_reads_that_it_cannot(
    api: ApiServer, desk: Desk, tmp_path: Path
) -> None:
    everywhere, soft = policy("all", "stop", namespace=""), policy("soft", "")
    soft["spec"] = {"mode": "Full", "rules": [{"name": "free", "allow": {"rules": ["all/no"]}}]}

    async def story() -> None:
        async with operating(operator(api, tmp_path)):
            desk.apply(everywhere)
            desk.apply(soft)
            await until(lambda: says(desk, soft, "Accepted", "Accepted"), "its status", 10)

    asyncio.run(story())
    told = conditions(desk, soft)["Accepted"]["message"]
    assert "POL103" in told
    assert "cannot be exempted from here" in told
