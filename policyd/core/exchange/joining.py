"""Policies that join a call in flight (`runningCalls`): which they are, and what they say of it.

Rule 1: what a call began with stays in force to its end: what joins may tighten what was decided, never loosen it.
Rule 2: what counts is the set in force now. A policy that is no more in it is not judged any more.
Rule 3: facts that were never read make their readers err, once and for all: nobody goes back for them.
Rule 4: what can no longer be done is recorded as matched, and not enforced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from policyd.core.compile.policyset import CompiledPolicy, Phase
from policyd.core.decide.combine import Decision, combine
from policyd.core.decide.evaluate import Judged, World, applies, hopeless, judge
from policyd.core.decide.plan import Plan, effective
from policyd.core.decide.rollout import rolled_out
from policyd.core.errors import Malformed
from policyd.core.exchange.call import Call, Ground
from policyd.core.exchange.fates import seal_answer
from policyd.core.model.decision import Constrain, Mode, Outcome, Verdict
from policyd.core.model.facts import Facts

UNREAD = "the body was not read: no rule needed it when the call left"
NO_SESSION = "it was not read: no rule needed it when the call left"


@dataclass(frozen=True, slots=True)
class Stand:
    """How far a call has come when policies join it."""

    phase: Phase  # the last whose facts are known
    heads: bool = False  # the answer's headers can still be changed
    texts: bool = False  # and so can its text
    event: int | None = None  # the protocol event that comes next

    def possible(self, one: Judged) -> bool:
        """Whether what this rule asks for can still be done."""
        action = one.bound.rule.action
        if one.outcome is not Outcome.MATCHED or not isinstance(action, Constrain):
            return True
        heads = bool(action.response_headers.set or action.response_headers.remove)
        return (heads and self.heads) or (action.edits_response_body and self.texts)


ON_ITS_WAY = Stand(Phase.RESERVED, heads=True, texts=True)  # the request has been judged, no answer has come


def follow(call: Call, ground: Ground) -> tuple[CompiledPolicy, ...]:
    """Another set is in force: those of its policies for calls in flight that this call has not heard of."""
    call.latest = ground
    own = {policy.identity for policy in call.ground.policies.running}
    known = {policy.identity for policy in call.joined}
    call.joined = tuple(policy for policy in ground.policies.running if policy.identity not in own)
    gone = known - {policy.identity for policy in call.joined}
    if gone and call.plan is not None:
        left = tuple(policy for policy in call.plan.policies if policy.identity not in gone)
        call.plan = call.ground.plans.of(left)
    return tuple(policy for policy in call.joined if policy.identity not in known)


def reachable(call: Call) -> bool:
    """Whether the set in force has a policy for calls in flight that may come to concern this one: then its answer is
    not let out of reach, although nothing reads it."""
    known = call.document is not None or call.dialect is None or call.bodiless
    running = (call.latest or call.ground).policies.running
    fitting = call.joining(running, call.facts.request.model or "" if known else None) if running else ()
    return bool(fitting) and call.options.mode is not Mode.MONITOR


def hear(call: Call, fresh: Sequence[CompiledPolicy], stand: Stand) -> bool:
    """Judge these over what is known of the call, add what follows to its decision, and keep those of their rules that
    the rest of the answer may make true. Whether they end the call."""
    world = World(_known(call), hits=call.world.hits, session_failure=_session(call))
    plan = _fitting(call, fresh, world)
    if not plan.policies:
        return False
    call.note_joined(plan.policies)
    lost = hopeless(plan, plan.rules, world)
    rules = [bound for bound in plan.rules if bound.rule.phase <= stand.phase or bound in lost]
    call.heard.update(bound.rule for bound in rules)
    own = call.plan.policies if call.plan else ()
    call.plan = call.ground.plans.of((*own, *plan.policies))
    return _decide(call, judge(plan, rules, world), stand)


def _decide(call: Call, judged: Sequence[Judged], stand: Stand) -> bool:
    doing = [one for one in judged if stand.possible(one)]
    decision = combine([*call.allows, *doing], call.options.mode, reroutes=False)
    seal_answer(call, judged, stand.event)
    if stand.event is not None and decision.would is Verdict.TERMINATE:
        call.event = stand.event if call.event is None or decision.verdict is Verdict.TERMINATE else call.event
    call.add(decision)
    if len(doing) < len(judged):
        call.add(_moot(call, [one for one in judged if not stand.possible(one)]))
    return decision.verdict is Verdict.TERMINATE


def _moot(call: Call, judged: Sequence[Judged]) -> Decision:
    """What they would have done."""
    told = combine([*call.allows, *judged], Mode.MONITOR, reroutes=False)
    rules = [one.bound.rule for one in (*call.allows, *judged)]
    results = zip(told.results, rules, strict=True)
    return replace(
        told, results=tuple(replace(result, mode=effective(rule, call.options.mode)) for result, rule in results)
    )


def _fitting(call: Call, fresh: Sequence[CompiledPolicy], world: World) -> Plan:
    """Those of them that are about this call, each as it is for it."""
    plans, unread = call.ground.plans, world.facts.unreadable_request
    selected = call.joining(fresh, None if unread else world.facts.request.model or "")
    try:
        call.tell_content(plans.of(selected))
    except Malformed as failure:
        unread = failure.reason
        world.facts = replace(world.facts, unreadable_request=unread)
    for policy in selected:
        if unread and policy.match.models:
            world.blind[policy.identity] = f"request not readable: {unread}"
    plan = plans.of(applies(plans.of(selected), world))
    return plans.of(rolled_out(plan, world.facts, call.ground.variants))


def _known(call: Call) -> Facts:
    """The call's facts, as far as anybody has read them."""
    facts = call.facts
    if facts.unreadable_request or call.document is not None or call.dialect is None or call.bodiless:
        return facts
    return replace(facts, unreadable_request=UNREAD)


def _session(call: Call) -> str:
    return call.world.session_failure if call.plan is not None and call.plan.reads_session else NO_SESSION
