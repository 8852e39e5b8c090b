"""Texts of policy files to one immutable PolicySet, or to every issue at once.

Rule 1: an error anywhere and there is no set; warnings alone do not stop one.
Rule 2: the set's digest names what the documents say, not how or in which order they are written.
Rule 3: issues come in the order of the files' names and places, each once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from policyd.core.compile.cel import CelEngine, Want
from policyd.core.compile.counting import counter_of, implied_rule
from policyd.core.compile.expressions import STATIC, Expressions
from policyd.core.compile.findings import Findings
from policyd.core.compile.policyset import (
    CompiledCounter,
    CompiledPolicy,
    CompiledRule,
    Match,
    MatchCondition,
    PolicySet,
)
from policyd.core.compile.rollout import rollout_of
from policyd.core.compile.rules import rule_of
from policyd.core.compile.running import running_of
from policyd.core.compile.select import CompiledSet
from policyd.core.compile.shape import read_policy
from policyd.core.compile.source import read_documents
from policyd.core.compile.unique import check_names, check_params, raw_names, raw_params, raw_variables
from policyd.core.compile.whole import Known, check_alone, check_whole, known
from policyd.core.errors import Issue, Severity, Span
from policyd.core.model.decision import FailurePolicy, Mode
from policyd.core.model.policy import CounterSpec, PolicyDocument
from policyd.core.model.route import Target


@dataclass(frozen=True, slots=True)
class Compiled:
    """What compiling gave: a set, or None where any issue is an error."""

    policy_set: PolicySet | None
    issues: tuple[Issue, ...]
    written: tuple[Written, ...] = ()  # in the order of the files


@dataclass(frozen=True, slots=True)
class Written:
    """One document on its way: as it is written, what was found, and what came of it."""

    document: PolicyDocument
    findings: Findings
    policy: CompiledPolicy
    known: Known  # what other documents have to know of it
    said: tuple[str, str, str]  # kind, name, and what it says, defaults left out


@dataclass(frozen=True, slots=True)
class Part:
    """What one file comes to by itself."""

    text: str
    written: tuple[Written, ...]
    issues: tuple[Issue, ...]


class Compiler:
    """Compiles again and again; a file whose text has not changed since the last time is not compiled anew.

    `mode`: every policy is taken as if this were its own mode, for every call, which is how a policy is tried before it
    is enforced. `fresh` is told each file that was compiled anew.
    """

    def __init__(self, mode: Mode | None = None, fresh: Callable[[str], None] = lambda _: None) -> None:
        self._mode, self._fresh = mode, fresh
        self._parts: dict[str, Part] = {}

    def __call__(self, files: Sequence[tuple[str, str]]) -> Compiled:
        parts = [self._part(file, text) for file, text in files]
        self._parts = {file: part for (file, _), part in zip(files, parts, strict=True)}
        return _together(parts)

    def _part(self, file: str, text: str) -> Part:
        known = self._parts.get(file)
        if known is not None and known.text == text:
            return known
        part = _read(file, text, self._mode)
        self._fresh(file)
        return part


def compile_documents(files: Sequence[tuple[str, str]], *, mode: Mode | None = None) -> Compiled:
    """Compiles (file name, text) pairs together, and reports every issue of all of them. `mode`: see Compiler."""
    return Compiler(mode)(files)


def _together(parts: Iterable[Part]) -> Compiled:
    parts = list(parts)
    issues = [issue for part in parts for issue in part.issues]
    written = [one for part in parts for one in part.written]
    issues += check_whole([one.known for one in written])
    ordered = in_order(issues)
    if any(issue.severity is Severity.ERROR for issue in ordered):
        return Compiled(None, ordered, tuple(written))
    return Compiled(_set_of(written), ordered, tuple(written))


def in_order(issues: Iterable[Issue]) -> tuple[Issue, ...]:
    """By file and place, each once."""
    return tuple(sorted(set(issues), key=lambda issue: (issue.span, issue.severity, issue.code, issue.message)))


def _read(file: str, text: str, mode: Mode | None) -> Part:
    documents, problems = read_documents(file, text)
    every = [Findings(document) for document in documents if document.value is not None]
    if not every and not problems:
        hint = "delete the file, or write a policy into it"
        problems = [Issue(Span(file, 1, 1), "YAML006", Severity.ERROR, "there is no policy in this file", hint)]
    written = tuple(one for findings in every if (one := _compile(findings, mode)))
    return Part(text, written, (*problems, *(issue for findings in every for issue in findings.issues)))


def _compile(findings: Findings, mode: Mode | None) -> Written | None:
    document = read_policy(findings)
    if document is None:
        return None
    if mode is not None:
        document = _tried_in(mode, document)
    policy = _policy(document, findings)
    check_alone(document, findings, policy)
    said = (document.kind, document.qualified, json.dumps(_canonical(document)))
    return Written(document, findings, policy, known(document, findings), said)


def _tried_in(mode: Mode, document: PolicyDocument) -> PolicyDocument:
    """In this mode for every call: a share of them could not be tried."""
    rules = [rule.model_copy(update={"rollout": None}) for rule in document.spec.rules]
    update = {"mode": mode.value, "rollout": None, "rules": rules}
    return document.model_copy(update={"spec": document.spec.model_copy(update=update)})


def _policy(document: PolicyDocument, findings: Findings) -> CompiledPolicy:
    check_names(document, findings)
    check_params(document, findings)
    expressions = _expressions(document, findings)
    counters, implied = _counters(document, expressions, findings)
    spec = document.spec
    rules = [rule_of(one, at, document, expressions, findings) for at, one in enumerate(spec.rules)]
    match = spec.match
    return CompiledPolicy(
        name=document.metadata.name,
        namespace=document.namespace,
        cluster=document.cluster,
        mode=Mode(spec.mode),
        failure_policy=FailurePolicy(spec.failure_policy),
        match=Match(tuple(match.operations), tuple(match.models), tuple(match.providers), tuple(match.paths)),
        conditions=_conditions(document, expressions),
        counters=tuple(counter for counter in counters if counter),
        rules=(*(rule for rule in rules if rule), *implied),
        rollout=rollout_of(spec.rollout, spec.mode, ("spec", "rollout"), expressions, findings),
        targets=tuple(Target(one.kind, one.name) for one in spec.target_refs),
        running=running_of(document, _canonical(document), findings),
    )


def _expressions(document: PolicyDocument, findings: Findings) -> Expressions:
    # The names as written: a counter that is wrong in itself is still no unknown name where a rule reads it.
    variables = raw_variables(findings.document.value)
    params = raw_params(document)
    expressions = Expressions(
        findings,
        document.qualified,
        raw_names(findings.document.value, "counters"),
        params,
        [(name, source) for _, name, source in variables],
        refused=document.spec.params.keys() - params.keys(),
    )
    paths = {name: ("spec", "variables", index, "expression") for index, name, _ in variables}
    expressions.report_variables(paths)
    return expressions


def _conditions(document: PolicyDocument, expressions: Expressions) -> tuple[MatchCondition, ...]:
    conditions: list[MatchCondition] = []
    for index, spec in enumerate(document.spec.match_conditions):
        path = ("spec", "matchConditions", index, "expression")
        program = expressions.limited(spec.expression, path, Want.BOOL, STATIC, "a match condition", bare=True)
        if program is not None:
            conditions.append(MatchCondition(spec.name, program))
    return tuple(conditions)


def _counters(
    document: PolicyDocument, expressions: Expressions, findings: Findings
) -> tuple[list[CompiledCounter | None], list[CompiledRule]]:
    specs: list[CounterSpec] = document.spec.counters
    counters = [counter_of(document, at, expressions, findings) for at in range(len(specs))]
    position = len(document.spec.rules)
    implied = [implied_rule(spec, document, position + at) for at, spec in enumerate(specs)]
    return counters, [rule for rule in implied if rule]


# ---- the set ------------------------------------------------------------------------------------------------------


def _set_of(written: Sequence[Written]) -> PolicySet:
    # Cluster before namespaced, then by name: the order in which ties are broken.
    ordered = sorted(written, key=_rank)
    return CompiledSet(_digest(written), [one.policy for one in ordered], CelEngine())


def _rank(one: Written) -> tuple[str, str]:
    """`ClusterLLMPolicy` stands before `LLMPolicy` in the alphabet too."""
    return one.said[:2]


def _digest(written: Iterable[Written]) -> str:
    """The name of a set: SHA-256 over what its documents say, in the order of their names."""
    whole = ",".join(text for _, _, text in sorted(one.said for one in written))
    return "sha256:" + hashlib.sha256(f"[{whole}]".encode()).hexdigest()


def _canonical(document: PolicyDocument) -> str:
    said = document.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    said["metadata"]["namespace"] = document.namespace
    return json.dumps(said, sort_keys=True, separators=(",", ":"))
