"""Counters that nobody reads, keys that never come together, and limits that are read and do not exist."""

from __future__ import annotations

import math
from collections.abc import Iterator

from policyd.core.compile.cel import CompiledProgram
from policyd.core.compile.cel_tree import Call, Ident, Node, children
from policyd.core.compile.expressions import is_below
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledCounter, CompiledRule, Phase, Program
from policyd.core.compile.words import listed, quoted
from policyd.core.decide.plan import reads_session
from policyd.core.model.decision import FailurePolicy, Terminate
from policyd.core.review.assume import Assumption, Case
from policyd.core.review.reviewed import Reviewed, applicable, assumption, program_of, programs_of
from policyd.core.review.values import Known

# What may be another value in every call, and is not the name of anybody or anything.
_CONTENT = (
    "now",
    "request.text",
    "request.system",
    "request.messages",
    "request.tools",
    "request.input_tokens",
    "request.max_tokens",
    "request.temperature",
    "request.headers",
    "request.tags",
    "request.path",
)


def warn_counters(one: Reviewed) -> None:
    """Says which counters of a policy are read by nobody, and which have a key without bound."""
    read = frozenset(_read(one))
    for at, counter in enumerate(one.policy.counters):
        path: Path = ("spec", "counters", at)
        if counter.name not in read:
            _warn_unread(one, counter, path)
        _warn_unbounded(one, counter, path)
    limitless = frozenset(counter.name for counter in one.policy.counters if counter.limit is None)
    for rule in one.own:
        _warn_limitless(one, rule, limitless)


def _read(one: Reviewed) -> Iterator[str]:
    """The names of the counters that anything of the author's reads."""
    for rule in one.own:
        for program in _programs(rule):
            yield from (read.split(".")[1] for read in program.reads if read.startswith("counters."))


def _programs(rule: CompiledRule) -> list[Program]:
    return [one for one in (rule.when, rule.message_expression, rule.fallback_expression) if one is not None]


def _warn_unread(one: Reviewed, counter: CompiledCounter, path: Path) -> None:
    name = quoted(counter.name)
    if counter.denies:
        return
    if counter.limit is None:
        message = f"nobody reads counter {name}: no limit, and no rule names it; records alone show it"
        one.findings.warn(
            (*path, "name"), "POL112", message, "give it a `limit:`, or read it in a rule; else remove it"
        )
    elif not counter.clamp:
        message = f"nobody reads counter {name}: with `onExceeded: Continue` its limit stops nothing by itself"
        hint = f"read counters.{counter.name}.exceeded in a rule, or remove `onExceeded`"
        one.findings.warn((*path, "name"), "POL112", message, hint)


# ---- limits ---------------------------------------------------------------------------------------------------------

_OF_A_LIMIT = ("limit", "remaining", "used")  # what a counter without one says 0 for; of `exceeded` POL110 speaks


def _warn_limitless(one: Reviewed, rule: CompiledRule, limitless: frozenset[str]) -> None:
    """Says where a rule reads what only a limit gives: `remaining < 5` would be true of every call."""
    texts = (
        (("when",), rule.when),
        (("terminate", "messageExpression"), rule.message_expression),
        (("terminate", "fallbackExpression"), rule.fallback_expression),
    )
    for below, program in texts:
        found = [read for read in sorted(program.reads) if _of_a_limit(read, limitless)] if program else []
        if found:
            message = f"`{listed(found)}` is always 0: the counter has no limit"
            one.findings.warn(one.path(rule, *below), "POL116", message, "give it a `limit:`, or compare its `value`")


def _of_a_limit(read: str, limitless: frozenset[str]) -> bool:
    root, _, rest = read.partition(".")
    name, _, field = rest.partition(".")
    return root == "counters" and name in limitless and field in _OF_A_LIMIT


# ---- keys -----------------------------------------------------------------------------------------------------------


def _warn_unbounded(one: Reviewed, counter: CompiledCounter, path: Path) -> None:
    cases = None
    for at, program in enumerate(map(program_of, counter.key)):
        if not any(is_below(read, _CONTENT) for read in program.reads):
            continue
        assume = assumption(one, (one.policy,), [program, *programs_of(one.policy, *one.own)])
        cases = _counted(one, assume)
        free = sorted(set(_free(program, assume, cases)))
        if free and not one.effort.spent:  # else what was not thought through would look free
            written = (*path, "key") if isinstance(_written(one, path), str) else (*path, "key", at)
            message = f"`{listed(free)}` may be another value in every call: counter {quoted(counter.name)} "
            hint = "key by session.id or caller.key, or let `matchConditions` name the values that there are"
            one.findings.warn(written, "POL113", message + "then starts anew with each", hint)


def _written(one: Reviewed, path: Path) -> object:
    return one.document.spec.counters[int(path[-1])].key


def _counted(one: Reviewed, assume: Assumption) -> list[Case]:
    """What holds of every call that is counted: it is in the policy's match, and no rule has refused it before."""
    cases = applicable(assume, one.policy, models=True)
    for rule in one.own:
        if rule.when is not None and _refuses_first(rule):
            cases = assume.cases(program_of(rule.when).tree, False, cases)
    return cases


def _refuses_first(rule: CompiledRule) -> bool:
    asks_store = reads_session(rule.reads) or any(read.startswith("counters.") for read in rule.reads)
    fails = rule.failure_policy is FailurePolicy.FAIL
    return rule.phase is Phase.REQUEST and isinstance(rule.action, Terminate) and fails and not asks_store


def _free(program: CompiledProgram, assume: Assumption, cases: list[Case]) -> Iterator[str]:
    """The content that a key takes as it comes."""
    return _free_of(program.tree, assume, cases)


def _free_of(node: Node, assume: Assumption, cases: list[Case]) -> Iterator[str]:
    if all(_few(assume.known(node, case)) for case in cases):
        return  # one of a few, whatever it is made of
    match node:
        case Ident(name=name) if is_below(name, _CONTENT):
            yield name
        case Call(function="_?_:_", args=(_, *branches)):
            for branch in branches:
                yield from _free_of(branch, assume, cases)
        case Call(type="bool"):
            return
        case _:
            for child in children(node):
                yield from _free_of(child, assume, cases)


def _few(known: Known) -> bool:
    return known.only is not None or (math.isfinite(known.low) and math.isfinite(known.high))
