"""What every counter store promises of room that is only asked for, and of counters of different values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policyd.core.model.counters import DISTINCT_MOST, CounterId, Hold, Reading, Window
from tests.contracts.test_counters import (
    ALL_WINDOWS,
    DAY,
    HOUR,
    LIFETIME,
    SLIDING,
    Counting,
    counter,
    counting,
    hold,
)

__all__ = ["counting"]  # the stores, as a fixture

# ---- room that is asked for and not taken ---------------------------------------------------------------------------


@pytest.mark.parametrize(("settled", "fits"), [(0, True), (99, True), (100, False), (160, False)])
def test_room_may_be_asked_for_without_taking_it(counting: Counting, settled: int, fits: bool) -> None:
    counting.spend(counter(), settled)

    answers = [counting.reserve(f"call {n}", Hold(counter(), 1, 0, 100)) for n in range(3)]

    assert [answer.refused for answer in answers] == [None if fits else 0] * 3
    assert counting.reading(counter()) == Reading(value=settled)
    assert (answers[0].counters[0].retry_after_s is None) == fits


# ---- different values -----------------------------------------------------------------------------------------------


def values(member: str, window: Window = LIFETIME, **rest: str) -> CounterId:
    charge = "Distinct:request.model"
    return CounterId("ns/budget", "models", ("key",), charge, window, member=member, **rest)


def one(member: str, limit: int | None = 2, window: Window = LIFETIME) -> Hold:
    return Hold(values(member, window), 1, 1, limit)


@pytest.mark.parametrize("window", ALL_WINDOWS, ids=lambda window: str(window.kind))
def test_a_value_counts_once(counting: Counting, window: Window) -> None:
    for member in ("a", "b", "a", "a", "b"):
        counting.spend(values(member, window), 1)

    assert counting.reading(values("a", window)) == Reading(value=2, seen=True)
    assert counting.reading(values("c", window)) == Reading(value=2)
    assert counting.reading(values("", window)) == Reading(value=2)


def test_a_value_that_counts_fits_and_a_new_one_beyond_the_limit_does_not(counting: Counting) -> None:
    counting.spend(values("a"), 1)
    counting.spend(values("b"), 1)

    assert counting.reserve("1", one("a")).refused is None
    refused = counting.reserve("2", one("c"))
    assert refused.refused == 0
    assert (refused.counters[0].value, refused.counters[0].seen) == (2, False)
    assert refused.counters[0].retry_after_s == pytest.approx(DAY)
    assert counting.reserve("3", one("c", None)).refused is None


def test_a_value_that_a_running_call_has_takes_room_once(counting: Counting) -> None:
    first = counting.reserve("1", one("a"))
    same = counting.reserve("2", one("a"))
    counting.reserve("3", one("b"))

    assert (first.counters[0].held, same.counters[0].held) == (0, 1)
    assert counting.reading(values("")) == Reading(held=2)
    assert counting.reserve("4", one("c")).refused == 0
    counting.settle("1")
    assert counting.reading(values("")) == Reading(held=2), "another call has it still"
    counting.settle("2")
    assert counting.reserve("5", one("c")).refused is None


def test_a_refused_call_leaves_no_value_behind(counting: Counting) -> None:
    counting.spend(counter(), 100)

    assert counting.reserve("1", one("a"), hold(1)).refused == 1
    assert counting.reading(values("a")) == Reading()
    counting.reserve("2", one("a"))
    counting.settle("2")
    assert counting.reading(values("a")) == Reading()


def test_settling_a_value_frees_no_room_and_takes_none(counting: Counting) -> None:
    counting.reserve("1", one("a"))
    counting.reserve("2", one("a"))

    counting.settle("1", (values("a"), 1))

    assert counting.reading(values("a")) == Reading(value=1, seen=True)
    counting.settle("2", (values("a"), 1))
    assert counting.reading(values("a")) == Reading(value=1, seen=True)


def test_a_value_that_comes_again_counts_longer_in_a_sliding_window(counting: Counting) -> None:
    counting.spend(values("a", SLIDING), 1)
    counting.spend(values("b", SLIDING), 1)
    counting.clock.advance(HOUR / 2)
    counting.spend(values("a", SLIDING), 1)

    counting.clock.advance(HOUR / 2 + HOUR / 60)
    assert counting.reading(values("a", SLIDING)) == Reading(value=1, seen=True)
    assert counting.reserve("1", one("c", 2, SLIDING)).refused is None
    counting.clock.advance(HOUR)
    assert counting.value(values("a", SLIDING)) == 0


def test_a_value_of_a_lifetime_ends_with_it(counting: Counting) -> None:
    counting.spend(values("a"), 1)
    counting.clock.advance(DAY / 2)
    counting.spend(values("b"), 1)
    counting.clock.advance(DAY / 2)

    assert counting.reading(values("a")) == Reading()


def test_a_lease_that_runs_out_counts_the_value_of_a_call_that_was_seen(counting: Counting) -> None:
    counting.reserve("silent", one("a"), lease=15)
    counting.reserve("seen", one("b"), lease=15)
    counting.extend("seen", Hold(values("b"), 0, 0, 2), observed=(1,), lease=15)
    counting.clock.advance(15)

    assert counting.reading(values("b")) == Reading(value=1, seen=True)
    counting.settle("seen", (values("b"), 1))
    assert counting.reading(values("b")) == Reading(value=1, seen=True)


def test_no_more_than_a_thousand_values_are_told_apart(counting: Counting) -> None:
    for n in range(DISTINCT_MOST + 20):
        counting.spend(values(f"{n:016x}"), 1)

    assert counting.value(values("")) == DISTINCT_MOST
    assert counting.reserve("1", one(f"{7:016x}", DISTINCT_MOST)).refused is None
    assert counting.reserve("2", one("new", DISTINCT_MOST)).refused == 0


def test_two_counters_of_values_in_one_operation_are_apart(counting: Counting) -> None:
    other = values("a", scope="Global")

    answer = counting.reserve("1", one("a", 1), Hold(other, 1, 1, 1))

    assert answer.refused is None
    assert [counting.reading(each).held for each in (values(""), replace(other, member=""))] == [1, 1]


def test_the_same_operation_takes_a_value_once(counting: Counting) -> None:
    first = counting.reserve("1", one("a"), op="r")
    assert counting.reserve("1", one("a"), op="r") == first
    done = counting.settle("1", (values("a"), 1), op="s")
    assert counting.settle("1", (values("a"), 1), op="s") == done
    assert counting.reading(values("a")) == Reading(value=1, seen=True)
