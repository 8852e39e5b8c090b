"""What one counter has added up to, what a call has in it, and what is due when: what the memory store is made of.

Rule 1: memory is what still counts: charges that have left their window are gone at the next touch.
Rule 2: no total exceeds MAX_AMOUNT; it saturates there instead of wrapping or losing digits.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from policyd.core.model.counters import CROWDED_S, MAX_AMOUNT, CounterId, Hold, SessionId, WindowKind
from policyd.core.model.steps import Settle
from policyd.core.model.windows import counts_until

_SWEEP_FROM = 64  # stale entries: fewer are not worth a pass


@dataclass(slots=True, eq=False)
class Due:
    """Something that has to be looked at again at `due`, seconds since 1970."""

    due: float = field(default=math.inf, init=False)
    queued: float | None = field(default=None, init=False)


class Agenda:
    """Hands out what is due, in order of time. Moving an appointment to later costs nothing; one that is moved to
    earlier leaves a stale entry, and these are swept out before they outnumber the others: a lease may be a day long.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Due]] = []
        self._count = 0
        self._stale = 0

    def __len__(self) -> int:
        return len(self._heap) - self._stale

    def put(self, item: Due, due: float) -> None:
        """Look at `item` at `due`, and not at the time it had before."""
        item.due = due
        if item.queued is None:
            self._push(item)
        elif due < item.queued:
            self._stale += 1
            self._push(item)
            self._sweep()

    def take(self, now: float) -> Iterator[Due]:
        """What is due by now. Each is off the agenda until it is put on it again."""
        while self._heap and self._heap[0][0] <= now:
            when, _, item = heapq.heappop(self._heap)
            if when != item.queued:
                self._stale = max(0, self._stale - 1)  # it was moved to earlier, and has been taken then
                continue
            if item.due > now:
                self._push(item)
                continue
            item.queued = None
            yield item

    def _sweep(self) -> None:
        if self._stale > _SWEEP_FROM and 2 * self._stale > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[0] == entry[2].queued]
            heapq.heapify(self._heap)
            self._stale = 0

    def _push(self, item: Due) -> None:
        item.queued = item.due
        self._count += 1
        heapq.heappush(self._heap, (item.due, self._count, item))


@dataclass(slots=True, eq=False)
class Slot:
    """Charges that stop counting together, at `until`."""

    until: float
    amount: int


@dataclass(slots=True, eq=False)
class Tally(Due):
    """One counter: what is settled and still counts, and what running calls hold. Store units.

    INVARIANT: `slots` ascend by `until`; `settled` is their sum; `held` is the sum of the stakes' holds.
    """

    id: CounterId
    held: int = 0
    settled: int = 0
    stakes: int = 0  # how many calls have one
    slots: list[Slot] = field(default_factory=list)

    def value(self, now: float) -> int:
        """What counts at this time."""
        slots = self.slots
        while slots and slots[0].until <= now:
            self.settled -= slots.pop(0).amount
        return self.settled

    @property
    def empty(self) -> bool:
        return not self.stakes and not self.slots

    def charge(self, amount: int, now: float) -> Slot:
        """Count `amount` (> 0) from now on; gives the slot that it went to."""
        added = min(amount, MAX_AMOUNT - self.value(now))
        slot = self._slot(now)
        slot.amount += added
        self.settled += added
        return slot

    def _slot(self, now: float) -> Slot:
        newest = self.slots[-1] if self.slots else None
        until = counts_until(self.id.window, now, newest.until if newest else None)
        if newest is not None and (until <= newest.until or self.id.window.kind is WindowKind.IDLE):
            newest.until = max(until, newest.until)  # a clock that was put back never shortens a window
            return newest
        self.slots.append(Slot(until, 0))
        return self.slots[-1]

    def take_back(self, slot: Slot, amount: int, now: float) -> None:
        """Undo a charge, as far as it still counts."""
        if slot.until <= now:
            return
        slot.amount -= amount
        self.settled -= amount

    def retry_after(self, least: int, limit: int, lease_s: float, now: float) -> float | None:
        """Seconds until a hold of `least` may fit: until enough has left the window or, where only holds of running
        calls are in the way, within a lease: by then each is settled, renewed or lapsed. None: waiting cannot help.

        A lease that outlives what calls take says nothing about them: then it is CROWDED_S."""
        lease_s = min(lease_s, CROWDED_S)
        if least > limit:
            return None
        needed = self.value(now) + least - limit
        settled_alone, with_holds = self._wait(needed, now), self._wait(needed + self.held, now)
        if settled_alone is None:
            return None
        if not settled_alone:
            return lease_s if with_holds is None else min(lease_s, with_holds)
        return max(settled_alone, lease_s) if with_holds is None else with_holds

    def resets(self, now: float) -> float | None:
        """Seconds until all that is settled has left the window; None when nothing is."""
        return self.slots[-1].until - now if self.value(now) and math.isfinite(self.slots[-1].until) else None

    def _wait(self, needed: int, now: float) -> float | None:
        """Seconds until charges of at least `needed` have left the window."""
        if needed <= 0:
            return 0.0
        for slot in self.slots:
            needed -= slot.amount
            if needed <= 0:
                return slot.until - now if math.isfinite(slot.until) else None
        return None


