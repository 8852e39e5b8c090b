"""What all calls of a dry run add up to.

Rule 1: memory grows with the rules, never with the calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from policyd.adapters.records import decimal
from policyd.cli.dry_run import Played
from policyd.cli.fail_on import Condition
from policyd.core.model.counters import NANO
from policyd.core.model.decision import DecisionRecord, Outcome, RuleResult, Verdict

TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")


@dataclass(slots=True)
class CutPoints:
    """Where one rule stops calls, would-be stops included."""

    calls: int = 0
    refused: int = 0  # before the answer's first byte
    first: int = 0  # the earliest event of a cut
    last: int = 0
    total: int = 0  # of all events of cuts

    def add(self, event: int | None) -> None:
        self.calls += 1
        if event is None:
            self.refused += 1
            return
        self.first = event if self.cut == 1 else min(self.first, event)
        self.last = max(self.last, event)
        self.total += event

    @property
    def cut(self) -> int:
        return self.calls - self.refused

    @property
    def mean(self) -> float:
        return self.total / self.cut if self.cut else 0.0

    def fields(self) -> dict[str, object]:
        """Events count from 0; None where no answer was cut."""
        events = {"first": self.first, "mean": round(self.mean, 1), "last": self.last} if self.cut else None
        return {"calls": self.calls, "refused": self.refused, "cut": self.cut, "events": events}


@dataclass(slots=True)
class RuleSum:
    """What one rule said."""

    matched: int = 0
    enforced: int = 0
    errored: int = 0
    exempted: int = 0

    def add(self, result: RuleResult) -> None:
        self.matched += result.outcome is Outcome.MATCHED
        self.errored += result.outcome is Outcome.ERRORED
        self.exempted += result.outcome is Outcome.EXEMPTED
        self.enforced += result.enforced

    def fields(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("matched", "enforced", "errored", "exempted")}


@dataclass(slots=True)
class Summary:
    """The sums."""

    conditions: Sequence[Condition] = ()  # what must not be found
    calls: int = 0
    enforced: int = 0  # calls on which a rule was enforced
    verdicts: Counter[str] = field(default_factory=Counter)
    would: Counter[str] = field(default_factory=Counter)
    inspection: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    spend_nano: int = 0
    avoided_nano: int = 0  # how much less calls cost than as they were recorded
    added_nano: int = 0  # how much more others cost
    rules: dict[tuple[str, str, str], RuleSum] = field(default_factory=dict)
    cuts: dict[str, CutPoints] = field(default_factory=dict)

    def add(self, played: Played, recorded_nano: int) -> None:
        """One call, and what it cost as it was recorded."""
        record = played.record
        self.calls += 1
        self.enforced += record.enforced
        self.verdicts[record.verdict.value] += 1
        self.would[record.would.value] += 1
        self.inspection[record.inspection] += 1
        self.spend_nano += record.cost_nano
        self._add_difference(recorded_nano - record.cost_nano, record)
        for name in TOKENS:
            self.tokens[name] += _count(record.usage.get(name))
        self._add_rules(record)
        for condition in self.conditions:
            condition.look_at(played)

    def _add_difference(self, saved_nano: int, record: DecisionRecord) -> None:
        """A call that was stopped never costs more than the whole one: where it seems so, an estimate was too high."""
        if saved_nano >= 0:
            self.avoided_nano += saved_nano
        elif record.verdict is not Verdict.TERMINATE:
            self.added_nano -= saved_nano

    def _add_rules(self, record: DecisionRecord) -> None:
        for result in record.rules:
            if result.outcome is not Outcome.NOT_MATCHED:
                key = (result.namespace, result.policy, result.rule)
                self.rules.setdefault(key, RuleSum()).add(result)
        if record.would is Verdict.TERMINATE or record.verdict is Verdict.TERMINATE:
            by = ", ".join(record.determined_by) or record.reason
            self.cuts.setdefault(by, CutPoints()).add(stopped_at(record))

    @property
    def found(self) -> bool:
        """Whether a `--fail-on` found anything."""
        return any(condition.calls for condition in self.conditions)

    def fields(self) -> dict[str, object]:
        return {
            "calls": self.calls,
            "enforced": self.enforced,
            "verdicts": dict(self.verdicts),
            "would": dict(self.would),
            "inspection": dict(self.inspection),
            "spend_usd": decimal(self.spend_nano, NANO),
            "spend_avoided_usd": decimal(self.avoided_nano, NANO),
            "spend_added_usd": decimal(self.added_nano, NANO),
            "tokens": {name: self.tokens[name] for name in TOKENS},
            "rules": [self._rule(key, one) for key, one in sorted(self.rules.items())],
            "cut_points": [{"rule": by, **one.fields()} for by, one in sorted(self.cuts.items())],
            "fail_on": [condition.fields() for condition in self.conditions],
            "skipped": 0,  # nothing is: what cannot be read ends the run with exit code 2
        }

    @staticmethod
    def _rule(key: tuple[str, str, str], one: RuleSum) -> dict[str, object]:
        namespace, policy, rule = key
        return {"policy": policy, "namespace": namespace, "rule": rule, **one.fields()}


def stopped_at(record: DecisionRecord) -> int | None:
    """The event of a cut, None for a refusal. A policy in Monitor let the call leave, though in Full it would not have:
    its own fate of the call tells."""
    if record.enforced or record.event is None:
        return record.event
    fates = {f"{fate.policy}/{fate.rule}": fate.event for fate in record.shadow}
    return next((fates[rule] for rule in record.determined_by if rule in fates), record.event)


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
