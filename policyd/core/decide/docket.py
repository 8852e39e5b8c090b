"""Rules that are judged together, and what of it is the same for every call: made once, by the plan they are of.

Rule 1: nothing in here knows a call. What a call may change is asked of `evaluate`.
Rule 2: a rule that did not match says the very same object each time: most do, of most calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policyd.core.compile.policyset import Batch, CounterRef
from policyd.core.decide.plan import BoundRule, Plan, edits_request_body, redacts_response
from policyd.core.model.decision import Outcome


@dataclass(frozen=True, slots=True)
class Judged:
    """What one rule said, and for an error why."""

    bound: BoundRule
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Docket:
    """Some rules of a plan, in order; the numbers are places among them."""

    rules: tuple[BoundRule, ...]  # INVARIANT: kept alive here, so that an id is never reused while this is remembered
    quiet: tuple[Judged, ...]  # what they say when none of them matches
    asked: tuple[int, ...]  # those with a condition
    batch: Batch | None  # these conditions
    implied: tuple[tuple[int, CounterRef], ...]  # those that match when their counter is exceeded
    always: tuple[int, ...]  # those that match whatever comes
    edits: bool  # whether acting on one of them takes a dialect that can be edited


def docket_of(plan: Plan, rules: Sequence[BoundRule]) -> Docket:
    """The docket of these rules, which are the plan's own."""
    return plan.dockets.of(tuple(map(id, rules)), lambda: _made(plan, tuple(rules)))


def _made(plan: Plan, rules: tuple[BoundRule, ...]) -> Docket:
    conditions = [(at, one.rule.when) for at, one in enumerate(rules) if not one.rule.implied and one.rule.when]
    implied = [(at, (one.policy.qualified, one.rule.implied)) for at, one in enumerate(rules) if one.rule.implied]
    return Docket(
        rules=rules,
        quiet=tuple(Judged(one, Outcome.NOT_MATCHED) for one in rules),
        asked=tuple(at for at, _ in conditions),
        batch=plan.batch([program for _, program in conditions]) if conditions else None,
        implied=tuple(implied),
        always=tuple(at for at, one in enumerate(rules) if not one.rule.implied and one.rule.when is None),
        edits=any(edits_request_body(one.rule) or redacts_response(one.rule) for one in rules),
    )
