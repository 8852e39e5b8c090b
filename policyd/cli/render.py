"""Issues for people and for machines: text, JSON, SARIF 2.1.0, GitHub annotations.

Rule 1: nothing that an author wrote reaches a terminal or a log as a control character.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from policyd.core.errors import Issue, Severity

MAX_EXCERPT = 160  # characters of a source line


def as_text(issues: Sequence[Issue], texts: Mapping[str, str]) -> str:
    """One block an issue: place, message, the line it is about with a caret below, a hint."""
    lines = {file: text.removeprefix("\ufeff").split("\n") for file, text in texts.items()}
    return "".join(_block(issue, lines.get(issue.span.file, [])) + "\n" for issue in issues)


def summary(issues: Sequence[Issue]) -> str:
    """How many of what, in words."""
    errors = sum(issue.severity is Severity.ERROR for issue in issues)
    warnings = len(issues) - errors
    if not issues:
        return "no issues"
    return f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")


def _block(issue: Issue, lines: Sequence[str]) -> str:
    head = clean(f"{issue.span}: {issue.severity} {issue.code}: {issue.message}")
    block = [head, *_excerpt(issue, lines)]
    if issue.hint:
        block.append(clean(f"   = {issue.hint}"))
    return "\n".join(block)


def _excerpt(issue: Issue, lines: Sequence[str]) -> list[str]:
    if not 0 < issue.span.line <= len(lines):
        return []
    line = lines[issue.span.line - 1].rstrip()
    at = min(issue.span.column - 1, len(line))
    first = max(0, at - MAX_EXCERPT // 2) if len(line) > MAX_EXCERPT else 0
    shown = line[first : first + MAX_EXCERPT]
    # A tab stays a tab above and below, so that the caret stands under its character however wide tabs are.
    pad = "".join("\t" if char == "\t" else " " for char in shown[: at - first])
    return [f"   | {clean(shown)}", f"   | {pad}^"]


def clean(text: str) -> str:
    """The text with every character that is not printable written out, tabs and spaces aside."""
    return "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in text)


def as_json(issues: Sequence[Issue], policies: Sequence[Mapping[str, object]] | None = None) -> str:
    """The contract's one JSON document; `policies`: what was derived of each, where that was asked for."""
    told = {} if policies is None else {"policies": list(policies)}
    return json.dumps({"issues": [_fields(issue) for issue in issues], **told}, indent=2)


def _fields(issue: Issue) -> dict[str, object]:
    return {
        "file": issue.span.file,
        "line": issue.span.line,
        "column": issue.span.column,
        "code": issue.code,
        "severity": issue.severity.value,
        "message": issue.message,
        "hint": issue.hint,
    }


# ---- GitHub -------------------------------------------------------------------------------------------------------


def as_github(issues: Sequence[Issue]) -> str:
    """One workflow command a line."""
    return "\n".join(_annotation(issue) for issue in issues)


def _annotation(issue: Issue) -> str:
    place = f"file={_property(issue.span.file)},line={issue.span.line},col={issue.span.column}"
    message = issue.message + (f" ({issue.hint})" if issue.hint else "")
    return f"::{issue.severity} {place},title={_property(issue.code)}::{_data(message)}"


def _data(text: str) -> str:
    return clean(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# ---- SARIF --------------------------------------------------------------------------------------------------------


def as_sarif(issues: Sequence[Issue]) -> str:
    """A SARIF 2.1.0 log with one run."""
    codes = sorted({issue.code for issue in issues})
    driver = {"name": "policyd", "version": version("policyd"), "rules": [{"id": code} for code in codes]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(issue, codes.index(issue.code)) for issue in issues],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2)


def _result(issue: Issue, rule: int) -> dict[str, Any]:
    region = {"startLine": issue.span.line, "startColumn": issue.span.column}
    place = {"artifactLocation": {"uri": _uri(issue.span.file)}, "region": region}
    message = issue.message + (f" ({issue.hint})" if issue.hint else "")
    return {
        "ruleId": issue.code,
        "ruleIndex": rule,
        "level": issue.severity.value,
        "message": {"text": message},
        "locations": [{"physicalLocation": place}],
    }


def _uri(file: str) -> str:
    from urllib.parse import quote

    return ("file://" if file.startswith("/") else "") + quote(file.replace("\\", "/"))
