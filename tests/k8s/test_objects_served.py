"""The corpus of objects, told to a real API server: its verdict is the one that the schema's reader here predicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.k8s.objects import KINDS, path_of
from tests.k8s.server import ApiServer
from tests.k8s.test_objects import INVALID, LIBRARY, VALID, each, refused


def served(client: httpx.Client, file: Path) -> list[str]:
    """Why the server refuses it, asked as `kubectl apply` asks: strictly. Nothing is stored."""
    found: Any = yaml.safe_load(file.read_text())
    kind, metadata = found.get("kind"), found.get("metadata") or {}
    if kind not in KINDS:
        return ["no such kind"]
    namespace = "" if kind.startswith("Cluster") else metadata.get("namespace") or "default"
    group, _, version = str(found.get("apiVersion")).partition("/")
    if (group, version) != ("policyd.dev", "v1alpha1"):
        return ["no such version"]
    if namespace:
        client.post(
            "/api/v1/namespaces", json={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        )
    answer = client.post(
        path_of(kind, namespace),
        content=file.read_bytes(),
        params={"dryRun": "All", "fieldValidation": "Strict"},
        headers={"content-type": "application/yaml"},
    )
    return [] if answer.status_code == 201 else [answer.text]


@pytest.fixture(scope="module")
def client(api: ApiServer) -> Iterator[httpx.Client]:
    with api.access.client() as client:
        yield client


@pytest.mark.parametrize("file", [*VALID, *LIBRARY, *INVALID], **each)
def test_the_server_says_what_its_schema_says(client: httpx.Client, file: Path) -> None:
    predicted = refused(file)
    assert bool(served(client, file)) == bool(predicted), (served(client, file), predicted)
