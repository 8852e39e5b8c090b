"""The AI Gateway that the tests share, or why there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.aigw import gateway
from tests.aigw.places import Place, Stand, Standing

REASON = gateway.missing()


@pytest.fixture(scope="module")  # and no longer: other tests have no use for a gateway, other runs have
def standing() -> Iterator[Standing]:
    if REASON:
        pytest.skip(REASON)
    with contextlib.closing(Standing()) as one:
        yield one


@pytest.fixture(scope="module", params=list(Stand), ids=str)
def place(standing: Standing, request: pytest.FixtureRequest) -> Place:
    """policyd in one of its places."""
    return standing.at(request.param)
