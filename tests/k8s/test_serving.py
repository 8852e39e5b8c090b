"""`kubectl apply` to live calls through Envoy: each replica watches by itself, and is measured.

`POLICYD_K8S_REPLICAS` and `POLICYD_K8S_ROUNDS` make it a measurement; by default it is one replica and few rounds.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from policyd.cli.emulator import Emulator
from policyd.cli.stage import Stage, staged
from tests.envoy.harness import a_moment, binary
from tests.envoy.stack import NEWEST
from tests.k8s.objects import Desk, policy
from tests.k8s.server import ApiServer

REPLICAS = int(os.environ.get("POLICYD_K8S_REPLICAS", "1"))
ROUNDS = int(os.environ.get("POLICYD_K8S_ROUNDS", "3"))
IN_FORCE_S = 1.0
CALL = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}

pytestmark = pytest.mark.envoy


def answer(client: httpx.Client, stage: Stage) -> str:
    """What one live call gets: the reason of a refusal, or nothing."""
    got = client.post(f"{stage.url}/v1/chat/completions", json=CALL)
    return "" if got.status_code == 200 else str(got.json()["error"].get("code") or got.text)


def seconds_until(stage: Stage, wanted: Callable[[str], bool]) -> float:
    """How long live calls took to be answered like this."""
    began = time.monotonic()
    with httpx.Client(timeout=10, trust_env=False) as client:
        while not wanted(said := answer(client, stage)):
            assert time.monotonic() - began < 10, f"still answered {said!r}"
            a_moment()
    return time.monotonic() - began


def test_what_is_applied_judges_live_calls_on_every_replica(
    api: ApiServer, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.access.kubeconfig(tmp_path / "kubeconfig")))
    took: list[float] = []
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(REPLICAS) as pool:
        up = [
            stack.enter_context(
                staged({}, envoy=binary(NEWEST), providers=(Emulator("openai"),), source="kube:", serve=())
            )
            for _ in range(REPLICAS)
        ]

        def everywhere(act: Callable[[], object], wanted: Callable[[str], bool]) -> None:
            waiting = [pool.submit(seconds_until, stage, wanted) for stage in up]
            act()
            took.extend(one.result() for one in waiting)

        for number in range(ROUNDS):
            reason = f"round_{number}"
            everywhere(
                lambda reason=reason: desk.apply(policy("p", reason)), lambda said, reason=reason: reason in said
            )
        everywhere(lambda: desk.delete(policy("p", "")), lambda said: said == "")
        assert len({stage.digest() for stage in up}) == 1
    took.sort()
    half, last = took[len(took) // 2], took[-1 - len(took) // 100]
    print(f"{len(took)} changes on {REPLICAS} replicas: p50 {half:.3f} s, p99 {last:.3f} s")
    assert last <= IN_FORCE_S
