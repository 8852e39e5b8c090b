"""What is told of one call, as plain data: the document of `policyd explain --format json`.

Rule 1: every text of the call passes through the scrubber; long ones are cut, and say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as PbMessage
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from policyd.adapters.records import counter_fields, decimal
from policyd.cli.aloud.hearing import Listening, Value
from policyd.cli.aloud.secrets import Scrubber
from policyd.cli.aloud.why import Rules, left_out, rules_of, why
from policyd.cli.dry_run import Played
from policyd.core.compile.cel_facts import FACTS, PART_FIELDS, part_of, part_rows
from policyd.core.compile.policyset import CelFailure, CompiledPolicy, CompiledRule, PolicySet
from policyd.core.decide.concern import COST_FACTS
from policyd.core.decide.plan import SESSION_STORE_READS, asks_session
from policyd.core.exchange.costing import UNPRICED
from policyd.core.model.counters import NANO, Charge
from policyd.core.model.decision import CounterResult, DecisionRecord, Outcome, RuleResult
from policyd.core.model.facts import Facts

Fields = dict[str, object]

MAX_TEXT = 4_096  # characters of one text
MAX_ITEMS = 64  # of one list or map


@dataclass(frozen=True, slots=True)
class Told:
    """One call, and all that was heard while it was judged."""

    policies: PolicySet
    listening: Listening
    played: Played
    scrub: Scrubber

    def document(self) -> Fields:
        record, response = self.played.record, self.played.facts.response
        return {
            "source": self.played.recording.source,
            "verdict": record.verdict.value,
            "would": record.would.value,
            "mode": record.mode.value,
            "enforced": record.enforced,
            "degraded": record.degraded,
            "determined_by": list(record.determined_by),
            "reason": record.reason,
            "phase": record.phase,
            "status": record.status,
            "event": record.event,
            "events": response.events,
            "operation": record.operation,
            "dialect": record.dialect,
            "model": self.scrub.text(record.model),
            "served_model": self.scrub.text(record.served_model),
            "stream": record.stream,
            "inspection": record.inspection,
            "inspection_reason": record.inspection_reason,
            "cost": {"usd": decimal(record.cost_nano, NANO), "source": record.cost_source},
            "usage": dict(record.usage),
            "rules": list(self._rules(rules_of(self.policies))),
            "counters": [_counter(one) for one in record.counters],
            "not_applied": list(self._left_out()),
            "conflicts": list(record.conflicts),
            "facts": self._facts(self.played.facts),
        }

    # ---- rules ------------------------------------------------------------------------------------------------------

    def _rules(self, rules: Rules) -> Iterator[Fields]:
        record = self.played.record
        for result in record.rules:
            rule = rules[(result.namespace, result.policy, result.rule)]
            heard = self.listening.of(rule.when)
            matched = result.outcome is not Outcome.NOT_MATCHED
            yield {
                **_rule(result),
                "why": why(result, rule, record, rules),
                "when": self.scrub.text(_condition(rule)),
                "values": self._values(heard.of(matched=matched)) if heard else [],
            }

    def _values(self, values: tuple[Value, ...]) -> list[Fields]:
        return [self._value(one) for one in values]

    def _value(self, one: Value) -> Fields:
        fields: Fields = {"expression": self.scrub.text(one.text), "depth": one.depth}
        if isinstance(one.value, CelFailure):
            return {**fields, "error": one.value.reason}
        return {**fields, "value": self.shown(one.value)}

    def shown(self, value: object) -> object:
        """A value as JSON has it, short, and without credentials."""
        return _short(self.scrub.value(plain(value)))

    # ---- the rest ---------------------------------------------------------------------------------------------------

    def _left_out(self) -> Iterator[Fields]:
        record: DecisionRecord = self.played.record
        for policy, reason in left_out(self.policies, record, self.played.recording.path):
            name, values = self._condition_of(policy)
            reason = reason or (f"its match condition `{name}` does not hold" if name else "it was not asked")
            yield {"policy": policy.qualified, "why": self.scrub.text(reason), "values": values}

    def _condition_of(self, policy: CompiledPolicy) -> tuple[str, list[Fields]]:
        """The match condition that left a policy out."""
        for condition in policy.conditions:
            heard = self.listening.of(condition.program)
            if heard is not None and heard.answer is False:
                return condition.name, self._values(heard.of(matched=False))
        return "", []

    def _facts(self, facts: Facts) -> Fields:
        found: Fields = {}
        asked = any(asks_session(policy) for policy in self.policies.policies)
        for path, fact in FACTS.items():
            if fact.present(facts) and (asked or path not in SESSION_STORE_READS):  # not asked for, not known
                value = fact.get(facts)
                found[path] = self.shown(part_rows(part_of(fact), value) if part_of(fact) else value)
        return {**found, **self._cost()}

    def _cost(self) -> Fields:
        """What the call cost in the end; where a rule reads that it is among the facts, as it was when judged."""
        record = self.played.record
        read = any(COST_FACTS & rule.reads for policy in self.policies.policies for rule in policy.rules)
        if read or record.cost_source == UNPRICED:
            return {}
        told = record.cost_nano / NANO, record.cost_source, record.cost_confidence
        return dict(zip(("response.cost_usd", "response.cost_source", "response.cost_confidence"), told, strict=True))


def _condition(rule: CompiledRule) -> str:
    if rule.implied:
        return f"counters.{rule.implied}.exceeded"
    return rule.when.source if rule.when else "true"


def _rule(result: RuleResult) -> Fields:
    return {
        "policy": result.policy,
        "namespace": result.namespace,
        "rule": result.rule,
        "action": result.action,
        "severity": str(result.severity),
        "mode": str(result.mode),
        "outcome": result.outcome.value,
        "enforced": result.enforced,
    }


def _counter(result: CounterResult) -> Fields:
    scale = Charge(result.charge.partition(":")[0]).scale
    return {**counter_fields(result), "after": decimal(result.before + result.spent, scale)}


# ---- values as JSON -------------------------------------------------------------------------------------------------


def plain(value: object) -> object:
    """A value of CEL, or a fact as it goes into CEL, as JSON has it."""
    match value:
        case StringValue():
            return value.value
        case Duration():
            return f"{value.seconds + value.nanos / NANO:g}s"
        case Timestamp():
            return value.ToJsonString()
        case PbMessage():
            return _message(value)
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case bool() | int() | float() | str() | None:
            return value
        case _:
            return f"({type(value).__name__})"


def _message(value: PbMessage) -> object:
    fields = PART_FIELDS.get(value.DESCRIPTOR.name)
    if fields is None:
        return f"({value.DESCRIPTOR.name})"
    return {name: getattr(value, name) for name in fields[1] if value.HasField(name)}


def _short(value: object) -> object:
    match value:
        case str() if len(value) > MAX_TEXT:
            return f"{value[:MAX_TEXT]}… ({len(value)} characters)"
        case list() if len(value) > MAX_ITEMS:
            return [*map(_short, value[:MAX_ITEMS]), f"… ({len(value)} items)"]
        case list():
            return [_short(item) for item in value]
        case dict():
            return {key: _short(item) for key, item in list(value.items())[:MAX_ITEMS]}
        case float() if value != value or value in (float("inf"), float("-inf")):
            return str(value)
        case _:
            return value
