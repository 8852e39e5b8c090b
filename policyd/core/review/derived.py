"""What is derived of each policy: when its rules are judged, what they read, what of a call Envoy has to hand over."""

from __future__ import annotations

from collections.abc import Iterable

from policyd.core.compile.policyset import CompiledCounter, CompiledPolicy, CompiledRule, Engine, Phase
from policyd.core.decide.plan import Plan, needs_usage
from policyd.core.model.decision import Mode, verdict_of

Fields = dict[str, object]

PHASES = {
    Phase.REQUEST: "request",
    Phase.RESERVED: "request, after the hold",
    Phase.RESPONSE_HEADERS: "answer's headers",
    Phase.RESPONSE: "answer",
}


def derived(policies: Iterable[CompiledPolicy], engine: Engine) -> list[Fields]:
    """One entry a policy, as plain data."""
    return [_policy(policy, Plan((policy,), engine, Mode.FULL)) for policy in policies]


def _policy(policy: CompiledPolicy, plan: Plan) -> Fields:
    match = policy.match
    fields = {
        "operations": match.operations,
        "models": match.models,
        "providers": match.providers,
        "paths": match.paths,
    }
    return {
        "policy": policy.qualified,
        "mode": str(policy.mode),
        "failure_policy": str(policy.failure_policy),
        "match": {name: list(patterns) for name, patterns in fields.items() if patterns},
        "match_conditions": [condition.name for condition in policy.conditions],
        "envoy": {
            "request_body": "BUFFERED" if plan.needs_request_body else "NONE",
            "response_body": "FULL_DUPLEX_STREAMED, or BUFFERED in one piece"
            if plan.needs_response_body or plan.redacting
            else "NONE",
        },
        "reads_session": plan.reads_session,
        "counters": [_counter(counter) for counter in policy.counters],
        "rules": [_rule(rule) for rule in policy.rules],
    }


def _counter(counter: CompiledCounter) -> Fields:
    return {
        "counter": counter.name,
        "charge": str(counter.charge),
        "window": str(counter.window),
        "scope": counter.scope,
        "key": [program.source for program in counter.key],
        "limited": counter.limit is not None,
        "denies": counter.denies,
        "reads_usage": needs_usage(counter),
    }


def _rule(rule: CompiledRule) -> Fields:
    return {
        "rule": rule.name,
        "action": str(verdict_of(rule.action)),
        "severity": str(rule.severity),
        "mode": str(rule.mode),
        "implied": rule.implied is not None,
        "phase": PHASES[rule.phase],
        "reads": sorted(rule.reads),
        "counters": sorted({read.split(".")[1] for read in rule.reads if read.startswith("counters.")}),
        "once_true_stays_true": rule.monotone,
        "hold_back": rule.hold_back,
    }
