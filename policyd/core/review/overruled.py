"""What a namespace's policy says and a ClusterLLMPolicy beats on every call: it would loosen, and cannot.

Rule 1: nothing is said of what might yet act on some call: a window that begins with its first charge may begin at
        another time than the cluster's, and a share of the calls is not all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledCounter, CompiledPolicy, CompiledRule, Program
from policyd.core.compile.words import quoted
from policyd.core.errors import Issue
from policyd.core.model.counters import WindowKind
from policyd.core.model.decision import Allow, Constrain, Reroute, Terminate
from policyd.core.review.assume import bare
from policyd.core.review.beside import always_beside, as_strict, holds_whenever, spared
from policyd.core.review.reviewed import Reviewed, program_of
from policyd.core.review.shadow import MAX_POLICIES, in_time, shadowed_by

CODE = "POL117"
_HINT = "lower it, or remove it: a namespace may tighten, never loosen"


@dataclass(frozen=True, slots=True)
class Overruled:
    """Why parts of a policy never act. `whole`: none of its parts does."""

    issues: tuple[Issue, ...]
    whole: bool


def overruled(one: Reviewed, clusters: Sequence[Reviewed], beside: AbstractSet[str]) -> Overruled | None:
    """What of a namespace's policy these beat; None for nothing. `beside`: its namespace's rules, as policy/rule."""
    sure = [each for each in clusters if each.policy.rollout is None] if len(clusters) <= MAX_POLICIES else []
    before = len(one.findings.issues)
    beaten = [_warn_allow(one, rule, clusters, beside) or _warn_rule(one, rule, sure) for rule in one.own]
    limits = [counter for counter in one.policy.counters if counter.limit and counter.denies]
    beaten += [_warn_limit(one, counter, sure) for counter in limits]
    issues = tuple(one.findings.issues[before:])
    return Overruled(issues, all(beaten)) if any(beaten) else None


def names_of(policy: CompiledPolicy) -> frozenset[str]:
    """Its rules, those that a limit implies included, as an exemption names them."""
    return frozenset(f"{rule.policy}/{rule.name}" for rule in policy.rules)


def warn_overruled(policies: Sequence[Reviewed]) -> None:
    """Says which caps and limits never act; the compiler speaks of exemptions, and others of reroutes."""
    clusters = [one for one in policies if one.policy.cluster and one.policy.rollout is None]
    if not clusters or len(policies) > MAX_POLICIES:
        return
    for one in policies:
        if not one.policy.cluster:
            for rule in one.own:
                if isinstance(rule.action, Constrain):
                    _warn_rule(one, rule, clusters)
            for counter in one.policy.counters:
                if counter.limit and counter.denies:
                    _warn_limit(one, counter, clusters)


# ---- rules ----------------------------------------------------------------------------------------------------------


def _warn_rule(one: Reviewed, rule: CompiledRule, clusters: Sequence[Reviewed]) -> bool:
    """Whether this rule would loosen and never acts."""
    match rule.action:
        case Reroute():
            winner = shadowed_by(one, rule, clusters, clusters, Terminate)
            said = f"reroutes no call: {quoted(winner.id)} refuses them" if winner else ""
            return _say(one, one.path(rule, "reroute"), rule, said)
        case Constrain() as constrain:
            lower = _lower(one, rule, constrain, clusters)
            said = f"lowers nothing: {quoted(lower.id)} is at least as low wherever it matches" if lower else ""
            return _say(one, one.path(rule, "constrain"), rule, said)
        case Terminate() | Allow():
            return False  # the one tightens, whoever else does; of the other only who knows its neighbours can speak


def _say(one: Reviewed, path: Path, rule: CompiledRule, said: str) -> bool:
    if said:
        one.findings.warn(path, CODE, f"rule {quoted(rule.name)} {said}", _HINT, key=True)
    return bool(said)


def _warn_allow(one: Reviewed, rule: CompiledRule, clusters: Sequence[Reviewed], beside: AbstractSet[str]) -> bool:
    if not isinstance(rule.action, Allow):
        return False
    theirs = frozenset[str]().union(*(names_of(cluster.policy) for cluster in clusters))
    beaten = all(name in theirs and name not in beside for name in rule.action.rules)
    said = "exempts from nothing: a ClusterLLMPolicy's rules hold for every namespace" if beaten else ""
    return _say(one, one.path(rule, "allow"), rule, said)


def _lower(one: Reviewed, rule: CompiledRule, action: Constrain, clusters: Sequence[Reviewed]) -> CompiledRule | None:
    """The cluster's rule that caps and paces everything that this one does, and at least as low."""
    bare_of_numbers = Constrain(cap=action.cap, pace=action.pace)
    if action != bare_of_numbers:
        return None
    for other in clusters:
        if not always_beside(one.policy, other.policy):
            continue
        for second in other.own:
            same = isinstance(second.action, Constrain) and _covers(second.action, action)
            sure = second.rollout is None and as_strict(rule, second) and in_time(rule, second)
            if same and sure and not spared(second, clusters) and holds_whenever(one, rule, other, second):
                return second
    return None


