"""Rules that no call can match: a comparison that is never true, or two that exclude each other."""

from __future__ import annotations

from collections.abc import Sequence

from policyd.core.compile.cel import CompiledProgram
from policyd.core.compile.cel_problems import CelProblem
from policyd.core.compile.cel_tree import Node, conjuncts
from policyd.core.compile.policyset import CompiledRule
from policyd.core.compile.words import quoted
from policyd.core.errors import Severity
from policyd.core.review.assume import Assumption, Case
from policyd.core.review.reviewed import (
    Reviewed,
    assumption,
    conditioned,
    matched_cases,
    program_of,
    programs_of,
    sees_asked_model,
)

CODE = "POL110"


def warn_never(one: Reviewed) -> None:
    """Says which rules of a policy no call can match."""
    for rule in one.own:
        if rule.when is not None and rule.when.reads:
            problem = _problem(one, rule, program_of(rule.when))
            if problem:
                one.findings.problems(one.path(rule, "when"), [problem], Severity.WARNING)


def can_match(one: Reviewed, rule: CompiledRule) -> bool:
    """Whether any call could match this rule, as far as can be told."""
    return rule.when is None or not rule.when.reads or _problem(one, rule, program_of(rule.when)) is None


def _problem(one: Reviewed, rule: CompiledRule, when: CompiledProgram) -> CelProblem | None:
    assume = assumption(one, (one.policy,), programs_of(one.policy, rule))
    models = sees_asked_model(rule)
    at = _first_impossible(assume, when.tree, [{}])
    if at is not None:
        return _inside(assume, rule, when, at)
    matched = matched_cases(assume, one.policy.match, models=models)
    at = _first_impossible(assume, when.tree, matched)
    if at is not None:
        return _said(rule, when, at, "`match` lets no such call in", "widen `match`, or correct the condition")
    at = _first_impossible(assume, when.tree, conditioned(assume, one.policy, matched, models=models))
    if at is not None:
        hint = "correct the match condition, or this one"
        return _said(rule, when, at, "the policy's match conditions exclude it", hint)
    return None


def _first_impossible(assume: Assumption, tree: Node, given: Sequence[Case]) -> int | None:
    """The index of the part with which the condition becomes impossible; None while it can be true."""
    if not given or assume.cases(tree, True, given):
        return None  # no call at all is another matter than this rule
    cases: Sequence[Case] = given
    parts = conjuncts(tree)
    for at in range(len(parts)):
        for part in parts[: at + 1]:  # all of them again: what stands behind may rule out what stands before
            cases = assume.cases(part, True, cases)
        if not cases:
            return at
    return len(parts) - 1


def _inside(assume: Assumption, rule: CompiledRule, when: CompiledProgram, at: int) -> CelProblem:
    if assume.cases(conjuncts(when.tree)[at], True, [{}]):
        return _said(rule, when, at, "this excludes what stands before it", "correct one of them; did you mean `||`?")
    return _said(rule, when, at, "this is true of no call", "correct it, or remove the rule")


def _said(rule: CompiledRule, when: CompiledProgram, at: int, why: str, hint: str) -> CelProblem:
    line, column = when.parts[at] if at < len(when.parts) else (1, 1)
    return CelProblem(line, column, f"rule {quoted(rule.name)} can never match: {why}", hint, CODE)
