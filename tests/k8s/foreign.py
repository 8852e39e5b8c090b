"""CRDs that are not ours, of the versions that the documents name: read from Go's module cache, never copied.

Rule 1: what is not in the cache is a skip with its reason; `go mod download MODULE@VERSION` brings it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

CACHE = Path(os.environ.get("GOMODCACHE") or Path.home() / "go" / "pkg" / "mod")
FOLDERS = {  # group of the API: module, and where its CRDs lie in it
    "gateway.envoyproxy.io": (
        "github.com/envoyproxy/gateway@v1.8.1",
        "charts/gateway-helm/charts/crds/crds/generated",
    ),
    # the version that Envoy Gateway 1.8.1 is built on
    "gateway.networking.k8s.io": ("sigs.k8s.io/gateway-api@v1.5.1", "config/crd/standard"),
    "cert-manager.io": ("github.com/cert-manager/cert-manager@v1.21.2", "deploy/crds"),
}


def is_foreign(made: dict[str, Any]) -> bool:
    """Whether an object is of an API that neither Kubernetes nor policyd brings."""
    return group_of(made) in FOLDERS


def is_here(made: dict[str, Any]) -> bool:
    """Whether the CRD of an object of others' can be had."""
    return (CACHE / FOLDERS[group_of(made)][0]).exists()


def group_of(made: dict[str, Any]) -> str:
    return str(made["apiVersion"].partition("/")[0])


def crd_of(made: dict[str, Any]) -> Path:
    """The file with the CRD of this object; skips the test where it is not to be had."""
    module, below = FOLDERS[group_of(made)]
    if not is_here(made):
        pytest.skip(f"the CRDs of {group_of(made)} are not in Go's module cache: go mod download {module}")
    found = _by_kind(CACHE / module / below, group_of(made)).get(made["kind"])
    assert found, f"{module} knows no {made['kind']}"
    return found


@cache
def _by_kind(folder: Path, group: str) -> dict[str, Path]:
    kinds = {}
    for file in sorted(folder.glob(f"{group}_*.yaml")):
        named = next((line for line in file.read_text().splitlines() if line.startswith("    kind: ")), "")
        kinds[named.partition(": ")[2]] = file
    return kinds


def schema_of(made: dict[str, Any]) -> dict[str, Any]:
    """The schema of this object's version."""
    crd = yaml.load(crd_of(made).read_text(), yaml.CSafeLoader)  # a megabyte each
    version = made["apiVersion"].partition("/")[2]
    (schema,) = (one["schema"]["openAPIV3Schema"] for one in crd["spec"]["versions"] if one["name"] == version)
    assert isinstance(schema, dict)
    return schema
