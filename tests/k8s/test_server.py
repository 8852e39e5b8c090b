"""The API server of these tests is a whole one, and its module says which."""

from __future__ import annotations

import re

from tests.k8s.server import CLUSTER, MODULE, PARTS, VERSION, ApiServer


def test_the_module_pins_what_is_built() -> None:
    module = (MODULE / "go.mod").read_text()
    assert re.search(rf"k8s\.io/kubernetes {re.escape(VERSION)}\b", module)
    for package in PARTS.values():
        assert f"\t{package}\n" in module.split("tool (", 1)[1].split(")", 1)[0]


def test_it_is_the_whole_server_of_that_version(api: ApiServer) -> None:
    with api.access.client() as client:
        assert CLUSTER or client.get("/version").json()["gitVersion"] == VERSION
        for group in ("apps/v1", "autoscaling/v2", "networking.k8s.io/v1", "apiextensions.k8s.io/v1"):
            assert client.get(f"/apis/{group}").status_code == 200, group


def test_nobody_asks_without_a_token(api: ApiServer) -> None:
    with api.access.client(authorization="Bearer wrong") as client:
        assert client.get("/apis").status_code == 401
