"""What natural mistakes in a policy get told: place, cause and fix (tests/mistakes.py has the form of the tables)."""

from __future__ import annotations

import re

import pytest

from policyd.core.errors import Severity
from policyd.core.model.providers import PROVIDER_NAMES
from policyd.core.stream.dialects.providers import PROVIDERS
from tests.mistakes import FOLDER, Mistake, is_named, mistakes

TABLES = sorted(FOLDER.glob("*.txt"))
CASES = [pytest.param(one, id=f"{file.stem}-{one.name}") for file in TABLES for one in mistakes(file)]
MISLEADING = re.compile(r"remove it\b(?!, or)|look at the reference")


@pytest.mark.parametrize("mistake", CASES)
def test_a_mistake_is_told_with_its_place_its_cause_and_its_fix(mistake: Mistake) -> None:
    issues = mistake.issues()
    told = [f"{one.span.line}:{one.span.column} {one.code} {one.message} — {one.hint}" for one in issues]
    assert any(is_named(mistake, one) for one in issues), "\n".join(told)


@pytest.mark.parametrize("mistake", CASES)
def test_no_error_is_answered_with_its_removal(mistake: Mistake) -> None:
    for issue in mistake.issues():
        if issue.severity is Severity.ERROR and issue.code.startswith(("CEL003", "CEL002", "POL004")):
            assert not MISLEADING.search(issue.hint), issue


def test_the_tables_are_as_long_as_they_are_said_to_be() -> None:
    assert len(CASES) >= 220
    assert len({case.values[0].name for case in CASES}) == len(CASES)  # type: ignore[union-attr]


def test_every_provider_that_is_read_is_one_that_check_knows() -> None:
    assert set(PROVIDER_NAMES) >= PROVIDERS
