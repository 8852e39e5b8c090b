"""Policies of another version: a definition that is newer than policyd fills in a field that policyd does not know."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from policyd.adapters.policies_kube.placeholder import RULE
from policyd.cli.emulator import Emulator
from policyd.cli.stage import Stage, staged
from tests.envoy.harness import binary, free_port
from tests.envoy.stack import NEWEST
from tests.k8s.live import call, process, seconds_until
from tests.k8s.objects import KINDS, Desk, path_of, policy, until
from tests.k8s.server import ApiServer
from tests.k8s.test_policies_kube import reasons, source, watching

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
FIELD = {"type": "string", "default": "standard"}


@contextlib.contextmanager
def upgraded(desk: Desk, *kinds: str, default: bool = True) -> Iterator[None]:
    """The definitions of these kinds have one field more; with a default, every object that is read has it."""
    field = FIELD if default else {"type": "string"}
    try:
        for kind in kinds:
            _change(desk, kind, lambda spec: spec | {"auditLevel": field})
        yield
    finally:
        for kind in kinds:
            _change(desk, kind, lambda spec: {name: one for name, one in spec.items() if name != "auditLevel"})


def _change(desk: Desk, kind: str, change: Any) -> None:
    path = f"{_DEFINITIONS}/{KINDS[kind]}.policyd.dev"
    served = desk.client.get(path).raise_for_status().json()
    schema = served["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"] = change(schema["properties"])
    desk.client.put(path, json=served).raise_for_status()
    # For a moment it lists nothing, or still what was.
    known = "auditLevel" in schema["properties"]
    probe = policy("probe", "x", namespace="default" if kind == "LLMPolicy" else "")
    probe["spec"]["auditLevel"] = "x"
    seconds_until(lambda: _takes(desk, probe) == known, "the definition to be served", 20)


def _takes(desk: Desk, probe: dict[str, Any]) -> bool | None:
    """Whether the server knows the field; None while it knows nothing."""
    collection = path_of(probe["kind"], probe["metadata"].get("namespace", ""))
    answer = desk.client.post(collection, params={"dryRun": "All"}, json=probe)
    listed = desk.client.get(collection)
    if answer.status_code != 201 or listed.status_code != 200:
        return None
    return "auditLevel" in answer.json()["spec"]


def served_with(desk: Desk, document: dict[str, Any]) -> bool:
    return "auditLevel" in desk.get(document)["spec"]


def test_a_fresh_replica_behind_a_newer_definition_opens_nothing(
    api: ApiServer, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside one that runs, which keeps its last good policies."""
    monkeypatch.setattr("policyd.adapters.policies_kube.SKEWED_RESYNC_S", 0.5)
    own, lenient = policy("own", "one"), policy("lenient", "two")
    lenient["spec"]["failurePolicy"] = "Ignore"
    everywhere = policy("all", "three", namespace="")
    for document in (own, lenient, everywhere):
        desk.apply(document)
    good = {"default/own": "one", "default/lenient": "two", "all": "three"}
    unread = dict.fromkeys(good, RULE)

    async def story() -> None:
        async with watching(source(api.access, tmp_path / "running")) as running:
            assert (reasons(running), running.unready) == (good, "")
            with upgraded(desk, *KINDS):
                seconds_until(lambda: served_with(desk, own), "the field")
                async with watching(source(api.access, tmp_path / "fresh")) as fresh:
                    assert reasons(fresh) == unread
                    assert "none of 3 policies can be read" in fresh.unready
                    assert "auditLevel" in fresh.unready
                    desk.apply(policy("own", "changed"))
                    await until(lambda: running.refused, "the change to be refused by the one that runs")
                    # The server may have told of the change without the field, a moment ago.
                    kept = reasons(running)
                    assert kept.pop("default/own") in ("one", "changed")
                    assert kept == {"default/lenient": "two", "all": "three"}
                    assert running.unready == ""
            desk.apply(policy("own", "four"))
            async with watching(source(api.access, tmp_path / "later")) as later:
                assert (reasons(later), later.unready) == ({**good, "default/own": "four"}, "")
            # What the server filled in for a moment longer is read anew.
            await until(lambda: reasons(running) == {**good, "default/own": "four"}, "the change", 20)

    asyncio.run(story())


