"""What only the store in memory promises: that its memory is bounded, and that its clock is the caller's."""

from __future__ import annotations

import pytest

from policyd.adapters.counters_memory import REMEMBER_S, MemoryCounters
from policyd.core.model.counters import CounterId, Hold, SessionCharge, SessionId, Window, WindowKind
from policyd.core.model.steps import Extend, Read, Reserve, Settle
from tests.fakes import FakeClock

WINDOWS = {
    "lifetime": Window(WindowKind.LIFETIME, 60),
    "idle": Window(WindowKind.IDLE, 60),
    "sliding": Window(WindowKind.SLIDING, 60),
    "calendar": Window(WindowKind.CALENDAR, calendar="Day"),
}


def _counter(key: str, window: Window) -> CounterId:
    return CounterId("ns/p", "c", (key,), "Requests", window)


def _whole_call(store: MemoryCounters, id: str, counter: CounterId, used: int, settle: bool = True) -> None:
    store.reserve_now(Reserve(f"{id}:r", id, (Hold(counter, 1, 1, 10),)))
    store.extend_now(Extend(f"{id}:e", id, (Hold(counter, 1, 1, 10),), (used,)))
    if settle:
        store.settle_now(Settle(f"{id}:s", id, ((counter, used),), SessionCharge(SessionId("t", id), 1, 1)))


@pytest.mark.parametrize("settle", [True, False])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_keys_that_never_come_again_leave_nothing_behind(window: Window, settle: bool) -> None:
    clock = FakeClock()
    store = MemoryCounters(clock)
    sizes = []
    for day in range(4):
        for n in range(500):
            clock.advance(86400 / 500)
            key = f"{day}:{n}"
            store.read_now(Read((_counter("read " + key, window),), SessionId("t", "read " + key)))
            _whole_call(store, key, _counter(key, window), 1, settle)
        sizes.append(store.size())
    assert max(sizes[1:]) <= sizes[0] + 510, sizes
    clock.advance(3 * 86400)
    assert store.size() == 0


