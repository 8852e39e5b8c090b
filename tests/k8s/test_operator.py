"""The operator on a real API server: what stands in a policy's status, who writes it, and that one of several does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from policyd.adapters.policies_kube.access import find_access
from policyd.operator.operate import Operator
from tests.k8s import gateway_api
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


def conditions_at(desk: Desk, document: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """The conditions of a policy at one place."""
    entries = desk.get(document)["status"]["ancestors"]
    return {
        one["type"]: one for entry in entries if entry["ancestorRef"]["name"] == name for one in entry["conditions"]
    }


def at_each(desk: Desk, document: dict[str, Any], kind: str = "Accepted") -> dict[str, str]:
    """The reason of one condition, by the place that it is about."""
    return {
        entry["ancestorRef"]["name"]: condition["reason"]
        for entry in desk.get(document).get("status", {}).get("ancestors", ())
        for condition in entry["conditions"]
        if condition["type"] == kind
    }


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
    everywhere, soft, half = policy("all", "stop", namespace=""), policy("soft", ""), policy("half", "own")
    free = {"name": "free", "allow": {"rules": ["all/no"]}}
    soft["spec"] = {"mode": "Full", "rules": [free]}
    half["spec"]["rules"].append(free)

    async def story() -> None:
        async with operating(operator(api, tmp_path)):
            desk.apply(soft)
            desk.apply(half)
            await until(lambda: says(desk, soft, "Accepted", "Accepted"), "its status", 10)
            desk.apply(everywhere)
            await until(lambda: says(desk, soft, "Accepted", "Conflicted"), "what stands against it", 10)
            told = conditions(desk, soft)["Accepted"]["message"]
            assert "POL117" in told
            assert "exempts from nothing" in told
            assert "a namespace may tighten what holds for the cluster, never loosen it" in told
            await until(lambda: "POL117" in conditions(desk, half)["Accepted"]["message"], "the other one", 10)
            assert says(desk, half, "Accepted", "Accepted"), "a part of it acts"
            desk.delete(everywhere)
            await until(lambda: says(desk, soft, "Accepted", "Accepted"), "nothing that stands against it", 10)

    asyncio.run(story())


def test_each_target_has_a_status_of_its_own(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    bound = policy("p", "one")
    chat, edge = {"kind": "HTTPRoute", "name": "chat"}, {"kind": "Gateway", "name": "edge"}
    bound["spec"]["targetRefs"] = [chat, edge, chat]

    def there(**expected: str) -> Callable[[], bool]:
        return lambda: at_each(desk, bound) == expected

    async def story() -> None:
        gateway_api.put(desk.client, "HTTPRoute", "default", "chat")
        gateway_api.put(desk.client, "Gateway", "kube-system", "edge")  # of that name, and in another namespace
        async with operating(operator(api, tmp_path)), watching(source(api.access, tmp_path / "a", name="replica")):
            desk.apply(bound)
            await until(there(chat="Accepted", edge="TargetNotFound"), "one that is there, one that is not", 10)
            told = conditions_at(desk, bound, "edge")["Accepted"]
            assert (told["status"], told["observedGeneration"]) == ("False", 1)
            assert "there is no Gateway edge in namespace default" in told["message"]
            await until(lambda: says(desk, bound, "Programmed", "Programmed"), "the data plane")
            digest = desk.get(bound)["status"]["digest"]

            desk.apply(policy("q", "beside"))
            gateway_api.put(desk.client, "Gateway", "default", "edge")
            await until(there(chat="Accepted", edge="Accepted"), "both")
            gateway_api.remove(desk.client, "HTTPRoute", "default", "chat")
            await until(there(chat="TargetNotFound", edge="Accepted"), "one that is gone")
            assert desk.get(bound)["status"]["digest"] == digest, "what lies beside it is no news of it"

    with gateway_api.installed(desk.client):
        asyncio.run(story())


def test_without_the_gateway_api_a_target_is_nowhere(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    bound = policy("p", "one")
    bound["spec"]["targetRefs"] = [{"kind": "Gateway", "name": "edge"}]

    async def story() -> None:
        async with operating(operator(api, tmp_path)):
            desk.apply(bound)
            await until(lambda: at_each(desk, bound) == {"edge": "TargetNotFound"}, "its status", 10)

    asyncio.run(story())
    assert "the Gateway API is not installed here" in conditions(desk, bound)["Accepted"]["message"]


def test_a_policy_hears_of_calls_without_a_route(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    here, elsewhere = policy("p", "one"), policy("q", "two", namespace="kube-system")
    chat, edge = policy("chat", "three"), policy("edge", "four")
    chat["spec"]["targetRefs"] = [{"kind": "HTTPRoute", "name": "chat"}]
    edge["spec"]["targetRefs"] = [{"kind": "Gateway", "name": "edge"}]
    blind = "calls come without their route (a)\ncalls come without their Gateway (b)"

    async def story() -> None:
        replica = source(api.access, tmp_path / "a", name="replica", untold=lambda: blind)
        async with operating(operator(api, tmp_path)), watching(replica):
            for one in (here, elsewhere, chat, edge):
                desk.apply(one)
            await until(lambda: says(desk, elsewhere, "RoutesTold", "RouteUntold"), "a word about it", 10)
            assert says(desk, elsewhere, "Accepted", "Accepted")
            for one, expected in ((elsewhere, blind[:34]), (chat, blind[:34]), (edge, blind)):
                await until(lambda one=one: "RoutesTold" in conditions(desk, one), "a word about it", 10)
                assert conditions(desk, one)["RoutesTold"]["message"] == f"1 of 1 replicas say:\n{expected}"
            await until(lambda: says(desk, here, "Programmed", "Programmed"), "the other one")
            assert "RoutesTold" not in conditions(desk, here)

    asyncio.run(story())
