"""One real API server for all tests of a run that leave it as they found it, or use names of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.k8s import server
from tests.k8s.objects import Desk, install


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.ApiServer]:
    """kube-apiserver and etcd, ready, with the CRDs; skips, saying why, where they cannot be had."""
    if reason := server.missing():
        pytest.skip(reason)
    with server.api_server(tmp_path_factory.mktemp("k8s")) as running:
        install(running)
        yield running


@pytest.fixture
def desk(api: server.ApiServer) -> Iterator[Desk]:
    """Somebody who applies policies; none are left afterwards."""
    with api.access.client() as client:
        found = Desk(client)
        found.clear()
        yield found
        found.clear()