@dataclass(slots=True, eq=False)
class Stake:
    """What one call has in one counter: a hold or, once its lease has run out, the charge in its place."""

    tally: Tally
    held: int = 0
    observed: int = 0  # what the call was last seen to have used
    lapsed: bool = False
    charged: int = 0  # only while lapsed
    slot: Slot | None = None  # where the charge went

    @property
    def granted(self) -> int:
        """What the call may spend, all its grants together."""
        return self.charged if self.lapsed else self.held

    @property
    def own(self) -> int:
        """How much of what the counter holds is this call's."""
        return 0 if self.lapsed else self.held

    def add(self, amount: int) -> None:
        """Hold more."""
        self.held += amount
        self.tally.held += amount

    def lapse(self, ended: float) -> None:
        """The lease ran out: charge what was observed, at the lease's end."""
        self.lapsed = True
        self.tally.held -= self.held
        if self.observed > 0:
            before = self.tally.value(ended)
            self.slot = self.tally.charge(self.observed, ended)
            self.charged = self.tally.settled - before

    def missing(self, now: float) -> int:
        """How much more room the counter must have for a lapsed hold to be taken again."""
        if not self.lapsed:
            return 0
        return self.held - (self.charged if self.slot is not None and self.slot.until > now else 0)

    def revive(self, now: float) -> None:
        """Take the hold again, in the place of the charge."""
        if not self.lapsed:
            return
        self._uncharge(now)
        self.lapsed = False
        self.tally.held += self.held

    def drop(self, now: float) -> None:
        """Leave nothing behind, neither a hold nor its charge."""
        if self.lapsed:
            self._uncharge(now)
        else:
            self.tally.held -= self.held
        self.held = 0

    def _uncharge(self, now: float) -> None:
        if self.slot is not None:
            self.tally.take_back(self.slot, self.charged, now)
        self.slot, self.charged = None, 0


def bad_holds(holds: Sequence[Hold], observed: Sequence[int]) -> str:
    """A hold that makes no sense is a mistake of the caller's program, never of a user."""
    if len(observed) != len(holds):
        return "observed does not fit the holds"
    sound = all(hold.makes_sense for hold in holds) and all(seen >= 0 for seen in observed)
    return "" if sound else "amount out of range"


def bad_settlement(step: Settle) -> str:
    """Why nothing can be charged; empty when it can."""
    session = step.session
    amounts = [amount for _, amount in step.charges] + ([session.cost_nano, session.tokens] if session else [])
    return "" if all(amount >= 0 for amount in amounts) else "amount out of range"


def plain(counter: CounterId) -> CounterId:
    """The counter under the name that it is kept by: an empty tenant is the default one."""
    return counter if counter.tenant else replace(counter, tenant="default")


def plain_session(session: SessionId) -> SessionId:
    """The same for a session."""
    return session if session.tenant else replace(session, tenant="default")
