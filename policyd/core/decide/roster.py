"""The rules of an answer that may still match, and what they need of it together: made once, by the plan they are of.

Rule 1: nothing in here knows a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from policyd.core.compile.policyset import CompiledRule, Watcher
from policyd.core.decide.bound import BoundRule, enforceable
from policyd.core.decide.concern import COST_FACTS, INSPECTION, Touch
from policyd.core.decide.plan import Plan
from policyd.core.model.decision import Mode
from policyd.core.stream.dialects import Changed

_USAGE, _SPEND = int(Changed.USAGE), int(Touch.SPEND)
_GROWING = int(Touch.EVENT | Touch.SPEND | Touch.TIME)


@dataclass(frozen=True, slots=True, eq=False)
class Roster:
    """Some rules of a plan, and what follows from what they read."""

    rules: tuple[BoundRule, ...]  # INVARIANT: kept alive here, so that an id is never reused while this is remembered
    now: tuple[BoundRule, ...]  # those that are judged over the answer as it is
    later: tuple[BoundRule, ...]  # those that are judged ahead
    mask: int  # what those of now are judged again for
    force: int  # what those of later are judged again for, however far ahead they have been
    wakes: int  # what may make any of them due
    timed: bool  # one looks at the time
    prices: bool  # one looks at the cost
    counts: bool  # one looks at counters
    whole_text: bool  # one reads the whole text, beside what is watched as it grows
    watchers: tuple[Watcher, ...]
    # Of those that are enforced:
    keep: int  # characters of text that wait
    keep_blind: int  # of them, for rules that do not say which text they look for
    arguments: bool  # one reads the arguments of tool calls: then a tool call leaves only when they are whole


def roster_of(plan: Plan, rules: Sequence[BoundRule]) -> Roster:
    """The roster of these rules, which are the plan's own."""
    return plan.rosters.of(tuple(map(id, rules)), lambda: _made(tuple(rules), plan.process))


def _made(rules: tuple[BoundRule, ...], process: Mode) -> Roster:
    now = tuple(one for one in rules if not one.concern.ahead)
    later = tuple(one for one in rules if one.concern.ahead)
    mask, force = _union(one.concern.mask for one in now), _union(_forcing(one.concern.mask) for one in later)
    conditions = [one.rule.when for one in rules if one.rule.when is not None]
    enforced = [one.rule for one in rules if one.rule.when is not None and enforceable(one.rule, process)]
    watchers = {watcher for when in conditions for watcher in when.watchers}
    return Roster(
        rules=rules,
        now=now,
        later=later,
        mask=mask,
        force=force,
        wakes=mask | force | INSPECTION,
        timed=any(one.concern.timed for one in rules),
        prices=any(COST_FACTS & one.rule.reads for one in rules),
        counts=any(one.concern.counts for one in rules),
        whole_text=any(when.reads_text for when in conditions),
        watchers=tuple(sorted(watchers, key=lambda watcher: (watcher.kind, watcher.pattern))),
        keep=max((rule.hold_back for rule in enforced), default=0),
        keep_blind=max(map(_kept_blind, enforced), default=0),
        arguments=any(_reads_arguments(one.rule) for one in rules if enforceable(one.rule, process)),
    )


def _union(masks: Iterable[int]) -> int:
    return reduce(or_, masks, 0)


def _forcing(mask: int) -> int:
    """INVARIANT: the provider's numbers are no growth: its input may leap where its output stays as it was."""
    return mask & ~_GROWING | (_USAGE if mask & _SPEND else 0)


def _kept_blind(rule: CompiledRule) -> int:
    """What a rule keeps back beyond what the texts that it watches for can span: nobody knows which of it matters."""
    reach = max((watcher.reach or 0 for watcher in rule.when.watchers), default=0) if rule.when else 0
    return rule.hold_back if rule.hold_back >= max(reach, 1) else 0


def _reads_arguments(rule: CompiledRule) -> bool:
    return any(
        read.startswith("response.tool_calls") and (read.endswith(".arguments") or read.count(".") == 1)
        for read in rule.reads
    )
