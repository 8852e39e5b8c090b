"""The operator with its webhook, as it ships, beside a real API server: with its own role, asked through its Service.

A Service has nobody behind it here, for there is no network of pods: this one is a name for loopback. All else is the
manifest's: the name that the certificate has to have, the path, the rules, the policy of failures.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.architecture.source import ROOT
from tests.envoy.harness import a_moment, free_port
from tests.k8s.accounts import SPACE, account, made
from tests.k8s.objects import path_of, policy
from tests.k8s.server import CLUSTER, ApiServer, kubectl

HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
NAME = "policyd-policies"
WRONG = policy("wrong", "x", when="request.modle == 1")
_MANIFEST = ROOT / "deploy" / "k8s" / "components" / "webhook" / "webhook.yaml"


def configured(admin: httpx.Client, port: int) -> None:
    """The manifest, with a port of loopback."""
    service, config = yaml.safe_load_all(_MANIFEST.read_text())
    service["spec"] = {"type": "ExternalName", "externalName": "localhost"}
    config["webhooks"][0]["clientConfig"]["service"]["port"] = port
    made(admin, "/api/v1/namespaces", {"metadata": {"name": SPACE}})
    made(admin, f"/api/v1/namespaces/{SPACE}/services", service)
    assert admin.post(HOOKS, json=config).status_code == 201


def unconfigured(admin: httpx.Client) -> None:
    for path in (f"{HOOKS}/{NAME}", f"/api/v1/namespaces/{SPACE}/services/policyd-webhook"):
        admin.delete(path)


def dry(client: httpx.Client, document: dict[str, Any]) -> httpx.Response:
    """What the server says to a policy that is new, without keeping it."""
    space = document["metadata"].get("namespace", "")
    return client.post(path_of(document["kind"], space), json=document, params={"dryRun": "All"})


@dataclass(slots=True)
class Hooked:
    """An API server that asks."""

    api: ApiServer
    config: Path  # a kubeconfig of the administrator's
    log: Path  # of the operator

    def kubectl(self, *words: object, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [kubectl(), "--kubeconfig", self.config, *words]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)

    def apply(self, *documents: dict[str, Any], words: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return self.kubectl("apply", *words, "-f", "-", text="\n".join(map(json.dumps, documents)))


@contextlib.contextmanager
def hooked(api: ApiServer, folder: Path) -> Iterator[Hooked]:
    """With the operator's process."""
    if CLUSTER:
        pytest.skip("a cluster that is not the test's own cannot ask a process here")
    port = free_port()
    config = account(api, "policyd-operator").kubeconfig(folder / "operator")
    command = [sys.executable, "-m", "policyd", "operator", "--webhook", f"127.0.0.1:{port}"]
    log = folder / "log"
    with api.access.client() as admin, log.open("wb") as told:
        environment = {**os.environ, "KUBECONFIG": str(config)}
        configured(admin, port)
        with subprocess.Popen(command, env=environment, stdout=told, stderr=told) as process:
            try:
                for _ in range(1000):
                    if process.poll() is not None or dry(admin, WRONG).status_code == 422:
                        break
                    a_moment()
                assert dry(admin, WRONG).status_code == 422, log.read_text()
                yield Hooked(api, api.access.kubeconfig(folder / "admin"), log)
            finally:
                process.send_signal(signal.SIGTERM)
                unconfigured(admin)
    assert process.returncode == 0, log.read_text()
    assert "ERROR" not in log.read_text(), log.read_text()
