"""Where a field that stands at the wrong place belongs, and what an unknown field probably was meant to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from policyd.core.compile.amounts import duration
from policyd.core.compile.flow import flow
from policyd.core.compile.places import Path
from policyd.core.compile.schema_fields import Schema, fields_in
from policyd.core.compile.shape_fix import shape_fix
from policyd.core.compile.synonyms import FIELDS, nearest_of, plainly, singular
from policyd.core.compile.words import close, listed, nearest
from policyd.core.model.policy import ACTIONS, CAPS

_ACTION_FIELDS = frozenset(("action", "effect", "then", "do", "verdict", "decision", "outcome", "enforce"))
_SAMPLING = frozenset(
    [
        "temperature",
        "top_p",
        "top_k",
        "n",
        "seed",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "logprobs",
        "response_format",
        "tool_choice",
        "user",
        "reasoning_effort",
        "thinking",
        "parallel_tool_calls",
        "service_tier",
        "store",
        "metadata",
        "verbosity",
    ]
)
_NO_FIELDS = {
    "priority": "rules have no order: the strictest action wins, and among equals the `severity`",
    "order": "rules have no order: the strictest action wins, and among equals the `severity`",
    "weight": "rules have no order: the strictest action wins, and among equals the `severity`",
    "enabled": "remove the rule, or give it `mode: Monitor`",
    "disabled": "remove the rule, or give it `mode: Monitor`",
    "active": "remove the rule, or give it `mode: Monitor`",
    "else": "write a second rule whose `when` is the opposite",
    "warn": "write `mode: Monitor` on the rule: it is recorded and changes nothing",
    "log": "write `mode: Monitor` on the rule: it is recorded and changes nothing",
    "audit": "write `mode: Monitor` on the rule: it is recorded and changes nothing",
    "version": "there is none: the set's digest and your repository name the version",
    "default": "there is none: a call that no rule stops is let through",
    "defaultaction": "there is none: a call that no rule stops is let through",
}
_PERMIT = frozenset(("allow", "permit", "pass", "accept", "continue"))
_WORTH = 3  # levels
_NEXT = 2  # a field of a field that stands here


def meant(path: Path, value: object, schema: Schema, *, policy: bool) -> str:
    """The hint for a field that is not known at its place."""
    name, parent = str(path[-1]), path[:-1]
    allowed = fields_in(schema, parent)
    if same := _same(name, allowed):
        return _instead(same, parent, value)
    if policy and (special := _special(name, parent, value)):
        return special
    below = next(_below(name, parent, schema), ())
    if len(below) == _NEXT:
        return f"it belongs below `{below[0]}`: {_nested(below, value)}"
    if (near := nearest_of(name, allowed, FIELDS)) and (near != "limit" or parent[-2:-1] == ("counters",)):
        return _instead(near, parent, value)
    if below:
        return f"it belongs below `{below[0]}`: {_nested(below, value)}"
    if above := _above(name, parent, schema):
        return above
    if near := close(name, allowed):
        return _instead(near, parent, value)
    if policy and plainly(name) in _NO_FIELDS:
        return _NO_FIELDS[plainly(name)]
    if elsewhere := _elsewhere(name, schema):
        return elsewhere
    return f"the fields here are {listed(allowed)}" if allowed else "remove it: nothing can stand here"


def _same(name: str, allowed: Sequence[str]) -> str | None:
    stem = singular(plainly(name))
    return next((one for one in allowed if singular(plainly(one)) == stem), None)


def _instead(near: str, parent: Path, value: object) -> str:
    hint = f"did you mean `{near}`?"
    if near in ACTIONS and not isinstance(value, dict):
        return f"{hint} {_capital(shape_fix('a mapping', (*parent, near), value, None))}"
    if near == "models" and isinstance(value, str):
        return f"{hint} Write `models: [{flow(value)}]`"
    return hint


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _special(name: str, parent: Path, value: object) -> str:
    in_rule = len(parent) == 3 and parent[1] == "rules"
    if in_rule and singular(plainly(name)) in _ACTION_FIELDS:
        return _action(value)
    if parent[-1:] == ("constrain",) and nearest_of(name, CAPS, FIELDS):
        given = value if isinstance(value, int) else "…"
        return f"write `constrain: {{cap: {{{nearest_of(name, CAPS, FIELDS)}: {given}}}}}`"
    if parent[-1:] == ("constrain",) and (field := nearest_of(name, _SAMPLING)):
        return f"write `constrain: {{set: {{{field}: {flow(value)}}}}}`"
    if len(parent) == 3 and parent[1] == "counters" and plainly(name) in ("by", "groupby"):
        return (
            f"did you mean `key`? Write `key: {flow(value)}`; a limit for each value is `limit: {{by: …, default: …}}`"
        )
    if parent == ("spec", "match") and not nearest(name, ("operations", "models", "providers", "paths")):
        known = "`match` knows operations, models, providers and paths"
        return f"{known}; other facts go into `matchConditions` or a rule's `when`, as in `caller.team == …`"
    if parent[1:2] == ("counters",) and plainly(name) == "per" and not duration(value):
        return (
            f"did you mean `key`? For example `key: caller.{value if value in ('user', 'team', 'tenant') else 'user'}`"
        )
    if parent[-1:] == ("headers",) and nearest(name, ("set", "remove")) and not isinstance(value, str):
        return f"name the direction: `headers: {{request: {{{nearest(name, ('set', 'remove'))}: {flow(value)}}}}}`"
    if parent[-1:] == ("headers",):
        return f"name the direction: `headers: {{request: {{set: {{{name}: {flow(value)}}}}}}}`"
    if parent[-1:] == ("inject",):
        return f"only a system prompt can be added: `inject: {{system: {flow(value)}}}`"
    return ""


def _action(value: object) -> str:
    words = value if isinstance(value, list) else [value]
    word = words[0] if words and isinstance(words[0], str) else ""
    if isinstance(value, dict):
        word = next((one for one in value.values() if isinstance(one, str)), "") or next(iter(value), "")
    if plainly(word) in _NO_FIELDS:
        return _NO_FIELDS[plainly(word)]
    if plainly(word) in _PERMIT:
        return "remove the rule: what no rule stops is let through; `allow` exempts calls from rules that it names"
    action = nearest(word, ACTIONS)
    example = shape_fix("a mapping", (action or "terminate",), None, None).partition("`")[2].rstrip("`")
    return f"an action is a field of its own: write `{example}`" + ("" if action else f" (one of {listed(ACTIONS)})")


def _below(name: str, parent: Path, schema: Schema) -> Iterator[tuple[str, ...]]:
    """The ways down to a field of this name, shortest first."""
    ways: list[tuple[str, ...]] = [(one,) for one in fields_in(schema, parent)]
    for way in ways:
        inner = fields_in(schema, (*parent, *way))
        if (same := _same(name, inner)) is not None:
            yield (*way, same)
        if len(way) < _WORTH - 1:
            ways += [(*way, one) for one in inner]


def _nested(way: Sequence[str], value: object) -> str:
    text = flow(
        [value] if way[-1] in ("models", "detectors", "operations", "providers") and isinstance(value, str) else value
    )
    for step in reversed(way[1:]):
        text = f"{{{step}: {text}}}"
    return f"write `{way[0]}: {text}`"


def _above(name: str, parent: Path, schema: Schema) -> str:
    for depth in range(len(parent) - 1, -1, -1):
        holder = parent[:depth]
        if isinstance(parent[depth], int) or (holder and isinstance(holder[-1], int) and depth == len(parent)):
            continue
        if (same := _same(name, fields_in(schema, holder))) is not None:
            return f"`{same}` belongs to {_called(holder)}: {_out(parent, depth)}"
    return ""


def _out(parent: Path, depth: int) -> str:
    inner = next((str(step) for step in parent[depth:] if isinstance(step, str)), "")
    return f"write it beside `{inner}`, not below it"


def _called(holder: Path) -> str:
    match holder:
        case ():
            return "the document"
        case (*_, "rules", int()):
            return "the rule"
        case (*_, "counters", int()):
            return "the counter"
        case _:
            return f"`{holder[-1]}`"


def _elsewhere(name: str, schema: Schema) -> str:
    places: dict[str, Any] = {
        "`metadata`": ("metadata",),
        "`spec`": ("spec",),
        "a rule (`spec.rules`): indent it below the rule's `- name:`": ("spec", "rules", 0),
        "a counter (`spec.counters`)": ("spec", "counters", 0),
    }
    for called, path in places.items():
        if (same := _same(name, fields_in(schema, path))) is not None:
            return f"`{same}` belongs to {called}"
    return ""
