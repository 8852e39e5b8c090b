"""What can only be seen over all documents together, and what a policy as a whole does not do.

Rule 1: what is looked at again with every change of one among ten thousand policies is a `Known`, made once a text;
        places are looked up only where there is something to say.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.compile.plain_texts import (
    warn_empty_keys,
    warn_plain_texts,
    warn_providers,
    warn_without_rules,
)
from policyd.core.compile.policyset import CompiledPolicy
from policyd.core.compile.select import glob_matches
from policyd.core.compile.synonyms import VALUES, plainly
from policyd.core.compile.unsaid import warn_counting, warn_empty_fields, warn_globs
from policyd.core.compile.words import listed, nearest, quoted
from policyd.core.errors import Issue, Span
from policyd.core.model.decision import Mode
from policyd.core.model.operations import OPERATIONS
from policyd.core.model.paths import normal_path
from policyd.core.model.policy import PolicyDocument

NAME: Path = ("metadata", "name")
COMPARED = 1_000  # names among which the one that was meant is looked for


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What other documents have to know of one. `rules`, `targets`: as written, whether or not they compile."""

    findings: Findings
    kind: str
    qualified: str
    namespace: str  # empty for a ClusterLLMPolicy
    rules: tuple[str, ...]  # policy/rule, those that a limit implies included
    targets: tuple[tuple[Path, str], ...]
    covers_unknown: bool

    def again(self) -> Findings:
        """Findings of their own for what is found beside the other documents."""
        return self.findings.again()

    @property
    def name_at(self) -> Span:
        return self.findings.document.span(NAME)


def known(document: PolicyDocument, findings: Findings) -> Known:
    return Known(
        findings,
        document.kind,
        document.qualified,
        document.namespace,
        tuple(_rules_of(document)),
        tuple(_targets(document)),
        any(glob_matches(pattern)("unknown") for pattern in document.spec.match.operations),
    )


def check_alone(document: PolicyDocument, findings: Findings, policy: CompiledPolicy) -> None:
    """Reports what a policy as a whole does not do."""
    _warn_idle(document, findings, policy)
    _warn_operations(document, findings)
    _warn_paths(document, findings)
    _warn_targets(document, findings)
    warn_plain_texts(document, findings)
    warn_empty_keys(document, findings)
    warn_without_rules(document, findings)
    warn_providers(document, findings)
    warn_globs(document, findings)
    warn_empty_fields(findings)
    warn_counting(document, policy, findings)


def check_whole(written: Sequence[Known]) -> list[Issue]:
    """What the documents are to each other."""
    return [*_twice(written), *_exemptions(written), *_uncovered(written)]


def _twice(written: Iterable[Known]) -> Iterator[Issue]:
    first: dict[tuple[str, str], Known] = {}
    for one in written:
        other = first.setdefault((one.kind, one.qualified), one)
        if other is not one:
            message = f"{one.kind} {quoted(one.qualified)} is written twice"
            again = one.again()
            again.error(NAME, "POL007", message, f"the other one is at {other.name_at}; rename one of them")
            yield from again.issues


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
        near = "*" if plainly(written) in ("all", "any", "every") else nearest(written, OPERATIONS, VALUES)
        hint = f"did you mean `{near}`?" if near else f"there are: {listed(OPERATIONS)}"
        path = ("spec", "match", "operations", index)
        findings.warn(path, "POL106", f"no call is an operation {quoted(written)}", hint)


_WILD = re.compile(r"[*?]+")


def _warn_paths(document: PolicyDocument, findings: Findings) -> None:
    """Paths are compared in their normal form, which some globs can never match."""
    for index, written in enumerate(document.spec.match.paths):
        tried = _WILD.sub("x", written)
        if written.startswith("*"):
            tried = "/" + tried
        normal = normal_path(tried)
        if not written or (normal.judged == tried and not normal.ambiguous):
            continue
        hint = "it begins with a slash and has no trailing slash, dot segment, parameter or encoded character"
        if normal.judged != tried and not _WILD.search(written):
            hint = f"write `{normal.judged}`"
        findings.warn(("spec", "match", "paths", index), "POL120", f"no path is like {quoted(written)}", hint)


def _warn_targets(document: PolicyDocument, findings: Findings) -> None:
    path = ("spec", "targetRefs")
    if document.cluster and document.spec.target_refs:
        findings.error(path, "POL005", "a ClusterLLMPolicy applies to everything", "remove `targetRefs`", key=True)
    elif document.spec.target_refs:
        hint = "from files a policy applies to every call"
        findings.warn(path, "POL108", "`targetRefs` have an effect in Kubernetes only", hint, key=True)


# ---- over all of them ---------------------------------------------------------------------------------------------


def _exemptions(written: Sequence[Known]) -> Iterator[Issue]:
    if not any(one.targets for one in written):
        return
    own: dict[str, set[str]] = {}  # namespace -> policy/rule; a ClusterLLMPolicy's stand under ""
    for one in written:
        own.setdefault(one.namespace, set()).update(one.rules)
    every = frozenset[str]().union(*own.values())
    for one in written:
        yield from _exempted(one, every if one.kind.startswith("Cluster") else own[one.namespace], every)


def _exempted(one: Known, reach: AbstractSet[str], every: AbstractSet[str]) -> Iterator[Issue]:
    for path, target in one.targets:
        if target not in reach and not one.findings.spoilt(path[:-1]):
            again = one.again()
            _warn_exemption(target, path, reach, every, again)
            yield from again.issues


def _rules_of(document: PolicyDocument) -> Iterator[str]:
    """The rules as written, those that a limit implies included, whether or not they compile."""
    name = document.metadata.name
    yield from (f"{name}/{rule.name}" for rule in document.spec.rules)
    yield from (f"{name}/{counter.name}.exceeded" for counter in document.spec.counters if counter.limit)
    yield from (f"{name}/{counter.name}.missing" for counter in document.spec.counters)


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
    near = nearest(target, _around(target, sorted(reach)))
    hint = f"did you mean `{near}`?" if near else "write it as policy/rule"
    findings.warn(path, "POL103", f"no rule is called {quoted(target)}", hint)


def _around(target: str, names: list[str]) -> list[str]:
    """Those that begin like it: comparing with all of ten thousand would take a second with every change."""
    at = max(0, bisect(names, target) - COMPARED // 2)
    return names[at : at + COMPARED]


def _uncovered(written: Sequence[Known]) -> list[Issue]:
    unsure = any(one.findings.broken for one in written)
    if not written or unsure or any(one.covers_unknown for one in written):
        return []
    findings = min(written, key=lambda one: one.name_at).again()
    at: Path = ("spec", "match", "operations")
    path = at if at in findings.document.places else NAME
    message = "no policy covers `unknown`: a model call that is not understood is judged by nothing"
    findings.warn(path, "POL102", message, "add a policy with `match: {operations: [unknown]}`")
    return findings.issues
