"""The manifests: fresh, whole, within the rules that they are to keep, and taken by a real API server."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd.cli.main import COMMANDS, load
from policyd.operator.certificate import CONFIGURATION, SERVICE
from policyd.operator.webhook import JUDGED_S, PATH
from tests.architecture.source import ROOT
from tests.built import LINTER
from tests.envoy.harness import VERSIONS, validate
from tests.k8s import foreign
from tests.k8s.accounts import made
from tests.k8s.server import CLUSTER, ApiServer, kubectl

DEPLOY = ROOT / "deploy" / "k8s"
BUILDS = (
    "crds",
    "operator",
    "operator-webhook",
    *(f"overlays/{file.name}" for file in sorted((DEPLOY / "overlays").iterdir())),
)
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
        assert "ephemeral-storage" in container["resources"]["limits"] or name.startswith("operator")
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


@pytest.mark.parametrize("name", [name for name in BUILDS if name.startswith("overlays/")])
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


@pytest.fixture
def shore(api: ApiServer, tmp_path: Path) -> Iterator[Shore]:
    """Where manifests are applied, and nothing but the namespace is left."""
    found = Shore(api.access.kubeconfig(tmp_path / "config"), tmp_path)
    with api.access.client() as client:
        made(client, "/api/v1/namespaces", {"metadata": {"name": "policyd"}})
    yield found
    found.clear()


@dataclass(slots=True)
class Shore:
    """An API server, as `kubectl` sees it."""

    config: Path
    folder: Path
    kept: list[dict[str, Any]] = field(default_factory=list)

    def kubectl(self, *words: object) -> str:
        command = [kubectl(), "--kubeconfig", self.config, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        # Other tests make the namespace and the accounts before any manifest does.
        said = [
            line for line in done.stderr.splitlines() if "is missing the kubectl.kubernetes.io/last-app" not in line
        ]
        assert (done.returncode, said) == (0, []), done
        return done.stdout

    def apply(self, found: list[dict[str, Any]], *words: str) -> int:
        """How many objects of them the server has taken."""
        self.kept += [
            one for one in found if one["kind"] != "Namespace" and "policyd.dev" not in one["metadata"]["name"]
        ]
        return len(self.kubectl("apply", *words, "-f", self._file(found)).splitlines())

    def define(self, found: list[dict[str, Any]]) -> None:
        """The CRDs of these objects, which are others'."""
        files = [word for file in sorted({foreign.crd_of(one) for one in found}) for word in ("-f", file)]
        if files:
            self.kubectl("apply", "--server-side", *files)
            self.kubectl("wait", "--for=condition=Established", "--timeout=20s", *files)

    def clear(self) -> None:
        if self.kept and not CLUSTER:
            self.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", self._file(self.kept))

    def _file(self, found: list[dict[str, Any]]) -> Path:
        file = self.folder / "objects.yaml"
        file.write_text(yaml.safe_dump_all(found))
        return file


@every_build
def test_a_real_server_takes_and_keeps_every_object(name: str, shore: Shore) -> None:
    """What `kubectl apply -k` sends; of somebody's cluster it is only asked, for there are controllers."""
    every = [one for one in objects(name) if not foreign.is_foreign(one) or (foreign.is_here(one) and not CLUSTER)]
    shore.define([one for one in every if foreign.is_foreign(one)])
    words = ["--server-side", "--force-conflicts"] if name == "crds" or CLUSTER else []
    assert shore.apply(every, *words, *(["--dry-run=server"] if CLUSTER else [])) == len(every)
    if not CLUSTER and name != "crds":
        again = shore.kubectl("apply", "-f", shore.folder / "objects.yaml").splitlines()
        assert [line for line in again if not line.endswith((" unchanged", " configured"))] == []


def test_kustomize_from_the_folder_is_the_same(shore: Shore) -> None:
    """The command of the README, word by word."""
    if CLUSTER:
        pytest.skip("it would run there")
    told = shore.kubectl("apply", "-k", DEPLOY / "operator-webhook")
    shore.kept += objects("operator-webhook")
    assert len(told.splitlines()) == len(objects("operator-webhook"))
    config = "validatingwebhookconfiguration.admissionregistration.k8s.io/policyd-policies"
    assert f"{config} created" in told.splitlines()


def test_the_webhook_is_never_in_the_way() -> None:
    """Without an operator, or with a slow one, policies are applied as they were before."""
    (config,) = objects("operator-webhook", "ValidatingWebhookConfiguration")
    (hook,) = config["webhooks"]
    assert (hook["failurePolicy"], hook["sideEffects"], hook["admissionReviewVersions"]) == ("Ignore", "None", ["v1"])
    assert hook["timeoutSeconds"] <= 2
    assert hook["timeoutSeconds"] > JUDGED_S
    assert not any("/" in resource for rule in hook["rules"] for resource in rule["resources"]), "not the status"
    (service,) = objects("operator-webhook", "Service")
    asked = hook["clientConfig"]["service"]
    assert (asked["name"], asked["namespace"], asked["path"]) == (SERVICE, "policyd", PATH)
    assert config["metadata"]["name"] == CONFIGURATION
    assert service["metadata"]["name"] == SERVICE
    (pod,) = objects("operator-webhook", "Deployment")
    assert service["spec"]["selector"].items() <= pod["spec"]["template"]["metadata"]["labels"].items()
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"--webhook=0.0.0.0:{ports[service['spec']['ports'][0]['targetPort']]}" in container["args"]


BY_PURPOSE = (  # what kube-score would have otherwise
    "pod-networkpolicy",  # the operator asks the API server, and is asked by it alone
    "container-image-pull-policy",  # a pinned tag, or a digest, does not move
    "container-resources",  # a limit of CPU throttles; memory and disk are held to by the tests above
    "deployment-has-host-podantiaffinity",  # topologySpreadConstraints say it
    "deployment-replicas",  # the one Redis of `try`
)


@every_build
def test_a_linter_finds_nothing(name: str) -> None:
    if LINTER.missing():
        pytest.skip(LINTER.missing())
    left = (
        ("container-ephemeral-storage-request-and-limit",) if name.startswith("operator") else ()
    )  # it writes nothing
    ignored = [word for one in (*BY_PURPOSE, *left) for word in ("--ignore-test", one)]
    command = [LINTER.path, "score", "--kubernetes-version", "v1.30", "--output-format", "ci", *ignored, "-"]
    done = subprocess.run(command, input=built(name), capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if not line.startswith(("[OK]", "[SKIPPED]"))] == []


# ---- the image ------------------------------------------------------------------------------------------------------


def test_a_linter_takes_the_dockerfile() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    spoilt = (ROOT / "Dockerfile").read_text().replace("USER 65532:65532", "USER root\nRUN apt-get install curl")
    assert subprocess.run([linter, "-"], input=spoilt, capture_output=True, text=True, check=False).returncode == 1


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
