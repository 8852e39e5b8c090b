"""The inputs of expressions that could not be had for a call, and why each could not.

Rule 1: what could not be read is left out of an evaluation, never read as empty: an expression fails where its value
        depends on it, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from policyd.core.compile.cel_facts import fields_of
from policyd.core.compile.policyset import ALL_KNOWN, CelFailure, Program, Unknown
from policyd.core.decide.plan import REQUEST_BODY_READS, RESPONSE_HEADER_READS, SESSION_STORE_READS, Plan
from policyd.core.model.facts import Facts

if TYPE_CHECKING:
    from policyd.core.decide.evaluate import World

_CALLS = frozenset({"response.tool_calls"})
_RESPONSE = frozenset(fields_of("response"))
_RESPONSE_BODY = _RESPONSE - RESPONSE_HEADER_READS


def unknown_of(plan: Plan, world: World) -> Unknown:
    """What could not be had of this world."""
    counters = frozenset(world.counter_failures)
    if world.facts.unmetered:
        counters |= plan.usage_counters
    facts = unknown_facts(world.facts) | (SESSION_STORE_READS if world.session_failure else frozenset())
    return Unknown(facts, counters) if facts or counters else ALL_KNOWN


def before_response(plan: Plan, world: World) -> Unknown:
    """What could not be had of this world, and all of a response that has not come."""
    unknown = unknown_of(plan, world)
    return Unknown(unknown.facts | _RESPONSE, unknown.counters)


def unknown_facts(facts: Facts) -> frozenset[str]:
    """The facts that could not be read of the bodies."""
    request = REQUEST_BODY_READS if facts.unreadable_request else frozenset()
    if facts.unreadable_response:
        return request | _response_body(facts)
    return request | _CALLS if facts.response.unread_calls else request


def _response_body(facts: Facts) -> frozenset[str]:
    """That a body could not be read is itself a fact that rules can act on: `inspection` is known exactly then; and so
    is the time, while the response is still followed."""
    if facts.response.inspection == "full":
        return _RESPONSE_BODY
    known = {"response.inspection"} if facts.unmetered else {"response.inspection", "response.elapsed_ms"}
    return _RESPONSE_BODY - known


def values_of(plan: Plan, programs: Sequence[Program], world: World) -> list[object]:
    """One value per program; where it depends on what could not be had, a failure that says why."""
    unknown = unknown_of(plan, world)
    values = plan.batch(programs).evaluate(world.facts, world.counters, world.hits, unknown)
    if not unknown:
        return values
    return [_said(value, program, world) for value, program in zip(values, programs, strict=True)]


def _said(value: object, program: Program, world: World) -> object:
    if not isinstance(value, CelFailure) or not value.missing:
        return value
    return replace(value, reason=why_unknown(value.missing, program.policy, world))


def why_unknown(path: str, policy: str, world: World) -> str:
    """Why this input could not be had; `policy` is the one whose counters it may name."""
    facts, parts = world.facts, path.split(".")
    if parts[0] == "counters":
        why = world.counter_failures.get((policy, parts[1]))
        return f"counter {parts[1]}: {why}" if why else f"answer not readable: {facts.unmetered}"
    if path in SESSION_STORE_READS:
        return f"session: {world.session_failure}"
    if path in REQUEST_BODY_READS:
        return f"request not readable: {facts.unreadable_request}"
    return f"answer not readable: {facts.unreadable_response or facts.response.unread_calls}"
