"""What is wrong with the shape of a policy, in its author's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from policyd.core.compile.amounts import duration
from policyd.core.compile.findings import Findings
from policyd.core.compile.placement import meant
from policyd.core.compile.places import Path
from policyd.core.compile.schema_fields import Schema, policy_schema
from policyd.core.compile.shape_fix import at, fitting_name, shape_fix
from policyd.core.compile.synonyms import VALUES
from policyd.core.compile.words import nearest, quoted, suggestion
from policyd.core.model.policy import API_VERSION, LIST, MAP, TEXT

NOT_YET = {
    "escalate": "an approval request",
    "trip": "a rule that stays enforced for a key",
}

EXAMPLES: Mapping[str, str] = {
    "apiVersion": f"write `apiVersion: {API_VERSION}`",
    "kind": "write `kind: LLMPolicy` or `kind: ClusterLLMPolicy`",
    "metadata": "write `metadata: {name: my-policy}`",
    "spec": "write `spec:` with `rules:` below it",
    "name": "give it a `name:` that is unique in this policy",
    "expression": "write `expression:` and a CEL expression",
    "key": "for example `key: session.id`",
    "charge": "for example `charge: Cost`",
    "window": "for example `window: {lifetime: 24h}`",
    "limit": "for example `limit: 2.00 USD`",
    "by": "for example `by: caller.team`",
    "rules": "for example `rules: [my-policy/my-rule]`",
    "system": 'for example `system: "Answer briefly."`',
    "tokens_per_second": "for example `tokens_per_second: 50`",
}


def report(error: Any, path: Path, findings: Findings, schema: Schema | None = None) -> None:
    """Reports one of pydantic's errors in the author's words. `schema`: of what is read; a policy's without."""
    match error["type"]:
        case "extra_forbidden":
            _unknown(path, findings, schema or policy_schema())
        case "missing":
            _missing(path, findings)
        case "union_tag_invalid":
            _wrong_shape(error, path, findings)
        case kind if kind in _TYPES:
            message = f"{_named(path)} must be {_TYPES[kind]}, this is {kind_of(error['input'])}"
            hint = shape_fix(_TYPES[kind], path, error["input"], findings.document.value)
            findings.shape(path, "POL004", message, hint)
        case _:
            message, hint = _value_words(error, path, findings)
            findings.shape(path, "POL005", message, hint, key=error["loc"][-1] == "[key]")


def _missing(path: Path, findings: Findings) -> None:
    name = str(path[-1])
    in_list = isinstance(path[-2], int) if len(path) > 1 else False
    hint = EXAMPLES.get(name, f"add `{name}:`")
    findings.shape(path, "POL003", f"{quoted(name)} is missing", hint, key=not in_list)


def _wrong_shape(error: Any, path: Path, findings: Findings) -> None:
    """Where one of several shapes may stand, and none of them does."""
    shapes = {TEXT: "text", LIST: "a list", MAP: "a mapping"}
    wanted = " or ".join(words for tag, words in shapes.items() if f"'{tag}'" in error["ctx"]["expected_tags"])
    message = f"{_named(path)} must be {wanted}, this is {kind_of(error['input'])}"
    findings.shape(path, "POL004", message, _either_hint(path, error["input"], findings))


def _either_hint(path: Path, value: object, findings: Findings) -> str:
    wanted = "text" if isinstance(value, int | float | bool) else "a mapping"
    return shape_fix(wanted, path, value, findings.document.value)


def _unknown(path: Path, findings: Findings, schema: Schema) -> None:
    name, policy = str(path[-1]), schema is policy_schema()
    if name in NOT_YET and policy:
        message = f"{quoted(name)} is not yet supported"
        findings.shape(path, "POL006", message, f"{NOT_YET[name]} comes later; remove it", key=True)
        return
    hint = meant(path, at(findings.document.value, path), schema, policy=policy)
    findings.shape(path, "POL002", f"unknown field {quoted(name)}", hint, key=True)


