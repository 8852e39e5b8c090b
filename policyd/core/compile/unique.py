"""Names within a policy: each once, each usable where it is read; and parameters that are literals."""

from __future__ import annotations

from typing import Any

from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.compile.words import quoted
from policyd.core.model.policy import PolicyDocument

RESERVED = frozenset(
    (
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "package",
        "namespace",
        "null",
        "return",
        "true",
        "var",
        "void",
        "while",
    )
)
_LISTS = ("matchConditions", "variables", "counters", "rules")


def check_names(document: PolicyDocument, findings: Findings) -> None:
    """Reports names that stand twice, and words of CEL used as names."""
    if document.cluster and document.metadata.namespace is not None:
        hint = "remove it, or make it an LLMPolicy"
        at = ("metadata", "namespace")
        findings.error(at, "POL005", "a ClusterLLMPolicy belongs to no namespace", hint, key=True)
    for part in _LISTS:
        _check_list(part, findings)
    for name in document.spec.params:
        _check_word(name, ("spec", "params", name), findings, key=True)


def _check_list(part: str, findings: Findings) -> None:
    first: dict[str, Path] = {}
    for index, name in _named(findings.document.value, part):
        path = ("spec", part, index, "name")
        if name in first:
            line = findings.document.span(first[name]).line
            message = f"{quoted(name)} names two of the {part}"
            findings.error(path, "POL007", message, f"the other one is on line {line}; rename one of them")
        first.setdefault(name, path)
        if part in ("variables", "counters"):
            _check_word(name, path, findings)


def _check_word(name: str, path: Path, findings: Findings, *, key: bool = False) -> None:
    if name in RESERVED:
        message = f"{quoted(name)} is a word of CEL, and cannot be read by that name"
        findings.error(path, "POL005", message, "choose another name", key=key)


def check_params(document: PolicyDocument, findings: Findings) -> None:
    """Reports parameters that are no literals, or lists of more than one type."""
    for name, value in document.spec.params.items():
        if not _is_literal(value):
            message = f"parameter {quoted(name)} is no literal that a rule could read"
            hint = "a parameter is text, a number, true or false, or a list of one of these"
            findings.error(("spec", "params", name), "POL004", message, hint)


def _is_literal(value: object) -> bool:
    if not isinstance(value, list):
        return _fits(value)
    return all(map(_fits, value)) and len({_type_of(item) for item in value}) <= 1


def _fits(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return -(2**63) <= value < 2**63
    return isinstance(value, bool | float | str)


def _type_of(value: object) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


# ---- names as written ---------------------------------------------------------------------------------------------


def _items(value: Any, part: str) -> list[Any]:
    spec = value.get("spec") if isinstance(value, dict) else None
    items = spec.get(part) if isinstance(spec, dict) else None
    return items if isinstance(items, list) else []


def _keyed(value: Any, part: str) -> list[str]:
    """The names of a part that is written as a mapping, which it must not be: what reads them is not wrong too."""
    spec = value.get("spec") if isinstance(value, dict) else None
    items = spec.get(part) if isinstance(spec, dict) else None
    return list(items) if isinstance(items, dict) else []


def _named(value: Any, part: str) -> list[tuple[int, str]]:
    named = [(index, item.get("name")) for index, item in enumerate(_items(value, part)) if isinstance(item, dict)]
    named += enumerate(_keyed(value, part))
    return [(index, name) for index, name in named if isinstance(name, str)]


def raw_names(value: Any, part: str) -> list[str]:
    """The names that are written in one part of a policy and could be read, whatever else is wrong with it."""
    return list(dict.fromkeys(name for _, name in _named(value, part) if _is_name(name)))


def raw_variables(value: Any) -> list[tuple[int, str, str]]:
    """Index, name and expression of every variable that has both, in order; of two with one name the first."""
    found: dict[str, tuple[int, str, str]] = {}
    for index, name in _named(value, "variables"):
        items = _items(value, "variables")
        source = items[index].get("expression") if items else value["spec"]["variables"][name]
        if isinstance(source, str) and _is_name(name):
            found.setdefault(name, (index, name, source))
    return list(found.values())


def raw_params(document: PolicyDocument) -> dict[str, object]:
    """The parameters that can be read."""
    usable = document.spec.params.items()
    return {name: value for name, value in usable if _is_literal(value) and name not in RESERVED}


def _is_name(name: str) -> bool:
    return name.isascii() and name.isidentifier() and name not in RESERVED
