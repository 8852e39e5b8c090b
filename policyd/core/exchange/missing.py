"""A call that does not name what the key of a counter reads: the refusal that says what to send.

Rule 1: the message names the header, the claim or the credential that is missing, and never a value of the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from policyd.core.compile.policyset import CelFailure, Program
from policyd.core.compile.words import listed
from policyd.core.decide.evaluate import Judged
from policyd.core.decide.plan import BoundRule
from policyd.core.exchange.gauge import Gauge
from policyd.core.model.decision import Outcome, Terminate

STATUS, REASON = 403, "missing_identity"
NO_SUCH_KEY = "no such key in a map"  # the words of a failed look-up in a map
_SENT = {
    "request.headers": "header {}",
    "request.tags": "header x-tag-{}",
    "caller.labels": "an identity with label {}",
}
_ENTRY = re.compile(
    r"(?P<root>request\.headers|request\.tags|caller\.labels)(?:\[\??[\"'](?P<quoted>[^\"']+)[\"']\]|\.\??(?P<plain>[A-Za-z_]\w*))"
)
_HEADERS = {
    "caller.user": "header x-user-id",
    "caller.team": "header x-team-id",
    "caller.tenant": "header x-tenant-id",
    "session.id": "header x-session-id",
}


def is_absent(program: Program, value: object) -> bool:
    """Whether the value of a part of a key stands for nobody: it is empty, or a map has no such entry."""
    if isinstance(value, CelFailure):
        return value.reason == NO_SUCH_KEY and any(read in _SENT for read in program.reads)
    return value == "" or (isinstance(value, list) and not (value and all(value)))


def absent_in(key: Sequence[Program], values: Sequence[object]) -> tuple[Program, ...]:
    """The parts of a key that are absent."""
    return tuple(program for program, value in zip(key, values, strict=True) if is_absent(program, value))


def refusals(gauges: Iterable[Gauge], judged: Sequence[Judged], identity: str) -> list[Judged]:
    """The refusal of every counter whose key the call does not name. A rule of the same policy that already terminates
    the call stands in its place, with its own words."""
    missing = [gauge for gauge in gauges if gauge.missing]
    if not missing:
        return []
    matched = (one.bound for one in judged if one.outcome is Outcome.MATCHED)
    ended = {id(bound.policy) for bound in matched if isinstance(bound.rule.action, Terminate)}
    return [_refusal(gauge, identity) for gauge in missing if id(gauge.policy) not in ended]


def _refusal(gauge: Gauge, identity: str) -> Judged:
    rule = gauge.counter.missing
    assert rule is not None
    needed = {name: how for program in gauge.missing for name, how in needs_of(program, identity)}
    message = f"Counter {gauge.counter.name} needs {listed(needed)}. Send {listed(needed.values())}."
    action = Terminate(STATUS, REASON, message, message)
    return Judged(BoundRule(replace(rule, action=action), gauge.policy), Outcome.MATCHED, message)


def needs_of(program: Program, identity: str) -> Iterator[tuple[str, str]]:
    """What a part of a key reads, and how a caller sends that. `identity`: where the process reads identity from."""
    entries = list(_ENTRY.finditer(program.source))
    for entry in entries:
        root, name = entry["root"], entry["quoted"] or entry["plain"]
        yield f"{root}.{name}" if name.isidentifier() else f'{root}["{name}"]', _SENT[root].format(name)
    for read in sorted(program.reads):
        if not (entries and read in _SENT):
            yield read, _how(read, identity)


def _how(read: str, identity: str) -> str:
    if read == "caller.key":
        return "a credential, such as header authorization or x-api-key"
    root, _, name = read.partition(".")
    if root == "caller" and identity != "headers":
        return f"an identity with {name} (it is read from {identity})"
    return _HEADERS.get(read, f"a request with {read}")