def _covers(theirs: Constrain, ours: Constrain) -> bool:
    caps = dict(theirs.cap)
    paced = ours.pace is None or (theirs.pace is not None and theirs.pace <= ours.pace)
    return paced and all(name in caps and caps[name] <= most for name, most in ours.cap)


# ---- limits ---------------------------------------------------------------------------------------------------------


def _warn_limit(one: Reviewed, counter: CompiledCounter, clusters: Sequence[Reviewed]) -> bool:
    """Whether this limit is never reached, because a cluster's is before."""
    for other in clusters:
        if always_beside(one.policy, other.policy) and other.policy.mode.rank >= one.policy.mode.rank:
            for second in other.policy.counters:
                if _first(counter, second) and _refuses(other, second, clusters):
                    at = next(at for at, each in enumerate(one.policy.counters) if each is counter)
                    name = quoted(f"{other.policy.name}/{second.name}")
                    said = f"limit of {quoted(counter.name)} is never reached: {name} counts the same, and is no higher"
                    one.findings.warn(("spec", "counters", at, "limit"), CODE, said, _HINT, key=True)
                    return True
    return False


def _first(ours: CompiledCounter, theirs: CompiledCounter) -> bool:
    """Whether their limit is reached whenever ours is: they count at least what we count, over the same time."""
    mine, other = _fixed(ours), _fixed(theirs)
    same_time = ours.window == theirs.window and ours.window.kind is not WindowKind.LIFETIME
    return (
        mine is not None
        and other is not None
        and other <= mine
        and same_time
        and theirs.scope in (ours.scope, "Global")
        and ours.charge is theirs.charge
        and _trees(*ours.key) == _trees(*theirs.key)
        and _trees(ours.amount, ours.value) == _trees(theirs.amount, theirs.value)
    )


def _fixed(counter: CompiledCounter) -> int | None:
    return counter.limit.default if counter.limit is not None and counter.limit.by is None else None


def _trees(*programs: Program | None) -> list[object]:
    return [bare(program_of(one).tree) for one in programs if one is not None]


def _refuses(other: Reviewed, counter: CompiledCounter, clusters: Sequence[Reviewed]) -> bool:
    """Whether this limit, once it is reached, refuses every call: no rule of its author's does something else."""
    implied = _implied(other.policy, counter)
    readers = [rule for rule in other.own if counter.name in rule.reads_exceeded]
    ends = all(isinstance(rule.action, Terminate) for rule in readers)
    return (
        counter.denies
        and implied is not None
        and ends
        and not any(spared(each, clusters) for each in (*readers, implied))
    )


def _implied(policy: CompiledPolicy, counter: CompiledCounter) -> CompiledRule | None:
    return next((rule for rule in policy.rules if rule.implied == counter.name), None)
