"""The manifests: fresh, whole, within the rules that they are to keep, and taken by a real API server."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd.cli.main import COMMANDS, load
from tests.architecture.source import ROOT
from tests.envoy.harness import VERSIONS, validate
from tests.k8s.server import ApiServer, kubectl

DEPLOY = ROOT / "deploy" / "k8s"
BUILDS = ("crds", "operator", *(f"overlays/{file.name}" for file in sorted((DEPLOY / "overlays").iterdir())))
every_build = pytest.mark.parametrize("name", BUILDS)


@cache
def built(name: str) -> str:
    if not kubectl():
        pytest.skip("no kubectl on this machine")
    return subprocess.run([kubectl(), "kustomize", DEPLOY / name], capture_output=True, text=True, check=True).stdout


def objects(name: str, *kinds: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(built(name)) if not kinds or one["kind"] in kinds]


def pods(name: str) -> Iterator[dict[str, Any]]:
    yield from (one["spec"]["template"]["spec"] for one in objects(name, "Deployment"))


def containers(name: str) -> Iterator[dict[str, Any]]:
    for pod in pods(name):
        yield from (*pod.get("initContainers", ()), *pod["containers"])


def test_what_policyd_prints_is_fresh() -> None:
    command = [sys.executable, DEPLOY / "generate.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@every_build
def test_every_build_names_each_object_once(name: str) -> None:
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects(name)]
    assert len(names) == len(set(names)) > 0


@every_build
def test_pods_may_do_nothing_that_they_need_not(name: str) -> None:
    for pod in pods(name):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
    for container in containers(name):
        held = container["securityContext"]
        assert held["readOnlyRootFilesystem"] is True and held["allowPrivilegeEscalation"] is False
        assert held["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"] and "cpu" in container["resources"]["requests"]
        assert "readinessProbe" in container
        assert re.search(r":[^:]*\d[^:]*$", container["image"]), "pinned"


@every_build
def test_policyd_is_told_only_what_it_knows(name: str) -> None:
    for container in containers(name):
        if container["image"].split(":")[0] != "policyd":
            continue
        command, *options = container["args"]
        if command not in COMMANDS:
            pytest.skip(f"`policyd {command}` is not there yet")
        known = {option for parameter in load(command).params for option in parameter.opts}
        given = {option.partition("=")[0] for option in options if option.startswith("--")}
        assert given <= known


@pytest.mark.parametrize("name", [name for name in BUILDS if name not in ("crds", "operator")])
def test_what_serves_drains_scales_and_is_walled_in(name: str) -> None:
    kinds = {one["kind"] for one in objects(name)}
    assert {"PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"} <= kinds
    for pod in pods(name):
        serving = [
            one for one in (*pod.get("initContainers", ()), *pod["containers"]) if "serve" in one.get("args", ())
        ]
        for one in serving:
            drain = next(int(word.partition("=")[2]) for word in one["args"] if word.startswith("--drain-seconds"))
            waits = [other.get("lifecycle", {}).get("preStop", {}).get("sleep", {}) for other in pod["containers"]]
            assert any(waits), "Envoys must hear first"
            assert pod["terminationGracePeriodSeconds"] > drain + sum(wait.get("seconds", 0) for wait in waits)


@pytest.mark.envoy
@pytest.mark.parametrize("name", ["sidecar", "envoy-ai-gateway"])
def test_envoy_takes_its_configuration(name: str) -> None:
    file = DEPLOY / "overlays" / name / "envoy.yaml"
    assert validate(VERSIONS[-1], file) == ""


@every_build
def test_a_real_server_takes_every_object(name: str, api: ApiServer, tmp_path: Path) -> None:
    """As `kubectl apply -k` sends them, but for what belongs to Envoy Gateway: its CRDs are not ours."""
    ours = [one for one in objects(name) if not one["apiVersion"].startswith("gateway.envoyproxy.io/")]
    whole = tmp_path / "objects.yaml"
    whole.write_text(yaml.safe_dump_all(ours))
    with api.access.client() as client:  # a dry run leaves nothing for other tests, and still needs the namespace
        made = client.post("/api/v1/namespaces", json={"metadata": {"name": "policyd"}})
        assert made.status_code in (201, 409), made.text
    command = [kubectl(), "--kubeconfig", api.access.kubeconfig(tmp_path / "config"), "apply", "--dry-run=server"]
    done = subprocess.run(
        [*command, "--server-side", "--force-conflicts", "-f", whole], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("serverside-applied") == len(ours)


# ---- the image ------------------------------------------------------------------------------------------------------


def test_the_image_is_pinned_and_nobody() -> None:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    pins = dict(line.removeprefix("ARG ").split("=", 1) for line in lines if line.startswith("ARG "))
    stages = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert all(re.fullmatch(r"\S+:\d+\.\d+\.\d+\S*", pin) for pin in pins.values())
    assert {stage.strip("${}") for stage in stages} == set(pins), "every base is an argument with a pin"
    last = lines[max(at for at, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert [line for line in last if line.startswith("USER ")] == ["USER 65532:65532"]
    assert not any(line.startswith("ADD ") for line in lines)
    assert any(re.fullmatch(r'ENTRYPOINT \["policyd"\]', line) for line in last)
    copied = {
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    }
    ignored = set((ROOT / ".dockerignore").read_text().split())
    assert all((ROOT / word).exists() and f"!{word}" in ignored for word in copied)