_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def kind_of(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int():
            return "a number"
        case float():
            return "a fraction" if value % 1 else "a number with a decimal point"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _named(path: Path) -> str:
    """The field that a path ends in, as an author would call it."""
    named = [step for step in path if isinstance(step, str)]
    item = "an item of " if path and isinstance(path[-1], int) else ""
    return item + quoted(named[-1] if named else "document")


_PATTERN_HINTS: tuple[tuple[Callable[[Path], bool], str], ...] = (
    (lambda path: path == ("metadata", "name"), "lower-case letters, digits, `-` and `.`, as in session-budget"),
    (lambda path: path == ("metadata", "namespace"), "lower-case letters, digits and `-`"),
    (lambda path: "allow" in path, "write it as policy/rule"),
    (lambda path: path[-2:-1] == ("params",), "letters, digits and `_`, as CEL names are"),
    (
        lambda path: path[-1] == "name" and path[1] in ("counters", "variables"),
        "letters, digits and `_`, as CEL names are",
    ),
    (lambda path: path[-1] == "name", "letters, digits, `-` and `_`, beginning with a letter"),
    (lambda path: "set" in path or "remove" in path, "a header's name has no spaces, its value no line breaks"),
    (lambda path: path[-1] == "reason", "printable ASCII on one line"),
    (lambda path: path[-1] == "model", "printable ASCII without spaces"),
    (lambda path: path[-1] == "upstream", "the name that was given to --upstream: letters, digits, `-`, `_`, `.`, `/`"),
)


def _value_words(error: Any, path: Path, findings: Findings) -> tuple[str, str]:
    """Message and hint for a value of the right type that is out of bounds."""
    limits = error.get("ctx", {})
    given, name = error["input"], _named(path[:-1] if error["loc"][-1] == "[key]" else path)
    match error["type"]:
        case "literal_error":
            names = [name.strip("'") for name in str(limits["expected"]).replace(" or ", ", ").split(", ")]
            return f"{quoted(given)} is not a value of {name}", _value_hint(given, names, path)
        case "string_pattern_mismatch":
            hint = next((hint for fits, hint in _PATTERN_HINTS if fits(path)), "remove control characters")
            return f"{quoted(given)} cannot stand in {name}", _fitting(given, limits, path, findings) + hint
        case "string_too_short" | "too_short":
            return f"{name} is empty", "write at least one, or leave the field out"
        case "string_too_long":
            return f"{name} is too long", f"at most {limits['max_length']} characters"
        case "too_long":
            return f"{name} has too many entries", f"at most {limits['max_length']}"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            return f"{quoted(given)} is out of range for {name}", _range_hint(limits)
        case _:
            return f"{name} is not understood: {error['msg'].lower()}", "look at the policy language's reference"


def _value_hint(given: object, names: list[str], path: Path) -> str:
    if path[-1:] == ("calendar",) and (short := duration(given)) and not nearest(given, names, VALUES):
        return f"{', '.join(names)} alone follow the calendar: write `window: {{sliding: {short}}}`, or {{lifetime: …}}"
    if "both" in str(given).lower() and "in" in path:
        return "write `in: [request, response]`"
    if path[-1:] == ("charge",) and "." in str(given):
        return f"write `charge: {{expression: {given}}}`, or one of {', '.join(names)}"
    return suggestion(given, names)


def _fitting(given: object, limits: Mapping[str, Any], path: Path, findings: Findings) -> str:
    """What to write instead of a name that cannot be one, where that can be told."""
    if "allow" in path:
        policy = at(findings.document.value, ("metadata", "name"))
        return f"for a rule of this policy `{policy}/{given}`; " if policy and "/" not in str(given) else ""
    named = path[-1] in ("name", "namespace", "reason") or path[-2:-1] == ("params",)
    name = fitting_name(given, limits.get("pattern", "")) if named else ""
    return f"write `{name}`: " if name else ""


def _range_hint(limits: Mapping[str, Any]) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return ", ".join(f"{word} {limits[key]:g}" for key, word in words.items() if key in limits)
