"""The counter store against a plain model: charges in a list, looked at one by one, by the definition of each window.

Rule 1: the model keeps everything for ever and computes every value anew; it shares no arithmetic with the store.
Rule 2: times and amounts are whole and every sub-window is a whole number of seconds, so that nothing rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from policyd.adapters.counters_memory import MemoryCounters
from policyd.core.model.counters import CounterId, Hold, Reading, Readings, Window, WindowKind
from policyd.core.model.steps import Extend, Read, Reserve, Settle
from tests.fakes import EPOCH, FakeClock
from tests.sizes import size

LIMIT = 100
COUNTERS = tuple(
    CounterId("ns/p", "c", (), "Requests", window)
    for window in (
        Window(WindowKind.LIFETIME, 100),
        Window(WindowKind.IDLE, 40),
        Window(WindowKind.SLIDING, 120),
        Window(WindowKind.CALENDAR, calendar="Day"),
    )
)
CALLS = tuple("abcd")


@dataclass
class Charge:
    at: float
    amount: int


@dataclass
class Stake:
    held: int = 0
    observed: int = 0
    lapsed: Charge | None = None  # what was charged in the place of the hold; amount 0: nothing was observed


@dataclass
class Call:
    stakes: dict[CounterId, Stake] = field(default_factory=dict)
    lease_end: float = 0.0
    answers: dict[str, Readings] = field(default_factory=dict)
    settled: Readings | None = None


def value(window: Window, charges: list[Charge], now: float) -> int:
    """What counts now, by the definition of the window."""
    match window.kind:
        case WindowKind.SLIDING:
            step = int(window.seconds) // 60
            return sum(c.amount for c in charges if c.at // step >= now // step - 60)
        case WindowKind.CALENDAR:
            return sum(c.amount for c in charges if _day(c.at) == _day(now))
        case WindowKind.LIFETIME | WindowKind.IDLE:
            return _since(window, charges, now)


def _since(window: Window, charges: list[Charge], now: float) -> int:
    total, end = 0, float("-inf")
    for charge in charges:
        if charge.at >= end:
            total, end = 0, charge.at + window.seconds
        if window.kind is WindowKind.IDLE:
            end = charge.at + window.seconds
        total += charge.amount
    return total if now < end else 0


def _day(at: float) -> object:
    return datetime.fromtimestamp(at, UTC).date()


class Model:
    """The contract, slowly."""

    def __init__(self, counters: tuple[CounterId, ...]) -> None:
        self.now = EPOCH
        self.charges: dict[CounterId, list[Charge]] = {counter: [] for counter in counters}
        self.calls: dict[str, Call] = {}

    def advance(self, seconds: int) -> None:
        since, until = self.now, self.now + seconds
        for call in sorted(self.calls.values(), key=lambda call: call.lease_end):
            if call.settled is None and since < call.lease_end <= until:
                self.now = call.lease_end
                self._lapse(call)
        self.now = until

    def _lapse(self, call: Call) -> None:
        for counter, stake in call.stakes.items():
            if stake.lapsed is None:
                stake.lapsed = Charge(self.now, stake.observed)
                if stake.observed:
                    self.charges[counter].append(stake.lapsed)

    def value(self, counter: CounterId) -> int:
        return value(counter.window, self.charges[counter], self.now)

    def held(self, counter: CounterId, besides: Call | None = None) -> int:
        stakes = [call.stakes.get(counter) for call in self.calls.values() if call is not besides]
        return sum(stake.held for stake in stakes if stake and stake.lapsed is None)

    def hold(self, need: Reserve | Extend) -> Readings:
        call = self.calls.setdefault(need.call, Call())
        if need.op in call.answers:
            return call.answers[need.op]
        if call.settled is not None:
            return Readings(failure="settled")
        grants = self._grants(call, need.holds)
        if isinstance(need, Extend):
            for hold, seen in zip(need.holds, need.observed, strict=True):
                call.stakes.setdefault(hold.counter, Stake()).observed = seen
        if isinstance(grants, list):
            self._take(call, need.holds, grants)
        if any(stake.lapsed is None for stake in call.stakes.values()):
            call.lease_end = self.now + need.lease_s
        refused = None if isinstance(grants, list) else grants
        answer = Readings(tuple(self.reading(hold.counter, call) for hold in need.holds), refused=refused)
        call.answers[need.op] = answer
        return answer

    def _grants(self, call: Call, holds: tuple[Hold, ...]) -> list[int] | int:
        grants: list[int] = []
        for at, hold in enumerate(holds):
            assert hold.limit is not None
            others = self.held(hold.counter, besides=call)
            stake = call.stakes.get(hold.counter, Stake())
            settled = self._value_without(hold.counter, stake.lapsed)
            room = hold.limit - settled - others - stake.held
            if max(room, 0) < hold.least or (stake.lapsed is not None and room < 0):
                return at
            grants.append(min(hold.most, max(room, 0)))
        return grants

    def _value_without(self, counter: CounterId, lapsed: Charge | None) -> int:
        if lapsed is None:
            return self.value(counter)
        amount, lapsed.amount = lapsed.amount, 0
        without = self.value(counter)
        lapsed.amount = amount
        return without

    def _take(self, call: Call, holds: tuple[Hold, ...], grants: list[int]) -> None:
        for hold, grant in zip(holds, grants, strict=True):
            stake = call.stakes.setdefault(hold.counter, Stake())
            stake.held += grant
            if stake.lapsed is not None:
                stake.lapsed.amount = 0  # its window was opened all the same
                stake.lapsed = None

    def reading(self, counter: CounterId, call: Call | None) -> Reading:
        stake = (call and call.stakes.get(counter)) or Stake()
        granted = stake.held if stake.lapsed is None else stake.lapsed.amount
        return Reading(self.value(counter), self.held(counter, besides=call), granted)

    def settle(self, step: Settle) -> Readings:
        call = self.calls.setdefault(step.call, Call())
        if call.settled is not None:
            return call.settled
        for stake in call.stakes.values():
            if stake.lapsed is not None:
                stake.lapsed.amount = 0
        call.stakes.clear()
        for counter, amount in step.charges:
            if amount:
                self.charges[counter].append(self._charge(counter, amount))
        call.settled = Readings(tuple(self.reading(counter, None) for counter, _ in step.charges))
        return call.settled

    def _charge(self, _counter: CounterId, amount: int) -> Charge:
        return Charge(self.now, amount)


@dataclass
class See(Charge):
    member: str = ""


class ValueModel(Model):
    """The same of counters of different values: what counts is who was seen in the window, each once."""

    def _lapse(self, call: Call) -> None:
        for counter, stake in call.stakes.items():
            if stake.lapsed is None:
                stake.lapsed = Charge(self.now, 0)
                if stake.observed:
                    self.charges[counter].append(See(self.now, 1, counter.member))

    def live(self, counter: CounterId) -> set[str]:
        """Each is told from the others by an amount of its own: a power of a thousand."""
        sees = self.charges[counter]
        names = sorted({see.member for see in sees if isinstance(see, See)})
        scaled = [Charge(see.at, 1_000 ** names.index(see.member)) for see in sees if isinstance(see, See)]
        total = value(counter.window, scaled, self.now)
        return {name for at, name in enumerate(names) if total // 1_000**at % 1_000}

    def value(self, counter: CounterId) -> int:
        return len(self.live(counter))

    def held(self, counter: CounterId, besides: Call | None = None) -> int:
        return len(self._waited(counter, besides) - self.live(counter))

    def _waited(self, counter: CounterId, besides: Call | None) -> set[str]:
        calls = [call for call in self.calls.values() if call is not besides]
        stakes = [(own.member, stake) for call in calls for own, stake in call.stakes.items() if own == counter]
        return {member for member, stake in stakes if stake.held and stake.lapsed is None}

    def _grants(self, call: Call, holds: tuple[Hold, ...]) -> list[int] | int:
        for at, hold in enumerate(holds):
            counter, stake = hold.counter, call.stakes.get(hold.counter, Stake())
            wants = hold.least or hold.most or (stake.lapsed and stake.held)
            known = self.live(counter) | self._waited(counter, None)
            assert hold.limit is not None
            if wants and counter.member not in known and self.value(counter) + self.held(counter) >= hold.limit:
                return at
        return [min(1, hold.most) for hold in holds]

    def _take(self, call: Call, holds: tuple[Hold, ...], grants: list[int]) -> None:
        for hold, grant in zip(holds, grants, strict=True):
            stake = call.stakes.setdefault(hold.counter, Stake())
            stake.held, stake.lapsed = stake.held or grant, None

    def reading(self, counter: CounterId, call: Call | None) -> Reading:
        stake = (call and call.stakes.get(counter)) or Stake()
        granted, seen = (0 if stake.lapsed else stake.held), counter.member in self.live(counter)
        return Reading(self.value(counter), self.held(counter, besides=call), granted, seen=seen)

    def _charge(self, counter: CounterId, _amount: int) -> Charge:
        return See(self.now, 1, counter.member)


class AtOnce(Protocol):
    """A store that is asked without waiting."""

    def read_now(self, need: Read) -> Readings: ...
    def reserve_now(self, need: Reserve) -> Readings: ...
    def extend_now(self, need: Extend) -> Readings: ...
    def settle_now(self, step: Settle) -> Readings: ...


amounts = st.integers(0, 60)
places = st.lists(st.sampled_from(range(4)), min_size=1, max_size=4, unique=True)


class CountersAgainstModel(RuleBasedStateMachine):
    """Random calls, repeated and late, over time. No operation is ever forgotten."""

    counters = COUNTERS
    limit = LIMIT
    amounts = amounts

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        self.store = self.new_store()
        self.model = self.new_model()
        self.ops = self.generation = 0
        self.done: list[Reserve | Extend | Settle] = []

    def new_model(self) -> Model:
        return Model(self.counters)

    def named(self, at: int, _call: str) -> CounterId:
        """The counter at a place, as a call asks for it."""
        return self.counters[at]

    def new_store(self) -> AtOnce:
        return MemoryCounters(self.clock, remember_s=1e9, lapsed_s=1e9)

    @rule(seconds=st.one_of(st.integers(1, 20), st.integers(1, 300), st.just(86_400 // 2)))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.model.advance(seconds)

    @rule(call=st.sampled_from(CALLS), counters=places, data=st.data(), lease=st.sampled_from([5.0, 15.0]))
    def reserve(self, call: str, counters: list[int], data: st.DataObject, lease: float) -> None:
        self._hold(Reserve(self._op(), self._name(call), self._holds(call, counters, data), lease))

    @rule(call=st.sampled_from(CALLS), counters=places, data=st.data(), lease=st.sampled_from([5.0, 15.0]))
    def extend(self, call: str, counters: list[int], data: st.DataObject, lease: float) -> None:
        observed = tuple(data.draw(self.amounts) for _ in counters)
        self._hold(Extend(self._op(), self._name(call), self._holds(call, counters, data), observed, lease))

    @rule(call=st.sampled_from(CALLS), counters=st.lists(st.sampled_from(range(4)), max_size=4), data=st.data())
    def settle(self, call: str, counters: list[int], data: st.DataObject) -> None:
        charges = tuple((self.named(at, call), data.draw(self.amounts)) for at in counters)
        self._settle(Settle(self._op(), self._name(call), charges))

    @rule(data=st.data(), times=st.integers(1, 10))
    def the_same_again(self, data: st.DataObject, times: int) -> None:
        if not self.done:
            return
        again = data.draw(st.sampled_from(self.done))
        for _ in range(times):
            match again:
                case Settle():
                    self._settle(again)
                case Reserve() | Extend():
                    self._hold(again)

    @rule()
    def new_calls_begin(self) -> None:
        """The old ones go on only by repetition, or lapse."""
        self.generation += 1

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "store"):
            return
        found = self.store.read_now(Read(self.counters)).counters
        assert found == tuple(self.model.reading(counter, None) for counter in self.counters)

    def _holds(self, call: str, counters: list[int], data: st.DataObject) -> tuple[Hold, ...]:
        """With `most` 0 room is asked for and not taken."""
        drawn = [(self.named(at, call), data.draw(self.amounts), data.draw(self.amounts)) for at in counters]
        return tuple(Hold(counter, least, most and max(least, most), self.limit) for counter, least, most in drawn)

    def _hold(self, need: Reserve | Extend) -> None:
        self.done.append(need)
        found = self.store.reserve_now(need) if isinstance(need, Reserve) else self.store.extend_now(need)
        counters = tuple(replace(reading, retry_after_s=None, resets_s=None) for reading in found.counters)
        assert replace(found, counters=counters) == self.model.hold(need)

    def _settle(self, step: Settle) -> None:
        self.done.append(step)
        assert self.store.settle_now(step) == self.model.settle(step)

    def _name(self, call: str) -> str:
        return f"{call}{self.generation}"

    def _op(self) -> str:
        self.ops += 1
        return f"op {self.ops}"


TestCountersAgainstModel = CountersAgainstModel.TestCase
TestCountersAgainstModel.settings = settings(max_examples=size(150), stateful_step_count=60, deadline=None)


class ValuesAgainstModel(CountersAgainstModel):
    """The same of counters of different values. Two of the calls have the same one; a limit of two is soon reached."""

    counters = tuple(replace(counter, charge="Distinct:request.model") for counter in COUNTERS)
    limit = 2
    amounts = st.integers(0, 1)

    def new_model(self) -> Model:
        return ValueModel(self.counters)

    def named(self, at: int, call: str) -> CounterId:
        return replace(self.counters[at], member={"a": "x", "b": "x", "c": "y", "d": "z"}[call])


TestValuesAgainstModel = ValuesAgainstModel.TestCase
TestValuesAgainstModel.settings = settings(max_examples=size(150), stateful_step_count=60, deadline=None)
