"""What is in force in the place of a policy that cannot be read: a policy that cannot be judged.

Rule 1: it covers at least the calls that the policy could match. What narrows it is kept where it compiles by itself;
        a part with unknown fields is dropped, for nobody knows what these mean.
Rule 2: mode and failurePolicy are the policy's own: under Fail its calls are refused where the policy would be
        enforced, under Ignore and in Monitor they pass, and their records say that it was errored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from policyd.core.compile.compiler import compile_documents
from policyd.core.errors import Severity

RULE = "unreadable"
MARK = f"# policyd.dev/{RULE}: this policy cannot be read; its calls cannot be judged\n"
"""The first line of its text."""

_FAILS = '{"": true}["unreadable"]'  # a key that is not there: an error, whatever the call
_SEVERITIES = ("Info", "Low", "Medium", "High", "Critical")
_MATCH = ("operations", "models", "providers", "paths")
_ENTRIES: Mapping[str, frozenset[str]] = {
    "matchConditions": frozenset(("name", "expression")),
    "targetRefs": frozenset(("group", "kind", "name")),
}

Spec = dict[str, Any]


def is_placeholder(text: str) -> bool:
    return text.startswith(MARK)


def placeholder_of(text: str) -> str:
    """The text that stands in for this one, which is an object's (see good.policy_of)."""
    document = json.loads(text)
    spec = document.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    severity = _severity(spec)
    base: Spec = {
        "mode": _mode(spec),
        "failurePolicy": "Ignore" if spec.get("failurePolicy") == "Ignore" else "Fail",
        "rules": [{"name": RULE, "severity": severity, "when": _FAILS, "terminate": {}}],
    }
    parts = list(_parts(spec))
    whole = _together(base, parts)
    if not _compiles(document, whole):
        whole = _together(base, [one for one in parts if _compiles(document, _together(base, [one]))])
    match = spec.get("match")
    if "operations" not in whole.get("match", {}) and not (match is None or _says_no_operations(match)):
        whole = _together(whole, [{"match": {"operations": ["*"]}}])
    return _text(document, whole)


def _says_no_operations(match: object) -> bool:
    """Whether the default stands: every model call."""
    return isinstance(match, dict) and not match.get("operations")


def _mode(spec: Spec) -> str:
    """As written; the highest where that is no mode."""
    mode = spec.get("mode", "Monitor")
    return mode if mode in ("Monitor", "Soft", "Full") else "Full"


def _severity(spec: Spec) -> str:
    """The highest of its rules, which decides what Soft enforces; the highest of all where they cannot be read."""
    rules = spec.get("rules")
    if spec.get("counters") or not isinstance(rules, list) or not rules:
        return "Critical"
    found = [rule.get("severity", "Medium") if isinstance(rule, dict) else "" for rule in rules]
    if any("allow" in rule for rule in rules if isinstance(rule, dict)) or not set(found) <= set(_SEVERITIES):
        return "Critical"
    return max(found, key=_SEVERITIES.index)


def _parts(spec: Spec) -> Iterator[Spec]:
    """What narrows the calls that it is about, as parts that can be kept or dropped by themselves."""
    match = spec.get("match")
    if isinstance(match, dict):
        yield from ({"match": {name: match[name]}} for name in _MATCH if match.get(name))
    for name, known in _ENTRIES.items():
        entries = spec.get(name)
        if isinstance(entries, list) and all(isinstance(one, dict) and one.keys() <= known for one in entries):
            params = {"params": spec["params"]} if name == "matchConditions" and spec.get("params") else {}
            yield {name: entries, **params}
    if isinstance(spec.get("rollout"), dict):
        yield {"rollout": spec["rollout"]}


def _together(base: Spec, parts: list[Spec]) -> Spec:
    whole = dict(base)
    for part in parts:
        match = {**whole.get("match", {}), **part.get("match", {})}
        whole |= {**part, **({"match": match} if match else {})}
    return whole


def _compiles(document: Spec, spec: Spec) -> bool:
    issues = compile_documents([("placeholder", _text(document, spec))]).issues
    return not any(issue.severity is Severity.ERROR for issue in issues)


def _text(document: Spec, spec: Spec) -> str:
    head = {part: document.get(part) for part in ("apiVersion", "kind", "metadata")}
    return MARK + json.dumps({**head, "spec": spec}, indent=2, ensure_ascii=False) + "\n"
