"""Which replicas the operator believes, and how long: by changes, on a clock of its own; and what a report may hold."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.adapters.policies_kube.mirror import Key
from policyd.adapters.policies_kube.report import LONGEST_WORDS, MOST_LINES, MOST_UNCARRIED
from policyd.operator.liveness import LASTS_S, Liveness
from policyd.operator.status import Replica, replica_of

ONE: Key = ("policyd", "one")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def reports(renewed: str) -> dict[Key, Replica]:
    return {ONE: Replica("sha256:1", "s", "", renewed)}


TIMES = ["2026-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "", "no time at all"]


@pytest.mark.parametrize("renewed", TIMES)
def test_a_time_says_nothing(renewed: str) -> None:
    clock = Clock()
    liveness = Liveness(clock)
    assert len(liveness.living(reports(renewed), in_step=True)) == 1
    for _ in range(int(LASTS_S // 5)):
        clock.now += 5
        assert len(liveness.living(reports(renewed), in_step=True)) == 1
    clock.now += 5
    assert liveness.living(reports(renewed), in_step=True) == [], "it has not changed for long enough"
    assert len(liveness.living(reports(f"{renewed}!"), in_step=True)) == 1, "any change is a sign of life"


def test_a_clock_that_runs_back_is_a_change_like_any_other() -> None:
    clock = Clock()
    liveness = Liveness(clock)
    for minute in range(59, 0, -1):
        assert len(liveness.living(reports(f"2026-01-01T00:{minute:02}:00Z"), in_step=True)) == 1
        clock.now += 10


def test_nobody_lapses_while_reports_cannot_be_seen() -> None:
    clock = Clock()
    liveness = Liveness(clock)
    liveness.living(reports("a"), in_step=True)
    for _ in range(100):
        clock.now += 5
        assert len(liveness.living(reports("a"), in_step=False)) == 1
    clock.now += 5
    assert len(liveness.living(reports("a"), in_step=True)) == 1, "it has time to be heard again"
    clock.now += 600  # we were stopped
    assert len(liveness.living(reports("a"), in_step=True)) == 1
    for _ in range(int(LASTS_S // 5)):
        clock.now += 5
        liveness.living(reports("a"), in_step=True)
    clock.now += 5
    assert liveness.living(reports("a"), in_step=True) == []


def test_one_that_is_gone_is_gone_and_forgotten() -> None:
    liveness = Liveness(Clock())
    liveness.living(reports("a"), in_step=True)
    assert liveness.living({}, in_step=True) == []
    assert liveness._seen == {}


HOSTILE: list[Any] = [
    None,
    "text",
    [],
    {"untold": "text", "uncarried": "text", "digest": 7, "seen": {}, "renewed": []},
    {"untold": [7, None, {}, "\n"], "uncarried": {"a": 7, "b": None}},
    {"untold": ["x" * 10_000] * 1_000, "uncarried": {f"{at}": "y" * 10_000 for at in range(1_000)}},
    {"uncarried": {"f" * 10_000: "words"}},
    {"untold": ["one\ntwo\x1b[31m\u202e"], "digest": "d\nwith\x00"},
]


@pytest.mark.parametrize("spec", HOSTILE)
def test_whatever_a_report_holds_comes_to_bounded_lines(spec: Any) -> None:
    replica = replica_of({"metadata": {"name": "r"}, "spec": spec})
    words = [*replica.untold, *replica.uncarried.values(), replica.digest, replica.seen, replica.home, replica.renewed]
    assert len(replica.untold) <= MOST_LINES
    assert len(replica.uncarried) <= MOST_UNCARRIED
    assert all(len(one) <= LONGEST_WORDS and one.isprintable() for one in words)
