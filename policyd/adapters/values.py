"""A counter of different values in memory: which ones count until when, and which ones running calls have.

Rule 1: a value counts once, however many calls have it; a call that has it again makes it count longer, where its
        window does.
Rule 2: at most DISTINCT_MOST values count. What comes beyond them is let go: the counter stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from policyd.adapters.tally import Slot, Stake, Tally
from policyd.core.model.counters import DISTINCT_MOST, Charge, CounterId


def counts_values(counter: CounterId) -> bool:
    """Whether it is a counter of different values."""
    return counter.charge.startswith(f"{Charge.DISTINCT}:")


@dataclass(slots=True, eq=False)
class Values(Tally):
    """INVARIANT: `settled` is the number of members; `held` the number of waiting values that are no members."""

    members: dict[str, Slot] = field(default_factory=dict)  # what counts, and the slot that it counts in
    waiting: dict[str, int] = field(default_factory=dict)  # what running calls have, and how many of them

    def value(self, now: float) -> int:
        before = len(self.slots)
        settled = Tally.value(self, now)
        if len(self.slots) < before:
            self._forget()
        return settled

    def _forget(self) -> None:
        """Let go of the members whose slot has left the window."""
        slots = {id(slot) for slot in self.slots}
        for member in [name for name, slot in self.members.items() if id(slot) not in slots]:
            del self.members[member]
            self.held += member in self.waiting

    def covers(self, member: str, now: float) -> bool:
        """Whether it takes no more room."""
        self.value(now)
        return member in self.members or member in self.waiting

    def wait(self, member: str) -> bool:
        """A call that runs has this value; false where there are too many to be told apart."""
        if member not in self.waiting:
            if len(self.waiting) >= DISTINCT_MOST:
                return False
            self.held += member not in self.members
        self.waiting[member] = self.waiting.get(member, 0) + 1
        return True

    def unwait(self, member: str) -> None:
        """The call has it no more."""
        self.waiting[member] -= 1
        if not self.waiting[member]:
            del self.waiting[member]
            self.held -= member not in self.members

    def alone(self, member: str) -> bool:
        """Whether room is held for this value, for one call alone."""
        return member not in self.members and self.waiting.get(member) == 1

    def see(self, member: str, now: float) -> Slot | None:
        """Count this value from now on; None where there are too many."""
        settled, old = self.value(now), self.members.get(member)
        if old is None and settled >= DISTINCT_MOST:
            return None
        slot = self._slot(now)
        if old is not None:
            old.amount -= 1
        else:
            self.settled += 1
            self.held -= member in self.waiting
        slot.amount += 1
        self.members[member] = slot
        return slot


@dataclass(slots=True, eq=False)
class Seat(Stake):
    """What one call has in such a counter: its value, or nothing."""

    tally: Values
    member: str = ""

    @property
    def own(self) -> int:
        return int(bool(self.held) and not self.lapsed and self.tally.alone(self.member))

    def add(self, amount: int) -> None:
        if amount and not self.held:
            self.held = int(self.tally.wait(self.member))

    def lapse(self, ended: float) -> None:
        """INVARIANT: nothing has to be taken back when the settlement comes late: it counts the same value again."""
        self.lapsed = True
        if self.held:
            self.tally.unwait(self.member)
        if self.observed > 0:
            self.slot = self.tally.see(self.member, ended)

    def missing(self, now: float) -> int:
        return int(self.lapsed and bool(self.held) and not self.tally.covers(self.member, now))

    def revive(self, now: float) -> None:
        self.tally.value(now)
        if not self.lapsed:
            return
        self.lapsed, self.slot = False, None
        if self.held:
            self.held = int(self.tally.wait(self.member))

    def drop(self, now: float) -> None:
        self.tally.value(now)
        if self.held and not self.lapsed:
            self.tally.unwait(self.member)
        self.held, self.slot = 0, None
