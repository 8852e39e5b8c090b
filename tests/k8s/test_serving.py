"""`kubectl apply` to live calls through Envoy: each replica watches by itself, the operator tells, and it is measured.

`POLICYD_K8S_REPLICAS`, `POLICYD_K8S_ROUNDS` and `POLICYD_K8S_OTHERS` (policies that are there besides) make it a
measurement; by default it is one replica, few rounds and no others.
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
from tests.envoy.harness import binary
from tests.envoy.stack import NEWEST
from tests.k8s.live import call, condition, nth, process, seconds_until
from tests.k8s.objects import Desk, policy
from tests.k8s.server import ApiServer

REPLICAS = int(os.environ.get("POLICYD_K8S_REPLICAS", "1"))
ROUNDS = int(os.environ.get("POLICYD_K8S_ROUNDS", "3"))
OTHERS = int(os.environ.get("POLICYD_K8S_OTHERS", "0"))
IN_FORCE_S, TOLD_S = 1.0, 5.0
CALL = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120 + 2 * ROUNDS + OTHERS // 5)]


def moment(stage: Stage, wanted: Callable[[str], bool]) -> float:
    """When live calls were answered like this."""
    with httpx.Client(timeout=10, trust_env=False) as client:
        seconds_until(lambda: wanted(call(client, stage)), "another answer")
    return time.monotonic()


def put(desk: Desk, number: int) -> None:
    other = policy(f"other{number}", "other", when="true")
    other["spec"]["match"]["models"] = [f"other{number}"]
    desk.apply(other)


def words(took: list[float]) -> str:
    return f"p50 {nth(took, 0.5):.3f} s, p99 {nth(took, 0.99):.3f} s, longest {max(took):.3f} s"


def test_what_is_applied_judges_live_calls_on_every_replica(
    api: ApiServer, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.access.kubeconfig(tmp_path / "kubeconfig")))
    applied: list[float] = []
    deleted: list[float] = []
    told: list[float] = []
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(max(REPLICAS, 4)) as pool:
        list(pool.map(lambda number: put(desk, number), range(OTHERS)))
        stack.enter_context(process(["operator"], tmp_path / "operator.log"))
        up = [
            stack.enter_context(staged({}, envoy=binary(NEWEST), providers=(Emulator("openai"),), source="kube:"))
            for _ in range(REPLICAS)
        ]

        def everywhere(act: Callable[[], object], wanted: Callable[[str], bool]) -> list[float]:
            waiting = [pool.submit(moment, stage, wanted) for stage in up]
            began = time.monotonic()  # of the request that changes it: what the server takes for it counts
            act()
            return [one.result() - began for one in waiting]

        def programmed(one: dict[str, object]) -> bool:
            served = desk.get(one)
            everyone = served.get("status", {}).get("replicas") == {"programmed": REPLICAS, "total": REPLICAS}
            return everyone and condition(served, "Programmed").get("status") == "True"

        for number in range(ROUNDS):
            one, reason = policy("p", f"round_{number}"), f"round_{number}"
            applied += everywhere(lambda one=one: desk.apply(one), lambda said, reason=reason: reason in said)
            began = time.monotonic()
            # The first one waits for the others' statuses, and for the replicas to have told that they are there.
            patience_s = TOLD_S if number else 30 + OTHERS / 20
            seconds_until(lambda one=one: programmed(one), "all replicas to run it", patience_s)
            told += [time.monotonic() - began] if number else []
            assert {desk.get(one)["status"]["digest"]} == {stage.digest() for stage in up}
            deleted += everywhere(lambda: desk.delete(policy("p", "")), lambda said: said == "")
    print(f"\n{ROUNDS} rounds on {REPLICAS} replicas beside {OTHERS} policies: applied {words(applied)}")
    print(f"deleted {words(deleted)}; Programmed {words(told)} after that")
    assert nth(applied + deleted, 0.99) <= IN_FORCE_S