def test_a_hundred_thousand_random_keys_do_not_grow_the_store() -> None:
    clock = FakeClock()
    store = MemoryCounters(clock)
    window = WINDOWS["lifetime"]
    peak = 0
    for n in range(100_000 // 20):
        clock.advance(0.5)
        charges = tuple((_counter(f"{n}:{i}", window), 1) for i in range(20))
        store.settle_now(Settle("s", f"call {n}", charges))
        if n % 100 == 0:
            peak = max(peak, store.size())
    assert peak <= 60 / 0.5 * 20 * 2 + REMEMBER_S / 0.5 * 2 + 100


def test_a_day_long_lease_leaves_nothing_behind_its_call() -> None:
    clock = FakeClock()
    store = MemoryCounters(clock)
    for number in range(3000):
        hold = Hold(_counter("k", WINDOWS["lifetime"]), 1, 1, None)
        store.reserve_now(Reserve("r", f"call {number}", (hold,), lease_s=86_400.0))
        store.settle_now(Settle("s", f"call {number}", ((hold.counter, 1),)))
        clock.advance(1.0)

    assert len(store._agenda._heap) <= 2 * (REMEMBER_S + 2) + 64


def test_what_is_full_refuses_new_counters_and_keeps_the_known_ones() -> None:
    store = MemoryCounters(FakeClock(), max_counters=10)
    known = [_counter(str(n), WINDOWS["lifetime"]) for n in range(10)]
    for n, counter in enumerate(known):
        _whole_call(store, f"call {n}", counter, 1)
    new = _counter("new", WINDOWS["lifetime"])

    assert store.reserve_now(Reserve("r", "x", (Hold(new, 1, 1, 10),))).failure == "full"
    assert store.reserve_now(Reserve("r", "x", (Hold(known[0], 1, 1, 10),))).failure == ""
    answer = store.settle_now(Settle("s", "x", ((new, 1), (known[0], 1)), SessionCharge(SessionId("t", "new"), 1, 1)))
    assert answer.failure == "full"
    assert store.snapshot()[known[0]] == 2 and new not in store.snapshot()


def test_an_operation_is_recognised_for_a_while_after_the_call_and_then_forgotten() -> None:
    clock = FakeClock()
    store = MemoryCounters(clock, remember_s=30)
    counter = _counter("k", WINDOWS["calendar"])
    settle = Settle("s", "call", ((counter, 5),))
    store.settle_now(settle)
    clock.advance(29)
    store.settle_now(settle)
    assert store.snapshot() == {counter: 5}
    clock.advance(1)
    assert store.size() == 2  # the counter, and the day on which it will be forgotten


def test_a_refused_call_is_forgotten_without_a_settlement() -> None:
    clock = FakeClock()
    store = MemoryCounters(clock)
    assert store.reserve_now(Reserve("r", "call", (Hold(_counter("k", WINDOWS["idle"]), 5, 5, 1),))).refused == 0
    clock.advance(REMEMBER_S)
    assert store.size() == 0


def test_the_snapshot_shows_what_is_settled() -> None:
    store = MemoryCounters(FakeClock())
    counter = _counter("k", WINDOWS["idle"])
    store.reserve_now(Reserve("r", "call", (Hold(counter, 5, 5, 10),)))
    assert store.snapshot() == {}
    store.settle_now(Settle("s", "call", ((counter, 3),)))
    assert store.snapshot() == {counter: 3}


def _flood(name: str, key: str) -> CounterId:
    return CounterId("ns/budget", name, (key,), "Cost", WINDOWS["lifetime"])


def test_a_flood_of_keys_closes_the_counters_that_it_is_about_and_no_other() -> None:
    store = MemoryCounters(FakeClock(), max_counters=1_000)
    kept = _flood("quiet", "before")
    store.settle_now(Settle("s", "quiet", ((kept, 7),)))

    for name in ("one", "two", "three", "four", "five"):
        for n in range(400):
            store.settle_now(Settle(f"{name} {n}", f"{name} {n}", ((_flood(name, str(n)), 1),)))

    assert store.read_now(Read((kept,))).counters[0].value == 7, "nothing that counts is forgotten"
    assert len(store.snapshot()) <= 1_000
    new = Reserve("r1", "c1", (Hold(_flood("one", "new"), 1, 1, 100),))
    assert store.reserve_now(new).failure == "full"
    known = Reserve("r2", "c2", (Hold(_flood("one", "3"), 1, 1, 100),))
    quiet = Reserve("r3", "c3", (Hold(_flood("quiet", "new"), 1, 1, 100),))
    assert (store.reserve_now(known).failure, store.reserve_now(quiet).failure) == ("", "")


def test_one_counter_gets_a_quarter_of_all_keys() -> None:
    store = MemoryCounters(FakeClock(), max_counters=1_000)

    found = [store.settle_now(Settle(f"{n}", f"{n}", ((_flood("one", str(n)), 1),))).failure for n in range(300)]

    assert found == [""] * 250 + ["full"] * 50


def test_keys_that_count_no_more_make_room() -> None:
    clock = FakeClock()
    store = MemoryCounters(clock, max_counters=1_000)
    for n in range(300):
        store.settle_now(Settle(f"{n}", f"{n}", ((_flood("one", str(n)), 1),)))

    clock.advance(61)

    assert store.settle_now(Settle("s", "c", ((_flood("one", "new"), 1),))).failure == ""


def test_a_session_that_could_not_be_kept_is_not_read_as_new() -> None:
    store = MemoryCounters(FakeClock(), max_counters=2)
    for n in range(3):
        store.settle_now(Settle(f"{n}", f"{n}", (), SessionCharge(SessionId("default", str(n)), 1, 1)))

    assert store.read_now(Read((), SessionId("default", "2"))).session is None
    assert store.read_now(Read((), SessionId("default", "1"))).session is not None
