"""`kubectl apply` of a kill switch while a call runs through Envoy: its stream is cut, its record names both sets."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from policyd.cli.emulator import Emulator
from policyd.cli.stage import Stage, staged
from tests.envoy.asking import OPENAI, caller, check_ended, steering, text_of
from tests.envoy.harness import binary
from tests.envoy.stack import NEWEST
from tests.k8s.objects import Desk, policy
from tests.k8s.server import ApiServer

SOON_S = 1.0

pytestmark = pytest.mark.envoy


def kill_switch() -> dict[str, Any]:
    document = policy("kill", "stopped", namespace="", when="true")
    document["spec"]["runningCalls"] = True
    document["spec"]["rules"][0]["terminate"]["fallback"] = "no more"
    return document


class Stream(threading.Thread):
    """A caller whose answer streams."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(daemon=True)
        self.stage, self.heard, self.ended_at = stage, b"", 0.0
        self.begun = threading.Event()

    def run(self) -> None:
        headers = steering("", events=400, interval_ms=30)
        with (
            caller(self.stage) as client,
            client.stream("POST", OPENAI.path, content=OPENAI.body(), headers=headers) as answer,
        ):
            for data in answer.iter_raw():
                self.heard += data
                self.begun.set()
        self.ended_at = time.monotonic()


def test_a_kill_switch_that_is_applied_ends_a_running_stream(
    api: ApiServer, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.access.kubeconfig(tmp_path / "kubeconfig")))
    desk.apply(policy("reads", "never", when="response.events > 100000"))
    with staged({}, envoy=binary(NEWEST), providers=(Emulator("openai"),), source="kube:") as stage:
        began_with = stage.digest()
        one = Stream(stage)
        one.start()
        assert one.begun.wait(10)
        applied = time.monotonic()
        desk.apply(kill_switch())
        one.join(20)
        assert one.ended_at - applied < SOON_S
        assert check_ended(OPENAI, one.heard) == "content_filter"
        assert text_of(OPENAI, one.heard).endswith("no more")
        (record,) = stage.wait_for_records(1)
        assert (record["policy_set"], record["joined_policy_set"]) == (began_with, stage.digest())
        assert (record["ended"], record["reason"], record["determined_by"]) == ("cut", "stopped", ["kill/no"])
