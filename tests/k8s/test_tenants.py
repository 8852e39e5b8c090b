"""Tenants with Kubernetes' own role `edit`: nothing that they write changes the status of a policy."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from policyd.adapters.policies_kube import report
from policyd.adapters.policies_kube.access import find_access
from policyd.adapters.policies_kube.report import instant
from policyd.operator.operate import Operator
from tests.k8s.accounts import SPACE, account, made
from tests.k8s.objects import Desk, policy, until
from tests.k8s.server import Access, ApiServer
from tests.k8s.test_operator import conditions, operating, operator, says
from tests.k8s.test_policies_kube import source, watching

TENANT = "tenant-a"
_ROLES = "/apis/rbac.authorization.k8s.io/v1"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
_REPORTS = "/apis/policyd.dev/v1alpha1/namespaces/{}/dataplanereports"
_PARTS = ("edit", "system:aggregate-to-edit", "system:aggregate-to-view")  # no controller here puts them together


def tenant(api: ApiServer, space: str, *, everywhere: bool = False) -> Access:
    """A service account with the role `edit`, in its own namespace or in all of them."""
    name = "everywhere" if everywhere else "tenant"
    with api.access.client() as admin:
        made(admin, "/api/v1/namespaces", {"metadata": {"name": space}})
        made(admin, f"/api/v1/namespaces/{space}/serviceaccounts", {"metadata": {"name": name}})
        for role in _PARTS:
            kind = "ClusterRoleBinding" if everywhere else "RoleBinding"
            place = f"{_ROLES}/clusterrolebindings" if everywhere else f"{_ROLES}/namespaces/{space}/rolebindings"
            binding = {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": kind,
                "metadata": {"name": f"{name}-{role.replace(':', '-')}"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": space}],
            }
            made(admin, place, binding)
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        path = f"/api/v1/namespaces/{space}/serviceaccounts/{name}/token"
        token = admin.post(path, json=asked).raise_for_status().json()["status"]["token"]
    return Access(api.access.url, api.access.ca, token, namespace=space)


def lease(space: str, name: str) -> dict[str, Any]:
    """What a replica wrote once: it says that it runs something else, and speaks of every policy."""
    notes = {
        "policyd.dev/digest": "sha256:" + "0" * 64,
        "policyd.dev/seen": "0" * 32,
        "policyd.dev/namespace": "",
        "policyd.dev/home": "elsewhere",
        "policyd.dev/untold": "calls come without their route (call 0900-EVIL)",
        "policyd.dev/uncarried": json.dumps({"llmpolicy/default/p": "call 0900-EVIL"}),
    }
    labels = {"policyd.dev/part": "data-plane"}
    spec = {"holderIdentity": name, "leaseDurationSeconds": 30, "renewTime": instant(datetime.now(UTC))}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": space, "labels": labels, "annotations": notes},
        "spec": spec,
    }


def a_report(space: str) -> dict[str, Any]:
    spec = {
        "renewed": "now",
        "digest": "sha256:0",
        "seen": "0",
        "untold": ["calls come without their route (EVIL)"],
        "uncarried": {"llmpolicy/default/p": "EVIL"},
    }
    metadata = {"name": "forged", "namespace": space}
    return {"apiVersion": "policyd.dev/v1alpha1", "kind": "DataPlaneReport", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("everywhere", [False, True], ids=["in one namespace", "in all"])
def test_what_a_tenant_writes_changes_no_status(api: ApiServer, desk: Desk, tmp_path: Path, everywhere: bool) -> None:
    someone, one = tenant(api, TENANT, everywhere=everywhere), policy("p", "one")
    ours = account(api, "policyd")
    config = account(api, "policyd-operator").kubeconfig(tmp_path / "operator")
    its = Operator(find_access(environ={"KUBECONFIG": str(config)}), "one")
    desk.apply(one)
    spaces = (TENANT, SPACE) if everywhere else (TENANT,)

    async def story() -> None:
        async with watching(source(ours, tmp_path / "a", name="replica")), operating(its):
            await until(lambda: says(desk, one, "Programmed", "Programmed"), "its status", 20)
            before = desk.get(one)["status"]
            with someone.client() as client:
                for space in spaces:
                    made(client, _LEASES.format(space), lease(space, "policyd-forged"))
                for space in (TENANT, SPACE):
                    answer = client.post(_REPORTS.format(space), json=a_report(space))
                    assert answer.status_code == 403, answer.text
                status = client.patch(
                    "/apis/policyd.dev/v1alpha1/namespaces/default/llmpolicies/p/status",
                    json={"status": {}},
                    headers={"content-type": "application/merge-patch+json"},
                )
                assert status.status_code == 403
            # Its own namespace' reports, however they came there, are not believed either.
            made(desk.client, _REPORTS.format(TENANT), a_report(TENANT))
            desk.apply(policy("q", "two"))
            await until(lambda: says(desk, policy("q", ""), "Programmed", "Programmed"), "the next one", 20)
            assert desk.get(one)["status"] == before
            assert "EVIL" not in json.dumps([desk.get(one), desk.get(policy("q", ""))])

    try:
        asyncio.run(story())
    finally:
        for space in (TENANT, SPACE):
            desk.client.delete(_LEASES.format(space) + "/policyd-forged")
            desk.client.delete(_REPORTS.format(space) + "/forged")


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_clock_that_is_ten_minutes_off_empties_no_status(
    api: ApiServer, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    one = policy("p", "one")
    monkeypatch.setattr(report, "instant", lambda at: instant(at + timedelta(minutes=minutes)))
    monkeypatch.setattr(report, "RENEW_S", 0.5)

    async def story() -> None:
        async with watching(source(api.access, tmp_path, name="replica")), operating(operator(api, tmp_path)):
            desk.apply(one)
            await until(lambda: says(desk, one, "Programmed", "Programmed"), "its status", 20)
            assert desk.get(one)["status"]["replicas"] == {"programmed": 1, "total": 1}
            assert conditions(desk, one)["Programmed"]["message"].startswith("1 of 1 replicas")

    asyncio.run(story())
