"""What every counter store promises. Written once; each store that is added to STORES must keep all of it.

A store comes with the clock it counts by. `memory, answers lost` loses each first answer and is asked again with the
same key: whoever talks to it must not be able to tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
import uvloop

from policyd.adapters.counters_memory import MemoryCounters
from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.core.model.counters import (
    MAX_AMOUNT,
    CounterId,
    Hold,
    Reading,
    Readings,
    SessionCharge,
    SessionId,
    SessionReading,
    Window,
    WindowKind,
)
from policyd.core.model.steps import Extend, Read, Reserve, Settle
from tests.fakes import FakeClock, Fault, FaultyCounters, Retrying

if TYPE_CHECKING:
    from policyd.enforcer import CounterStore
    from tests.redis.servers import RedisServer

HOUR, DAY = 3600.0, 86400.0
LIFETIME = Window(WindowKind.LIFETIME, DAY)
IDLE = Window(WindowKind.IDLE, HOUR)
SLIDING = Window(WindowKind.SLIDING, HOUR)
TODAY = Window(WindowKind.CALENDAR, calendar="Day")
ALL_WINDOWS = (LIFETIME, IDLE, SLIDING, TODAY)
PATIENT = Patience(connect_s=5, answer_s=5)  # a busy machine is no fault of the store's


class _LosesFirstAnswers(FaultyCounters):
    """Every other answer is lost, so that every operation is done twice."""

    def _next(self, name: str) -> Fault:
        return Fault.NONE if self.calls and self.calls[-1] == (name, Fault.LOST) else Fault.LOST


@contextmanager
def _memory(_request: pytest.FixtureRequest, clock: FakeClock, _runner: asyncio.Runner) -> Iterator[CounterStore]:
    yield MemoryCounters(clock)


@contextmanager
def _redis(request: pytest.FixtureRequest, clock: FakeClock, runner: asyncio.Runner) -> Iterator[CounterStore]:
    server: RedisServer = request.getfixturevalue("redis_server")
    with server.client() as client:
        client.flushall()
    store = RedisCounters(server.url, clock=clock, patience=PATIENT)
    yield store
    runner.run(store.close())


@contextmanager
def _cluster(request: pytest.FixtureRequest, clock: FakeClock, runner: asyncio.Runner) -> Iterator[CounterStore]:
    nodes: list[RedisServer] = request.getfixturevalue("redis_cluster")
    for node in nodes:
        with node.client() as client:
            client.flushall()
    store = RedisCounters(nodes[0].tcp_url, clock=clock, patience=PATIENT)
    yield store
    runner.run(store.close())


def _losing_answers(store: Store) -> Store:
    """The same store, behind a network that loses each first answer."""

    @contextmanager
    def open_it(request: pytest.FixtureRequest, clock: FakeClock, runner: asyncio.Runner) -> Iterator[CounterStore]:
        with store(request, clock, runner) as inner:
            yield Retrying(_LosesFirstAnswers(inner))

    return open_it


Store = Callable[[pytest.FixtureRequest, FakeClock, asyncio.Runner], AbstractContextManager["CounterStore"]]
STORES: dict[str, Store] = {
    "memory": _memory,
    "memory, answers lost": _losing_answers(_memory),
    "redis": _redis,
    "redis, answers lost": _losing_answers(_redis),
    "redis cluster": _cluster,
}


ON_UVLOOP = {"redis", "redis cluster"}  # as they are served; the others run on Python's own loop


@dataclass
class Counting:
    """One store, its clock, and short ways to ask it. Every operation has a key of its own unless it names one."""

    store: CounterStore
    clock: FakeClock
    runner: asyncio.Runner
    ops: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    def reserve(self, call: str, *holds: Hold, op: str = "", lease: float = 15.0) -> Readings:
        need = Reserve(op or self._op(), call, holds, lease)
        return self.runner.run(self.store.reserve(need))

    def extend(self, call: str, *holds: Hold, observed: tuple[int, ...], op: str = "", lease: float = 15.0) -> Readings:
        need = Extend(op or self._op(), call, holds, observed, lease)
        return self.runner.run(self.store.extend(need))

    def settle(
        self, call: str, *charges: tuple[CounterId, int], op: str = "", session: SessionCharge | None = None
    ) -> Readings:
        return self.runner.run(self.store.settle(Settle(op or self._op(), call, charges, session)))

    def reading(self, counter: CounterId) -> Reading:
        return self.runner.run(self.store.read(Read((counter,)))).counters[0]

    def session(self, session: SessionId) -> SessionReading | None:
        return self.runner.run(self.store.read(Read((), session))).session

    def spend(self, counter: CounterId, amount: int) -> None:
        """A whole call of this much, unlimited."""
        op = self._op()
        self.settle(f"call {op}", (counter, amount), op=op)

    def value(self, counter: CounterId) -> int:
        return self.reading(counter).value

    def _op(self) -> str:
        return f"op {next(self.ops)}"


@pytest.fixture(params=STORES)
def counting(request: pytest.FixtureRequest) -> Iterator[Counting]:
    clock = FakeClock()
    loop = uvloop.new_event_loop if request.param in ON_UVLOOP else None
    with asyncio.Runner(loop_factory=loop) as runner, STORES[request.param](request, clock, runner) as store:
        yield Counting(store, clock, runner)


def counter(name: str = "spend", window: Window = LIFETIME, **rest: str) -> CounterId:
    return CounterId("ns/budget", name, ("key",), "Cost", window, **rest)


def hold(amount: int, limit: int | None = 100, *, least: int | None = None, of: CounterId | None = None) -> Hold:
    return Hold(of or counter(), amount if least is None else least, amount, limit)


# ---- holding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settled", "others", "least", "most", "limit", "granted"),
    [
        (0, 0, 10, 10, 100, 10),
        (0, 0, 1, 100, 100, 100),
        (0, 0, 1, 500, 100, 100),  # no more than fits
        (60, 0, 1, 500, 100, 40),
        (60, 30, 1, 500, 100, 10),
        (60, 30, 10, 500, 100, 10),
        (60, 30, 11, 500, 100, None),
        (60, 40, 1, 500, 100, None),
        (160, 0, 1, 1, 100, None),  # the limit has been lowered, or settled above
        (160, 0, 0, 5, 100, 0),  # a sign of life asks for nothing and is never refused
        (0, 0, 0, 0, 0, 0),
        (0, 0, 1, 1, 0, None),
        (0, 0, 101, 101, 100, None),
        (10**6, 10**6, 1, 500, None, 500),  # no limit: never refused, all of it granted
    ],
)
def test_a_hold_is_granted_what_fits_between_least_and_most(
    counting: Counting, settled: int, others: int, least: int, most: int, limit: int | None, granted: int | None
) -> None:
    counting.spend(counter(), settled)
    counting.reserve("other", hold(others, None))

    answer = counting.reserve("mine", Hold(counter(), least, most, limit))

    assert answer.failure == ""
    assert answer.refused == (0 if granted is None else None)
    reading = answer.counters[0]
    assert (reading.value, reading.held, reading.granted, reading.available) == (settled, others, granted or 0, True)
    assert counting.reading(counter()).held == others + (granted or 0)


def test_holding_is_all_or_nothing_and_names_the_first_that_does_not_fit(counting: Counting) -> None:
    one, two, three = counter("one"), counter("two"), counter("three")
    counting.spend(two, 95)
    counting.spend(three, 99)

    answer = counting.reserve("a", hold(10, of=one), hold(10, of=two), hold(10, of=three))

    assert answer.refused == 1
    assert [reading.granted for reading in answer.counters] == [0, 0, 0]
    assert [counting.reading(each).held for each in (one, two, three)] == [0, 0, 0]


def test_one_counter_asked_twice_in_one_reservation_counts_twice(counting: Counting) -> None:
    assert counting.reserve("a", hold(60), hold(60)).refused == 1
    answer = counting.reserve("b", hold(60), hold(60, least=1))
    assert answer.refused is None
    assert [reading.granted for reading in answer.counters] == [100, 100]


def test_a_call_may_reserve_again_under_another_key_after_a_refusal(counting: Counting) -> None:
    assert counting.reserve("a", hold(101)).refused == 0
    assert counting.reserve("a", hold(50)).counters[0].granted == 50


def test_racing_for_the_last_unit_one_wins(counting: Counting) -> None:
    counting.spend(counter(), 99)
    answers = [counting.reserve(f"call {n}", hold(1)) for n in range(64)]
    assert [answer.refused for answer in answers] == [None] + [0] * 63


def test_an_extension_adds_to_what_is_held(counting: Counting) -> None:
    counting.reserve("a", hold(40))
    counting.reserve("b", hold(30))

    answer = counting.extend("a", hold(500, least=1), observed=(35,))

    assert (answer.counters[0].granted, answer.counters[0].held) == (70, 30)
    refused = counting.extend("a", hold(1), observed=(70,))
    assert refused.refused == 0
    assert refused.counters[0].granted == 70, "what was granted before stays granted"


def test_an_extension_of_a_call_that_holds_nothing_is_a_reservation(counting: Counting) -> None:
    assert counting.extend("a", hold(40), observed=(0,)).counters[0].granted == 40


# ---- the same again -------------------------------------------------------------------------------------------------


def test_the_same_operation_gives_the_same_answer_whatever_its_amount(counting: Counting) -> None:
    first = counting.reserve("a", hold(40), op="r")
    counting.spend(counter(), 30)
    assert counting.reserve("a", hold(40), op="r") == first
    assert counting.reserve("a", hold(90), op="r") == first
    assert counting.reading(counter()).held == 40

    more = counting.extend("a", hold(10), observed=(5,), op="e")
    assert counting.extend("a", hold(99), observed=(99,), op="e") == more
    assert counting.reading(counter()).held == 50

    done = counting.settle("a", (counter(), 45), op="s")
    assert counting.settle("a", (counter(), 99), op="s") == done
    assert (counting.value(counter()), counting.reading(counter()).held) == (75, 0)


def test_a_refusal_stays_a_refusal_for_its_operation(counting: Counting) -> None:
    counting.reserve("other", hold(100))
    refused = counting.reserve("a", hold(10), op="r")
    counting.settle("other", (counter(), 0))
    assert counting.reserve("a", hold(10), op="r") == refused
    assert counting.reserve("a", hold(10), op="r2").refused is None


def test_what_comes_after_the_settlement_holds_and_charges_nothing(counting: Counting) -> None:
    first = counting.reserve("a", hold(40), op="r")
    done = counting.settle("a", (counter(), 7), op="s")

    assert counting.reserve("a", hold(40), op="r") == first
    assert counting.reserve("a", hold(40), op="late").failure == "settled"
    assert counting.extend("a", hold(40), observed=(1,), op="later").failure == "settled"
    assert counting.settle("a", (counter(), 50), op="another") == done
    assert counting.reading(counter()) == Reading(value=7)


# ---- settling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("used", [0, 1, 40, 41, 5000])
def test_settling_drops_the_holds_and_counts_what_was_used_above_the_limit_too(counting: Counting, used: int) -> None:
    counting.reserve("a", hold(40))
    answer = counting.settle("a", (counter(), used))
    assert answer.counters == (Reading(value=used),)
    assert counting.reading(counter()) == Reading(value=used)


def test_settling_without_a_reservation_counts(counting: Counting) -> None:
    counting.settle("a", (counter(), 40))
    assert counting.value(counter()) == 40


def test_settling_drops_holds_that_it_does_not_mention(counting: Counting) -> None:
    one, two = counter("one"), counter("two")
    counting.reserve("a", hold(10, of=one), hold(10, of=two))
    counting.settle("a", (one, 4))
    assert (counting.reading(one), counting.reading(two)) == (Reading(value=4), Reading())


def test_a_counter_charged_twice_in_one_settlement_counts_both(counting: Counting) -> None:
    counting.settle("a", (counter(), 40), (counter(), 2))
    assert counting.value(counter()) == 42


def test_settling_nothing_opens_no_window(counting: Counting) -> None:
    counting.spend(counter(), 0)
    counting.clock.advance(HOUR)
    counting.spend(counter(), 5)
    counting.clock.advance(DAY - 1)
    assert counting.value(counter()) == 5


# ---- leases ---------------------------------------------------------------------------------------------------------


def test_a_lease_that_runs_out_is_charged_what_was_observed(counting: Counting) -> None:
    counting.reserve("silent", hold(40, of=counter("one")), lease=15)
    counting.reserve("seen", hold(40), lease=15)
    counting.extend("seen", hold(10), observed=(33,), lease=15)
    counting.extend("begins so", hold(500, None, of=counter("two")), observed=(500,), lease=15)
    counting.clock.advance(14.5)
    assert counting.reading(counter()) == Reading(held=50)
    assert counting.reading(counter("two")) == Reading(held=500)
    counting.clock.advance(0.5)
    assert counting.reading(counter()) == Reading(value=33)
    assert [counting.reading(counter(name)).value for name in ("one", "two")] == [0, 500]


@pytest.mark.parametrize("fits", [True, False])
def test_an_extension_renews_the_lease_even_when_refused(counting: Counting, fits: bool) -> None:
    counting.reserve("a", hold(40), lease=15)
    counting.clock.advance(10)
    assert (counting.extend("a", hold(10 if fits else 99), observed=(20,), lease=15).refused is None) == fits
    counting.clock.advance(14)
    assert counting.reading(counter()).held == (50 if fits else 40)
    counting.clock.advance(1)
    assert counting.reading(counter()) == Reading(value=20)


@pytest.mark.parametrize("used", [0, 33, 40, 70])
@pytest.mark.parametrize("late", [15.0, 1000.0, HOUR * 5])
def test_a_late_settlement_replaces_what_its_lapsed_lease_was_charged(
    counting: Counting, used: int, late: float
) -> None:
    counting.reserve("a", hold(40))
    counting.extend("a", hold(0), observed=(33,))
    counting.clock.advance(late)
    assert counting.value(counter()) == 33
    counting.settle("a", (counter(), used), op="s")
    counting.settle("a", (counter(), used), op="s")
    assert counting.reading(counter()) == Reading(value=used)


def test_a_late_extension_takes_the_hold_again_in_the_place_of_the_charge(counting: Counting) -> None:
    counting.reserve("a", hold(40))
    counting.extend("a", hold(0), observed=(33,))
    counting.clock.advance(60)

    answer = counting.extend("a", hold(20), observed=(35,))

    assert answer.counters == (Reading(value=0, held=0, granted=60),)
    counting.clock.advance(60)
    assert counting.reading(counter()) == Reading(value=35)
    counting.settle("a", (counter(), 36))
    assert counting.reading(counter()) == Reading(value=36)


@pytest.mark.parametrize("most", [0, 20])
def test_a_late_extension_is_refused_when_the_whole_no_longer_fits(counting: Counting, most: int) -> None:
    counting.reserve("a", hold(40))
    counting.extend("a", hold(0), observed=(33,))
    counting.clock.advance(60)
    counting.reserve("b", hold(61))

    answer = counting.extend("a", hold(most), observed=(35,))

    assert answer.refused == 0
    assert answer.counters[0].granted == 33, "what was charged in the hold's place is all that the call may have spent"
    assert counting.reading(counter()) == Reading(value=33, held=61)
    counting.settle("a", (counter(), 36))
    assert counting.reading(counter()) == Reading(value=36, held=61)


def test_a_lapsed_lease_is_charged_at_its_end_not_when_somebody_looks(counting: Counting) -> None:
    counting.reserve("a", hold(40, of=counter(window=IDLE)), lease=15)
    counting.extend("a", hold(0, of=counter(window=IDLE)), observed=(33,), lease=15)
    counting.clock.advance(15 + HOUR)
    assert counting.value(counter(window=IDLE)) == 0


# ---- windows --------------------------------------------------------------------------------------------------------


def test_a_lifetime_runs_from_its_first_charge(counting: Counting) -> None:
    counting.spend(counter(), 1)
    counting.clock.advance(DAY - 1)
    counting.spend(counter(), 2)
    assert counting.value(counter()) == 3
    counting.clock.advance(1)
    assert counting.value(counter()) == 0
    counting.spend(counter(), 4)
    counting.clock.advance(DAY - 1)
    assert counting.value(counter()) == 4


def test_an_idle_window_runs_from_its_last_charge(counting: Counting) -> None:
    idle = counter(window=IDLE)
    for _ in range(5):
        counting.spend(idle, 1)
        counting.clock.advance(HOUR - 1)
    assert counting.value(idle) == 5
    counting.clock.advance(1)
    assert counting.value(idle) == 0


def test_a_sliding_window_counts_its_oldest_sub_window_whole(counting: Counting) -> None:
    sliding = counter(window=SLIDING)
    counting.clock.advance(30)  # half of a sub-window
    counting.spend(sliding, 1)
    counting.clock.advance(HOUR)
    assert counting.value(sliding) == 1, "never under-counted"
    counting.clock.advance(29)
    assert counting.value(sliding) == 1
    counting.clock.advance(1)
    assert counting.value(sliding) == 0, "and over-counted by one sub-window at most"


def test_a_sliding_window_forgets_one_sub_window_at_a_time(counting: Counting) -> None:
    sliding = counter(window=SLIDING)
    for minute in range(61):
        counting.spend(sliding, 1)
        assert counting.value(sliding) == minute + 1
        counting.clock.advance(60)
    for minute in range(61):
        assert counting.value(sliding) == 60 - minute
        counting.clock.advance(60)


@pytest.mark.parametrize(
    ("calendar", "zone", "at", "until"),
    [
        ("Day", "UTC", "2026-03-29T00:00", "2026-03-30T00:00"),
        ("Day", "Europe/Berlin", "2026-03-29T00:30", "2026-03-30T00:00"),  # 23 hours long
        ("Day", "Europe/Berlin", "2026-10-25T00:30", "2026-10-26T00:00"),  # 25 hours long
        ("Day", "Asia/Kathmandu", "2026-06-01T23:59", "2026-06-02T00:00"),
        ("Week", "UTC", "2026-11-16T00:00", "2026-11-23T00:00"),  # a Monday
        ("Week", "America/New_York", "2026-11-22T23:59", "2026-11-23T00:00"),  # a Sunday
        ("Month", "Europe/Berlin", "2026-12-31T23:59", "2027-01-01T00:00"),
        ("Month", "UTC", "2028-02-29T12:00", "2028-03-01T00:00"),
        ("Year", "Pacific/Auckland", "2026-01-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_a_calendar_window_turns_at_local_midnight(
    counting: Counting, calendar: str, zone: str, at: str, until: str
) -> None:
    window = Window(WindowKind.CALENDAR, calendar=calendar, time_zone=zone)
    begin, end = (datetime.fromisoformat(when).replace(tzinfo=ZoneInfo(zone)).timestamp() for when in (at, until))
    counting.clock.now = begin
    counting.spend(counter(window=window), 5)
    counting.clock.now = end - 1
    assert counting.value(counter(window=window)) == 5
    counting.clock.now = end
    assert counting.value(counter(window=window)) == 0


def test_a_hold_taken_before_the_window_turned_is_settled_into_the_new_one(counting: Counting) -> None:
    today = counter(window=TODAY)
    counting.clock.advance(DAY - 5)
    counting.spend(today, 60)
    counting.reserve("a", hold(40, of=today))
    counting.clock.advance(10)
    assert counting.reading(today) == Reading(value=0, held=40)
    counting.settle("a", (today, 39))
    assert counting.value(today) == 39


@pytest.mark.parametrize("window", ALL_WINDOWS, ids=str)
def test_a_clock_that_jumps_loses_no_count_and_breaks_nothing(counting: Counting, window: Window) -> None:
    jumpy = counter(window=window)
    counting.clock.advance(12 * HOUR)
    counting.spend(jumpy, 5)
    counting.clock.advance(-HOUR)
    counting.spend(jumpy, 6)
    counting.reserve("a", hold(7, of=jumpy))
    assert counting.reading(jumpy) == Reading(value=11, held=7)
    counting.clock.advance(HOUR + 600)
    assert counting.value(jumpy) == 11, "as long as without the jump"
    counting.clock.advance(3 * DAY)
    assert counting.reading(jumpy) == Reading()


# ---- when to try again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ALL_WINDOWS, ids=str)
@pytest.mark.parametrize("amount", [1, 30, 100])
def test_retry_after_is_true(counting: Counting, window: Window, amount: int) -> None:
    of = counter(window=window)
    for _ in range(4):
        counting.spend(of, 25)
        counting.clock.advance(600)

    refused = counting.reserve("a", hold(amount, of=of)).counters[0].retry_after_s

    assert refused is not None and refused > 0
    counting.clock.advance(refused - 1)
    assert counting.reserve("b", hold(amount, of=of)).refused == 0
    counting.clock.advance(1)
    assert counting.reserve("c", hold(amount, of=of)).refused is None


@pytest.mark.parametrize("window", ALL_WINDOWS, ids=str)
def test_waiting_does_not_help_what_is_larger_than_the_limit(counting: Counting, window: Window) -> None:
    counting.spend(counter(window=window), 50)
    answer = counting.reserve("a", hold(101, of=counter(window=window)))
    assert (answer.refused, answer.counters[0].retry_after_s) == (0, None)


def test_what_only_running_calls_hold_may_be_free_within_a_lease(counting: Counting) -> None:
    counting.reserve("a", hold(90), lease=DAY)
    assert counting.reserve("b", hold(20), lease=10).counters[0].retry_after_s == 10
    assert counting.reserve("c", hold(20), lease=DAY).counters[0].retry_after_s == 15, "no call takes a day"


def test_retry_after_allows_for_what_running_calls_hold(counting: Counting) -> None:
    sliding = counter(window=SLIDING)
    for _ in range(4):
        counting.spend(sliding, 25)
        counting.clock.advance(600)
    alone = counting.reserve("a", hold(25, of=sliding)).counters[0].retry_after_s
    counting.reserve("other", hold(25, None, of=sliding), lease=DAY)
    beside = counting.reserve("b", hold(25, of=sliding)).counters[0].retry_after_s
    assert alone is not None and beside == alone + 600

    counting.reserve("more", hold(75, None, of=sliding), lease=DAY)
    counting.clock.advance(alone - 5)
    crowded = counting.reserve("c", hold(25, of=sliding), lease=15).counters[0].retry_after_s
    assert crowded == 15, "5 s until enough has left the window, but the holds leave no sooner than a lease from now"


def test_every_counter_without_room_says_when_to_try_again(counting: Counting) -> None:
    """So that whoever is refused by two need not come back to be refused by the other."""
    full, fuller, free = counter("full"), counter("fuller", window=TODAY), counter("free", window=SLIDING)
    counting.spend(full, 100)
    counting.spend(fuller, 100)
    answer = counting.reserve("a", hold(1, of=free), hold(1, of=full), hold(1, of=fuller), hold(1, None, of=full))
    assert answer.refused == 1
    assert [reading.retry_after_s is None for reading in answer.counters] == [True, False, False, True]


@pytest.mark.parametrize("window", ALL_WINDOWS, ids=str)
def test_beside_a_refusal_stands_when_everything_will_have_left_the_window(counting: Counting, window: Window) -> None:
    of, other = counter(window=window), counter("other", window=window)
    counting.spend(of, 50)
    counting.clock.advance(120)
    counting.spend(of, 50)
    answer = counting.reserve("a", hold(1, of=of), hold(1, of=other))
    resets = answer.counters[0].resets_s
    assert resets is not None and answer.counters[1].resets_s is None
    counting.clock.advance(resets - 1)
    assert counting.value(of) > 0
    counting.clock.advance(1)
    assert counting.value(of) == 0


# ---- which counter --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        counter(life="monitor"),
        counter(tenant="acme"),
        counter(scope="Global"),
        counter("spent"),
        counter(window=IDLE),
        CounterId("ns/budget", "spend", ("key", ""), "Cost", LIFETIME),
        CounterId("ns/budget", "spend", ("", "key"), "Cost", LIFETIME),
        CounterId("ns/budget:spend", "", ("key",), "Cost", LIFETIME),
        CounterId("ns/budget", "spend", ("key}",), "Cost", LIFETIME),
        CounterId("ns/budget", "spend", ("key\0",), "Cost", LIFETIME),
        CounterId("ns/budget", "spend", ("key:;={}",), "Cost", LIFETIME),
        CounterId("ns/budget", "spend", ("k" * 10_000,), "Cost", LIFETIME),
        counter(tenant="default}:{x"),
    ],
    ids=lambda other: repr(other)[:80],
)
def test_every_part_of_the_identity_counts_apart(counting: Counting, other: CounterId) -> None:
    counting.spend(counter(), 5)
    counting.reserve("a", hold(7, of=other))
    counting.spend(other, 3)
    assert counting.reading(counter()) == Reading(value=5)
    assert counting.reading(other) == Reading(value=3, held=7)


def test_an_empty_tenant_is_the_default_one(counting: Counting) -> None:
    counting.spend(counter(tenant=""), 5)
    assert counting.value(counter(tenant="default")) == 5
    charge = SessionCharge(SessionId("", "s"), 1, 2)
    counting.settle("a", session=charge)
    assert counting.session(SessionId("default", "s")) == SessionReading(calls=1, cost_nano=1, tokens=2)


def test_raising_the_limit_keeps_what_was_counted(counting: Counting) -> None:
    counting.spend(counter(), 90)
    assert counting.reserve("a", hold(20, limit=100)).refused == 0
    assert counting.reserve("b", hold(20, limit=200)).counters[0] == Reading(value=90, granted=20)
    assert counting.reserve("c", hold(1, limit=50)).refused == 0


# ---- amounts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", [Hold(counter(), -1, 5, 10), Hold(counter(), 5, 4, 10), Hold(counter(), 1, MAX_AMOUNT + 1, None)]
)
def test_a_hold_that_makes_no_sense_is_a_failure_and_holds_nothing(counting: Counting, bad: Hold) -> None:
    answer = counting.reserve("a", hold(5, of=counter("other")), bad)
    assert (answer.failure, answer.counters) == ("amount out of range", ())
    assert counting.reading(counter("other")) == Reading()


def test_an_extension_must_say_what_was_observed_of_each(counting: Counting) -> None:
    assert counting.extend("a", hold(5), observed=()).failure
    assert counting.extend("a", hold(5), observed=(-1,)).failure == "amount out of range"


def test_a_negative_settlement_is_a_failure_and_changes_nothing(counting: Counting) -> None:
    counting.reserve("a", hold(40))
    charges = [((counter(), -1),), ((counter("one"), 5), (counter(), -1))]
    for each in charges:
        assert counting.settle("a", *each).failure == "amount out of range"
    assert counting.settle("a", session=SessionCharge(SessionId("", "s"), -1, 0)).failure == "amount out of range"
    assert (counting.reading(counter()), counting.value(counter("one"))) == (Reading(held=40), 0)


def test_totals_saturate_and_never_lose_a_digit(counting: Counting) -> None:
    counting.spend(counter(), MAX_AMOUNT - 1)
    counting.spend(counter(), 2**60)
    counting.spend(counter(), 1)
    assert counting.value(counter()) == MAX_AMOUNT
    assert counting.reserve("a", hold(5, None)).counters[0].granted == 0
    assert counting.reserve("b", hold(5, 2**60)).refused == 0
    counting.clock.advance(DAY)
    assert counting.value(counter()) == 0


def test_an_odd_amount_near_the_ceiling_is_kept_exactly(counting: Counting) -> None:
    counting.reserve("a", hold(2**53 - 3, None))
    assert counting.reading(counter()).held == 2**53 - 3
    counting.settle("a", (counter(), 2**53 - 5))
    assert counting.value(counter()) == 2**53 - 5


# ---- sessions -------------------------------------------------------------------------------------------------------


def test_a_session_adds_up_its_finished_calls(counting: Counting) -> None:
    id = SessionId("acme", "s")
    assert counting.session(id) == SessionReading()
    counting.settle("a", op="sa", session=SessionCharge(id, 100, 10))
    counting.settle("a", op="sa", session=SessionCharge(id, 100, 10))
    counting.clock.advance(60)
    counting.settle("b", session=SessionCharge(id, 5, 1))
    assert counting.session(id) == SessionReading(calls=2, cost_nano=105, tokens=11, age_s=60)
    assert counting.session(SessionId("other", "s")) == SessionReading()


def test_a_session_is_forgotten_a_day_after_its_last_call(counting: Counting) -> None:
    id = SessionId("acme", "s")
    counting.settle("a", session=SessionCharge(id, 1, 1))
    counting.clock.advance(DAY - 1)
    counting.settle("b", session=SessionCharge(id, 1, 1))
    counting.clock.advance(DAY - 1)
    assert counting.session(id) == SessionReading(calls=2, cost_nano=2, tokens=2, age_s=2 * DAY - 2)
    counting.clock.advance(1)
    assert counting.session(id) == SessionReading()


def test_a_reservation_brings_the_session_too(counting: Counting) -> None:
    id = SessionId("acme", "s")
    counting.settle("a", session=SessionCharge(id, 7, 3))
    answer = counting.runner.run(counting.store.reserve(Reserve("r", "b", (hold(1),), session=id)))
    assert answer.session == SessionReading(calls=1, cost_nano=7, tokens=3)
    assert counting.reserve("c", hold(1)).session is None


def test_reading_answers_in_the_order_asked(counting: Counting) -> None:
    ids = [counter(name) for name in "cab"]
    for amount, each in enumerate(ids):
        counting.spend(each, amount + 1)
    answer = counting.runner.run(counting.store.read(Read(tuple(reversed(ids)))))
    assert [reading.value for reading in answer.counters] == [3, 2, 1]
