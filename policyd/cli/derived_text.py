"""What `policyd check --explain` tells people of each policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policyd.cli.render import clean

Fields = Mapping[str, Any]


def as_text(policies: Sequence[Fields]) -> str:
    """One paragraph a policy."""
    return "".join(clean(line) + "\n" for one in policies for line in _policy(one))


def _policy(one: Fields) -> Iterator[str]:
    yield f"{one['policy']}: {one['mode']}, {one['failure_policy']}"
    yield f"  applies to: {_match(one)}"
    yield f"  Envoy sends: request body {one['envoy']['request_body']}, response body {one['envoy']['response_body']}"
    for counter in one["counters"]:
        yield f"  counter {_counter(counter)}"
    for rule in one["rules"]:
        yield f"  rule {_rule(rule)}"


def _match(one: Fields) -> str:
    named = [f"{name} {', '.join(patterns)}" for name, patterns in one["match"].items()]
    named += [f"match condition {name}" for name in one["match_conditions"]]
    return "; ".join(named) if named else "every model call that is understood"


def _counter(one: Fields) -> str:
    denies = "denies by its limit" if one["denies"] else "has a limit" if one["limited"] else "no limit"
    usage = ", reads the answer's usage" if one["reads_usage"] else ""
    return f"{one['counter']}: {one['charge']} by {', '.join(one['key'])}, {one['window']}, {denies}{usage}"


def _rule(one: Fields) -> str:
    reads = ", ".join(one["reads"]) or "nothing"
    extra = f"; holds back {one['hold_back']} characters" if one["hold_back"] else ""
    extra += "; once true it stays true" if one["once_true_stays_true"] and one["phase"] == "answer" else ""
    return f"{one['rule']}: {one['action']}, {one['severity']}, judged at the {one['phase']}; reads {reads}{extra}"
