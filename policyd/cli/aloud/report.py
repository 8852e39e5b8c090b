"""One call told to people: the verdict, why, what each rule saw, the counters, the facts.

Rule 1: what a caller or an author wrote reaches no terminal as a control character.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from policyd.cli.render import clean

MAX_SHOWN = 120  # characters of one value

Fields = Mapping[str, Any]


def as_json(document: Fields) -> str:
    """The whole document."""
    return json.dumps(document, indent=2)


def as_text(document: Fields) -> str:
    """The whole story."""
    return "".join(clean(line) + "\n" for line in _lines(document))


def _lines(document: Fields) -> Iterator[str]:
    yield from _head(document)
    for rule in document["rules"]:
        yield ""
        yield from _rule(rule)
    if document["counters"]:
        yield ""
        yield "counters"
        yield from (f"  {_counter(one)}" for one in document["counters"])
    if document["not_applied"]:
        yield ""
        yield "policies that do not apply"
        for one in document["not_applied"]:
            yield f"  {one['policy']}: {one['why']}"
            yield from _values(one["values"], "    ")
    yield ""
    yield "facts"
    yield from (f"  {path} = {_shown(value)}" for path, value in document["facts"].items())


def _head(document: Fields) -> Iterator[str]:
    model = document["model"] or "no model"
    served = "" if document["served_model"] == model else f", sent to {document['served_model']}"
    kind = "streamed" if document["stream"] else "in one piece"
    dialect = document["dialect"] or "no dialect"
    yield f"{document['source']}: {document['operation']} ({dialect}), {model}{served}, {kind}"
    yield f"{_verdict(document)}"
    if document["event"] is not None:
        yield f"cut at event {document['event']} of the answer, counted from 0"
    if document["inspection"] != "full":
        yield f"understood: {document['inspection']} ({document['inspection_reason'] or 'no reason'})"
    yield f"cost: ${document['cost']['usd']} ({document['cost']['source']})"
    for conflict in document["conflicts"]:
        yield f"conflict: {conflict}"


def _verdict(document: Fields) -> str:
    by = f" by {', '.join(document['determined_by'])}" if document["determined_by"] else ""
    verdict = f"verdict: {document['verdict']}{by}"
    if document["verdict"] != "allow":
        verdict += ", enforced" if document["enforced"] else f", not enforced (mode {document['mode']})"
    if document["would"] != document["verdict"]:
        verdict += f"; enforced by all modes it would be {document['would']}"
    if document["reason"]:
        verdict += f"; reason {document['reason']}"
    return verdict + ("; degraded" if document["degraded"] else "")


def _rule(rule: Fields) -> Iterator[str]:
    place = f"{rule['namespace']}/{rule['policy']}" if rule["namespace"] else rule["policy"]
    outcome = rule["outcome"].replace("_", " ")
    yield f"{place}/{rule['rule']}: {rule['action']}, {rule['severity']}, {rule['mode']}: {outcome}: {rule['why']}"
    if not rule["values"]:
        yield f"  when {_one_line(rule['when'])}"
    yield from _values(rule["values"], "  ")


def _values(values: list[Fields], indent: str) -> Iterator[str]:
    for one in values:
        value = f"error: {one['error']}" if "error" in one else _shown(one["value"])
        yield f"{indent}{'  ' * one['depth']}{_one_line(one['expression'])} = {value}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(text)} characters)"


def _counter(one: Fields) -> str:
    place = f"{one['namespace']}/{one['policy']}" if one["namespace"] else one["policy"]
    limit = "no limit" if one["limit"] is None else f"limit {one['limit']}"
    state = "" if one["available"] else ", not available"
    state += ", exceeded" if one["exceeded"] else ""
    charge = one["charge"].partition(":")[0]
    return f"{place}/{one['name']} ({charge}): {one['before']} before, {one['after']} after, {limit}{state}"
