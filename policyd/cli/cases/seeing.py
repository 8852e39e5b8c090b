"""What became of a call, and how it differs from what was expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from policyd.adapters.prices import load_prices
from policyd.adapters.recordings import Recording
from policyd.adapters.records import decimal
from policyd.cli.cases.checking import counters_named
from policyd.cli.cases.model import Counted, CounterWant, Expect, SentWant, TextExpect, TextWant, Words
from policyd.cli.dry_run import DryRun, Played
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.limits import amount
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledCounter, CompiledPolicy, PolicySet
from policyd.core.exchange.departure import UPSTREAM_HEADER
from policyd.core.model.counters import NANO, Charge, CounterId
from policyd.core.model.credentials import pseudonym
from policyd.core.model.decision import DecisionRecord, Outcome
from policyd.core.model.headers import HeaderEdit
from policyd.core.model.options import Options
from policyd.core.model.steps import (
    PassRequestBody,
    PassRequestHeaders,
    PassResponseBody,
    PassResponseHeaders,
    Reject,
    Step,
)

ABSENT = "nothing"


class Seen:
    """Watches a call: its bytes and headers, as they leave policyd on either side."""

    def __init__(self, made: Recording) -> None:
        self.sent: bytes | None = None  # None: nothing left
        self.request_headers: dict[str, str | None] = dict(made.headers)  # None: removed
        self.response_headers: dict[str, str | None] = dict(made.response_headers)
        self.rejected = False
        self.body = bytearray()
        self._asked = made.body

    def step(self, step: Step) -> None:
        match step:
            case PassRequestHeaders(edit, want_body):
                self._edit(self.request_headers, edit)
                self.sent = self.sent if want_body else self._asked
            case PassRequestBody(data, edit):
                self._edit(self.request_headers, edit)
                self.sent = self._asked if data is None else data
            case PassResponseHeaders(edit) | PassResponseBody(_, edit):
                self._edit(self.response_headers, edit)
            case Reject(headers=headers):
                self.response_headers, self.rejected = dict(headers), True
            case _:
                pass

    def output(self, data: bytes) -> None:
        self.body += data

    @staticmethod
    def _edit(headers: dict[str, str | None], edit: HeaderEdit) -> None:
        headers.update(dict.fromkeys(edit.remove))
        headers.update(dict(edit.set))


@cache
def _reader() -> PolicySet:
    """No policies at all: what only reads."""
    found = compile_documents([]).policy_set
    assert found is not None
    return found


async def readable(played: Played, seen: Seen) -> str:
    """The text that the caller could read: what came, read as the dialect has it."""
    content_type = seen.response_headers.get("content-type") if seen.rejected else None
    headers = (("content-type", content_type),) if content_type else played.recording.response_headers
    chunks = ((0.0, bytes(seen.body)),)
    status = played.record.status or played.recording.status
    came = replace(played.recording, status=status, response_headers=headers, chunks=chunks)
    run = DryRun(_reader(), load_prices(None), Options(observe_all=True))
    return (await run.play(came)).facts.response.all_text()


@dataclass(frozen=True, slots=True)
class Came:
    """What one call came to."""

    record: DecisionRecord
    seen: Seen
    text: str
    counters: Mapping[CounterId, int]  # settled
    policies: PolicySet

    @property
    def output(self) -> str:
        return self.seen.body.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Difference:
    """One expectation that does not hold: where it stands, and both sides of it."""

    path: Path
    field: str
    expected: str
    came: str


def differences(expect: Expect, came: Came, path: Path) -> Iterator[Difference]:
    """Everything that is not as expected."""
    yield from _plain(expect, came, path)
    yield from _rules(expect, came.record, (*path, "rules"))
    if expect.text is not None:
        yield from _text(expect.text, came.text, (*path, "text"), "text")
    if expect.output is not None:
        yield from _text(expect.output, came.output, (*path, "output"), "output")
    if expect.headers is not None:
        yield from _headers(expect.headers, came.seen.response_headers, (*path, "headers"), "headers")
    if expect.sent is not None:
        yield from _sent(expect.sent, came, (*path, "sent"))
    for name, wanted in expect.counters.items():
        yield from _counter(name, wanted, came, (*path, "counters", name))


_FIELDS: Mapping[str, Callable[[DecisionRecord], object]] = {
    "verdict": lambda record: record.verdict.value,
    "enforced": lambda record: record.enforced,
    "reason": lambda record: record.reason,
    "status": lambda record: record.status,
    "ended": lambda record: record.ended,
    "event": lambda record: record.event,
    "degraded": lambda record: record.degraded,
    "model": lambda record: record.served_model,
}


def _plain(expect: Expect, came: Came, path: Path) -> Iterator[Difference]:
    for name, read in _FIELDS.items():
        wanted, found = getattr(expect, name), read(came.record)
        if name in expect.model_fields_set and wanted != found:
            yield Difference((*path, name), name, shown(wanted), shown(found))
    if expect.by is not None and expect.by not in _names(came.record.determined_by):
        yield Difference((*path, "by"), "by", expect.by, shown(", ".join(came.record.determined_by)))
    if expect.cost is not None and amount(expect.cost, Charge.COST) != came.record.cost_nano:
        yield Difference((*path, "cost"), "cost", expect.cost, f"{decimal(came.record.cost_nano, NANO)} USD")


def _names(ids: Sequence[str]) -> set[str]:
    """`policy/rule`, and the rule alone."""
    return {*ids, *(id.rpartition("/")[2] for id in ids)}


def _rules(expect: Expect, record: DecisionRecord, path: Path) -> Iterator[Difference]:
    if isinstance(expect.rules, list):
        matched = [one for one in record.rules if one.outcome is Outcome.MATCHED]
        known = {one.rule: one.rule for one in matched} | {f"{one.policy}/{one.rule}": one.rule for one in matched}
        if {known.get(name, name) for name in expect.rules} != {one.rule for one in matched}:
            yield Difference(path, "rules", _listed(expect.rules), _listed([one.rule for one in matched]))
        return
    outcomes = {one.rule: one.outcome.value for one in record.rules}
    outcomes |= {f"{one.policy}/{one.rule}": one.outcome.value for one in record.rules}
    for name, wanted in (expect.rules or {}).items():
        if (found := outcomes.get(name, "not judged")) != wanted:
            yield Difference((*path, name), f"rules.{name}", wanted, found)


def _listed(names: Sequence[str]) -> str:
    return f"[{', '.join(sorted(names))}]"


def _text(wanted: TextExpect, found: str, path: Path, name: str) -> Iterator[Difference]:
    if isinstance(wanted, TextWant):
        for word in _words(wanted.contains):
            if word not in found:
                yield Difference((*path, "contains"), name, f"with {shown(word)}", shown(found))
        for word in _words(wanted.lacks):
            if word in found:
                yield Difference((*path, "lacks"), name, f"without {shown(word)}", shown(found))
    elif wanted != found:
        yield Difference(path, name, shown(wanted), shown(found))


def _words(words: Words | None) -> list[str]:
    return [words] if isinstance(words, str) else list(words or ())


def _headers(
    wanted: Mapping[str, str | None], found: Mapping[str, str | None], path: Path, name: str
) -> Iterator[Difference]:
    for header, value in wanted.items():
        if found.get(header.lower()) != value:
            yield Difference((*path, header), f"{name}.{header}", shown(value), shown(found.get(header.lower())))


def _sent(wanted: SentWant, came: Came, path: Path) -> Iterator[Difference]:
    seen = came.seen
    if seen.sent is None:
        yield Difference(path, "sent", "a request", f"{ABSENT} was sent")
        return
    document = _json(seen.sent)
    body = {**({"model": wanted.model} if wanted.model is not None else {}), **(wanted.body or {})}
    for dotted, value in body.items():
        if (found := _at(document, dotted)) != value:
            at = ("model",) if dotted == "model" and wanted.model is not None else ("body", dotted)
            yield Difference((*path, *at), f"sent.{dotted}", shown(value), shown(found))
    if wanted.text is not None:
        yield from _text(wanted.text, seen.sent.decode("utf-8", "replace"), (*path, "text"), "sent.text")
    if wanted.headers is not None:
        yield from _headers(wanted.headers, seen.request_headers, (*path, "headers"), "sent.headers")
    upstream = seen.request_headers.get(UPSTREAM_HEADER)
    if wanted.upstream is not None and wanted.upstream != upstream:
        yield Difference((*path, "upstream"), "sent.upstream", wanted.upstream, shown(upstream))


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _at(document: Any, dotted: str) -> Any:
    for step in dotted.split("."):
        if isinstance(document, list) and step.isdecimal() and int(step) < len(document):
            document = document[int(step)]
        elif isinstance(document, dict):
            document = document.get(step)
        else:
            return None
    return document


def _counter(name: str, wanted: Counted, came: Came, path: Path) -> Iterator[Difference]:
    policy, counter = counters_named(came.policies.policies, name)[0]
    want = wanted if isinstance(wanted, CounterWant) else CounterWant(value=wanted)
    at = (lambda part: (*path, part)) if isinstance(wanted, CounterWant) else (lambda _: path)
    result = next(
        (
            one
            for one in came.record.counters
            if (one.policy, one.namespace, one.name) == (policy.name, policy.namespace, counter.name)
        ),
        None,
    )
    if result is None:
        yield Difference(path, f"counters.{name}", "counted", "this call was not counted by it")
        return
    if want.value is not None:
        value = _stands_at(policy, counter, result.key, came.counters)
        if value != amount(want.value, counter.charge):
            yield Difference(at("value"), f"counters.{name}", want.value, _amount(value, counter))
    for part in ("exceeded", "available"):
        if (flag := getattr(want, part)) is not None and flag != getattr(result, part):
            yield Difference(at(part), f"counters.{name}.{part}", shown(flag), shown(getattr(result, part)))


def _stands_at(policy: CompiledPolicy, counter: CompiledCounter, key: str, values: Mapping[CounterId, int]) -> int:
    """The record names a counter's key by its pseudonym."""
    same = (
        value
        for id, value in values.items()
        if (id.policy, id.name) == (policy.qualified, counter.name) and pseudonym(id.full_key) == key
    )
    return sum(same)


def _amount(value: int, counter: CompiledCounter) -> str:
    match counter.charge:
        case Charge.COST:
            return f"{decimal(value, NANO)} USD"
        case Charge.EXPRESSION:
            return f"{value / counter.charge.scale:g}"
        case Charge.REQUESTS | Charge.ATTEMPTS | Charge.REFUSALS:
            return f"{value} {counter.charge.lower()}"
        case Charge.DISTINCT:
            return f"{value} values"
        case _:
            return f"{value} tokens"


def shown(value: object) -> str:
    """A value as it is written in a test file."""
    match value:
        case None:
            return ABSENT
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False) if not value or not value.isidentifier() else value
        case _:
            return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
