"""What two policy sets make of the same call, and what that adds up to.

Rule 1: a call is stopped when a terminate is enforced on it; what Monitor would have stopped is told apart.
Rule 2: memory does not grow with the number of calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from policyd.adapters.records import decimal
from policyd.cli.dry_run import Played
from policyd.cli.replay_sums import stopped_at
from policyd.cli.thresholds import Threshold
from policyd.core.model.counters import NANO
from policyd.core.model.decision import DecisionRecord, Verdict


class Kind(StrEnum):
    """How a call fares differently; the first one that fits."""

    NEWLY_STOPPED = "newly_stopped"
    NO_LONGER_STOPPED = "no_longer_stopped"
    MOVED_CUT = "moved_cut"  # stopped both times, at another event
    OTHER_VERDICT = "other_verdict"  # enforced or not
    OTHER_RULE = "other_rule"  # the same verdict by another rule
    OTHER_ANSWER = "other_answer"  # other bytes, or another model, under the same verdict by the same rule


@dataclass(frozen=True, slots=True)
class Side:
    """One call under one of the two sets."""

    verdict: str
    would: str
    enforced: bool
    determined_by: tuple[str, ...]
    event: int | None
    cost_nano: int

    def fields(self) -> dict[str, object]:
        return {
            "verdict": self.verdict,
            "would": self.would,
            "enforced": self.enforced,
            "determined_by": list(self.determined_by),
            "event": self.event,
            "cost_usd": decimal(self.cost_nano, NANO),
        }


@dataclass(frozen=True, slots=True)
class Change:
    """One call that fares differently."""

    source: str
    kind: Kind
    before: Side
    after: Side

    def fields(self) -> dict[str, object]:
        sides = {"from": self.before.fields(), "to": self.after.fields()}
        return {"source": self.source, "change": self.kind.value, **sides}


def stopped(record: DecisionRecord) -> bool:
    """Whether the call was refused or cut."""
    return record.enforced and record.verdict is Verdict.TERMINATE


def changes_between(was: Played, now: Played) -> Change | None:
    """How the same call fares differently; None when it does not."""
    kind = _kind(was, now)
    if kind is None:
        return None
    return Change(was.recording.source, kind, _side(was.record), _side(now.record))


def _side(record: DecisionRecord) -> Side:
    verdict, would, event = record.verdict.value, record.would.value, stopped_at(record)
    return Side(verdict, would, record.enforced, record.determined_by, event, record.cost_nano)


def _kind(was: Played, now: Played) -> Kind | None:
    before, after = was.record, now.record
    if stopped(before) is not stopped(after):
        return Kind.NEWLY_STOPPED if stopped(after) else Kind.NO_LONGER_STOPPED
    if stopped(before) and before.event != after.event:
        return Kind.MOVED_CUT
    if _verdict(before) != _verdict(after):
        return Kind.OTHER_VERDICT
    if before.determined_by != after.determined_by:
        return Kind.OTHER_RULE
    same = was.output_sha256 == now.output_sha256 and before.served_model == after.served_model
    return None if same else Kind.OTHER_ANSWER


def _verdict(record: DecisionRecord) -> tuple[object, ...]:
    return record.verdict, record.would, record.enforced


@dataclass(slots=True)
class Sums:
    """One of the two sets."""

    digest: str = ""
    stopped: int = 0
    would_stop: int = 0  # enforced or not
    spend_nano: int = 0

    def add(self, record: DecisionRecord) -> None:
        self.digest = record.digest
        self.stopped += stopped(record)
        self.would_stop += record.would is Verdict.TERMINATE
        self.spend_nano += record.cost_nano

    def fields(self) -> dict[str, object]:
        spend = decimal(self.spend_nano, NANO)
        return {"digest": self.digest, "stopped": self.stopped, "would_stop": self.would_stop, "spend_usd": spend}


@dataclass(slots=True)
class Comparison:
    """The sums of both, and what is too much of a difference."""

    max_newly_stopped: Threshold | None = None
    max_cost_increase: Threshold | None = None
    calls: int = 0
    before: Sums = field(default_factory=Sums)
    after: Sums = field(default_factory=Sums)
    changes: Counter[Kind] = field(default_factory=Counter)

    def add(self, was: Played, now: Played, change: Change | None) -> None:
        self.calls += 1
        self.before.add(was.record)
        self.after.add(now.record)
        if change is not None:
            self.changes[change.kind] += 1

    @property
    def increase_nano(self) -> int:
        return self.after.spend_nano - self.before.spend_nano

    def failures(self) -> Iterator[str]:
        """What is past its threshold, in words."""
        newly, stops, costs = self.changes[Kind.NEWLY_STOPPED], self.max_newly_stopped, self.max_cost_increase
        if stops is not None and stops.too_many(newly, self.calls):
            yield f"{newly} of {self.calls} calls are newly stopped, more than {stops.text}"
        if costs is not None and costs.passed(self.before.spend_nano, self.after.spend_nano, NANO):
            yield f"the cost rises by ${decimal(self.increase_nano, NANO)}, more than {costs.text}"

    def fields(self) -> dict[str, object]:
        return {
            "calls": self.calls,
            "from": self.before.fields(),
            "to": self.after.fields(),
            **{kind.value: self.changes[kind] for kind in Kind},
            "cost_difference_usd": decimal(self.increase_nano, NANO),
            "failures": list(self.failures()),
        }
