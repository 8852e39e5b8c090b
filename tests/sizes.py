"""How much of the long tests is run: `make test` runs the usual size, `make test-all` (POLICYD_TESTS=all) the whole."""

from __future__ import annotations

import os
from typing import TypeVar

import pytest

Thing = TypeVar("Thing")
ALL = os.environ.get("POLICYD_TESTS", "") == "all"

long = pytest.mark.skipif(not ALL, reason="it takes long: `make test-all` runs it")


def size(whole: int, usual: int | None = None) -> int:
    """How many examples, calls or rounds: the whole number, or the usual one, by default a fifth of it."""
    return whole if ALL else max(1, whole // 5) if usual is None else usual


def some(things: list[Thing], usual: int) -> list[Thing]:
    """All of these, or as many as usual, from the whole list."""
    return things if ALL or len(things) <= usual else things[:: -(-len(things) // usual)]