def test_a_replica_that_could_read_none_is_ready_after_the_definition_is_back(
    api: ApiServer, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event tells that: the objects have not changed."""
    monkeypatch.setattr("policyd.adapters.policies_kube.SKEWED_RESYNC_S", 0.5)
    desk.apply(policy("own", "one"))

    async def story() -> None:
        with upgraded(desk, *KINDS):
            seconds_until(lambda: served_with(desk, policy("own", "")), "the field")
            fresh = source(api.access, tmp_path)
            await fresh.start()
            task = asyncio.create_task(fresh.watch())
            assert fresh.unready
        await until(lambda: not fresh.unready and reasons(fresh) == {"default/own": "one"}, "the policy", 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())


def test_a_field_in_one_policy_is_an_issue_of_that_policy_alone(api: ApiServer, desk: Desk, tmp_path: Path) -> None:
    with upgraded(desk, "LLMPolicy", default=False):
        newer = policy("newer", "one")
        newer["spec"]["auditLevel"] = "high"
        desk.apply(newer)
        desk.apply(policy("own", "two"))

        async def story() -> None:
            async with watching(source(api.access, tmp_path)) as policies:
                assert reasons(policies) == {"default/newer": RULE, "default/own": "two"}
                assert policies.unready == ""
                assert policies.placeholders == ("llmpolicy/default/newer",)
                later = {**newer, "metadata": {"name": "later", "namespace": "default"}}
                desk.apply(later)
                await until(lambda: "default/later" in reasons(policies), "one that is created meanwhile")
                assert reasons(policies)["default/later"] == RULE

        asyncio.run(story())
        desk.clear()


def ready(port: int) -> httpx.Response | None:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
    return None


@pytest.mark.envoy
def test_live_calls_pass_no_policy_that_cannot_be_read(
    api: ApiServer, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh replica: calls that a Fail policy could match are refused, others judged by what can be read."""
    monkeypatch.setenv("KUBECONFIG", str(api.access.kubeconfig(tmp_path / "kubeconfig")))
    own, lenient = policy("own", "one", when='request.model == "never"'), policy("lenient", "two")
    own["spec"]["match"]["models"] = ["m"]
    lenient["spec"] |= {"failurePolicy": "Ignore", "match": {"models": ["n"]}}
    everywhere = policy("all", "three", namespace="", when='request.model == "o"')
    for document in (own, lenient, everywhere):
        desk.apply(document)

    def said(stage: Stage, model: str) -> str:
        with httpx.Client(timeout=10, trust_env=False) as client:
            return call(client, stage, model)

    with (
        staged({}, envoy=binary(NEWEST), providers=(Emulator("openai"),), source="kube:") as running,
        upgraded(desk, "LLMPolicy"),
    ):
        seconds_until(lambda: served_with(desk, own), "the field")
        with staged({}, envoy=binary(NEWEST), providers=(Emulator("openai"),), source="kube:") as fresh:
            for stage, expected in (
                (running, {"m": "", "n": "", "o": "three"}),
                (fresh, {"m": "policy_error", "n": "", "o": "three"}),
            ):
                assert {model: said(stage, model) for model in expected} == expected
            page = ready(fresh.admin)
            assert page is not None
            assert "llmpolicy/default/own" in page.text
        with upgraded(desk, "ClusterLLMPolicy"):
            seconds_until(lambda: served_with(desk, everywhere), "the field")
            port = free_port()
            words = ["serve", "--policies=kube:", f"--listen=unix:{tmp_path}/s", f"--admin=127.0.0.1:{port}"]
            with process(words, tmp_path / "log"):
                seconds_until(lambda: ready(port), "it to be up", 20)
                until_s = time.monotonic() + 3
                while time.monotonic() < until_s:
                    page = ready(port)
                    assert page is not None
                    assert page.status_code == 503
                assert page is not None
                assert "not ready: kube: none of 3 policies can be read" in page.text
                assert "auditLevel" in page.text
            assert "auditLevel" in (tmp_path / "log").read_text()
