"""An object for an upstream that the running Envoy has not: its status says so, and no other one is kept out."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from policyd.cli.stage import staged
from tests.envoy.harness import binary
from tests.envoy.stack import NEWEST
from tests.k8s.live import call, condition, process, seconds_until
from tests.k8s.objects import Desk, policy
from tests.k8s.server import ApiServer

pytestmark = pytest.mark.envoy


def away(upstream: str) -> dict[str, object]:
    """A policy that sends other models' calls there."""
    one = policy("away", "", when='request.model == "other"')
    one["spec"]["rules"] = [{"name": "go", "when": 'request.model == "other"', "reroute": {"upstream": upstream}}]
    return one


def test_the_status_says_what_the_running_envoy_cannot_carry(
    api: ApiServer, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.access.kubeconfig(tmp_path / "kubeconfig")))

    def said(one: dict[str, object], kind: str) -> tuple[object, object]:
        found = condition(desk.get(one), kind)
        return found.get("status"), found.get("reason")

    with (
        process(["operator"], tmp_path / "operator.log"),
        staged({}, envoy=binary(NEWEST), source="kube:") as stage,
        httpx.Client(timeout=10, trust_env=False) as client,
    ):
        assert call(client, stage) == ""  # with its first call Envoy tells its upstreams
        desk.apply(away("elsewhere"))
        desk.apply(policy("p", "stopped"))
        seconds_until(lambda: "stopped" in call(client, stage), "the other policy")
        seconds_until(lambda: said(away(""), "Programmed") == ("False", "NotCarried"), "the status", 30)
        told = condition(desk.get(away("")), "Programmed")["message"]
        assert told.startswith("1 of 1 replicas say: llmpolicy/default/away:")
        assert "has no upstream `elsewhere`: it has backup, openai" in told
        assert said(away(""), "Accepted") == ("True", "Accepted")
        desk.apply(away("backup"))
        seconds_until(lambda: said(away(""), "Programmed") == ("True", "Programmed"), "its status", 30)
