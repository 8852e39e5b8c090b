"""Rules times facts: one outcome a rule. Facts that could not be read make their readers err, never read as empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policyd.core.compile.policyset import Batch, CelFailure, CompiledPolicy, CompiledRule, CounterRef, TextTruth
from policyd.core.decide.docket import Docket, docket_of
from policyd.core.decide.docket import Judged as Judged
from policyd.core.decide.plan import (
    BoundRule,
    Plan,
    counters_read,
    edits_request_body,
    reads_request_body,
    reads_response_body,
    reads_session,
    reads_spending,
    redacts_response,
)
from policyd.core.model.decision import Outcome
from policyd.core.model.facts import CounterFacts, Facts
from policyd.core.stream.hits import Hits


@dataclass(slots=True)
class World:
    """Everything that rules are judged over at one moment, and what of it could not be had."""

    facts: Facts
    counters: dict[CounterRef, CounterFacts] = field(default_factory=dict)
    counter_failures: dict[CounterRef, str] = field(default_factory=dict)
    session_failure: str = ""
    blind: dict[str, str] = field(default_factory=dict)  # identity of a policy -> why nothing of it can be judged
    hits: TextTruth = field(default_factory=Hits)


def judge(plan: Plan, rules: Sequence[BoundRule], world: World) -> list[Judged]:
    """One outcome for each of these rules, in order."""
    docket = docket_of(plan, rules)
    judged = list(docket.quiet)
    if _unclear(docket, world):
        return _judged_apart(plan, docket, judged, world)
    for index, counter in docket.implied:
        if world.counters[counter].exceeded:
            judged[index] = Judged(rules[index], Outcome.MATCHED)
    for index in docket.always:
        judged[index] = Judged(rules[index], Outcome.MATCHED)
    if docket.batch is not None:
        _ask(docket.batch, docket.asked, judged, world)
    return judged


def _unclear(docket: Docket, world: World) -> bool:
    """Whether anything is so that one of these rules may not be judgeable: where nothing is, none is looked at."""
    facts = world.facts
    return bool(
        facts.unreadable_request
        or facts.unreadable_response
        or facts.unmetered
        or world.blind
        or world.session_failure
        or world.counter_failures
        or (docket.edits and not facts.request.dialect)
    )


def _judged_apart(plan: Plan, docket: Docket, judged: list[Judged], world: World) -> list[Judged]:
    """The same where some cannot be judged: each is looked at."""
    asked = []
    for index, bound in enumerate(docket.rules):
        known = _without_cel(bound, world)
        if known is None:
            asked.append(index)
        else:
            judged[index] = known
    if asked:
        programs = [program for index in asked if (program := docket.rules[index].rule.when) is not None]
        _ask(plan.batch(programs), asked, judged, world)
    for index in asked:
        if judged[index].outcome is Outcome.MATCHED and (why := cannot_act(judged[index].bound, world)):
            judged[index] = Judged(judged[index].bound, Outcome.ERRORED, why)
    return judged


def _ask(batch: Batch, asked: Sequence[int], judged: list[Judged], world: World) -> None:
    """Put what the conditions say in the place of what would be said if none of them were true."""
    values = batch.evaluate(world.facts, world.counters, world.hits)
    for index, value in zip(asked, values, strict=True):
        if value is not False:
            judged[index] = _outcome(judged[index].bound, value)


def _outcome(bound: BoundRule, value: object) -> Judged:
    if value is True:
        return Judged(bound, Outcome.MATCHED)
    reason = value.reason if isinstance(value, CelFailure) else "the condition gave no boolean"
    return Judged(bound, Outcome.ERRORED, reason)


def _without_cel(bound: BoundRule, world: World) -> Judged | None:
    rule = bound.rule
    if failure := cannot_judge(bound, world):
        return Judged(bound, Outcome.ERRORED, failure)
    if rule.implied:
        exceeded = world.counters[(bound.policy.qualified, rule.implied)].exceeded
        return Judged(bound, Outcome.MATCHED if exceeded else Outcome.NOT_MATCHED)
    if rule.when is None:
        why = cannot_act(bound, world)
        return Judged(bound, Outcome.ERRORED if why else Outcome.MATCHED, why)
    return None


def cannot_judge(bound: BoundRule, world: World) -> str:
    """Why this rule cannot be judged over this world; empty when it can."""
    rule, facts = bound.rule, world.facts
    if world.blind and (why := world.blind.get(bound.policy.identity)):
        return why
    if facts.unreadable_request and reads_request_body(rule.reads):
        return f"request not readable: {facts.unreadable_request}"
    if facts.unreadable_response and _needs_unread(rule, facts):
        return f"answer not readable: {facts.unreadable_response}"
    if facts.unmetered and reads_spending(bound):
        return f"answer not readable: {facts.unmetered}"
    if world.session_failure and reads_session(rule.reads):
        return f"session: {world.session_failure}"
    if world.counter_failures:
        return _counter_failure(bound, world.counter_failures)
    return ""


def cannot_act(bound: BoundRule, world: World) -> str:
    """Why what this rule asks for cannot be done, where its condition is true; empty when it can."""
    rule, facts = bound.rule, world.facts
    if facts.unreadable_request and edits_request_body(rule):
        return f"request not readable: {facts.unreadable_request}"
    if not facts.request.dialect and (edits_request_body(rule) or redacts_response(rule)):
        return "the call is in no dialect that policyd can edit"
    return ""


def is_hopeless(bound: BoundRule, world: World) -> bool:
    """Whether it is known before the rule is judged that it cannot be, or that what it asks for cannot be done."""
    return bool(cannot_judge(bound, world) or cannot_act(bound, world))


def _needs_unread(rule: CompiledRule, facts: Facts) -> bool:
    """Whether this rule needs what could not be read of the answer. That it could not be read is itself a fact, which
    rules can act on: `inspection` is known exactly then; and so is the time, while the answer is still followed."""
    told = {"response.inspection"} if facts.response.inspection != "full" else set[str]()
    if told and not facts.unmetered:
        told.add("response.elapsed_ms")
    return reads_response_body(rule.reads - told) or redacts_response(rule)


def _counter_failure(bound: BoundRule, failures: Mapping[CounterRef, str]) -> str:
    names = {bound.rule.implied} if bound.rule.implied else counters_read(bound.rule.reads)
    for name in sorted(name for name in names if name):
        if why := failures.get((bound.policy.qualified, name)):
            return f"counter {name}: {why}"
    return ""


def may_apply(plan: Plan, world: World) -> tuple[CompiledPolicy, ...]:
    """The policies that no match condition over headers alone rules out: known before the body is asked for."""
    conditions = [
        (policy, condition)
        for policy in plan.policies
        for condition in policy.conditions
        if not reads_request_body(condition.program.reads)
    ]
    if not conditions:
        return plan.policies
    values = plan.batch([condition.program for _, condition in conditions]).evaluate(
        world.facts, world.counters, world.hits
    )
    out = {policy.identity for (policy, _), value in zip(conditions, values, strict=True) if value is False}
    return tuple(policy for policy in plan.policies if policy.identity not in out)


def applies(plan: Plan, world: World) -> tuple[CompiledPolicy, ...]:
    """The policies whose match conditions hold; one that cannot be judged stays, blind."""
    conditions = [(policy, condition) for policy in plan.policies for condition in policy.conditions]
    if not conditions:
        return plan.policies
    values = plan.batch([condition.program for _, condition in conditions]).evaluate(
        world.facts, world.counters, world.hits
    )
    out: set[str] = set()
    for (policy, condition), value in zip(conditions, values, strict=True):
        unreadable = world.facts.unreadable_request and reads_request_body(condition.program.reads)
        if unreadable or not isinstance(value, bool):
            why = world.facts.unreadable_request if unreadable else getattr(value, "reason", "no boolean")
            world.blind[policy.identity] = f"matchCondition {condition.name}: {why}"
        elif not value:
            out.add(policy.identity)
    return tuple(policy for policy in plan.policies if policy.identity not in out)
