"""Ten thousand policies, with all that runs in a cluster: an operator, a data plane behind Envoy, and calls that go on.

`POLICYD_K8S_ENDURANCE=1` runs it; `POLICYD_K8S_POLICIES` says how many policies are many (default 10,000).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from policyd.cli.emulator import Emulator
from policyd.cli.stage import Stage, staged
from tests.envoy.harness import binary, free_port
from tests.envoy.stack import NEWEST
from tests.k8s.live import Callers, asked, call, calling, condition, listed, nth, process, resident, seconds_until
from tests.k8s.live import statuses_written as written
from tests.k8s.objects import Desk, policy
from tests.k8s.server import ApiServer

MANY = int(os.environ.get("POLICYD_K8S_POLICIES", "10000"))
CHANGES = 20
HURRY_S, RATE = float(os.environ.get("POLICYD_K8S_HURRY_S", "60")), 100
STALE_S = 5.0
KEPT_S = 3.0  # what is on disk is behind by a second and the time that it takes to write
pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not os.environ.get("POLICYD_K8S_ENDURANCE"), reason="minutes long: POLICYD_K8S_ENDURANCE=1"),
    pytest.mark.timeout(2400),
]


def one_of_many(number: int, reason: str) -> dict[str, Any]:
    made = policy(f"p{number}", reason, when="true")
    made["spec"]["match"]["models"] = [f"m{number}"]
    return made


@pytest.fixture(scope="module")
def many(api: ApiServer) -> Iterator[ApiServer]:
    """A server full of policies."""
    with api.access.client() as client, ThreadPoolExecutor(6) as pool:
        desk = Desk(client)
        desk.clear()
        began = time.monotonic()
        list(pool.map(lambda number: desk.apply(one_of_many(number, f"v{number}")), range(MANY)))
        print(f"\n{MANY} policies applied in {time.monotonic() - began:.0f} s")
        yield api


def test_ten_thousand_policies_beside_live_calls(
    many: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(many.access.kubeconfig(tmp_path / "kubeconfig")))
    state = tmp_path / "state"
    with many.access.client() as client, process(["operator"], tmp_path / "operator.log") as operator:
        desk = Desk(client)
        _statuses(many, "at the start", operator.pid)
        before, began = written(many.access), time.monotonic()
        with staged(
            {},
            envoy=binary(NEWEST),
            providers=(Emulator("openai"),),
            source="kube:",
            serve=("--state", str(state)),
            patience_s=120.0,
        ) as stage:
            assert stage.policyd is not None
            print(f"in force {time.monotonic() - began:.1f} s after the start, {resident(stage.policyd.pid):.0f} MiB")
            with calling(stage, tmp_path / "calls") as callers:
                _statuses(many, "for the first replica", operator.pid, before)
                since = time.monotonic()
                a_while(10)
                print("undisturbed:", callers.words(since))
                _single_changes(desk, stage, callers)
                _in_a_hurry(many, stage, callers, operator.pid)
            _restart_without_a_server(many, stage, state, tmp_path)


def a_while(seconds: float) -> None:
    ends = time.monotonic() + seconds
    seconds_until(lambda: time.monotonic() > ends, "nothing", seconds + 1)


def _statuses(api: ApiServer, what: str, operator: int, before: int = 0) -> None:
    """Until each policy has a status, or has it anew; `before`: how many had been written by then."""
    began, most = time.monotonic(), 0
    last, at = written(api.access), began
    while (count := written(api.access)) < before + MANY:
        a_while(1)
        now = time.monotonic()
        most, last, at = max(most, round((count - last) / max(now - at, 0.1))), count, now
        assert now - began < 900, f"{count - before} of {MANY} after {now - began:.0f} s"
    took = time.monotonic() - began
    print(f"{MANY} statuses {what}: {took:.0f} s, at most {most} a second; operator {resident(operator):.0f} MiB")


def _single_changes(desk: Desk, stage: Stage, callers: Callers) -> None:
    in_force, told = [], []
    since = time.monotonic()
    with httpx.Client(timeout=10, trust_env=False) as client:
        for number in range(CHANGES):
            changed = one_of_many(number, f"changed_{number}")
            desk.apply(changed)
            began = time.monotonic()
            in_force.append(
                seconds_until(lambda n=number: call(client, stage, f"m{n}") == f"changed_{n}", "the change", 30)
            )
            seconds_until(
                lambda one=changed: condition(desk.get(one), "Programmed").get("status") == "True", "its status", 30
            )
            told.append(time.monotonic() - began)
            assert desk.get(changed)["status"]["digest"] == stage.digest()
    print(f"one change: in force p50 {nth(in_force, 0.5):.2f} s, longest {max(in_force):.2f} s", end="; ")
    print(f"Programmed p50 {nth(told, 0.5):.2f} s, longest {max(told):.2f} s")
    print("beside single changes:", callers.words(since))
    assert nth(in_force, 0.5) < 1.0
    assert max(in_force) < STALE_S
    assert max(told) < STALE_S


def _in_a_hurry(api: ApiServer, stage: Stage, callers: Callers, operator: int) -> None:
    """One policy, a hundred times a second; and what as many changes of something else do to calls on this machine."""
    assert stage.policyd is not None
    print("beside as many changes of something else:", _elsewhere(api, callers))
    sizes: list[tuple[float, float]] = []
    before = asked(api.access, resource="llmpolicies"), asked(api.access, resource="dataplanereports")
    began, number = time.monotonic(), 0
    with api.access.client() as client:
        desk = Desk(client)
        while (now := time.monotonic()) < began + HURRY_S:
            desk.apply(one_of_many(7, f"v{number}"))
            number += 1
            if number % RATE == 0:
                sizes.append((resident(stage.policyd.pid), resident(operator)))
            a_while(max(0.0, began + number / RATE - now))
        ended = time.monotonic()
        last = f"v{number - 1}"
        with httpx.Client(timeout=10, trust_env=False) as caller:
            took = seconds_until(lambda: call(caller, stage, "m7") == last, "the last change", 30)
        told = lambda: condition(desk.get(one_of_many(7, "")), "Programmed").get("status") == "True"  # noqa: E731
        seconds_until(told, "its status", 30)
    said = time.monotonic() - ended
    print(f"{number} changes in {ended - began:.0f} s: the last in force after {took:.2f} s, Programmed {said:.2f} s")
    print("beside them:", callers.words(began))
    third, end = sizes[len(sizes) // 3], sizes[-1]
    print(f"data plane {third[0]:.0f} MiB after a third, {end[0]:.0f} MiB at the end", end="; ")
    print(f"operator {third[1]:.0f} and {end[1]:.0f} MiB")
    after = asked(api.access, resource="llmpolicies"), asked(api.access, resource="dataplanereports")
    print(
        f"requests meanwhile: {after[0] - before[0]} for policies (ours {number}), {after[1] - before[1]} for reports"
    )
    assert took < STALE_S
    assert said < STALE_S
    assert end[0] - third[0] < 24
    assert end[1] - third[1] < 24


def _elsewhere(api: ApiServer, callers: Callers) -> str:
    path = "/api/v1/namespaces/default/configmaps/busy"
    began, number = time.monotonic(), 0
    with api.access.client(**{"content-type": "application/apply-patch+yaml"}) as client:
        while (now := time.monotonic()) < began + HURRY_S / 4:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "busy"}, "data": {"n": str(number)}}
            assert client.patch(path, json=body, params={"fieldManager": "tests"}).status_code < 300
            number += 1
            a_while(max(0.0, began + number / RATE - now))
    return f"{number} changes, {callers.words(began)}"


def _restart_without_a_server(api: ApiServer, stage: Stage, state: Path, tmp_path: Path) -> None:
    digest = stage.digest()
    a_while(KEPT_S)
    api.stop_apiserver()
    try:
        assert stage.policyd is not None
        stage.policyd.kill()
        stage.policyd.wait()
        admin = free_port()
        words = ["serve", "--policies", "kube:", "--state", str(state), "--listen", f"127.0.0.1:{free_port()}"]
        began = time.monotonic()
        with process([*words, "--admin", f"127.0.0.1:{admin}"], tmp_path / "again.log"):

            def ready() -> str:
                try:
                    return httpx.get(f"http://127.0.0.1:{admin}/readyz", trust_env=False).text
                except httpx.HTTPError:
                    return ""

            seconds_until(lambda: digest in ready(), "the last good set", 120)
            print(f"without a server: in force {time.monotonic() - began:.1f} s after a restart; {ready()}")
    finally:
        api.start_apiserver()
    assert len(list(listed(api.access))) == MANY
