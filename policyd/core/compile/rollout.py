"""A share of the calls: `rollout: {percent: 10, by: session.id}`."""

from __future__ import annotations

from policyd.core.compile.cel import Want
from policyd.core.compile.expressions import STATIC, Expressions
from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import Rollout
from policyd.core.model.policy import RolloutSpec


def rollout_of(
    spec: RolloutSpec | None, mode: str, path: Path, expressions: Expressions, findings: Findings
) -> Rollout | None:
    """The share, ready to be asked; `mode`: what its calls are judged in."""
    if spec is None:
        return None
    if mode == "Monitor":
        message = "a rollout of what is in Monitor enforces nothing"
        findings.warn(path, "POL101", message, "set `mode: Full`: the share gets it, the others Monitor", key=True)
    by = expressions.limited(spec.by, (*path, "by"), Want.STRING, STATIC, "a rollout's key")
    return None if by is None else Rollout(spec.percent, by)
