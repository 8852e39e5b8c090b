"""Rules that match every call: a condition that nothing makes false."""

from __future__ import annotations

from policyd.core.compile.cel_problems import CelProblem
from policyd.core.compile.cel_tree import Call, Node, walk
from policyd.core.compile.policyset import CompiledRule
from policyd.core.compile.words import quoted
from policyd.core.errors import Severity
from policyd.core.review.reviewed import Reviewed, applicable, assumption, program_of, programs_of, sees_asked_model

CODE = "POL121"


def warn_always(one: Reviewed) -> None:
    """Says which rules of a policy match whatever the call is."""
    for rule in one.own:
        if rule.when is not None and rule.when.reads and _always(one, rule):
            problem = _said(rule, program_of(rule.when).tree)
            one.findings.problems(one.path(rule, "when"), [problem], Severity.WARNING)


def _always(one: Reviewed, rule: CompiledRule) -> bool:
    assert rule.when is not None
    assume = assumption(one, (one.policy,), programs_of(one.policy, rule))
    given = applicable(assume, one.policy, models=sees_asked_model(rule))
    tree = program_of(rule.when).tree
    return (
        bool(given)
        and bool(assume.cases(tree, True, given))
        and not assume.cases(tree, False, given)
        and not assume.effort.spent
    )


def _said(rule: CompiledRule, tree: Node) -> CelProblem:
    unequal = sum(isinstance(node, Call) and node.function == "_!=_" for node in walk(tree))
    either = any(isinstance(node, Call) and node.function == "_||_" for node in walk(tree))
    hint = "correct it, or leave `when` out"
    if either and unequal > 1:
        hint = 'one of several `!=` is always true: join them with &&, or write `!(x in ["a", "b"])`'
    return CelProblem(1, 1, f"rule {quoted(rule.name)} matches every call: nothing makes this false", hint, CODE)
