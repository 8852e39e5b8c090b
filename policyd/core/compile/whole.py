"""What can only be seen over all documents together, and what a policy as a whole does not do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledPolicy
from policyd.core.compile.select import glob_matches
from policyd.core.compile.words import listed, nearest, quoted
from policyd.core.errors import Span
from policyd.core.model.decision import Mode
from policyd.core.model.policy import PolicyDocument

OPERATIONS = ("chat", "completion", "embedding", "tool_call", "unknown", "other")

One = tuple[PolicyDocument, Findings, CompiledPolicy]


def check_whole(written: Sequence[One]) -> None:
    """Reports what the documents are to each other."""
    _check_twice(written)
    for document, findings, policy in written:
        _warn_idle(document, findings, policy)
        _warn_operations(document, findings)
        _warn_targets(document, findings)
    _warn_exemptions(written)
    _warn_uncovered(written)


def _check_twice(written: Sequence[One]) -> None:
    first: dict[tuple[str, str], Span] = {}
    for document, findings, _ in written:
        path: Path = ("metadata", "name")
        key = (document.kind, document.qualified)
        if key in first and not findings.spoilt(path):
            message = f"{document.kind} {quoted(document.qualified)} is written twice"
            findings.error(path, "POL007", message, f"the other one is at {first[key]}; rename one of them")
        first.setdefault(key, findings.document.span(path))


def _warn_idle(document: PolicyDocument, findings: Findings, policy: CompiledPolicy) -> None:
    if ("spec",) in findings.broken:
        return
    path: Path = ("spec", "mode") if ("spec", "mode") in findings.document.places else ("metadata", "name")
    name = quoted(document.metadata.name)
    if policy.mode is Mode.MONITOR:
        said = "it is in mode Monitor" if path[0] == "spec" else "without `mode:` it is in mode Monitor"
        hint = "write `mode: Full` (or Soft) when its record looks right"
        findings.warn(path, "POL101", f"policy {name} enforces nothing: {said}", hint)
    elif policy.mode is Mode.SOFT and document.spec.rules and not _soft_enforces(document):
        hint = "give the rules that are to be enforced `severity: Critical`, or write `mode: Full`"
        findings.warn(path, "POL101", f"policy {name} enforces nothing: Soft enforces Critical rules alone", hint)


def _soft_enforces(document: PolicyDocument) -> bool:
    grave = any(rule.severity == "Critical" or rule.allow for rule in document.spec.rules)
    return grave or any(counter.limit and counter.on_exceeded == "Terminate" for counter in document.spec.counters)


def _warn_operations(document: PolicyDocument, findings: Findings) -> None:
    for index, written in enumerate(document.spec.match.operations):
        if any(glob_matches(written)(operation) for operation in OPERATIONS):
            continue
        near = nearest(written, OPERATIONS)
        hint = f"did you mean `{near}`?" if near else f"there are: {listed(OPERATIONS)}"
        path = ("spec", "match", "operations", index)
        findings.warn(path, "POL106", f"no call is an operation {quoted(written)}", hint)


def _warn_targets(document: PolicyDocument, findings: Findings) -> None:
    path = ("spec", "targetRefs")
    if document.cluster and document.spec.target_refs:
        findings.error(path, "POL005", "a ClusterLLMPolicy applies to everything", "remove `targetRefs`", key=True)
    elif document.spec.target_refs:
        hint = "from files a policy applies to every call"
        findings.warn(path, "POL108", "`targetRefs` have an effect in Kubernetes only", hint, key=True)


# ---- over all of them ---------------------------------------------------------------------------------------------


def _warn_exemptions(written: Sequence[One]) -> None:
    own: dict[str, set[str]] = {}  # namespace -> policy/rule; a ClusterLLMPolicy's stand under ""
    for document, _, _ in written:
        own.setdefault(document.namespace, set()).update(_rules_of(document))
    every = frozenset[str]().union(*own.values())
    for document, findings, policy in written:
        reach = every if policy.cluster else own[policy.namespace]
        for path, target in _targets(document):
            if target not in reach and not findings.spoilt(path[:-1]):
                _warn_exemption(target, path, reach, every, findings)


def _rules_of(document: PolicyDocument) -> Iterator[str]:
    """The rules as written, those that a limit implies included, whether or not they compile."""
    name = document.metadata.name
    yield from (f"{name}/{rule.name}" for rule in document.spec.rules)
    yield from (f"{name}/{counter.name}.exceeded" for counter in document.spec.counters if counter.limit)


def _targets(document: PolicyDocument) -> Iterator[tuple[Path, str]]:
    for index, rule in enumerate(document.spec.rules):
        for at, target in enumerate(rule.allow.rules if rule.allow else ()):
            yield ("spec", "rules", index, "allow", "rules", at), target


def _warn_exemption(
    target: str, path: Path, reach: AbstractSet[str], every: AbstractSet[str], findings: Findings
) -> None:
    if target in every:
        message = f"{quoted(target)} belongs to another namespace, and cannot be exempted from here"
        findings.warn(path, "POL103", message, "a namespaced policy exempts policies of its own namespace only")
        return
    near = nearest(target, sorted(reach))
    hint = f"did you mean `{near}`?" if near else "write it as policy/rule"
    findings.warn(path, "POL103", f"no rule is called {quoted(target)}", hint)


def _warn_uncovered(written: Sequence[One]) -> None:
    patterns = [pattern for document, _, _ in written for pattern in document.spec.match.operations]
    unsure = any(findings.broken for _, findings, _ in written)
    if not written or unsure or any(glob_matches(pattern)("unknown") for pattern in patterns):
        return
    _, findings, _ = min(written, key=lambda one: one[1].document.span(("metadata", "name")))
    at: Path = ("spec", "match", "operations")
    path = at if at in findings.document.places else ("metadata", "name")
    message = "no policy covers `unknown`: a model call that is not understood is judged by nothing"
    findings.warn(path, "POL102", message, "add a policy with `match: {operations: [unknown]}`")
