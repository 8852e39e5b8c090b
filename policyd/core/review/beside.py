"""When one rule is in force: whether another one is too, whenever it matches.

Rule 1: yes only where it is sure for every call, in every mode of the process.
"""

from __future__ import annotations

from collections.abc import Sequence

from policyd.core.compile.policyset import CompiledPolicy, CompiledRule, Match
from policyd.core.compile.select import NOT_BY_DEFAULT
from policyd.core.model.decision import Allow, FailurePolicy, RuleSeverity
from policyd.core.model.route import HTTP_ROUTE
from policyd.core.review.assume import Assumption, Case, bare
from policyd.core.review.reviewed import (
    Reviewed,
    applicable,
    assumption,
    condition_trees,
    program_of,
    programs_of,
    sees_asked_model,
)


def always_beside(one: CompiledPolicy, other: CompiledPolicy) -> bool:
    """Whether `other` applies to every call that `one` applies to."""
    if one is other:
        return True
    if not in_reach(one, other) or not _wider(one.match, other.match):
        return False
    known = {bare(tree) for tree in condition_trees(one)}
    return all(bare(tree) in known for tree in condition_trees(other))


def in_reach(one: CompiledPolicy, other: CompiledPolicy) -> bool:
    """Whether `other` is in force wherever `one` is: in Kubernetes a namespace's are about its routes or their targets,
    and `serve --namespace` leaves out other namespaces' policies."""
    if other.cluster or one.cluster or one.namespace != other.namespace:
        return other.cluster
    if other.targets:
        return bool(one.targets) and set(one.targets) <= set(other.targets)
    return all(target.kind == HTTP_ROUTE for target in one.targets)  # a Gateway's routes may be other namespaces'


def _wider(one: Match, other: Match) -> bool:
    pairs = ((one.models, other.models), (one.providers, other.providers), (one.paths, other.paths))
    fields = all(not theirs or (bool(ours) and set(ours) <= set(theirs)) for ours, theirs in pairs)
    return fields and wider_operations(one, other)


def wider_operations(one: Match, other: Match) -> bool:
    """Whether every operation of `one` is one of `other`. Globs are compared as text."""
    if other.operations:
        return bool(one.operations) and set(one.operations) <= set(other.operations)
    return not any("*" in name or "?" in name or name in NOT_BY_DEFAULT for name in one.operations)


def as_strict(rule: CompiledRule, other: CompiledRule) -> bool:
    """Whether `other` is enforced wherever `rule` is."""
    critical = other.severity is RuleSeverity.CRITICAL or rule.severity is not RuleSeverity.CRITICAL
    return other.mode.rank >= rule.mode.rank and critical and (other.rollout is None or other.rollout == rule.rollout)


def spared(rule: CompiledRule, policies: Sequence[Reviewed]) -> bool:
    """Whether any exemption names this rule."""
    name = f"{rule.policy}/{rule.name}"
    return any(isinstance(one.action, Allow) and name in one.action.rules for each in policies for one in each.own)


def holds_whenever(one: Reviewed, rule: CompiledRule, other: Reviewed, second: CompiledRule) -> bool:
    """Whether `second` matches, or fails and refuses, whenever `rule` matches. Their policies apply together."""
    if second.when is None:
        return True
    if second.failure_policy is not FailurePolicy.FAIL:
        return False
    policies = (one.policy, other.policy)
    programs = [*programs_of(one.policy, rule), *programs_of(other.policy, second)]
    assume = assumption(one, policies, programs)
    cases = matching(assume, one, rule, models=sees_asked_model(rule))
    return bool(cases) and not assume.cases(program_of(second.when).tree, False, cases)


def matching(assume: Assumption, one: Reviewed, rule: CompiledRule, *, models: bool) -> list[Case]:
    """What holds of every call that a rule matches."""
    cases = applicable(assume, one.policy, models=models)
    return assume.cases(program_of(rule.when).tree, True, cases) if rule.when else cases
