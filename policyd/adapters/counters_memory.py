"""Counters that live in this process.

Rule 1: holding is all or nothing and never lets settled + held exceed a limit; settling counts above limits too.
Rule 2: a call is settled once. What comes for it afterwards holds and charges nothing.
Rule 3: a lease that runs out turns into a charge of what was last observed, dated at its end; a settlement that comes
        after that replaces the charge.
Rule 4: nothing raises: what cannot be done is a `failure` in the answer, and then nothing has changed.
Rule 5: reading leaves no trace, and every other trace has an end.
Rule 6: memory is bounded, and nothing that still counts is forgotten for it: what is new is refused instead, first of
        the counter that has the most keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from policyd.adapters.tally import Agenda, Due, Stake, Tally, bad_holds, bad_settlement, plain, plain_session
from policyd.adapters.values import Seat, Values, counts_values
from policyd.core.model.counters import (
    MAX_AMOUNT,
    CounterId,
    Hold,
    Reading,
    Readings,
    SessionCharge,
    SessionId,
    SessionReading,
)
from policyd.core.model.sketch import KEPT, SIZE, likeness
from policyd.core.model.steps import Extend, Need, Read, Reserve, Settle

SESSION_S = 24 * 3600.0  # a session is forgotten this long after its last finished call
LAPSED_S = 24 * 3600.0  # how late a settlement may come and still replace what its lapsed lease was charged
REMEMBER_S = 30.0  # how long the operations of a finished call are still recognised
MAX_COUNTERS = 200_000  # keys of all counters, and as many sessions; beyond them new ones fail with `full`
SHARED_FROM = 1_000  # with a bound from here on, no counter of a policy gets all of it: see `_has_room`


@dataclass(slots=True, eq=False)
class _Call(Due):
    """One call: what it holds until `due`, and what it was answered. Once settled, `due` is when it is forgotten."""

    id: str
    stakes: dict[Tally, Stake] = field(default_factory=dict)
    answers: dict[str, Readings] = field(default_factory=dict)
    settled: Readings | None = None

    @property
    def running(self) -> list[Stake]:
        return [stake for stake in self.stakes.values() if not stake.lapsed]


@dataclass(slots=True, eq=False)
class _Session(Due):
    """What the finished calls of one session add up to."""

    id: SessionId
    first: float
    calls: int = 0
    cost_nano: int = 0
    tokens: int = 0
    sketch: bytes = b""  # of the newest answer that said something
    similarity: tuple[float, ...] = ()


class MemoryCounters:
    """A CounterStore without I/O. `clock`: seconds since 1970, UTC. The `*_now` methods are the same, at once.

    An operation is recognised while its call runs and for `remember_s` afterwards.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        remember_s: float = REMEMBER_S,
        lapsed_s: float = LAPSED_S,
        max_counters: int = MAX_COUNTERS,
    ) -> None:
        self._clock = clock
        self._remember_s = remember_s
        self._lapsed_s = lapsed_s
        self._max = max_counters
        self._tallies: dict[CounterId, Tally] = {}
        self._keys: dict[tuple[str, str, str], int] = {}  # how many keys each counter of a policy has
        self._calls: dict[str, _Call] = {}
        self._sessions: dict[SessionId, _Session] = {}
        self._agenda = Agenda()

    async def read(self, need: Read) -> Readings:
        return self.read_now(need)

    async def reserve(self, need: Reserve) -> Readings:
        return self.reserve_now(need)

    async def extend(self, need: Extend) -> Readings:
        return self.extend_now(need)

    async def settle(self, step: Settle) -> Readings:
        return self.settle_now(step)

    def at_once(self, need: Need) -> Readings:
        """The same for whoever need not wait."""
        match need:
            case Reserve():
                return self.reserve_now(need)
            case Settle():
                return self.settle_now(need)
            case Extend():
                return self.extend_now(need)
            case Read():
                return self.read_now(need)

    def read_now(self, need: Read) -> Readings:
        """What these counters stand at; the holds of every call are `held`."""
        now = self._tick()
        counters = tuple(_reading(counter, self._tallies.get(plain(counter)), None, now) for counter in need.counters)
        return Readings(counters, self._session_reading(need.session, now))

    def reserve_now(self, need: Reserve) -> Readings:
        """Hold all or nothing."""
        return self._hold(need, (0,) * len(need.holds), need.session)

    def extend_now(self, need: Extend) -> Readings:
        """Hold more, all or nothing. Whatever the answer, the lease is renewed and `observed` remembered.

        A call whose lease has run out must fit again whole: what it held before, and what it asks for now.
        """
        return self._hold(need, need.observed, None)

    def settle_now(self, step: Settle) -> Readings:
        """Drop the call's holds and count what it used. An amount above MAX_AMOUNT counts as that."""
        now = self._tick()
        call = self._calls.get(step.call)
        if call is not None and call.settled is not None:
            return call.settled
        if failure := bad_settlement(step):
            return Readings(failure=failure)
        call = call or self._open(step.call)
        self._drop_stakes(call, now)
        lost = [counter for counter, amount in step.charges if not self._charge(counter, amount, now)]
        complete = self._charge_session(step.session, now) and not lost
        charged = [counter for counter, _ in step.charges]
        counters = tuple(_reading(counter, self._tallies.get(plain(counter)), None, now) for counter in charged)
        call.settled = Readings(counters, failure="" if complete else "full")
        self._agenda.put(call, now + self._remember_s)
        return call.settled

    def steady(self, counters: Sequence[CounterId], session: SessionId, until: float) -> bool:
        """Whether time alone changes none of these counters, nor this session, before then or at that moment."""
        found = [self._tallies.get(plain(counter)) for counter in counters]
        known = self._sessions.get(plain_session(session))
        running = all(not tally.slots or tally.slots[0].until > until for tally in found if tally is not None)
        return running and (known is None or known.due > until)

    def snapshot(self) -> Mapping[CounterId, int]:
        """Every counter of a policy that stands above zero, and its settled value."""
        now = self._tick()
        own = ((counter, tally.value(now)) for counter, tally in self._tallies.items() if not counter.is_own)
        return {counter: value for counter, value in own if value}

    def size(self) -> int:
        """How many things are remembered: counters, calls, sessions and appointments."""
        self._tick()
        return len(self._tallies) + len(self._calls) + len(self._sessions) + len(self._agenda)

    # ---- holding ----------------------------------------------------------------------------------------------------

    def _hold(self, need: Reserve | Extend, observed: Sequence[int], session: SessionId | None) -> Readings:
        now = self._tick()
        call = self._calls.get(need.call)
        if call is not None and (answer := call.answers.get(need.op)):
            return answer
        if failure := self._unholdable(need.holds, observed, call):
            return Readings(failure=failure)
        call = call or self._open(need.call)
        tallies = [self._tally(hold.counter) for hold in need.holds]
        grants, refused = _grants(need.holds, tallies, call, now)
        if isinstance(need, Extend):
            self._observe(call, tallies, need)
        if refused is None:
            self._take(call, need.holds, tallies, grants, now)
        self._renew(call, now, need.lease_s)
        readings = [
            _reading(hold.counter, tally, call.stakes.get(tally), now)
            for hold, tally in zip(need.holds, tallies, strict=True)
        ]
        if refused is not None:
            for at, (hold, tally) in enumerate(zip(need.holds, tallies, strict=True)):
                if hold.limit is not None:
                    readings[at] = _when(readings[at], tally, hold, need.lease_s, now, refused=at == refused)
        call.answers[need.op] = Readings(tuple(readings), self._session_reading(session, now), refused)
        self._forget_empty(tallies)
        return call.answers[need.op]

    def _unholdable(self, holds: Sequence[Hold], observed: Sequence[int], call: _Call | None) -> str:
        """Why nothing can be held, whatever the counters stand at; empty when something can."""
        if call is not None and call.settled is not None:
            return "settled"
        if bad := bad_holds(holds, observed):
            return bad
        if len(self._tallies) + len(holds) <= self._max // 4:
            return ""
        return "" if all(self._has_room(hold.counter, len(holds) - 1) for hold in holds) else "full"

    def _has_room(self, counter: CounterId, beside: int = 0) -> bool:
        """Whether this key may be kept, with `beside` others that are new. One counter gets a quarter of all keys; the
        last tenth is for counters that have few, so that a flood of keys closes the counters that it is about."""
        if plain(counter) in self._tallies:
            return True
        every, own = len(self._tallies) + beside, self._keys.get(_family(counter), 0)
        if self._max < SHARED_FROM:
            return every < self._max
        few = own < self._max // 100
        return own < self._max // 4 and every < (self._max if few else self._max - self._max // 10)

    def _observe(self, call: _Call, tallies: Sequence[Tally], need: Extend) -> None:
        for hold, tally, seen in zip(need.holds, tallies, need.observed, strict=True):
            self._stake(call, tally, hold.counter.member).observed = min(seen, MAX_AMOUNT)

    def _take(
        self, call: _Call, holds: Sequence[Hold], tallies: Sequence[Tally], grants: Sequence[int], now: float
    ) -> None:
        for hold, tally, grant in zip(holds, tallies, grants, strict=True):
            stake = self._stake(call, tally, hold.counter.member)
            stake.revive(now)
            stake.add(grant)

    def _renew(self, call: _Call, now: float, lease_s: float) -> None:
        if call.running:
            self._agenda.put(call, now + lease_s)
        elif call.queued is None:
            self._agenda.put(call, now + self._remember_s)  # nothing is held: only the answer is remembered

    # ---- settling ---------------------------------------------------------------------------------------------------

    def _drop_stakes(self, call: _Call, now: float) -> None:
        for stake in call.stakes.values():
            stake.drop(now)
        self._let_go(call)

    def _let_go(self, call: _Call) -> None:
        tallies = list(call.stakes)
        call.stakes.clear()
        for tally in tallies:
            tally.stakes -= 1
        self._forget_empty(tallies)

    def _charge(self, counter: CounterId, amount: int, now: float) -> bool:
        """Count an amount; false when there is no room for one more counter. Nothing is nothing: it opens no window."""
        if not amount:
            return True
        if not self._has_room(counter):
            return False
        tally = self._tally(counter)
        if isinstance(tally, Values) and counter.member:
            tally.see(counter.member, now)
        else:
            tally.charge(min(amount, MAX_AMOUNT), now)
        if tally.slots:
            self._agenda.put(tally, tally.slots[-1].until)
        return True

    def _charge_session(self, charge: SessionCharge | None, now: float) -> bool:
        if charge is None:
            return True
        key = plain_session(charge.session)
        if key not in self._sessions and len(self._sessions) >= self._max:
            return False
        session = self._sessions.setdefault(key, _Session(key, now))
        session.calls += 1
        session.cost_nano = min(MAX_AMOUNT, session.cost_nano + charge.cost_nano)
        session.tokens = min(MAX_AMOUNT, session.tokens + charge.tokens)
        if charge.sketch:
            like = (likeness(charge.sketch, session.sketch),) if session.sketch else ()
            session.sketch, session.similarity = charge.sketch[:SIZE], (*like, *session.similarity)[:KEPT]
        self._agenda.put(session, now + SESSION_S)
        return True

    # ---- what time does ---------------------------------------------------------------------------------------------

    def _tick(self) -> float:
        now = self._clock()
        for item in self._agenda.take(now):
            match item:
                case _Call():
                    self._call_due(item)
                case Tally():
                    item.value(item.due)
                    self._forget_empty([item])
                case _Session():
                    del self._sessions[item.id]
        return now

    def _call_due(self, call: _Call) -> None:
        running = call.running
        if call.settled is not None or not running:
            self._let_go(call)
            del self._calls[call.id]
            return
        ended = call.due
        for stake in running:
            stake.lapse(ended)
            if stake.slot is not None:
                self._agenda.put(stake.tally, stake.tally.slots[-1].until)
        charged = any(stake.charged for stake in call.stakes.values())
        self._agenda.put(call, ended + (self._lapsed_s if charged else self._remember_s))

    # ---- small things -----------------------------------------------------------------------------------------------

    def _open(self, id: str) -> _Call:
        return self._calls.setdefault(id, _Call(id))

    def _tally(self, counter: CounterId) -> Tally:
        key = plain(counter)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Values(key) if counts_values(key) else Tally(key)
            self._keys[_family(key)] = self._keys.get(_family(key), 0) + 1
        return tally

    def _stake(self, call: _Call, tally: Tally, member: str) -> Stake:
        stake = call.stakes.get(tally)
        if stake is None:
            stake = Seat(tally, member=member) if isinstance(tally, Values) and member else Stake(tally)
            call.stakes[tally] = stake
            tally.stakes += 1
        return stake

    def _forget_empty(self, tallies: Sequence[Tally]) -> None:
        for tally in tallies:
            if tally.empty and self._tallies.get(tally.id) is tally:
                del self._tallies[tally.id]
                family = _family(tally.id)
                self._keys[family] -= 1
                if not self._keys[family]:
                    del self._keys[family]

    def _session_reading(self, session: SessionId | None, now: float) -> SessionReading | None:
        if session is None:
            return None
        if (known := self._sessions.get(plain_session(session))) is None:
            # INVARIANT: one that could not be kept is never read as new: what rules read of it cannot be judged.
            return SessionReading() if len(self._sessions) < self._max else None
        age = max(0.0, now - known.first)
        return SessionReading(known.calls, known.cost_nano, known.tokens, age, known.similarity)


