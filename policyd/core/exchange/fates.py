"""What a policy in Monitor would have made of a call, had it alone been in Full.

Rule 1: its first refusal or cut is its fate: what came afterwards would not have come.
Rule 2: its counters charge what would have been used by then; nothing for a call that would not have left.
Rule 3: it is judged by its own rules, exemptions and counters alone. What else would have been different (a lowered
        max_tokens, another model, a session that went another way) nobody can know, and nothing is made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from policyd.core.compile.policyset import CompiledPolicy
from policyd.core.decide.combine import Decision, combine
from policyd.core.decide.evaluate import Judged
from policyd.core.exchange.call import Call, Fate
from policyd.core.exchange.owing import final_usage, owed
from policyd.core.model.decision import Mode, Outcome, Verdict, lowest


def seal_request(call: Call, judged: Sequence[Judged]) -> None:
    """Note which of the policies that are only watched would not have let this request leave."""
    for policy, decision in _refusals(call, judged):
        call.fates[policy.qualified] = Fate(policy, _rule(decision), None, {})


def seal_answer(call: Call, judged: Sequence[Judged], event: int | None) -> None:
    """Note which of them would have cut this answer here, and what they would have charged."""
    for policy, decision in _refusals(call, [*call.allows, *judged]):
        usage = final_usage(call)
        gauges = [gauge for gauge in call.meter.counted if gauge.policy is policy]
        charges = {gauge.counter.name: owed(call, gauge, usage) for gauge in gauges}
        call.fates[policy.qualified] = Fate(policy, _rule(decision), event, charges)


def _refusals(call: Call, judged: Sequence[Judged]) -> list[tuple[CompiledPolicy, Decision]]:
    found = []
    for policy in dict.fromkeys(one.bound.policy for one in judged if one.outcome is not Outcome.NOT_MATCHED):
        if policy.qualified in call.fates or lowest(policy.mode, call.options.mode) is not Mode.MONITOR:
            continue
        decision = combine([_in_full(one) for one in judged if one.bound.policy is policy], Mode.FULL, reroutes=False)
        if decision.verdict is Verdict.TERMINATE:
            found.append((policy, decision))
    return found


def _in_full(one: Judged) -> Judged:
    rule = replace(one.bound.rule, mode=one.bound.rule.own_mode)
    return replace(one, bound=replace(one.bound, rule=rule))


def _rule(decision: Decision) -> str:
    assert decision.winner is not None
    return decision.winner.bound.rule.name
