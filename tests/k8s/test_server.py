"""The API server of these tests is a whole one, and its module says which."""

from __future__ import annotations

import re

from tests.built import BUILT, KUBERNETES
from tests.k8s.server import CLUSTER, ApiServer


def test_modules_pin_what_is_built() -> None:
    for one in BUILT:
        module = (one.module / "go.mod").read_text()
        assert re.search(rf"^\s*(tool )?{re.escape(one.package)}$", module, re.MULTILINE), one.package
        assert re.search(rf" {re.escape(one.version)}\b", module), one.version


def test_it_is_the_whole_server_of_that_version(api: ApiServer) -> None:
    with api.access.client() as client:
        assert CLUSTER or client.get("/version").json()["gitVersion"] == KUBERNETES
        for group in ("apps/v1", "autoscaling/v2", "networking.k8s.io/v1", "apiextensions.k8s.io/v1"):
            assert client.get(f"/apis/{group}").status_code == 200, group


def test_nobody_asks_without_a_token(api: ApiServer) -> None:
    with api.access.client(authorization="Bearer wrong") as client:
        assert client.get("/apis").status_code == 401