def _family(counter: CounterId) -> tuple[str, str, str]:
    """The counter of a policy whose key this is."""
    return counter.policy, counter.name, counter.life


def _grants(
    holds: Sequence[Hold], tallies: Sequence[Tally], call: _Call, now: float
) -> tuple[Sequence[int], int | None]:
    """What each hold would be granted; or the index of the first that does not fit."""
    grants: list[int] = []
    pending: dict[Tally, int] = {}  # one counter may be asked for more than once
    named: set[tuple[Tally, str]] = set()
    for at, (hold, tally) in enumerate(zip(holds, tallies, strict=True)):
        ceiling = MAX_AMOUNT if hold.limit is None else min(hold.limit, MAX_AMOUNT)
        stake = call.stakes.get(tally)
        spoken_for = pending.get(tally, 0) if tally in pending else stake.missing(now) if stake else 0
        room = ceiling - tally.value(now) - tally.held - spoken_for
        if isinstance(tally, Values) and (member := hold.counter.member):
            again = stake is not None and stake.lapsed and stake.held
            new = bool(hold.least or hold.most or again) and not (tally.covers(member, now) or (tally, member) in named)
            if new and hold.limit is not None and room + spoken_for < 1 + pending.get(tally, 0):
                return (), at
            grants.append(min(hold.most, 1))
            pending[tally] = pending.get(tally, 0) + new
            named.add((tally, member))
            continue
        grant = min(hold.most, max(0, room))
        if hold.limit is not None and (max(0, room) < hold.least or (room < 0 and stake is not None and stake.lapsed)):
            return (), at
        grants.append(grant)
        pending[tally] = spoken_for + grant
    return grants, None


def _when(reading: Reading, tally: Tally, hold: Hold, lease_s: float, now: float, *, refused: bool) -> Reading:
    """The reading with its times. Whatever has room by itself need not be waited for."""
    assert hold.limit is not None
    retry = tally.retry_after(hold.least, min(hold.limit, MAX_AMOUNT), lease_s, now)
    return replace(reading, retry_after_s=retry if refused else retry or None, resets_s=tally.resets(now))


def _reading(counter: CounterId, tally: Tally | None, stake: Stake | None, now: float) -> Reading:
    if tally is None:
        return Reading()
    value = tally.value(now)
    seen = isinstance(tally, Values) and counter.member in tally.members
    if stake is None:
        return Reading(value, tally.held, seen=seen)
    return Reading(value, tally.held - stake.own, stake.granted, seen=seen)
