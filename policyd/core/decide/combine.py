"""How rules combine, and nothing else. tests/oracle.py is a second, slower telling of it.

INVARIANT: adding a terminate rule never turns a refusal into anything else.
INVARIANT: a rule that cannot be judged under Fail counts as a terminate, whatever its own action, where it would be
           enforced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from policyd.core.compile.policyset import CompiledRule
from policyd.core.decide.evaluate import Judged
from policyd.core.decide.obligations import Merge, Obligations
from policyd.core.decide.plan import BoundRule, effective, enforceable
from policyd.core.model.decision import (
    Action,
    Allow,
    Constrain,
    FailurePolicy,
    Mode,
    Outcome,
    Reroute,
    RuleResult,
    Terminate,
    Verdict,
    verdict_of,
)

CANNOT_JUDGE = Terminate(status=503, reason="policy_error")


@dataclass(frozen=True, slots=True)
class Decision:
    """What one judging adds up to. `winner` is what is done; `would` counts the rules that are not enforced too."""

    verdict: Verdict = Verdict.ALLOW
    winner: Judged | None = None
    would: Verdict = Verdict.ALLOW
    would_winner: Judged | None = None
    constrains: tuple[Judged, ...] = ()  # that are in force
    obligations: Obligations = Obligations()  # what they come to
    degraded: bool = False
    mode: Mode = Mode.FULL
    results: tuple[RuleResult, ...] = ()
    conflicts: tuple[str, ...] = ()

    @property
    def reroute(self) -> Reroute | None:
        action = acting(self.winner) if self.winner and self.verdict is Verdict.REROUTE else None
        return action if isinstance(action, Reroute) else None

    @property
    def terminate(self) -> Terminate | None:
        action = acting(self.winner) if self.winner and self.verdict is Verdict.TERMINATE else None
        return action if isinstance(action, Terminate) else None


def acting(judged: Judged) -> Action | None:
    """What this rule asks for: its action when matched, a terminate when it fails closed, else nothing."""
    match judged.outcome:
        case Outcome.MATCHED:
            return judged.bound.rule.action
        case Outcome.ERRORED if judged.bound.rule.failure_policy is FailurePolicy.FAIL:
            return CANNOT_JUDGE
        case _:
            return None


def combine(judged: Sequence[Judged], process: Mode, *, reroutes: bool = True) -> Decision:
    """One decision of these outcomes. `reroutes` False: a second pass, in which no reroute counts."""
    if all(one.outcome is Outcome.NOT_MATCHED and not one.reason for one in judged):
        return _nothing(judged, process)
    enforced = {id(one) for one in judged if enforceable(one.bound.rule, process)}
    ours = _settle(judged, process, reroutes, enforced_only=True)
    shadow = _settle(judged, process, reroutes, enforced_only=False)
    doing = [one for one in ours if id(one) in enforced and _counts(one, reroutes)]
    would = [one for one in shadow if _counts(one, reroutes)]
    winner, would_winner = _strictest(doing), _strictest(would)
    constrains = tuple(one for one in doing if isinstance(acting(one), Constrain))
    obligations, conflicts = _merged(constrains)
    return Decision(
        verdict=_verdict(winner),
        winner=winner,
        would=_verdict(would_winner),
        would_winner=would_winner,
        constrains=constrains,
        obligations=obligations,
        degraded=any(_ignored(one) for one in ours),
        mode=_mode(winner or would_winner, judged, process),
        results=tuple(_result(one, id(one) in enforced, process, reroutes) for one in ours),
        conflicts=conflicts,
    )


def _nothing(judged: Sequence[Judged], process: Mode) -> Decision:
    """The same where no rule said anything: what most calls come to."""
    results = tuple([one.bound.unmatched[process] for one in judged])
    return Decision(mode=_mode(None, judged, process), results=results)


def join(first: Decision, second: Decision) -> Decision:
    """A later judging added to an earlier one: the stricter wins, constrains merge in the order of all of them, results
    add up."""
    if not first.results:
        return second
    winner = _strictest([one for one in (first.winner, second.winner) if one])
    would = _strictest([one for one in (first.would_winner, second.would_winner) if one])
    constrains = _united(first.constrains, second.constrains)
    obligations, conflicts = _merged(constrains)
    return Decision(
        verdict=_verdict(winner),
        winner=winner,
        would=_verdict(would),
        would_winner=would,
        constrains=constrains,
        obligations=obligations,
        degraded=first.degraded or second.degraded,
        mode=(second if winner and winner is second.winner else first).mode if winner else _later_mode(first, second),
        results=_add_results(first.results, second.results),
        conflicts=conflicts,
    )


def _united(first: tuple[Judged, ...], second: tuple[Judged, ...]) -> tuple[Judged, ...]:
    if not first or not second:
        return first or second
    return tuple({one.bound.rule: one for one in (*first, *second)}.values())


def _merged(constrains: Sequence[Judged]) -> tuple[Obligations, tuple[str, ...]]:
    """What they come to, and where they are at odds."""
    if not constrains:
        return _NO_OBLIGATIONS
    merged = Merge()
    for one in sorted(constrains, key=_order):
        if isinstance(action := acting(one), Constrain):
            merged.add(one.bound.rule.id, action)
    return merged.obligations(), tuple(merged.conflicts)


_NO_OBLIGATIONS: tuple[Obligations, tuple[str, ...]] = (Obligations(), ())


def _later_mode(first: Decision, second: Decision) -> Mode:
    if second.would.rank > first.would.rank:
        return second.mode
    if first.results:
        return first.mode
    return second.mode


_STRENGTH = {Outcome.NOT_MATCHED: 0, Outcome.EXEMPTED: 1, Outcome.MATCHED: 2, Outcome.ERRORED: 3}


def _add_results(first: tuple[RuleResult, ...], second: tuple[RuleResult, ...]) -> tuple[RuleResult, ...]:
    if not second:
        return first
    results = {(one.namespace, one.policy, one.rule): one for one in first}
    for one in second:
        key = (one.namespace, one.policy, one.rule)
        known = results.get(key)
        if known is None or _STRENGTH[one.outcome] > _STRENGTH[known.outcome]:
            results[key] = one
    return tuple(results.values())


# ---- exemptions and implied rules ------------------------------------------------------------------------------------


def _settle(judged: Sequence[Judged], process: Mode, reroutes: bool, *, enforced_only: bool) -> list[Judged]:
    """The outcomes after exemptions, and with implied rules stepping aside for the author's own."""
    exempt = _exempted(judged, process)
    out = []
    for one in judged:
        if exempt and one.outcome is not Outcome.NOT_MATCHED and _is_exempt(one, exempt):
            out.append(Judged(one.bound, Outcome.EXEMPTED, one.reason))
        elif one.outcome is Outcome.MATCHED and _spoken_for(
            one, [other for other in judged if _speaks(other, exempt, process, reroutes, enforced_only)]
        ):
            out.append(Judged(one.bound, Outcome.NOT_MATCHED, "a rule of the author's answers for it"))
        else:
            out.append(one)
    return _same_identity(judged, out)


