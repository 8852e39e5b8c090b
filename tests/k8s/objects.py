"""Policies on an API server, as a person with `kubectl` makes them; and how to wait for what comes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import yaml

from policyd.adapters.policies_kube.shallow import loads
from tests.architecture.source import ROOT
from tests.k8s.server import ApiServer

CRDS = ROOT / "deploy" / "k8s" / "crds" / "policyd.dev.yaml"
KINDS = {"LLMPolicy": "llmpolicies", "ClusterLLMPolicy": "clusterllmpolicies"}
PATIENCE_S = 5.0  # nothing is stale for longer


def definitions() -> list[dict[str, Any]]:
    """The CRDs that ship; where they do not ship yet, two that take anything."""
    if CRDS.exists():
        return [one for one in yaml.safe_load_all(CRDS.read_text()) if one]
    return [_loose(kind, plural) for kind, plural in KINDS.items()]


def _loose(kind: str, plural: str) -> dict[str, Any]:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": anything},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.policyd.dev"},
        "spec": {
            "group": "policyd.dev",
            "scope": "Cluster" if kind.startswith("Cluster") else "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [version],
        },
    }


def policy(name: str, reason: str, *, namespace: str = "default", when: str = 'request.model == "m"') -> dict[str, Any]:
    """An LLMPolicy that refuses for a reason; without a namespace a ClusterLLMPolicy."""
    kind = "LLMPolicy" if namespace else "ClusterLLMPolicy"
    rule = {"name": "no", "when": when, "severity": "Critical", "terminate": {"status": 403, "reason": reason}}
    return {
        "apiVersion": "policyd.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": {"mode": "Full", "match": {"operations": ["*"]}, "rules": [rule]},
    }


def path_of(kind: str, namespace: str = "", name: str = "") -> str:
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/policyd.dev/v1alpha1{within}/{KINDS[kind]}" + (f"/{name}" if name else "")


@dataclass(slots=True)
class Desk:
    """Somebody who applies and deletes."""

    client: httpx.Client

    def apply(self, document: dict[str, Any]) -> dict[str, Any]:
        metadata = document["metadata"]
        path = path_of(document["kind"], metadata.get("namespace", ""), metadata["name"])
        answer = self.client.patch(
            path,
            json=document,
            params={"fieldManager": "tests", "force": "true"},
            headers={"content-type": "application/apply-patch+yaml"},
        )
        assert answer.status_code < 300, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def delete(self, document: dict[str, Any]) -> None:
        metadata = document["metadata"]
        answer = self.client.delete(path_of(document["kind"], metadata.get("namespace", ""), metadata["name"]))
        assert answer.status_code < 300, answer.text

    def get(self, document: dict[str, Any]) -> dict[str, Any]:
        metadata = document["metadata"]
        found: dict[str, Any] = self.client.get(
            path_of(document["kind"], metadata.get("namespace", ""), metadata["name"])
        ).json()
        return found

    def clear(self) -> None:
        """No policies any more."""
        for kind in KINDS:
            for one in loads(self.client.get(path_of(kind)).content)["items"]:
                namespace = one["metadata"].get("namespace", "")
                self.client.delete(path_of(kind, namespace, one["metadata"]["name"]))


def install(server: ApiServer) -> None:
    """Apply the CRDs, and wait until the server knows the kinds."""
    with server.access.client() as client:
        for one in definitions():
            answer = client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=one)
            assert answer.status_code in (201, 409), answer.text
        deadline = time.monotonic() + 20
        for kind in KINDS:
            while client.get(path_of(kind)).status_code != 200:
                assert time.monotonic() < deadline, f"{kind} is not served"


async def until(true: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> float:
    """Wait until it is true, and tell for how many seconds; fails when the time is over."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"after {seconds} s still waiting for {what}"
        await asyncio.sleep(0.005)
    return time.monotonic() - began
