"""Service accounts with exactly the roles that ship, in the namespace that the manifests name."""

from __future__ import annotations

from typing import Any

import httpx
import yaml

from tests.architecture.source import ROOT
from tests.k8s.server import Access, ApiServer

SPACE = "policyd"
FILES = {
    "policyd": ["base/rbac.yaml"],
    "policyd-operator": ["operator/rbac.yaml", "components/webhook/rbac.yaml"],
}
_ROLES = "/apis/rbac.authorization.k8s.io/v1"


def account(api: ApiServer, name: str) -> Access:
    """One of the two, as it runs in a cluster."""
    with api.access.client() as admin:
        made(admin, "/api/v1/namespaces", {"metadata": {"name": SPACE}})
        for file in FILES[name]:
            for one in yaml.safe_load_all((ROOT / "deploy" / "k8s" / file).read_text()):
                made(admin, _place(one), one)
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = admin.post(f"/api/v1/namespaces/{SPACE}/serviceaccounts/{name}/token", json=asked)
        token = answer.raise_for_status().json()["status"]["token"]
    return Access(api.access.url, api.access.ca, token, namespace=SPACE)


def made(admin: httpx.Client, path: str, one: dict[str, Any]) -> None:
    """Created, or there already."""
    answer = admin.post(path, json=one)
    assert answer.status_code in (201, 409), answer.text


def _place(one: dict[str, Any]) -> str:
    kind = one["kind"]
    if kind == "ServiceAccount":
        return f"/api/v1/namespaces/{SPACE}/serviceaccounts"
    within = "" if kind.startswith("Cluster") else f"/namespaces/{SPACE}"
    return f"{_ROLES}{within}/{kind.lower()}s"
