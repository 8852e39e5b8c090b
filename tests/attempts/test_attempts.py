"""Nothing gets past a policy in mode Full with failurePolicy Fail: every attempt, class by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from policyd.cli.stage import Stage
from tests.attempts.table import PAGE, attacked, attempts, markdown, tried

pytestmark = pytest.mark.envoy

COUNTS = Counter(attempt.klass for attempt in attempts())


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with attacked() as up:
        yield up


@pytest.mark.parametrize("klass", sorted(COUNTS))
@pytest.mark.timeout(300)
def test_no_attempt_gets_past(stage: Stage, klass: str) -> None:
    assert not [f"{attempt}: {wrong}" for attempt, wrong in tried(stage, klass) if wrong]


def test_the_page_has_these_numbers() -> None:
    assert PAGE.read_text() == markdown(COUNTS, Counter()), "write it anew: python -m tests.attempts.table"
