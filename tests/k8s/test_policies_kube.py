"""Policies from a real API server: what is applied is in force, and what goes wrong leaves the last good set."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from policyd.adapters.errors import NotAvailable
from policyd.adapters.policies_kube import PolicyObjects
from policyd.adapters.policies_kube.access import find_access
from policyd.adapters.policies_kube.good import policy_of
from policyd.adapters.policies_kube.placeholder import RULE
from policyd.adapters.reloads import Reload
from policyd.core.compile.compiler import Compiler
from tests.k8s import gateway_api
from tests.k8s.objects import Desk, path_of, policy, until
from tests.k8s.server import Access, ApiServer

WRONG = 'request.modle == "m"'


def source(access: Access, folder: Path, reports: list[Reload] | None = None, **more: object) -> PolicyObjects:
    folder.mkdir(exist_ok=True)
    found = find_access(environ={"KUBECONFIG": str(access.kubeconfig(folder / "kubeconfig"))})
    return PolicyObjects(found, Compiler(), (reports if reports is not None else []).append, **more)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def watching(policies: PolicyObjects) -> AsyncIterator[PolicyObjects]:
    await policies.start()
    task = asyncio.create_task(policies.watch())
    try:
        yield policies
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await policies.close()  # a task that is cancelled before it began has not


def place_of(served: dict[str, Any]) -> str:
    """Where the wrong name stands in the object as JSON, with what the server has filled in."""
    written = policy_of(served)
    line = next(at for at, text in enumerate(written.text.splitlines(), 1) if "modle" in text)
    return f"{written.file}:{line}:{written.text.splitlines()[line - 1].index('request.') + 1}"


def reasons(policies: PolicyObjects) -> dict[str, str]:
    """What each policy in force refuses with."""
    return {one.qualified: getattr(one.rules[0].action, "reason", "") for one in policies.current.policies}


def test_what_is_applied_is_in_force_and_what_is_deleted_is_not(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    reports: list[Reload] = []

    async def story() -> None:
        async with watching(source(api.access, tmp_path, reports)) as policies:
            assert reasons(policies) == {}
            desk.apply(policy("p", "one"))
            desk.apply(policy("all", "everywhere", namespace=""))
            wanted = {"default/p": "one", "all": "everywhere"}
            assert await until(lambda: reasons(policies) == wanted, "two policies") < 1.0
            before = policies.current
            desk.apply(policy("p", "two"))
            await until(lambda: reasons(policies)["default/p"] == "two", "the change")
            assert policies.current.digest != before.digest
            desk.delete(policy("p", ""))
            assert await until(lambda: "default/p" not in reasons(policies), "the deletion") < 1.0

    asyncio.run(story())
    assert {report.result for report in reports} == {"loaded"}


def test_policies_that_are_all_gone_stay_in_force_and_the_replica_is_not_ready(
    api: ApiServer, desk: Desk, tmp_path: Path
) -> None:
    reports: list[Reload] = []
    state = tmp_path / "state"
    one, everywhere = policy("p", "one"), policy("all", "two", namespace="")

    async def story() -> None:
        async with watching(source(api.access, tmp_path, reports, state=state)) as policies:
            assert "has no policies" in policies.unready, "none have come yet"
            desk.apply(one)
            desk.apply(everywhere)
            await until(lambda: len(reasons(policies)) == 2, "both")
            assert policies.unready == ""
            desk.delete(one)
            await until(lambda: reasons(policies) == {"all": "two"}, "the deletion of one")
            desk.delete(everywhere)
            await until(lambda: policies.unready, "the loss of all")
            assert reasons(policies) == {"all": "two"}
            assert policies.refused is not None
            assert policies.refused.lost
        async with watching(source(api.access, tmp_path, state=state)) as again:
            assert reasons(again) == {"all": "two"}, "what was kept on disk"
            await until(lambda: again.unready, "it to be said")
            desk.apply(policy("q", "three"))
            await until(lambda: reasons(again) == {"default/q": "three"}, "a new one")
            assert again.unready == ""

    asyncio.run(story())
    assert [report.lost for report in reports if report.result == "refused"] == [True]


def test_an_empty_set_may_be_asked_for(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    async def story() -> None:
        async with watching(source(api.access, tmp_path, allow_empty=True)) as policies:
            assert policies.unready == ""
            desk.apply(policy("p", "one"))
            await until(lambda: reasons(policies), "the policy")
            desk.delete(policy("p", ""))
            await until(lambda: not reasons(policies), "its deletion")
            assert policies.unready == ""

    asyncio.run(story())


def test_a_namespace_alone_sees_its_own_and_the_clusters(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    desk.apply(policy("p", "own"))
    desk.apply(policy("p", "others", namespace="kube-system"))
    desk.apply(policy("all", "everywhere", namespace=""))

    async def story() -> None:
        async with watching(source(api.access, tmp_path, namespace="default")) as policies:
            assert reasons(policies) == {"default/p": "own", "all": "everywhere"}

    asyncio.run(story())


def test_a_wrong_policy_leaves_its_last_good_text_and_all_others(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    reports: list[Reload] = []
    spoilt: dict[str, Any] = {}
    desk.apply(policy("p", "good"))

    async def story() -> None:
        async with watching(source(api.access, tmp_path, reports)) as policies:
            spoilt.update(desk.apply(policy("p", "spoilt", when=WRONG)))
            desk.apply(policy("new", "never", when=WRONG))
            desk.apply(policy("other", "fine"))
            await until(lambda: "default/other" in reasons(policies), "the good one")
            await until(lambda: policies.refused and len(policies.refused.issues) == 2, "two that are refused")
            assert reasons(policies) == {"default/p": "good", "default/other": "fine"}
            desk.apply(policy("p", "mended"))
            desk.delete(policy("new", ""))
            await until(lambda: reasons(policies)["default/p"] == "mended" and not policies.refused, "the mended one")

    asyncio.run(story())
    issues = {str(issue.span): issue for report in reports if report.result == "refused" for issue in report.issues}
    issue = issues[place_of(spoilt)]
    assert "modle" in issue.message
    assert "model" in issue.hint


def test_a_server_that_was_away_and_has_forgotten_leaves_nothing_stale(
    api: ApiServer, desk: Desk, tmp_path: Path
) -> None:
    """Longer than a watch can be taken up again: etcd has dropped every revision but the last."""
    gone, kept = policy("gone", "g"), policy("kept", "before")
    desk.apply(gone)
    desk.apply(kept)

    async def story() -> None:
        async with watching(source(api.access, tmp_path)) as policies:
            first = policies.current
            api.stop_apiserver()
            await until(lambda: policies.away, "the server to be missed")
            assert policies.current is first
            api.start_apiserver()  # not in a thread: it dies with the one that started it
            with api.access.client() as client:
                fresh = Desk(client)
                fresh.delete(gone)
                fresh.apply(policy("kept", "after"))
                api.compact()
                await until(lambda: reasons(policies) == {"default/kept": "after"}, "what happened meanwhile")
            await until(lambda: not policies.away, "the server to be seen")

    asyncio.run(story())


def test_a_start_without_a_server_serves_the_last_good_set(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    desk.apply(policy("p", "good"))
    nowhere = Access("https://127.0.0.1:9", api.access.ca, "t")

    async def first() -> str:
        async with watching(source(api.access, tmp_path, state=tmp_path / "state")) as policies:
            desk.apply(policy("p", "spoilt", when=WRONG))
            desk.apply(policy("q", "too"))
            await until(lambda: "default/q" in reasons(policies) and policies.refused, "both")
            return policies.current.digest

    async def later() -> str:
        async with watching(source(nowhere, tmp_path, state=tmp_path / "state", patience_s=0.1)) as policies:
            assert policies.away
            assert reasons(policies) == {"default/p": "good", "default/q": "too"}
            return policies.current.digest

    assert asyncio.run(first()) == asyncio.run(later())


def test_where_routes_hang_is_known_after_a_start_without_a_server(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    chat, edge, state = ("default", "chat"), ("default", "edge"), tmp_path / "state"
    nowhere = Access("https://127.0.0.1:9", api.access.ca, "t")

    async def story() -> None:
        gateway_api.put(desk.client, "HTTPRoute", *chat, parentRefs=[{"name": "edge"}])
        async with watching(source(api.access, tmp_path, state=state)) as policies:
            await until(lambda: policies.parents(chat) == (edge,), "the route")
            await until(lambda: len(list(state.glob("*-kube.json"))) == 2, "policies and routes on disk")
        async with watching(source(nowhere, tmp_path, state=state, patience_s=0.1)) as policies:
            assert policies.parents(chat) == (edge,)

    with gateway_api.installed(desk.client):
        asyncio.run(story())


def test_a_start_without_a_server_and_without_kept_policies_is_refused(api: ApiServer, tmp_path: Path) -> None:
    nowhere = source(Access("https://127.0.0.1:9", api.access.ca, "t"), tmp_path, patience_s=0.1)
    with pytest.raises(NotAvailable, match=r"https://127\.0\.0\.1:9"):
        asyncio.run(nowhere.start())
    wrong = source(Access(api.access.url, api.access.ca, "wrong"), tmp_path, patience_s=0.5)
    with pytest.raises(NotAvailable, match="401"):
        asyncio.run(wrong.start())


def test_of_changes_in_a_hurry_the_last_one_counts(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    async def story() -> int:
        async with watching(source(api.access, tmp_path)) as policies:
            for number in range(100):
                await asyncio.to_thread(desk.apply, policy("p", f"v{number}"))
            await until(lambda: reasons(policies) == {"default/p": "v99"}, "the last one")
            return len(policies.current.policies)

    began = time.monotonic()
    assert asyncio.run(story()) == 1
    assert time.monotonic() - began < 30


def test_a_policy_nested_without_end_keeps_no_other_one_out(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    """The API server takes ten thousand levels where the schema leaves a place open."""

    def create(name: str) -> None:
        deep = json.dumps(policy(name, "x")).replace(
            '"Full"', '"Full", "params": {"x": ' + "[" * 9_000 + "]" * 9_000 + "}"
        )
        headers = {"content-type": "application/json"}
        assert desk.client.post(path_of("LLMPolicy", "default"), content=deep, headers=headers).status_code == 201

    create("deep")
    desk.apply(policy("before", "b"))

    async def story() -> None:
        async with watching(source(api.access, tmp_path)) as policies:
            first = {"default/before": "b", "default/deep": RULE}
            assert reasons(policies) == first, "what it was before this start, nobody knows"
            assert policies.refused is not None
            assert "nested deeper" in policies.refused.issues[0].message
            create("deeper")
            desk.apply(policy("after", "a"))
            await until(lambda: "default/after" in reasons(policies), "the one after it")
            assert reasons(policies) == {**first, "default/after": "a"}, "the new one was never in force"

    asyncio.run(story())
