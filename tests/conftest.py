"""What holds for every test."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from tests.redis import servers

# What thousands of tests have imported is looked at with each full collection: a fifth of their time went into that.
gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's SDK reads keys, addresses and proxies from the environment: none of them may reach a test."""
    for name in tuple(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "POLICYD_")):
            monkeypatch.delenv(name)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.RedisServer]:
    """One Redis for all tests that leave it as they found it, or do not mind."""
    if servers.binary() is None:
        pytest.skip(servers.MISSING)
    with servers.redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[list[servers.RedisServer]]:
    """Three nodes that share the slots."""
    if servers.binary() is None:
        pytest.skip(servers.MISSING)
    with servers.redis_cluster() as nodes:
        yield nodes
