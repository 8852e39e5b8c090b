"""With exactly the roles that ship the data plane and the operator work; what goes beyond them is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.envoy.harness import free_port
from tests.k8s import gateway_api
from tests.k8s.accounts import SPACE, account
from tests.k8s.hooked import HOOKS, WRONG, configured, dry, unconfigured
from tests.k8s.objects import Desk, path_of, policy, until
from tests.k8s.server import CLUSTER, Access, ApiServer
from tests.k8s.test_operator import says
from tests.k8s.test_policies_kube import reasons, source, watching

LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SPACE}/leases"
REPORTS = f"/apis/policyd.dev/v1alpha1/namespaces/{SPACE}/dataplanereports"


@pytest.fixture(scope="module")
def accounts(api: ApiServer) -> dict[str, Access]:
    return {name: account(api, name) for name in ("policyd", "policyd-operator")}


@pytest.fixture
def port(desk: Desk) -> Iterator[int]:
    """Of the webhook; 0 where the API server cannot reach this machine."""
    if CLUSTER:
        yield 0
        return
    port = free_port()
    configured(desk.client, port)
    yield port
    unconfigured(desk.client)


def test_both_work_with_these_rights(desk: Desk, accounts: dict[str, Access], port: int, tmp_path: Path) -> None:
    config = accounts["policyd-operator"].kubeconfig(tmp_path / "operator")
    webhook = ["--webhook", f"127.0.0.1:{port}"] if port else []
    command = [sys.executable, "-m", "policyd", "operator", *webhook]
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
            if webhook:
                await until(lambda: dry(desk.client, WRONG).status_code == 422, "the webhook to refuse", 20)
        assert desk.client.get(f"{REPORTS}/replica").status_code == 404, "it takes its report away"

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


@pytest.mark.parametrize(
    ("who", "kind"), [("policyd", "HTTPRoute"), ("policyd-operator", "HTTPRoute"), ("policyd-operator", "Gateway")]
)
def test_what_policies_are_attached_to_may_be_read(
    desk: Desk, accounts: dict[str, Access], who: str, kind: str
) -> None:
    with gateway_api.installed(desk.client), accounts[who].client() as client:
        assert client.get(gateway_api.path_of(kind)).status_code == 200


BEYOND = [
    ("policyd", "GET", "/api/v1/secrets", None),
    ("policyd", "PATCH", path_of("LLMPolicy", "default", "p"), {"spec": {"mode": "Monitor"}}),
    ("policyd", "PATCH", path_of("LLMPolicy", "default", "p") + "/status", {"status": {}}),
    ("policyd", "GET", gateway_api.path_of("Gateway"), None),
    ("policyd-operator", "GET", "/api/v1/secrets", None),
    ("policyd-operator", "GET", f"/apis/{gateway_api.GROUP}/v1/grpcroutes", None),
    ("policyd-operator", "PATCH", gateway_api.path_of("HTTPRoute", SPACE, "p") + "/status", {"status": {}}),
    ("policyd-operator", "PATCH", path_of("LLMPolicy", "default", "p"), {"spec": {"mode": "Monitor"}}),
    ("policyd-operator", "DELETE", path_of("LLMPolicy", "default", "p"), None),
    ("policyd", "PATCH", f"{LEASES}/policyd-operator", {"spec": {}}),
    ("policyd", "PATCH", f"{REPORTS.replace(SPACE, 'default')}/replica", {"spec": {}}),
    ("policyd-operator", "DELETE", f"{LEASES}/policyd-operator", None),
    ("policyd-operator", "GET", "/apis/coordination.k8s.io/v1/leases", None),
    ("policyd-operator", "PATCH", f"{REPORTS}/replica", {"spec": {}}),
    ("policyd-operator", "GET", "/apis/policyd.dev/v1alpha1/dataplanereports", None),
    ("policyd-operator", "GET", HOOKS, None),
    ("policyd-operator", "GET", f"{HOOKS}/another", None),
    ("policyd-operator", "PATCH", f"{HOOKS}/policyd-policies", {"webhooks": []}),
    ("policyd-operator", "DELETE", f"{HOOKS}/policyd-policies", None),
    ("policyd", "GET", f"{HOOKS}/policyd-policies", None),
]


@pytest.mark.parametrize(("who", "method", "path", "body"), BEYOND)
def test_what_goes_beyond_them_is_refused(
    desk: Desk, accounts: dict[str, Access], who: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    desk.apply(policy("p", "one"))
    with accounts[who].client(**{"content-type": "application/merge-patch+json"}) as client:
        assert client.request(method, path, json=body).status_code == 403
