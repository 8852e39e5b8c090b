"""Policies that calls in flight are judged by too (`runningCalls`): which may be, and in what wording."""

from __future__ import annotations

import hashlib

from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.model.policy import PolicyDocument


def running_of(document: PolicyDocument, canonical: str, findings: Findings) -> str:
    """What names this wording of such a policy; empty for every other. What it may not hold is reported."""
    if not document.spec.running_calls:
        return ""
    _check_kind(document, findings)
    _check_counters(document, findings)
    _check_exemptions(document, findings)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _check_kind(document: PolicyDocument, findings: Findings) -> None:
    if not document.cluster:
        hint = "remove `runningCalls`, or make it a ClusterLLMPolicy"
        path: Path = ("spec", "runningCalls")
        findings.error(path, "POL005", "calls in flight are judged by a ClusterLLMPolicy alone", hint, key=True)


def _check_counters(document: PolicyDocument, findings: Findings) -> None:
    """A call in flight asked for no room there when it left, and what it has spent by now was charged nowhere."""
    if document.spec.counters:
        message = "calls in flight hold nothing in the counters of a policy with `runningCalls`"
        findings.error(("spec", "counters"), "POL010", message, "put the counters into a policy of their own", key=True)


def _check_exemptions(document: PolicyDocument, findings: Findings) -> None:
    """INVARIANT: what joins a call in flight may tighten what was decided of it, never loosen it."""
    for index, rule in enumerate(document.spec.rules):
        if rule.allow is not None:
            path: Path = ("spec", "rules", index, "allow")
            hint = "name who is spared in `matchConditions`, or write the exemption into a policy of its own"
            findings.error(path, "POL013", "a policy with `runningCalls` cannot exempt", hint, key=True)
