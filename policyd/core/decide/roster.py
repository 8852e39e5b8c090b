"""The rules of an answer that may still match, and what they need of it together: made once, by the plan they are of.

Rule 1: nothing in here knows a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from policyd.core.compile.policyset import CompiledRule, Watcher
from policyd.core.decide.bound import BoundRule, enforceable
from policyd.core.decide.concern import COST_FACTS, INSPECTION, Touch
from policyd.core.decide.plan import Plan
from policyd.core.model.decision import Mode
from policyd.core.model.reach import VIEWS
from policyd.core.stream.dialects import Changed
from policyd.core.stream.lanes import Keep

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
    whole_texts: frozenset[str]  # texts of the response (VIEWS) that one reads whole, beside what is watched
    watchers: tuple[Watcher, ...]
    sought: tuple[Watcher, ...]  # what detectors look for, of those that keep text back
    # Of those that are enforced:
    keeps: Mapping[str, Keep]  # by text of the response (VIEWS): how much of it waits
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
        whole_texts=frozenset().union(*(when.whole_texts for when in conditions)),
        watchers=tuple(sorted(watchers, key=lambda watcher: (watcher.of, watcher.kind, watcher.pattern))),
        sought=_sought(enforced),
        keeps={view: keep for view in VIEWS if (keep := _kept(view, enforced)).most},
        arguments=any(_reads_arguments(one.rule) for one in rules if enforceable(one.rule, process)),
    )


def _sought(rules: Iterable[CompiledRule]) -> tuple[Watcher, ...]:
    conditions = [rule.when for rule in rules if rule.hold_back and rule.when]
    return tuple(dict.fromkeys(one for when in conditions for one in when.sought))


def _union(masks: Iterable[int]) -> int:
    return reduce(or_, masks, 0)


def _forcing(mask: int) -> int:
    """INVARIANT: the provider's numbers are no growth: its input may leap where its output stays as it was."""
    return mask & ~_GROWING | (_USAGE if mask & _SPEND else 0)


def _kept(view: str, rules: Iterable[CompiledRule]) -> Keep:
    """How much of this text waits for these rules."""
    readers = [rule for rule in rules if rule.hold_back and f"response.{view}" in _texts_read(rule)]
    most = max((rule.hold_back for rule in readers), default=0)
    return Keep(most, max(map(_kept_blind, readers), default=0))


def _texts_read(rule: CompiledRule) -> frozenset[str]:
    found = rule.reads | {"response.text"} if "response.delta" in rule.reads else rule.reads
    return found | {"response.content"} if any(map(_is_detection, rule.reads)) else found


def _is_detection(read: str) -> bool:
    return read.startswith("response.detections")


def _kept_blind(rule: CompiledRule) -> int:
    """What a rule keeps back beyond what the texts that it watches for can span: nobody knows which of it matters."""
    seen = (*rule.when.watchers, *rule.when.sought) if rule.when else ()
    reach = max((watcher.reach or 0 for watcher in seen), default=0)
    return rule.hold_back if rule.hold_back >= max(reach, 1) else 0


def _reads_arguments(rule: CompiledRule) -> bool:
    """Whether it reads the arguments of tool calls, be it as content."""
    return "response.content" in rule.reads or any(
        _is_detection(read)
        or (read.startswith("response.tool_calls") and (read.endswith(".arguments") or read.count(".") == 1))
        for read in rule.reads
    )
