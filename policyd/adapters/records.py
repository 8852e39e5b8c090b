"""Decision records as JSON lines: what docs/records.md promises, field by field.

Rule 1: no prompt, no answer, no secret: keys and sessions come as pseudonyms already, and nothing is added to them.
Rule 2: money and counted amounts are decimal strings: no reader rounds a bill.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from policyd.core.model.counters import NANO, Charge
from policyd.core.model.decision import CounterResult, DecisionRecord, RuleResult, ShadowResult
from policyd.enforcer import RecordSink

_LEAST_DIGITS = 6
_ENCODER = json.JSONEncoder(separators=(",", ":"))


class Lines(Protocol):
    """Where lines go: jsonlines.LineFile. Never blocks."""

    def put(self, line: Callable[[], bytes]) -> object: ...


@dataclass(frozen=True, slots=True)
class RecordFile:
    """Writes each record as one line; the JSON is made by the thread that writes."""

    lines: Lines

    def write(self, record: DecisionRecord) -> None:
        self.lines.put(partial(encode, record))


@dataclass(frozen=True, slots=True)
class Sinks:
    """Several sinks as one."""

    sinks: tuple[RecordSink, ...]

    def write(self, record: DecisionRecord) -> None:
        for sink in self.sinks:
            sink.write(record)


def encode(record: DecisionRecord) -> bytes:
    """One record as one line of ASCII JSON, without its end: whatever a name holds, it cannot begin a line."""
    return _ENCODER.encode(fields(record)).encode()


def fields(record: DecisionRecord) -> dict[str, object]:
    """One record as plain data, in the order in which people read it."""
    return {
        "kind": "decision",
        "id": record.id,
        "time": round(record.time, 6),
        "verdict": record.verdict.value,
        "would": record.would.value,
        "mode": record.mode.value,
        "enforced": record.enforced,
        "degraded": record.degraded,
        "reason": record.reason,
        "determined_by": list(record.determined_by),
        "event": record.event,
        "phase": record.phase,
        "status": record.status,
        "ended": record.ended,
        "policy_set": record.digest,
        "joined_policy_set": record.joined_digest or None,
        "operation": record.operation,
        "dialect": record.dialect,
        "provider": record.provider,
        "model": record.model,
        "served_model": record.served_model,
        "stream": record.stream,
        "inspection": record.inspection,
        "inspection_reason": record.inspection_reason,
        "usage": dict(record.usage),
        "cost_usd": decimal(record.cost_nano, NANO),
        "cost_source": record.cost_source,
        "cost_confidence": record.cost_confidence,
        "estimate_error": record.estimate_error,
        "price_source": record.price_source,
        "price_digest": record.price_digest,
        "service_tier": record.service_tier,
        "finish_reasons": list(record.finish_reasons),
        "events": record.events,
        "duration_ms": round(record.duration_ms, 3),
        "tenant": record.tenant,
        "session": record.session,
        "session_source": record.session_source,
        "caller_key": record.caller_key,
        "identity_missing": list(record.identity_missing),
        "labels": dict(record.labels),
        "detections": {root: dict(counts) for root, counts in record.detections.items()},
        "rules": [_rule(result) for result in record.rules],
        "counters": [counter_fields(result) for result in record.counters],
        "shadow": [_shadow(result) for result in record.shadow],
        "conflicts": list(record.conflicts),
    }


def _shadow(result: ShadowResult) -> Mapping[str, object]:
    return {
        "policy": result.policy,
        "namespace": result.namespace,
        "rule": result.rule,
        "verdict": "terminate",
        "event": result.event,
    }


def _rule(result: RuleResult) -> Mapping[str, object]:
    return {
        "policy": result.policy,
        "namespace": result.namespace,
        "rule": result.rule,
        "action": result.action,
        "outcome": result.outcome.value,
        "enforced": result.enforced,
        "severity": result.severity,
        "mode": result.mode,
        "reason": result.reason,
    }


def counter_fields(result: CounterResult) -> Mapping[str, object]:
    """One counter of a record, its amounts as exact decimals."""
    scale = Charge(result.charge.partition(":")[0]).scale
    return {
        "policy": result.policy,
        "namespace": result.namespace,
        "name": result.name,
        "key": result.key,
        "charge": result.charge,
        "before": decimal(result.before, scale),
        "spent": decimal(result.spent, scale),
        "limit": None if result.limit is None else decimal(result.limit, scale),
        "exceeded": result.exceeded,
        "available": result.available,
    }


def decimal(amount: int, scale: int) -> str:
    """An amount in units of 1/scale (a power of ten) as an exact decimal: whole units plain, others at least 6 digits.

    >>> decimal(142_000, 10**9), decimal(2_000_000_001, 10**9), decimal(7, 1)
    ('0.000142', '2.000000001', '7')
    """
    if scale == 1:
        return str(amount)
    whole, part = divmod(abs(amount), scale)
    digits = str(part).zfill(len(str(scale)) - 1)
    digits = digits.rstrip("0").ljust(_LEAST_DIGITS, "0")
    return f"{'-' if amount < 0 else ''}{whole}.{digits}"
