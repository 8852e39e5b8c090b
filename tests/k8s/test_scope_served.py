"""Which policies a live call meets, by the route that Envoy says it came by: a real API server and a real Envoy."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from policyd.cli.emulator import Emulator
from policyd.cli.stage import Stage, staged
from tests.envoy.harness import a_moment, binary
from tests.envoy.routed import CHOOSES, metadata, route, with_routes
from tests.envoy.stack import NEWEST
from tests.k8s import gateway_api
from tests.k8s.objects import PATIENCE_S, Desk, path_of, policy
from tests.k8s.server import ApiServer
from tests.k8s.test_serving import CALL

pytestmark = pytest.mark.envoy
ROUTES = {
    "chat": route("agents", "chat"),
    "batch": route("agents", "batch"),
    "theirs": route("other", "chat"),
    "odd": {"filter_metadata": {"envoy-gateway": {"resources": [{"kind": "HTTPRoute", "name": "chat"}]}}},
}


def marking(name: str, namespace: str, *targets: tuple[str, str]) -> dict[str, Any]:
    """A policy that marks the answers of the calls that it is about."""
    kind = "LLMPolicy" if namespace else "ClusterLLMPolicy"
    headers = {"headers": {"response": {"set": {f"x-mark-{name}": "yes"}}}}
    return {
        "apiVersion": "policyd.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": {
            "mode": "Full",
            "targetRefs": [{"kind": kind, "name": name} for kind, name in targets],
            "rules": [{"name": "mark", "constrain": headers}],
        },
    }


POLICIES = [
    marking("all", ""),
    marking("home", "default"),
    marking("ours", "agents"),
    marking("chat", "agents", ("HTTPRoute", "chat")),
    marking("edge", "infra", ("Gateway", "edge")),
    marking("foreign", "other", ("HTTPRoute", "batch"), ("Gateway", "edge")),  # names what is another namespace's
]
ABOUT = {
    "chat": "all chat edge ours",
    "batch": "all ours",
    "theirs": "all",
    "odd": "all home",
    "none": "all home",
}


def marks(client: httpx.Client, stage: Stage, chosen: str) -> str:
    """The policies that marked the answer to a call by this route."""
    forged = {"xds.route_metadata": "agents/chat", "x-policyd-route": "agents/chat"}
    answer = client.post(f"{stage.url}/v1/chat/completions", json=CALL, headers={CHOOSES: chosen, **forged})
    assert answer.status_code == 200, answer.text
    return " ".join(sorted(name.removeprefix("x-mark-") for name in answer.headers if name.startswith("x-mark-")))


def test_a_call_meets_the_policies_of_its_route(
    api: ApiServer, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.access.kubeconfig(tmp_path / "kubeconfig")))
    for name in ("agents", "other", "infra"):
        desk.client.post("/api/v1/namespaces", json={"metadata": {"name": name}})
    for one in POLICIES:
        desk.apply(one)
    configured = functools.partial(with_routes, routes=ROUTES)
    with gateway_api.installed(desk.client):
        parents = [{"name": "edge", "namespace": "infra"}, {"name": "chat", "kind": "Service", "group": ""}]
        gateway_api.put(desk.client, "HTTPRoute", "agents", "chat", parentRefs=parents)
        with (
            staged(
                {}, envoy=binary(NEWEST), providers=(Emulator("openai"),), source="kube:", configured=configured
            ) as up,
            httpx.Client(timeout=10, trust_env=False) as client,
        ):
            assert {chosen: marks(client, up, chosen) for chosen in ABOUT} == ABOUT
            ready = client.get(f"http://127.0.0.1:{up.admin}/readyz").text
            missed = "policies (1 of other namespaces than default and 3 with targetRefs) do not apply to them"
            assert "calls come without their route" in ready
            assert missed in ready
            assert (up.folder / "policyd.log").read_text().count("calls come without their route") == 2, "two reasons"

            gateway_api.put(desk.client, "HTTPRoute", "other", "chat", parentRefs=parents)
            _until(lambda: marks(client, up, "theirs") == "all edge", "a route that was attached to a Gateway")
            desk.apply(marking("chat", "agents", ("HTTPRoute", "batch")))
            _until(lambda: marks(client, up, "batch") == "all chat ours", "a policy that was moved")
            assert marks(client, up, "chat") == "all edge ours"

            loose = marking("loose", "agents")
            loose["spec"]["rules"].append({"name": "free", "allow": {"rules": ["stop/no"]}})
            desk.apply(loose)
            _until(lambda: "loose" in marks(client, up, "chat"), "an exemption from what is the cluster's")
            desk.apply(policy("stop", "stopped", namespace=""))
            url = f"{up.url}/v1/chat/completions"
            _until(lambda: client.post(url, json=CALL).status_code == 403, "the cluster's policy")
            assert client.post(url, json=CALL, headers={CHOOSES: "chat"}).status_code == 403, (
                "a namespace never loosens"
            )


def test_the_virtual_host_says_which_of_its_gateways_a_call_came_through(
    api: ApiServer, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.access.kubeconfig(tmp_path / "kubeconfig")))
    desk.client.post("/api/v1/namespaces", json={"metadata": {"name": "infra"}})
    desk.apply(marking("edge", "infra", ("Gateway", "edge")))
    desk.apply(marking("inner", "infra", ("Gateway", "inner")))
    configured = functools.partial(with_routes, routes=ROUTES, host=metadata("Gateway", "infra", "inner"))
    with (
        staged({}, envoy=binary(NEWEST), providers=(Emulator("openai"),), source="kube:", configured=configured) as up,
        httpx.Client(timeout=10, trust_env=False) as client,
    ):
        assert [marks(client, up, chosen) for chosen in ("chat", "none")] == ["inner", ""]


def _until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        a_moment()


def test_a_policy_cannot_name_another_namespaces_route(desk: Desk) -> None:
    """Neither by a field, which the server refuses, nor by a name, which is taken for one of its own."""
    spelt = marking("p", "default", ("HTTPRoute", "chat"))
    spelt["spec"]["targetRefs"][0]["namespace"] = "agents"
    asked = {"fieldValidation": "Strict", "dryRun": "All"}
    refused = desk.client.post(path_of("LLMPolicy", "default"), json=spelt, params=asked)
    assert refused.status_code == 400
    assert 'unknown field "spec.targetRefs[0].namespace"' in refused.json()["message"]
