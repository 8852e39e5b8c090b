"""What a policy hardly means: empty fields, patterns where globs stand, limits that refuse every call or none.

Rule 1: warnings only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledPolicy
from policyd.core.compile.words import quoted
from policyd.core.model.counters import WindowKind
from policyd.core.model.policy import PolicyDocument

_FREE = frozenset(("set", "params"))  # below these a null is a value of the author's
_NO_GLOB = re.compile(r"\.[*+]|^\^|\$$|^/.*/[a-z]*$|[|%]|\[[a-z0-9]-|\\\\")
_JOINED = re.compile(r"\s*((?:caller|request|session)\.[\w.]+)\s*\+\s*((?:caller|request|session)\.[\w.]+)\s*")
_SHORTEST_S = 1.0


def warn_empty_fields(findings: Findings) -> None:
    """A field without a value is a field that is not there: a `when:` that nobody has filled in matches every call."""
    value = findings.document.value
    spec = value.get("spec") if isinstance(value, dict) else None
    for path in _empty(spec, ("spec",)):
        name = path[-1]
        if name in ("terminate", "allow", "constrain", "reroute"):
            continue  # told of where the actions of a rule are counted
        effect = "so the rule applies to every call" if name == "when" else "as if it were not there"
        findings.warn(path, "POL126", f"`{name}` is empty, {effect}", "give it a value, or remove the line", key=True)


def _empty(value: Any, path: Path) -> Iterator[Path]:
    todo = [(value, path)]
    while todo:
        inner, at = todo.pop()
        if isinstance(inner, list):
            todo += [(one, (*at, index)) for index, one in enumerate(inner)]
        elif isinstance(inner, dict):
            yield from ((*at, key) for key, one in inner.items() if one is None)
            todo += [(one, (*at, key)) for key, one in inner.items() if key not in _FREE]


def warn_globs(document: PolicyDocument, findings: Findings) -> None:
    """Names in lists are globs, which know `*` and `?` alone."""
    for path, text in _globs(document):
        if _NO_GLOB.search(text):
            plain = re.sub(r"^/|/[a-z]*$|^\^|\$$", "", text)
            fix = re.sub(r"\.[*+]", "*", plain).replace("%", "*").replace("\\\\", "")
            hint = (
                f"write {quoted(fix)}, or one entry for each name"
                if "|" not in fix
                else "write one entry for each name"
            )
            message = f"{quoted(text)} looks like a pattern: globs know `*` and `?` alone"
            findings.warn(path, "POL127", message, hint)


def _globs(document: PolicyDocument) -> Iterator[tuple[Path, str]]:
    match = document.spec.match
    for part, texts in (("models", match.models), ("providers", match.providers), ("operations", match.operations)):
        yield from ((("spec", "match", part, index), text) for index, text in enumerate(texts))
    for at, rule in enumerate(document.spec.rules):
        tools = rule.constrain.tools if rule.constrain else None
        for part in ("allow", "deny"):
            listed = (getattr(tools, part) if tools else None) or ()
            yield from ((("spec", "rules", at, "constrain", "tools", part, i), text) for i, text in enumerate(listed))


def warn_counting(document: PolicyDocument, policy: CompiledPolicy, findings: Findings) -> None:
    """Limits that refuse every call, windows in which nothing adds up, and keys that run together."""
    places = {spec.name: ("spec", "counters", index) for index, spec in enumerate(document.spec.counters)}
    for counter in policy.counters:
        path: Path = places[counter.name]
        if counter.denies and counter.limit and counter.limit.by is None and counter.limit.default == 0:
            message = f"counter {quoted(counter.name)} has a limit of 0: it refuses every call that it counts"
            findings.warn(
                (*path, "limit"),
                "POL128",
                message,
                "raise the limit; to refuse calls write a rule with `terminate: {}`",
            )
        if counter.window.kind is not WindowKind.CALENDAR and counter.window.seconds < _SHORTEST_S:
            message = (
                f"the window of counter {quoted(counter.name)} is shorter than a second: hardly two calls fall into it"
            )
            findings.warn(
                (*path, "window"), "POL128", message, "write it like `{sliding: 1m}` or `{lifetime: 24h}`", key=True
            )
    for index, spec in enumerate(document.spec.counters):
        if isinstance(spec.key, str) and (found := _JOINED.fullmatch(spec.key)):
            message = "two texts that are joined can be the same for different pairs: `a` + `bc` and `ab` + `c`"
            hint = f"write `key: [{found[1]}, {found[2]}]`"
            findings.warn(("spec", "counters", index, "key"), "POL129", message, hint)
