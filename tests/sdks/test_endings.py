"""A program can tell a response that policyd has cut from one that finished, and an error by policyd from any other,
and why: in every SDK and framework of docs/sdks.md, through a real Envoy."""

from __future__ import annotations

import pytest

from tests.built import FRAMEWORKS
from tests.sdks.asking import node_is_missing
from tests.sdks.endings import (
    AWAY,
    BUDGET,
    CUT,
    FALLBACK,
    FINISHED,
    PAGE,
    REJECTED,
    ROWS,
    WHY,
    Observed,
    Row,
    observe,
    page,
)

pytestmark = pytest.mark.envoy
NOTHING = ("", "None", "False", "false", "undefined", "null")


@pytest.fixture(scope="module")
def observed() -> Observed:
    return observe()


def missing(row: Row) -> str:
    if row.asked[0] == "python":
        return ""
    return node_is_missing() if row.asked[0] == "node" else FRAMEWORKS.missing()


@pytest.fixture(params=ROWS, ids=str)
def row(request: pytest.FixtureRequest) -> Row:
    if why := missing(request.param):
        pytest.skip(why)
    return request.param


def test_a_cut_is_told_from_an_end(observed: Observed, row: Row) -> None:
    finished, cut = observed[row, FINISHED], observed[row, CUT]
    assert not finished.error and finished.text
    assert finished.told in NOTHING, finished.told
    assert "enough" in cut.told or cut.told.endswith(f"\n{FALLBACK}"), cut.told
    assert cut.error or cut.text.endswith(f"\n\n{FALLBACK}")


@pytest.mark.parametrize("ending", [REJECTED, BUDGET, AWAY])
def test_an_error_says_why(observed: Observed, row: Row, ending: str) -> None:
    told = observed[row, ending]
    assert told.error and told.told == WHY[ending]


def test_the_page_is_fresh(observed: Observed) -> None:
    if why := next(filter(None, map(missing, ROWS)), ""):
        pytest.skip(why)
    assert PAGE.read_text() == page(observed), "run `python -m tests.sdks.endings`"