def _same_identity(before: Sequence[Judged], after: list[Judged]) -> list[Judged]:
    # An unchanged outcome stays the very same object: `combine` tells enforced ones by identity.
    return [new if new.outcome is not old.outcome else old for old, new in zip(before, after, strict=True)]


def _exempted(judged: Sequence[Judged], process: Mode) -> dict[str, set[str | None]]:
    """policy/rule -> the namespaces whose policies are exempted from it; None stands for every namespace."""
    exempt: dict[str, set[str | None]] = {}
    for one in judged:
        rule = one.bound.rule
        if one.outcome is Outcome.MATCHED and isinstance(rule.action, Allow) and enforceable(rule, process):
            for name in rule.action.rules:
                exempt.setdefault(name, set()).add(None if rule.cluster else rule.namespace)
    return exempt


def _is_exempt(one: Judged, exempt: dict[str, set[str | None]]) -> bool:
    rule = one.bound.rule
    spaces = exempt.get(f"{rule.policy}/{rule.name}")
    if not spaces:
        return False
    return None in spaces or (not rule.cluster and rule.namespace in spaces)


def _spoken_for(implied: Judged, speakers: Sequence[Judged]) -> bool:
    """Whether a rule of the author's that matches on `exceeded` answers in an implied rule's place."""
    counter = implied.bound.rule.implied
    return counter is not None and any(
        one.bound.policy is implied.bound.policy and counter in one.bound.rule.reads_exceeded for one in speakers
    )


def _speaks(
    one: Judged, exempt: dict[str, set[str | None]], process: Mode, reroutes: bool, enforced_only: bool
) -> bool:
    rule = one.bound.rule
    return (
        one.outcome is Outcome.MATCHED
        and not rule.implied
        and bool(rule.reads_exceeded)
        and _counts(one, reroutes)
        and not _is_exempt(one, exempt)
        and (enforceable(rule, process) or not enforced_only)
    )


def exempted_counters(judged: Sequence[Judged], process: Mode, implied: Iterable[BoundRule]) -> set[tuple[str, str]]:
    """(qualified policy, counter name) of the counters whose implied rule an allow exempts: they count, and refuse
    nothing."""
    exempt = _exempted(judged, process)
    return {
        (bound.policy.qualified, bound.rule.implied)
        for bound in implied
        if bound.rule.implied and exempt and _is_exempt(Judged(bound, Outcome.MATCHED), exempt)
    }


def _counts(one: Judged, reroutes: bool) -> bool:
    action = acting(one)
    if action is None or isinstance(action, Allow):
        return False
    return reroutes or not isinstance(action, Reroute)


def _ignored(one: Judged) -> bool:
    return one.outcome is Outcome.ERRORED and one.bound.rule.failure_policy is FailurePolicy.IGNORE


# ---- order -----------------------------------------------------------------------------------------------------------


def precedence(rule: CompiledRule) -> tuple[int, bool, str, int]:
    """Among rules of one strictness the lowest wins."""
    return (-rule.severity.rank, not rule.cluster, rule.qualified_policy, rule.position)


def _order(one: Judged) -> tuple[int, bool, str, int]:
    return precedence(one.bound.rule)


def _strictest(candidates: Iterable[Judged]) -> Judged | None:
    return min(candidates, key=lambda one: (-_verdict(one).rank, *_order(one)), default=None)


def _verdict(one: Judged | None) -> Verdict:
    action = acting(one) if one else None
    return verdict_of(action) if action else Verdict.ALLOW


def _mode(decisive: Judged | None, judged: Sequence[Judged], process: Mode) -> Mode:
    if decisive:
        return effective(decisive.bound.rule, process)
    return max((effective(one.bound.rule, process) for one in judged), key=lambda mode: mode.rank, default=process)


def _result(one: Judged, enforced: bool, process: Mode, reroutes: bool) -> RuleResult:
    if one.outcome is Outcome.NOT_MATCHED and not one.reason:
        return one.bound.unmatched[process]
    allow = isinstance(one.bound.rule.action, Allow) and one.outcome is Outcome.MATCHED
    enforced = enforced and (allow or _counts(one, reroutes))
    return one.bound.result(one.outcome, process, enforced=enforced, reason=one.reason)
