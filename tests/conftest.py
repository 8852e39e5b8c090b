"""What holds for every test."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's SDK reads keys, addresses and proxies from the environment: none of them may reach a test."""
    for name in tuple(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "POLICYD_")):
            monkeypatch.delenv(name)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
