"""Policies in Monitor that make every answer pass through policyd, although nothing of them is enforced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledPolicy
from policyd.core.compile.words import quoted
from policyd.core.decide.plan import Plan, needs_usage, reads_response_body, reads_session, redacts_response
from policyd.core.model.decision import Mode
from policyd.core.review.reviewed import Reviewed


def warn_watching(policies: Sequence[Reviewed], plans: Sequence[Plan]) -> None:
    """Says which policies in Monitor read every answer, where no policy that enforces does."""
    reading = [one for one, plan in zip(policies, plans, strict=True) if plan.needs_response_body]
    if any(not watches(one.policy) and _every_call(one.policy) for one in reading):
        return  # the answers are read anyway
    for one in reading:
        if watches(one.policy) and _every_call(one.policy):
            path: Path = ("spec", "mode") if ("spec", "mode") in one.findings.document.places else ("metadata", "name")
            message = f"policy {quoted(one.policy.name)} enforces nothing, and reads the answer of every call"
            why = next(_reasons(one.policy), "")
            hint = "narrow `match`, or leave it where watching is worth that" + (f": {why} reads it" if why else "")
            one.findings.warn(path, "POL114", message, hint)


def watches(policy: CompiledPolicy) -> bool:
    """Whether no rule of a policy can be enforced."""
    return policy.mode is Mode.MONITOR or (bool(policy.rules) and all(r.mode is Mode.MONITOR for r in policy.rules))


def _every_call(policy: CompiledPolicy) -> bool:
    match = policy.match
    narrowed = match.models or match.providers or match.paths or policy.conditions
    return not narrowed and (not match.operations or any(name in ("chat", "*") for name in match.operations))


def _reasons(policy: CompiledPolicy) -> Iterator[str]:
    for rule in policy.rules:
        if reads_response_body(rule.reads) or reads_session(rule.reads) or redacts_response(rule):
            yield f"rule {quoted(rule.name)}"
    for counter in policy.counters:
        if needs_usage(counter):
            yield f"counter {quoted(counter.name)}"
