"""Every doubt about a set of policies, beside what compiling it says."""

from __future__ import annotations

from policyd.core.compile.compiler import Compiled, in_order
from policyd.core.decide.plan import Plan
from policyd.core.errors import Issue
from policyd.core.model.decision import Mode
from policyd.core.review.always import warn_always
from policyd.core.review.assume import Effort
from policyd.core.review.contradict import warn_contradictions
from policyd.core.review.counters import warn_counters
from policyd.core.review.never import warn_never
from policyd.core.review.overruled import warn_overruled
from policyd.core.review.reviewed import reviewed
from policyd.core.review.shadow import warn_shadowed
from policyd.core.review.watching import warn_watching


def review(compiled: Compiled, effort: Effort | None = None) -> tuple[Issue, ...]:
    """The issues of compiling, and what is doubtful of a set without errors: with errors there is nothing whole.

    With less `effort` it doubts less; never more.
    """
    if compiled.policy_set is None:
        return compiled.issues
    policies = reviewed(compiled.written, effort or Effort())
    for one in policies:
        warn_never(one)
        warn_always(one)
        warn_counters(one)
    warn_contradictions(policies, warn_shadowed(policies))
    warn_overruled(policies)
    engine = compiled.policy_set.engine
    warn_watching(policies, [Plan((one.policy,), engine, Mode.FULL) for one in policies])
    return in_order([*compiled.issues, *(issue for one in policies for issue in one.findings.issues)])
