"""Rules that never decide anything: wherever they match, a stricter or an earlier one does too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import UnionType

from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledRule
from policyd.core.compile.words import quoted
from policyd.core.decide.combine import precedence
from policyd.core.model.decision import Reroute, Terminate
from policyd.core.review.beside import always_beside, as_strict, holds_whenever, spared
from policyd.core.review.never import can_match
from policyd.core.review.reviewed import Reviewed

MAX_POLICIES = 64  # beyond, rules are compared with those of their own policy alone


def warn_shadowed(policies: Sequence[Reviewed]) -> frozenset[CompiledRule]:
    """Says which rules are shadowed, and by which; gives them."""
    shadowed: set[CompiledRule] = set()
    for one in policies:
        others = policies if len(policies) <= MAX_POLICIES else [one]
        for rule in one.own:
            other = shadowed_by(one, rule, others, policies)
            if other is not None:
                _warn(one, rule, other)
                shadowed.add(rule)
    return frozenset(shadowed)


def _warn(one: Reviewed, rule: CompiledRule, other: CompiledRule) -> None:
    name = other.name if other.qualified_policy == rule.qualified_policy else other.id
    message = f"rule {quoted(rule.name)} decides nothing: wherever it matches, {quoted(name)} matches too, and wins"
    path: Path = one.path(rule, "when" if rule.when else "name")
    one.findings.warn(path, "POL111", message, "narrow the other rule, or remove this one")


def shadowed_by(
    one: Reviewed,
    rule: CompiledRule,
    others: Sequence[Reviewed],
    policies: Sequence[Reviewed],
    kinds: type[Terminate] | UnionType = Terminate | Reroute,
) -> CompiledRule | None:
    """The rule of `others`, of such an action, that always wins over this one; `policies` may hold exemptions."""
    if not isinstance(rule.action, Terminate | Reroute):
        return None
    for other, second in _candidates(one, rule, others):
        if (
            isinstance(second.action, kinds)
            and not spared(second, policies)
            and holds_whenever(one, rule, other, second)
        ):
            return second if can_match(one, rule) else None  # what never matches is said to never match
    return None


def _candidates(
    one: Reviewed, rule: CompiledRule, others: Sequence[Reviewed]
) -> Iterator[tuple[Reviewed, CompiledRule]]:
    for other in others:
        if not always_beside(one.policy, other.policy):
            continue
        for second in other.own:
            if second is not rule and as_strict(rule, second) and in_time(rule, second) and _wins(rule, second):
                yield other, second


def in_time(rule: CompiledRule, other: CompiledRule) -> bool:
    """Whether `other` is judged by the time that `rule` is, and over the same values."""
    if other.phase == rule.phase:
        return True
    return other.phase < rule.phase and not any(read.startswith("counters.") for read in other.reads)


def _wins(rule: CompiledRule, other: CompiledRule) -> bool:
    match rule.action, other.action:
        case Reroute(), Terminate():
            return True
        case Terminate(), Terminate():
            return other.phase < rule.phase or precedence(other) < precedence(rule)
        case Reroute(), Reroute():
            return precedence(other) < precedence(rule)
        case _:
            return False
