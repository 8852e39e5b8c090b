"""Gateways and HTTPRoutes on a real API server: kinds of the right names that take anything, put in and taken away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import httpx

GROUP = "gateway.networking.k8s.io"
KINDS = {"Gateway": "gateways", "HTTPRoute": "httproutes"}
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def definition(kind: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": KINDS[kind], "singular": kind.lower(), "listKind": f"{kind}List"}
    approved = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/4370"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{KINDS[kind]}.{GROUP}", "annotations": approved},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


@contextlib.contextmanager
def installed(client: httpx.Client) -> Iterator[None]:
    """The Gateway API's kinds, for as long as this lasts."""
    for kind in KINDS:
        assert client.post(_CRDS, json=definition(kind)).status_code in (201, 409)
        _wait(client, kind, 200)
    try:
        yield
    finally:
        for kind, plural in KINDS.items():
            client.delete(f"{_CRDS}/{plural}.{GROUP}").raise_for_status()
            _wait(client, kind, 404)


def _wait(client: httpx.Client, kind: str, status: int) -> None:
    deadline = time.monotonic() + 20
    while client.get(path_of(kind)).status_code != status:
        assert time.monotonic() < deadline, f"{kind} is still not {status}"


def path_of(kind: str, namespace: str = "", name: str = "") -> str:
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{GROUP}/v1{within}/{KINDS[kind]}" + (f"/{name}" if name else "")


def put(client: httpx.Client, kind: str, namespace: str, name: str, **spec: object) -> None:
    """There is one from now on."""
    body = {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    answer = client.post(path_of(kind, namespace), json=body)
    assert answer.status_code == 201, answer.text


def remove(client: httpx.Client, kind: str, namespace: str, name: str) -> None:
    client.delete(path_of(kind, namespace, name)).raise_for_status()
