"""Rules times facts: one outcome a rule. Facts that could not be read make their readers err, never read as empty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from policyd.core.compile.policyset import (
    Batch,
    CelFailure,
    CompiledPolicy,
    CompiledRule,
    CounterRef,
    TextTruth,
    Unknown,
)
from policyd.core.decide.docket import Docket, docket_of
from policyd.core.decide.docket import Judged as Judged
from policyd.core.decide.plan import BoundRule, Plan, edits_request_body, redacts_response
from policyd.core.decide.unknown import before_response, unknown_of, values_of, why_unknown
from policyd.core.model.decision import Constrain, Outcome
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
    lost: str = ""  # why no condition can be evaluated any more: evaluating itself has failed


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
        or facts.response.unread_calls
        or facts.unmetered
        or world.blind
        or world.lost
        or world.session_failure
        or world.counter_failures
        or (docket.edits and not facts.request.dialect)
    )


def _judged_apart(plan: Plan, docket: Docket, judged: list[Judged], world: World) -> list[Judged]:
    """The same where some cannot be judged: each is looked at."""
    unknown, asked = unknown_of(plan, world), []
    for index, bound in enumerate(docket.rules):
        known = _without_cel(bound, world, unknown)
        if known is None:
            asked.append(index)
        else:
            judged[index] = known
    if asked:
        programs = [program for index in asked if (program := docket.rules[index].rule.when) is not None]
        for index, value in zip(asked, values_of(plan, programs, world), strict=True):
            judged[index] = _outcome(docket.rules[index], value)
    return [_possible(one, world) for one in judged]


def _possible(judged: Judged, world: World) -> Judged:
    """A rule that matched, and asks for what cannot be done, is errored."""
    why = cannot_act(judged.bound, world) if judged.outcome is Outcome.MATCHED else ""
    return Judged(judged.bound, Outcome.ERRORED, why) if why else judged


def _ask(batch: Batch, asked: Sequence[int], judged: list[Judged], world: World) -> None:
    """Put what the conditions say in the place of what would be said if none of them were true."""
    values = batch.evaluate(world.facts, world.counters, world.hits)
    for index, value in zip(asked, values, strict=True):
        if value is not False:
            judged[index] = _outcome(judged[index].bound, value)


def _outcome(bound: BoundRule, value: object) -> Judged:
    if isinstance(value, bool):
        return Judged(bound, Outcome.MATCHED if value else Outcome.NOT_MATCHED)
    reason = value.reason if isinstance(value, CelFailure) else "the condition gave no boolean"
    return Judged(bound, Outcome.ERRORED, reason)


def _without_cel(bound: BoundRule, world: World, unknown: Unknown) -> Judged | None:
    """What a rule says whose condition need not be evaluated; None for all others."""
    rule = bound.rule
    if world.blind and (why := world.blind.get(bound.policy.identity)):
        return Judged(bound, Outcome.ERRORED, why)
    if rule.implied:
        return _limit(bound, rule.implied, world, unknown)
    if rule.when is None:
        return Judged(bound, Outcome.MATCHED)
    return Judged(bound, Outcome.ERRORED, world.lost) if world.lost else None


def _limit(bound: BoundRule, counter: str, world: World, unknown: Unknown) -> Judged:
    ref = (bound.policy.qualified, counter)
    if ref in unknown.counters:
        return Judged(bound, Outcome.ERRORED, why_unknown(f"counters.{counter}", bound.policy.qualified, world))
    return Judged(bound, Outcome.MATCHED if world.counters[ref].exceeded else Outcome.NOT_MATCHED)


def cannot_act(bound: BoundRule, world: World) -> str:
    """Why what this rule asks for cannot be done, where its condition is true; empty when it can."""
    rule, facts = bound.rule, world.facts
    if facts.unreadable_request and edits_request_body(rule):
        return f"request not readable: {facts.unreadable_request}"
    if not facts.request.dialect and _needs_dialect(rule, facts.request.operation):
        return "the call is in no dialect that policyd can edit"
    if facts.unreadable_response and redacts_response(rule):
        return f"answer not readable: {facts.unreadable_response}"
    return ""


def _needs_dialect(rule: CompiledRule, operation: str) -> bool:
    """Whether acting on this rule takes more than the strings of a body: of a call to an unknown endpoint no more is
    known, and other calls without a dialect are not read at all."""
    if operation != "unknown" or not isinstance(rule.action, Constrain):
        return edits_request_body(rule) or redacts_response(rule)
    return bool(rule.action.cap or rule.action.inject_system)


def foreseen(plan: Plan, rules: Sequence[BoundRule], world: World) -> list[Judged]:
    """Those of these rules over the response that match whatever it will be."""
    able = [one for one in rules if one.policy.identity not in world.blind] if not world.lost else []
    programs = [one.rule.when for one in able if one.rule.when is not None]
    if not programs:
        return []
    values = plan.batch(programs).evaluate(world.facts, world.counters, world.hits, before_response(plan, world))
    return [Judged(one, Outcome.MATCHED) for one, value in zip(able, values, strict=True) if value is True]


def hopeless(plan: Plan, rules: Iterable[BoundRule], world: World) -> list[BoundRule]:
    """Those of these rules that cannot be judged whatever the response is: known before it comes."""
    unknown = unknown_of(plan, world)
    return [one for one in rules if one.policy.identity in world.blind or _fails(plan, one, world, unknown)]


def _fails(plan: Plan, bound: BoundRule, world: World, unknown: Unknown) -> bool:
    when = bound.rule.when
    if when is None or not unknown.facts & when.reads:
        return False
    known = plan.outlook(when)
    values = plan.batch(known.settled).evaluate(world.facts, world.counters, world.hits) if known.settled else []
    return known.always_fails(unknown, values)


def may_apply(plan: Plan, world: World) -> tuple[CompiledPolicy, ...]:
    """The policies that no match condition rules out, as far as headers tell: known before the body is asked for."""
    conditions = [(policy, condition) for policy in plan.policies for condition in policy.conditions]
    if not conditions:
        return plan.policies
    if plan.conditions_read_body:
        world = replace(world, facts=replace(world.facts, unreadable_request="not read yet"))
    values = values_of(plan, [condition.program for _, condition in conditions], world)
    out = {policy.identity for (policy, _), value in zip(conditions, values, strict=True) if value is False}
    return tuple(policy for policy in plan.policies if policy.identity not in out)


def applies(plan: Plan, world: World) -> tuple[CompiledPolicy, ...]:
    """The policies whose match conditions hold; one that cannot be judged stays, blind."""
    conditions = [(policy, condition) for policy in plan.policies for condition in policy.conditions]
    if not conditions:
        return plan.policies
    out: set[str] = set()
    values = values_of(plan, [condition.program for _, condition in conditions], world)
    for (policy, condition), value in zip(conditions, values, strict=True):
        if value is False:
            out.add(policy.identity)
        elif value is not True:
            why = value.reason if isinstance(value, CelFailure) else "no boolean"
            world.blind[policy.identity] = f"matchCondition {condition.name}: {why}"
    return tuple(policy for policy in plan.policies if policy.identity not in out)
