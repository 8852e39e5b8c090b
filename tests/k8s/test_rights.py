"""With exactly the roles that ship the data plane and the operator work; what goes beyond them is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.architecture.source import ROOT
from tests.k8s.objects import Desk, path_of, policy, until
from tests.k8s.server import Access, ApiServer
from tests.k8s.test_operator import says
from tests.k8s.test_policies_kube import reasons, source, watching

ROLES = "/apis/rbac.authorization.k8s.io/v1"
SPACE = "default"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SPACE}/leases"


def shipped_roles() -> list[dict[str, Any]]:
    files = [ROOT / "deploy" / "k8s" / part / "rbac.yaml" for part in ("base", "operator")]
    every = [one for file in files for one in yaml.safe_load_all(file.read_text())]
    return [one for one in every if one["kind"] in ("Role", "ClusterRole")]


def grant(admin: httpx.Client, name: str) -> str:
    """A service account with its roles and no others; gives its token."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    admin.post(f"/api/v1/namespaces/{SPACE}/serviceaccounts", json=account).raise_for_status()
    for role in shipped_roles():
        if role["metadata"]["name"] == name:
            within = "" if role["kind"] == "ClusterRole" else f"/namespaces/{SPACE}"
            admin.post(f"{ROLES}{within}/{role['kind'].lower()}s", json=role).raise_for_status()
            binding = {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": f"{role['kind']}Binding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role["kind"], "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": SPACE}],
            }
            admin.post(f"{ROLES}{within}/{role['kind'].lower()}bindings", json=binding).raise_for_status()
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = admin.post(f"/api/v1/namespaces/{SPACE}/serviceaccounts/{name}/token", json=asked)
    return str(answer.raise_for_status().json()["status"]["token"])


@pytest.fixture(scope="module")
def accounts(api: ApiServer) -> dict[str, Access]:
    with api.access.client() as admin:
        return {
            name: Access(api.access.url, api.access.ca, grant(admin, name)) for name in ("policyd", "policyd-operator")
        }


def test_both_work_with_these_rights(desk: Desk, accounts: dict[str, Access], tmp_path: Path) -> None:
    config = accounts["policyd-operator"].kubeconfig(tmp_path / "operator")
    command = [sys.executable, "-m", "policyd", "operator"]
    one, everywhere = policy("p", "one"), policy("all", "two", namespace="")

    async def story() -> None:
        async with watching(source(accounts["policyd"], tmp_path, name="replica")) as policies:
            desk.apply(one)
            desk.apply(everywhere)
            await until(lambda: len(reasons(policies)) == 2, "the policies")
            for document in (one, everywhere):
                await until(
                    lambda document=document: says(desk, document, "Programmed", "Programmed"), "its status", 20
                )
        assert desk.client.get(f"{LEASES}/replica").status_code == 404, "it takes its Lease away"

    with (tmp_path / "log").open("wb") as log:
        environment = {**os.environ, "KUBECONFIG": str(config)}
        with subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
            try:
                asyncio.run(story())
            finally:
                process.send_signal(signal.SIGTERM)
    said = (tmp_path / "log").read_text()
    assert process.returncode == 0, said
    assert "ERROR" not in said


BEYOND = [
    ("policyd", "GET", "/api/v1/secrets", None),
    ("policyd", "PATCH", path_of("LLMPolicy", SPACE, "p"), {"spec": {"mode": "Monitor"}}),
    ("policyd", "PATCH", path_of("LLMPolicy", SPACE, "p") + "/status", {"status": {}}),
    ("policyd-operator", "GET", "/api/v1/secrets", None),
    ("policyd-operator", "PATCH", path_of("LLMPolicy", SPACE, "p"), {"spec": {"mode": "Monitor"}}),
    ("policyd-operator", "DELETE", path_of("LLMPolicy", SPACE, "p"), None),
    ("policyd-operator", "DELETE", f"{LEASES}/policyd-operator", None),
]


@pytest.mark.parametrize(("who", "method", "path", "body"), BEYOND)
def test_what_goes_beyond_them_is_refused(
    desk: Desk, accounts: dict[str, Access], who: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    desk.apply(policy("p", "one"))
    with accounts[who].client(**{"content-type": "application/merge-patch+json"}) as client:
        assert client.request(method, path, json=body).status_code == 403
