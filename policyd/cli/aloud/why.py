"""Why a verdict is this one and not another: one sentence a rule, in the words of the language's own rules."""

from __future__ import annotations

from collections.abc import Iterator

from policyd.core.compile.policyset import CompiledPolicy, CompiledRule, Match, Phase, PolicySet
from policyd.core.compile.select import NOT_BY_DEFAULT, glob_matches
from policyd.core.compile.words import listed, quoted
from policyd.core.decide.combine import precedence
from policyd.core.model.decision import (
    Allow,
    Constrain,
    DecisionRecord,
    FailurePolicy,
    Outcome,
    RuleResult,
    Verdict,
    verdict_of,
)
from policyd.core.model.paths import normal_path

Rules = dict[tuple[str, str, str], CompiledRule]
"""(namespace, policy, rule) -> the rule"""


def rules_of(policies: PolicySet) -> Rules:
    return {(rule.namespace, rule.policy, rule.name): rule for policy in policies.policies for rule in policy.rules}


def why(result: RuleResult, rule: CompiledRule, record: DecisionRecord, rules: Rules) -> str:
    """What became of one rule."""
    match result.outcome:
        case Outcome.NOT_MATCHED:
            return result.reason or (_silent(rule, record) if rule.implied else "its condition is false")
        case Outcome.EXEMPTED:
            return f"exempted by {quoted(_exempting(rule, record, rules))}"
        case Outcome.ERRORED:
            return f"it could not be judged ({result.reason}): {_failed(result, rule, record, rules)}"
        case Outcome.MATCHED:
            return _acted(result, rule, record, rules)


def _silent(rule: CompiledRule, record: DecisionRecord) -> str:
    mine = (rule.namespace, rule.policy, rule.implied)
    if any(one.exceeded for one in record.counters if (one.namespace, one.policy, one.name) == mine):
        return "a rule of its policy that reads `exceeded` answers for it"
    return "the counter is within its limit"


def _failed(result: RuleResult, rule: CompiledRule, record: DecisionRecord, rules: Rules) -> str:
    if rule.failure_policy is FailurePolicy.IGNORE:
        return "failurePolicy Ignore lets the call pass, marked degraded"
    return "failurePolicy Fail makes it a refusal; " + _acted(result, rule, record, rules)


def _acted(result: RuleResult, rule: CompiledRule, record: DecisionRecord, rules: Rules) -> str:
    if not result.enforced:
        return _watched(result, record)
    if isinstance(rule.action, Allow):
        return f"it exempts the call from {listed(sorted(rule.action.rules))}"
    winner = _winner(record, rules)
    if winner is rule:
        return "it decides"
    changes = isinstance(rule.action, Constrain) and result.outcome is Outcome.MATCHED
    if changes and (winner is None or winner.phase > Phase.RESERVED or record.verdict is not Verdict.TERMINATE):
        return "its change is made"
    return "nothing stricter matched" if winner is None else _outdone(result, rule, winner)


def _watched(result: RuleResult, record: DecisionRecord) -> str:
    named = f"{result.policy}/{result.rule}" in record.determined_by
    decides = "; it would decide" if named and not record.enforced else ""
    if result.mode == "Soft":
        return f"not enforced: mode Soft enforces severity Critical, this rule is {result.severity}{decides}"
    if result.mode == "Full":
        return "it cannot act here: a call is rerouted once"
    return f"not enforced: its mode is {result.mode}{decides}"


def _winner(record: DecisionRecord, rules: Rules) -> CompiledRule | None:
    for result in record.rules:
        if result.enforced and f"{result.policy}/{result.rule}" in record.determined_by:
            return rules.get((result.namespace, result.policy, result.rule))
    return None


def _outdone(result: RuleResult, rule: CompiledRule, winner: CompiledRule) -> str:
    name = quoted(winner.id)
    mine = Verdict.TERMINATE if result.outcome is Outcome.ERRORED else verdict_of(rule.action)
    if mine.rank < verdict_of(winner.action).rank:
        return f"{name} wins: {verdict_of(winner.action)} is stricter than {mine}"
    return f"{name} wins: {_before(winner, rule)}"


def _before(winner: CompiledRule, rule: CompiledRule) -> str:
    """Why one rule comes before another of the same strictness."""
    if precedence(winner) > precedence(rule):
        return "it came first in time"
    if winner.severity is not rule.severity:
        return f"severity {winner.severity} comes before {rule.severity}"
    if winner.cluster is not rule.cluster:
        return "a ClusterLLMPolicy comes first"
    same = winner.qualified_policy == rule.qualified_policy
    return "it stands first in its policy" if same else "its policy's name comes first"


def _exempting(rule: CompiledRule, record: DecisionRecord, rules: Rules) -> str:
    name = f"{rule.policy}/{rule.name}"
    for result in record.rules:
        other = rules.get((result.namespace, result.policy, result.rule))
        if (
            other
            and result.outcome is Outcome.MATCHED
            and isinstance(other.action, Allow)
            and name in other.action.rules
        ):
            return other.id
    return "an exemption"


# ---- policies that do not apply -------------------------------------------------------------------------------------


def left_out(policies: PolicySet, record: DecisionRecord, path: str) -> Iterator[tuple[CompiledPolicy, str]]:
    """The policies that had no say, each with its reason."""
    judged = {(one.namespace, one.policy) for one in record.rules}
    judged |= {(one.namespace, one.policy) for one in record.counters}
    for policy in policies.policies:
        if (policy.namespace, policy.name) not in judged:
            yield policy, mismatch(policy.match, record, path)


def mismatch(match: Match, record: DecisionRecord, path: str) -> str:
    """Which field of a static match does not fit the call; empty when all do."""
    if not match.operations and record.operation in NOT_BY_DEFAULT:
        return f"without `operations` it is not about {quoted(record.operation)} calls"
    fields = (
        ("operations", match.operations, record.operation),
        ("models", match.models, record.model),
        ("providers", match.providers, record.provider),
        ("paths", match.paths, normal_path(path.partition("?")[0]).judged),
    )
    for name, patterns, value in fields:
        if patterns and not any(glob_matches(pattern)(value) for pattern in patterns):
            return f"`match.{name}` is {listed(patterns)}, the call's is {quoted(value)}"
    return ""
