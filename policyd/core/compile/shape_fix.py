"""What an author should have written where a value has the wrong shape: the fix itself, as YAML on one line.

Rule 1: a fix is made of what the author wrote; where nothing can be made of it, an example of the field stands there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from policyd.core.compile.amounts import duration, per, plain_number
from policyd.core.compile.flow import flow
from policyd.core.compile.places import Path
from policyd.core.compile.synonyms import VALUES, nearest_of, plainly
from policyd.core.compile.words import nearest
from policyd.core.model.operations import OPERATIONS
from policyd.core.model.policy import ACTIONS

_EXAMPLES: Mapping[str, str] = {
    "terminate": "terminate: {}",
    "reroute": "reroute: {model: gpt-4o-mini}",
    "constrain": "constrain: {cap: {max_tokens: 256}}",
    "allow": "allow: {rules: [my-policy/my-rule]}",
    "set": "set: {temperature: 0}",
    "cap": "cap: {max_tokens: 256}",
    "tools": "tools: {allow: [search]}",
    "inject": 'inject: {system: "Answer briefly."}',
    "headers": 'headers: {request: {set: {x-team: "red"}}}',
    "request": 'request: {set: {x-team: "red"}}',
    "response": 'response: {set: {x-note: "text"}}',
    "redact": "redact: {detectors: [email, card]}",
    "pace": "pace: {tokens_per_second: 50}",
    "match": 'match: {models: ["gpt-4o*"]}',
    "metadata": "metadata: {name: my-policy}",
    "spec": "spec: {mode: Full, rules: [{name: r, terminate: {}}]}",
    "params": "params: {cheap: gpt-4o-mini}",
    "window": "window: {lifetime: 24h}",
    "limit": "limit: 2.00 USD",
    "values": "values: {research: 5000 USD}",
    "rules": "rules: [{name: r, when: request.stream, terminate: {}}]",
    "counters": "counters: [{name: spend, key: session.id, charge: Cost, window: {lifetime: 24h}, limit: 2 USD}]",
    "variables": "variables: [{name: big, expression: request.input_tokens > 10000}]",
    "matchConditions": "matchConditions: [{name: not-research, expression: caller.team != 'research'}]",
    "rollout": "rollout: {percent: 10}",
    "key": "key: session.id",
    "charge": "charge: Cost",
    "in": "in: [response]",
    "when": 'when: request.model == "gpt-4o"',
}
_TEXT_IN = {"terminate": "message", "reroute": "model", "inject": "system", "metadata": "name", "values": "default"}
_NUMBER_IN = {"terminate": "status", "pace": "tokens_per_second", "cap": "max_tokens", "rollout": "percent"}
_LIST_IN = {"tools": "allow", "redact": "detectors", "allow": "rules", "match": "models", "window": "lifetime"}
_LISTS_OF = {"rules": "rule", "counters": "counter", "variables": "variable", "matchConditions": "match condition"}
_YES = frozenset(("yes", "on", "true", "y", "enabled", "enable"))
_NO = frozenset(("no", "off", "false", "n", "disabled", "disable"))
_UNIT_OF_CHARGE = {"Cost": "USD", "Requests": "requests", "Attempts": "attempts", "Refusals": "refusals"}


def shape_fix(wanted: str, path: Path, value: object, document: object) -> str:
    """What to write at `path` instead of `value`; `wanted` is the shape in words."""
    name = next((str(step) for step in reversed(path) if isinstance(step, str)), "")
    make = _MAKERS.get(wanted)
    made = make(name, path, value, document) if make else ""
    return made or _example(name, wanted)


def _example(name: str, wanted: str) -> str:
    if name in _EXAMPLES:
        return f"for example `{_EXAMPLES[name]}`"
    general = {
        "a list": "write it in brackets, [like, this], or one `- item` a line",
        "a mapping": "write it in braces, {like: this}, or one `key: value` a line",
        "text": "write one text, in quotes",
        "true or false": "write true or false, without quotes",
    }
    return general.get(wanted, "write it without quotes")


# ---- a mapping is wanted ------------------------------------------------------------------------------------------


def _mapping(name: str, path: Path, value: object, _document: object) -> str:
    if isinstance(path[-1], int):
        return _item(name, value)
    match value:
        case bool() if name == "terminate" and value:
            return "write `terminate: {}`"
        case bool() | None:
            return ""
        case int() | float() if name in _NUMBER_IN:
            return f"write `{name}: {{{_NUMBER_IN[name]}: {value}}}`"
        case int() | float() if name == "window":
            return f"write `window: {{sliding: {duration(value)}}}`, the number in seconds, or {{lifetime: …}}"
        case str() if name == "window":
            return _window(value)
        case str() if name == "match" and re.search(r"[=(<>!&|]|\bin\b", value):
            return "an expression goes into `matchConditions: [{name: my-condition, expression: …}]`"
        case list() if name == "match" and value and all(isinstance(one, str) and one in OPERATIONS for one in value):
            return f"write `match: {{operations: {flow(value)}}}`"
        case str() if name == "match":
            return f"write `match: {{models: [{flow(value)}]}}`"
        case str() if name in ("redact", "tools", "allow"):
            return f"write `{name}: {{{_LIST_IN[name]}: [{flow(value)}]}}`"
        case str() if name == "terminate" and value.strip().isdigit():
            return f"write `terminate: {{status: {value.strip()}}}`"
        case str() if name in _TEXT_IN:
            return f"write `{name}: {{{_TEXT_IN[name]}: {flow(value)}}}`"
        case list() if name in _LIST_IN and name != "window":
            return f"write `{name}: {{{_LIST_IN[name]}: {flow(value)}}}`"
        case list() if all(isinstance(item, dict) and len(item) == 1 for item in value):
            merged: dict[Any, Any] = {key: item for one in value for key, item in one.items()}
            return f"write one mapping, without dashes: `{name}: {flow(merged)}`"
    return ""


def _window(text: str) -> str:
    calendar = nearest_of(text, ("Day", "Week", "Month", "Year"), VALUES)
    if calendar and not text[:1].isdigit():
        return f"write `window: {{calendar: {calendar}}}`"
    short = duration(text)
    return f"write `window: {{lifetime: {short}}}`, or {{sliding: {short}}}" if short else ""


def _item(name: str, value: object) -> str:
    one = _LISTS_OF.get(name, "item")
    if not isinstance(value, str):
        example = _EXAMPLES.get(name, "").partition("[")[2].rpartition("]")[0]
        return f"each {one} is a mapping with a `name`" + (f", as in `- {example}`" if example else "")
    if name in ("matchConditions", "variables"):
        quoted = '"' + value.replace('"', "'") + '"'
        sample = "my-condition" if name == "matchConditions" else "my_variable"
        return f"write `- {{name: {sample}, expression: {quoted}}}`"
    if name == "rules" and (action := nearest(value, ACTIONS)):
        return f"write `- {{name: my-rule, {_EXAMPLES[action]}}}`"
    return f"each {one} is a mapping: `- name: …`"


# ---- a list is wanted ---------------------------------------------------------------------------------------------


def _list(name: str, _path: Path, value: object, _document: object) -> str:
    match value:
        case str() if name in ("matchConditions", "variables"):
            sample = "my-condition" if name == "matchConditions" else "my_variable"
            return f"write `{name}: [{{name: {sample}, expression: …}}]`"
        case str() if "," in value:
            return f"write `{name}: [{', '.join(flow(part.strip()) for part in value.split(','))}]`"
        case str() if name == "in" and value in ("both", "all"):
            return "write `in: [request, response]`"
        case str() | bool() | int() | float():
            return f"write `{name}: [{flow(value)}]`"
        case dict() if name in _LISTS_OF:
            return _keyed(name, value)
        case dict():
            return f"write a list of names: `{name}: [{', '.join(flow(key) for key in value)}]`"
    return ""


def _keyed(name: str, value: dict[str, object]) -> str:
    one = _LISTS_OF[name]
    first = next(iter(value), "")
    if "name" in value or not isinstance(value.get(first), dict):
        if name in ("variables", "matchConditions") and "name" not in value:
            given = value.get(first)
            expression = given if isinstance(given, str) else "…"
            return f"each {one} is an item of a list: `- {{name: {first}, expression: {flow(expression)}}}`"
        named = value.get("name", "my-" + name[:-1])
        return f"each {one} is an item of a list: put a dash before its first field, as in `- name: {named}`"
    return f"each {one} is an item of a list: write `- name: {first}` and its fields below, instead of `{first}:`"


# ---- a scalar is wanted -------------------------------------------------------------------------------------------


def _text(name: str, path: Path, value: object, document: object) -> str:
    match value:
        case bool() if name == "when":
            return (
                "leave `when` out: without it the rule always applies"
                if value
                else "remove the rule, or give it `mode: Monitor`"
            )
        case int() | float() if name in ("lifetime", "idle", "sliding") and not isinstance(value, bool):
            return f"write a duration with its unit: `{name}: {duration(value)}`"
        case int() | float() if _is_amount(path) and not isinstance(value, bool):
            return f"a limit has a unit: write `{name}: {value} {_unit(path, document)}`".replace(" `", " `").rstrip()
        case int() | float() | bool():
            return f'put it in quotes: `{name}: "{flow(value)}"`'
        case list() if name == "when":
            return "write one expression: join the parts with && (all of them) or || (any of them)"
        case dict() if name in ("when", "expression", "key", "by", "messageExpression", "fallbackExpression"):
            return "YAML reads `{…}` and `key: value` as a mapping: put the whole expression in quotes"
        case dict() if name in ("model", "message", "fallback", "reason"):
            return "write one text; YAML reads `{…}` and `key: value` as a mapping, so put it in quotes"
        case list() if name in ("model", "upstream", "name"):
            return f"write one: `{name}: {flow(value[0]) if value else '…'}`"
    return "write one text" if isinstance(value, dict | list) else ""


def _is_amount(path: Path) -> bool:
    return path[-1:] in (("limit",), ("default",)) or path[-2:-1] == ("values",)


def _unit(path: Path, document: object) -> str:
    counter = at(document, path[:3])
    charge = counter.get("charge") if isinstance(counter, dict) else None
    if isinstance(charge, dict):
        return "units"
    known = charge if isinstance(charge, str) else "Cost"
    known = nearest_of(known, ("Cost", "Requests", "TotalTokens", "Attempts", "Refusals"), VALUES) or known
    return _UNIT_OF_CHARGE.get(known, "tokens")


def _whole(name: str, _path: Path, value: object, _document: object) -> str:
    match value:
        case str() if number := plain_number(value):
            return f"write `{name}: {int(float(number))}`, a number without quotes, unit or separator"
        case bool() if name == "holdBack":
            return "write a number of characters, as in `holdBack: 200`"
        case float():
            return f"write it without a decimal point: `{name}: {round(value)}`"
    return ""


def _number(name: str, _path: Path, value: object, _document: object) -> str:
    number = plain_number(value) if isinstance(value, str) else ""
    return f"write `{name}: {number}`, a number without quotes or unit" if number else ""


def _truth(name: str, _path: Path, value: object, _document: object) -> str:
    word = plainly(value)
    if word in _YES or value == 1:
        return f"write `{name}: true`, without quotes"
    return f"write `{name}: false`, without quotes" if word in _NO or value == 0 else ""


def at(document: object, path: Path) -> Any:
    """The value that is written at a path; None for none."""
    value: Any = document
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


_MAKERS: Mapping[str, Callable[[str, Path, object, object], str]] = {
    "a mapping": _mapping,
    "a list": _list,
    "text": _text,
    "a whole number": _whole,
    "a number": _number,
    "true or false": _truth,
}


# ---- names and amounts --------------------------------------------------------------------------------------------


def fitting_name(written: object, pattern: str) -> str:
    """The name that a pattern takes and that is most like what was written; empty for none."""
    text = str(written).strip()
    for other, kept in (("-", text), ("_", text), ("-", text.lower()), ("_", text.lower())):
        made = re.sub(r"[^A-Za-z0-9.]+" if other == "-" else r"[^A-Za-z0-9]+", other, kept).strip("-_.")
        if re.fullmatch(pattern, made):
            return made
    return ""


def amount_fix(text: str, unit: str) -> str:
    """How a limit is written in this unit; empty when there is no number in it."""
    if plainly(text) in ("unlimited", "none", "infinite", "inf", "no", "off", "infinity"):
        return "leave `limit` out: a counter without one stops nothing"
    number = plain_number(text)
    if not number or "-" in text:
        return ""
    fix = f"write `{number} {unit}`".rstrip("` ") + "`"
    period = per(text)
    return f"{fix}, and the period as `window: {{sliding: {period}}}`" if period else fix
