"""Test files below paths, read, checked and brought together with the policies that they are about.

Rule 1: every mistake of every file is reported at once, with its place; none of a set with a mistake is run.
Rule 2: `NAME.test.yaml` is about `NAME.yaml` where that is there, else about its folder, or about what it names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from policyd.adapters.errors import UnreadableInput, read_text
from policyd.adapters.policies_dir import TEST_SUFFIXES, read_policies
from policyd.cli.cases.checking import check_cases
from policyd.cli.cases.model import KIND, TestDocument, json_schema
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Document
from policyd.core.compile.policyset import PolicySet
from policyd.core.compile.shape_words import kind_of, report
from policyd.core.compile.source import read_documents
from policyd.core.errors import Issue, PolicyError, Severity, Span
from policyd.core.model.decision import Mode
from policyd.core.model.policy import API_VERSION, LIST, MAP, TEXT

_TAGS = frozenset((TEXT, LIST, MAP))
_HINT = f"begin with `apiVersion: {API_VERSION}` and `kind: {KIND}`"


@dataclass(frozen=True, slots=True)
class Suite:
    """One document of cases, and the policies that it is about, by the mode that they are tried in."""

    document: Document
    spec: TestDocument
    policy_files: tuple[str, ...]
    sets: dict[Mode, PolicySet] = field(default_factory=dict)

    def policies(self, mode: Mode) -> PolicySet:
        return self.sets[mode]


@dataclass(slots=True)
class Suites:
    """What stands below the paths: suites, the text of every file, and the mistakes."""

    suites: list[Suite] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)


def test_files(paths: Sequence[Path]) -> list[Path]:
    """Every test file below these files and folders, each once. Raises UnreadableInput."""
    found: dict[str, Path] = {}
    for path in paths:
        for file in _below(path):
            found.setdefault(os.path.realpath(file), file)
    if not found:
        where = ", ".join(map(str, paths))
        raise UnreadableInput(where, "no test file there: cases stand in NAME.test.yaml beside their policies")
    return sorted(found.values(), key=str)


def _below(path: Path) -> Iterable[Path]:
    if not path.exists():
        raise UnreadableInput(path, "no such file or folder")
    if path.is_dir():
        files = (file for suffix in TEST_SUFFIXES for file in path.rglob(f"*{suffix}"))
        return [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if path.name.endswith(TEST_SUFFIXES):
        return [path]
    beside = [path.with_name(path.stem + suffix) for suffix in TEST_SUFFIXES]
    return [file for file in beside if file.exists()]


def read_suites(paths: Sequence[Path]) -> Suites:
    """Every suite below these paths. Raises UnreadableInput, or PolicyError where a policy does not compile."""
    found = Suites()
    for file in test_files(paths):
        text = found.texts[str(file)] = read_text(file)
        documents, issues = read_documents(str(file), text)
        found.issues += issues
        if not documents and not issues:
            found.issues.append(Issue(Span(str(file), 1, 1), "TEST006", Severity.ERROR, "the file is empty", _HINT))
        for document in documents:
            _read(file, document, found)
    return found


def _read(file: Path, document: Document, found: Suites) -> None:
    findings = Findings(document)
    spec = _spec(findings)
    if spec is not None:
        suite = _suite(file, document, spec, findings)
        if suite is not None:
            found.suites.append(suite)
            check_cases(spec, next(iter(suite.sets.values())), findings)
    found.issues += (replace(issue, code=issue.code.replace("POL", "TEST")) for issue in findings.issues)


def _spec(findings: Findings) -> TestDocument | None:
    value = findings.document.value
    if not isinstance(value, dict):
        findings.shape((), "POL006", f"test cases are a mapping, this is {kind_of(value)}", _HINT)
        return None
    if value.get("kind") != KIND:
        findings.shape(("kind",), "POL001", f"a test file is of kind `{KIND}`", _HINT)
        return None
    try:
        return TestDocument.model_validate(value)
    except ValidationError as error:
        schema = json_schema()
        for one in error.errors(include_url=False, include_context=True):
            path = tuple(step for step in one["loc"] if step not in _TAGS and step != "[key]")
            report(one, path, findings, schema)
        return None


def _suite(file: Path, document: Document, spec: TestDocument, findings: Findings) -> Suite | None:
    files: list[tuple[str, str]] = []
    for path, wanted in _named(file, spec):
        try:
            files += (one for one in read_policies([wanted]) if one not in files)
        except UnreadableInput as error:
            findings.error(path, "POL015", str(error), "paths are relative to this file")
            return None
    if not files:
        findings.error(("policies",), "POL015", "there is no policy beside this file", "name them under `policies:`")
        return None
    suite = Suite(document, spec, tuple(name for name, _ in files))
    for mode in _modes(spec):
        compiled = compile_documents(files, mode=mode)
        if compiled.policy_set is None:
            raise PolicyError(tuple(issue for issue in compiled.issues if issue.severity is Severity.ERROR))
        suite.sets[mode] = compiled.policy_set
    return suite


def _named(file: Path, spec: TestDocument) -> list[tuple[tuple[str | int, ...], Path]]:
    if spec.policies is not None:
        return [(("policies", at), _tidy(file.parent / name)) for at, name in enumerate(spec.policies)]
    stem = next(file.name.removesuffix(suffix) for suffix in TEST_SUFFIXES if file.name.endswith(suffix))
    beside = [file.with_name(stem + suffix) for suffix in (".yaml", ".yml")]
    return [((), next((one for one in beside if one.is_file()), file.parent))]


def _tidy(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _modes(spec: TestDocument) -> set[Mode]:
    return {mode_of(spec, case.mode) for case in spec.cases}


def mode_of(spec: TestDocument, own: str | None) -> Mode:
    """The mode that policies are tried in: the case's, else the file's, else Full."""
    return Mode(own or spec.mode or Mode.FULL)
