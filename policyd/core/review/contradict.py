"""Policies that contradict: one sends calls where another refuses them, or both want another value of one field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from policyd.core.compile.cel_tree import Node
from policyd.core.compile.policyset import CompiledRule, Phase
from policyd.core.compile.select import glob_matches
from policyd.core.compile.words import listed, quoted
from policyd.core.decide.combine import precedence
from policyd.core.decide.obligations import Merge
from policyd.core.decide.plan import reads_session
from policyd.core.model.decision import Constrain, FailurePolicy, Reroute, Terminate
from policyd.core.review.assume import Assumption, Case
from policyd.core.review.beside import (
    always_beside,
    as_strict,
    holds_whenever,
    in_reach,
    matching,
    spared,
    wider_operations,
)
from policyd.core.review.reviewed import (
    MODEL,
    Reviewed,
    assumption,
    condition_trees,
    mentions,
    program_of,
    programs_of,
)
from policyd.core.review.shadow import MAX_POLICIES
from policyd.core.review.values import one_of

CODE = "POL115"


def warn_contradictions(policies: Sequence[Reviewed], idle: AbstractSet[CompiledRule] = frozenset()) -> None:
    """Says which rules contradict each other on every call that the one is about; `idle` ones do nothing anyway."""
    for one in policies:
        others = policies if len(policies) <= MAX_POLICIES else [one]
        for rule in one.own:
            if rule in idle:
                continue
            if isinstance(rule.action, Reroute) and rule.action.model:
                _warn_refused(one, rule, rule.action.model, others, policies)
            elif isinstance(rule.action, Constrain):
                _warn_conflicts(one, rule, others, policies)


# ---- rerouted, and refused there ------------------------------------------------------------------------------------


def _warn_refused(
    one: Reviewed, rule: CompiledRule, model: str, others: Sequence[Reviewed], policies: Sequence[Reviewed]
) -> None:
    for other in others:
        for second in other.own:
            if _may_refuse(rule, second) and not spared(second, policies) and _refuses(one, rule, model, other, second):
                message = f"rule {quoted(rule.name)} reroutes to {quoted(model)}, and {quoted(second.id)} refuses that"
                hint = "reroute to a model that the other rule lets pass, or let it pass this one"
                one.findings.warn(one.path(rule, "reroute", "model"), CODE, message, hint)
                return


def _may_refuse(rule: CompiledRule, other: CompiledRule) -> bool:
    asks_store = reads_session(other.reads) or any(read.startswith("counters.") for read in other.reads)
    refuses = isinstance(other.action, Terminate) and other.failure_policy is FailurePolicy.FAIL
    return refuses and other.phase is Phase.REQUEST and not asks_store and as_strict(rule, other)


def _refuses(one: Reviewed, rule: CompiledRule, model: str, other: Reviewed, second: CompiledRule) -> bool:
    """Whether the second pass, with the target as the call's model, always ends in this refusal."""
    if not _selected(one, model, other):
        return False
    programs = [*programs_of(one.policy, rule), *programs_of(other.policy, second)]
    assume = assumption(one, (one.policy, other.policy), programs)
    cases = [_moved(case, model) for case in matching(assume, one, rule, models=False)]
    trees = [*condition_trees(other.policy), *([program_of(second.when).tree] if second.when else [])]
    return bool(cases) and all(_certain(assume, tree, cases) for tree in trees)


def _certain(assume: Assumption, tree: Node, cases: Sequence[Case]) -> bool:
    return not assume.cases(tree, False, cases)


def _moved(case: Case, model: str) -> Case:
    """What is still known once the call's model is another one."""
    kept = {term: known for term, known in case.items() if not mentions(term, MODEL.name)}
    return {**kept, MODEL: one_of(model)}


def _selected(one: Reviewed, model: str, other: Reviewed) -> bool:
    """Whether a rerouted call of `one` is also one of `other`."""
    ours, theirs = one.policy.match, other.policy.match
    pairs = ((ours.providers, theirs.providers), (ours.paths, theirs.paths))
    same = all(not wanted or (bool(known) and set(known) <= set(wanted)) for known, wanted in pairs)
    fits = not theirs.models or any(glob_matches(pattern)(model) for pattern in theirs.models)
    near = one is other or in_reach(one.policy, other.policy)
    return near and fits and same and wider_operations(ours, theirs)


# ---- two values for one field ---------------------------------------------------------------------------------------


def _warn_conflicts(
    one: Reviewed, rule: CompiledRule, others: Sequence[Reviewed], policies: Sequence[Reviewed]
) -> None:
    for other, second in _constraining(one, rule, others):
        said = _conflict(rule, second)
        free = not spared(second, policies) and not spared(rule, policies)
        if said and free and holds_whenever(one, rule, other, second):
            message = f"rule {quoted(rule.name)} and {quoted(second.id)} contradict: {said}"
            hint = "let one of them say it, or narrow one of them"
            one.findings.warn(one.path(rule, "constrain"), CODE, message, hint, key=True)
            return


def _constraining(
    one: Reviewed, rule: CompiledRule, others: Sequence[Reviewed]
) -> Iterator[tuple[Reviewed, CompiledRule]]:
    for other in others:
        if not always_beside(one.policy, other.policy):
            continue
        for second in other.own:
            same = isinstance(second.action, Constrain) and second.phase <= rule.phase and second is not rule
            if same and second.mode is rule.mode and as_strict(rule, second):
                yield other, second


def _conflict(rule: CompiledRule, other: CompiledRule) -> str:
    """What the two cannot both have, as they are merged; empty when they can."""
    first, second = sorted((rule, other), key=precedence)
    merged = Merge()
    for one in (first, second):
        assert isinstance(one.action, Constrain)
        merged.add(one.id, one.action)
    if merged.conflicts:
        fields = [conflict.partition(": ")[2] for conflict in merged.conflicts]
        return f"{quoted(first.name)} wins {quoted(listed(fields))}"
    return "together they leave no tool" if _no_tool(merged) and not any(map(_empty, (rule, other))) else ""


def _no_tool(merged: Merge) -> bool:
    """Whether no name is left that these lists allow; of globs that is not told."""
    entries = frozenset[str]().union(*merged.tools_allow, merged.tools_deny)
    if not merged.tools_allow or any(sign in entry for entry in entries for sign in "*?:"):
        return False
    return not frozenset.intersection(*merged.tools_allow) - merged.tools_deny


def _empty(rule: CompiledRule) -> bool:
    alone = Merge()
    assert isinstance(rule.action, Constrain)
    alone.add(rule.id, rule.action)
    return _no_tool(alone)
