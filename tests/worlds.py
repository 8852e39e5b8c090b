"""Random worlds for tests/oracle.py: policies, counters and calls, and the same as documents before the real engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import product
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from policyd.adapters.counters_memory import MemoryCounters
from policyd.core.model.counters import NANO, CounterId, Window, WindowKind
from policyd.core.model.decision import Mode
from policyd.core.model.prices import Price, Tier
from policyd.core.model.steps import Read, Settle
from tests import oracle
from tests.driving import Bed, Outcome, answer_of, stream_of
from tests.fakes import FakeClock, FaultyCounters
from tests.oracle import (
    ERROR,
    NO,
    YES,
    Allow,
    Call,
    Constrain,
    Counter,
    Glance,
    Policy,
    Reroute,
    Rule,
    Terminate,
    World,
)

EIGHTH = NANO // 8  # money comes in eighths of a dollar, which doubles hold exactly
MODELS = ("m1", "m2", "m3", "m9")
PRICES = {
    "m1": oracle.Price(16 * EIGHTH, EIGHTH),
    "m2": oracle.Price(4 * EIGHTH, EIGHTH),
    "m3": oracle.Price(EIGHTH, EIGHTH),
}
WINDOW = Window(WindowKind.LIFETIME, 86_400.0)
UNITS = {"Cost": EIGHTH, "Requests": 1, "OutputTokens": 1}


# ---- random policy sets ---------------------------------------------------------------------------------------------

TABLES: tuple[dict[str, str] | None, ...] = (
    None,
    *(dict(zip(MODELS, row, strict=True)) for row in product((NO, YES), repeat=4)),
    *(dict.fromkeys(MODELS, NO) | {model: ERROR} for model in MODELS),
    dict.fromkeys(MODELS, YES) | {"m9": ERROR},
    dict.fromkeys(MODELS, YES),
    None,
)
CONSTRAINS = (  # any two of them have something to settle
    Constrain(cap=100, request_headers={"x-one": "a", "x-two": "a"}),
    Constrain(cap=200, set={"temperature": 0.5}),
    Constrain(request_headers={"x-one": "b", "x-two": None}, response_headers={"x-three": "a"}),
    Constrain(cap=60, set={"temperature": 0.25, "metadata.kind": "a"}, inject="INJECT-1"),
    Constrain(set={"metadata.kind": "b", "metadata.more": 1}, tools_allow=frozenset("ab"), cap=150),
    Constrain(tools_allow=frozenset("bc"), inject="INJECT-2", redact=frozenset({"apple"})),
    Constrain(tools_deny=frozenset("a"), request_headers={"x-one": None}, set={"temperature": 0.5}),
    Constrain(tools_deny=frozenset("c"), inject="INJECT-3", response_headers={"x-three": "b", "server": None}),
    Constrain(pace=10.0, response_headers={"server": "s"}),
    Constrain(redact=frozenset({"pear"}), cap=100, inject="INJECT-2"),
)
REROUTES = (
    *(Reroute(model) for model in MODELS),
    Reroute("m2", upstream="up"),
    Reroute("m3", upstream="up", keep_credentials=True),
)
TERMINATES = (Terminate(), Terminate(429, "calm"), Terminate(451), Terminate(200, "story"))
MODES = ("Full", "Full", "Full", "Soft", "Monitor")
NAMESPACES = ("a", "a-b", "")
NAMES = tuple((namespace, name) for name in ("p", "q", "p.x") for namespace in NAMESPACES)
EVERY = tuple(f"{name}/{rule}" for name in ("p", "q", "p.x") for rule in ("r0", "r1", "r2", "c.exceeded", "d.exceeded"))
T = TypeVar("T")
Draw = Callable[[st.SearchStrategy[int]], int]
RULES = ("r0", "r1", "c.exceeded", "r2", "d.exceeded")
ABOUT = (*(frozenset[str](),) * 4, frozenset({"m1", "m9"}), frozenset({"m2", "m3"}))
# Rare things are rare, or every call would be refused for its least interesting reason.
WHOSE = ("", "", "u", "", "v")
SEVERITIES = ("Medium", "Critical", "Low", "High", "Critical", "Info", "Medium")
ACTS = ("constrain", "reroute", "allow", "constrain", "terminate", "reroute", "constrain", "reroute", "constrain")


@cache
def _below(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, count - 1)  # made once: to make a strategy costs more than to draw from it


def pick(draw: Draw, values: Sequence[T]) -> T:
    """One of these; the first is the simplest."""
    return values[draw(_below(len(values)))]


def a_rule(draw: Draw, name: str, counters: Sequence[Counter], named: Sequence[str] = ("p",)) -> Rule:
    """A rule over a policy's counters; an `allow` names rules of the policies called `named`."""
    action = _an_action(draw, named)
    glance = None
    if counters and not isinstance(action, Allow) and pick(draw, (True, False, True)):
        counter = pick(draw, counters)
        least = pick(draw, (None, 1, None, 2, None, 8, 17))
        glance = Glance(counter.name, least and least * UNITS[counter.charge])
    return Rule(
        name,
        action,
        pick(draw, TABLES),
        glance,
        either=glance is not None and pick(draw, (False, False, False, True)),
        answer=glance is None and isinstance(action, Terminate) and pick(draw, (True, False, True)),
        whose=pick(draw, WHOSE),
        severity=pick(draw, SEVERITIES),
        mode=pick(draw, (None, None, None, None, "Full", "Soft", "Monitor")),
    )


def _an_action(draw: Draw, named: Sequence[str]) -> oracle.Action:
    match pick(draw, ACTS):
        case "constrain":
            return pick(draw, CONSTRAINS)
        case "terminate":
            return pick(draw, TERMINATES)
        case "reroute":
            return pick(draw, REROUTES)
        case _:
            return Allow(frozenset(f"{pick(draw, named)}/{pick(draw, RULES)}" for _ in range(3)))


def _a_counter(draw: Draw, name: str) -> Counter:
    charge = pick(draw, ("Cost", "Requests", "Cost", "OutputTokens"))
    limit = pick(draw, (5, 17, 20, 34, None, 2, 0) if charge == "Cost" else (2, 3, None, 1, 0))
    units = None if limit is None else limit * UNITS[charge]
    return Counter(name, charge, units, pick(draw, (True, True, False)), pick(draw, (False, False, True)))


def _a_policy(draw: Draw, name: tuple[str, str], modes: Sequence[str], named: Sequence[str]) -> Policy:
    counters = tuple(_a_counter(draw, one) for one in ("c", "d")[: pick(draw, (1, 0, 2))])
    return Policy(
        name[1],
        name[0],
        mode=pick(draw, modes),
        fails=pick(draw, (False, True, False)),
        models=pick(draw, ABOUT),
        condition=pick(draw, TABLES) if pick(draw, (False, False, False, True)) else None,
        whose=pick(draw, WHOSE),
        counters=counters,
        rules=tuple(a_rule(draw, f"r{at}", counters, named) for at in range(pick(draw, (2, 1, 3, 0)))),
    )


@st.composite
def policy_sets(
    draw: DrawFn, names: Sequence[tuple[str, str]] = NAMES, modes: Sequence[str] = MODES
) -> tuple[Policy, ...]:
    """Up to four policies, in any order."""
    left, chosen = list(names), []
    for _ in range(pick(draw, (2, 3, 1, 4))):
        if left:
            chosen.append(left.pop(draw(_below(len(left)))))
    named = [name for _, name in chosen]
    return tuple(_a_policy(draw, name, modes, named) for name in chosen)


@dataclass(frozen=True)
class Asked:
    """One call as its client makes it."""

    call: Call
    max_tokens: int | None = None
    tools: bool = False
    stream: bool = False

    @property
    def body(self) -> bytes:
        if not self.call.readable:
            return b'{"model": "m1", '
        document: dict[str, object] = {
            "model": self.call.model,
            "messages": [{"role": "user", "content": "apple pear plum"}],
        }
        if self.max_tokens is not None:
            document["max_tokens"] = self.max_tokens
        if self.tools:
            document["tools"] = [{"type": "function", "function": {"name": name}} for name in "abc"]
        if self.stream:
            document["stream"] = True
        return json.dumps(document).encode()

    @property
    def headers(self) -> list[tuple[str, str]]:
        who = [("x-user-id", self.call.user)] if self.call.user else []
        return [("authorization", "Bearer k"), ("x-one", "own"), *who]

    @property
    def answer(self) -> list[bytes]:
        """What the model says, as the network cuts it."""
        return stream_of("o", "k") if self.stream else [answer_of("ok", prompt=3, completion=1)]


@st.composite
def asked(draw: DrawFn, *, streams: bool = False) -> Asked:
    """One call."""
    # Everybody has a name: what an empty key means is told in tests/core/test_counter_keys.py.
    user = pick(draw, ("u", "u", "v", "u", "w"))
    call = Call(pick(draw, (*MODELS[:3] * 3, "m9")), user, pick(draw, (True,) * 12 + (False,)))
    most, tools = pick(draw, (None, 50, 150, 500)), pick(draw, (True, False))
    return Asked(call, most, tools, streams and pick(draw, (True, False)))


@st.composite
def worlds(draw: DrawFn, names: Sequence[tuple[str, str]] = NAMES) -> World:
    """Policies, and what has been counted before."""
    process, store = pick(draw, (*("Full",) * 7, "Soft", "Monitor")), pick(draw, (True,) * 12 + (False,))
    world = World(draw(policy_sets(names)), PRICES, process, store)
    for policy in world.policies:
        for counter in policy.counters:
            before = pick(draw, (0, 0, 1, 2, 16)) * UNITS[counter.charge]
            for who, life in product(("everybody", "u"), ("live", "monitor")):
                if before and (who == "u") == counter.by_user:
                    world.spent[policy.qualified, counter.name, who, life] = before
    return world


# ---- written down as documents ------------------------------------------------------------------------------------


def written(policy: Policy) -> str:
    """A policy as a document; JSON is YAML."""
    metadata = {"name": policy.name, **({"namespace": policy.namespace} if policy.namespace else {})}
    spec: dict[str, object] = {
        "mode": policy.mode,
        "failurePolicy": "Fail" if policy.fails else "Ignore",
        "match": {"models": sorted(policy.models)},
        "counters": [_counter(one) for one in policy.counters],
        "rules": [_rule(one, policy) for one in policy.rules],
    }
    if policy.condition is not None:
        spec["matchConditions"] = [{"name": "condition", "expression": _whose(policy.whose, _table(policy.condition))}]
    kind = "LLMPolicy" if policy.namespace else "ClusterLLMPolicy"
    return json.dumps({"apiVersion": "policyd.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})


def _counter(counter: Counter) -> dict[str, object]:
    key = "caller.user" if counter.by_user else '"everybody"'
    made: dict[str, object] = {
        "name": counter.name,
        "key": key,
        "charge": counter.charge,
        "onUnpriced": "Refuse",  # the estimate of a price is told in tests/core/test_unpriced.py
        "window": {"lifetime": "24h"},
        "onExceeded": "Terminate" if counter.denies else "Continue",
    }
    if counter.limit is not None:
        unit = {"Cost": "USD", "Requests": "requests", "OutputTokens": "tokens"}[counter.charge]
        made["limit"] = f"{_units(counter, counter.limit)} {unit}"
    return made


def _units(counter: Counter, amount: int) -> str:
    return str(amount / NANO) if counter.charge == "Cost" else str(amount)


def _rule(rule: Rule, policy: Policy) -> dict[str, object]:
    made: dict[str, object] = {"name": rule.name, "severity": rule.severity, **_action(rule.action)}
    when = _when(rule, policy)
    if when:
        made["when"] = when
    if rule.mode:
        made["mode"] = rule.mode
    return made


def _when(rule: Rule, policy: Policy) -> str:
    parts = [] if rule.table is None else [_table(rule.table)]
    if rule.glance:
        counter = next(one for one in policy.counters if one.name == rule.glance.counter)
        at_least = rule.glance.at_least
        seen = "exceeded" if at_least is None else f"value >= {float(_units(counter, at_least))}"
        parts = [*(parts or ["true"]), f"counters.{counter.name}.{seen}"]
    joined = _whose(rule.whose, f"({(' || ' if rule.either else ' && ').join(parts)})" if parts else "true")
    if rule.answer:
        return f"response.output_tokens >= 1 && {joined}"
    return joined if parts or rule.whose else ""


def _whose(user: str, condition: str) -> str:
    return f'({condition} && caller.user == "{user}")' if user else condition


def _table(table: dict[str, str] | object) -> str:
    assert isinstance(table, dict)
    whens = {YES: 'request.model == "{}"', ERROR: '(request.model == "{}" && request.headers["absent"] == "x")'}
    parts = [whens[outcome].format(model) for model, outcome in table.items() if outcome != NO]
    return f"({' || '.join(parts)})" if parts else 'request.model == "none"'


def _action(action: oracle.Action) -> dict[str, object]:
    match action:
        case Allow(rules):
            return {"allow": {"rules": sorted(rules)}}
        case Terminate(status, reason):
            return {"terminate": {"status": status, **({"reason": reason} if reason else {})}}
        case Reroute(model, upstream, keep):
            return {
                "reroute": {"model": model, **({"upstream": upstream, "keepCredentials": keep} if upstream else {})}
            }
        case Constrain():
            return {"constrain": _constrain(action)}


def _constrain(change: Constrain) -> dict[str, object]:
    made: dict[str, object] = {}
    if change.set:
        made["set"] = dict(change.set)
    if change.cap is not None:
        made["cap"] = {"max_tokens": change.cap}
    if change.tools_allow is not None:
        made["tools"] = {"allow": sorted(change.tools_allow)}
    if change.tools_deny:
        made["tools"] = {"deny": sorted(change.tools_deny)}
    if change.inject:
        made["inject"] = {"system": change.inject}
    sides = {"request": change.request_headers, "response": change.response_headers}
    if any(sides.values()):
        made["headers"] = {side: _edit(edits) for side, edits in sides.items() if edits}
    if change.redact:
        made["redact"] = {"patterns": sorted(change.redact), "in": ["request"], "replacement": "[x]"}
    if change.pace is not None:
        made["pace"] = {"tokens_per_second": change.pace}
    return made


def _edit(edits: object) -> dict[str, object]:
    assert isinstance(edits, dict)
    set_ = {name: value for name, value in edits.items() if value is not None}
    return {"set": set_, "remove": [name for name, value in edits.items() if value is None]}


# ---- put before calls ---------------------------------------------------------------------------------------------


class Prices:
    """What the oracle's models cost: so much a call, and so much a token of the answer."""

    digest = "oracle"
    _prices = {
        name: Price(
            name,
            (Tier(0, Fraction(0), Fraction(one.token), Fraction(0), Fraction(0)),),
            Fraction(one.request),
            source="oracle",
        )
        for name, one in PRICES.items()
    }

    def price(self, _provider: str, model: str, _at: float) -> Price | None:
        return self._prices.get(model)

    def dearest(self, _provider: str, _at: float) -> Price | None:
        return None


RUNNER = asyncio.Runner()  # one loop for all: a loop a call would cost more than the call


def bed_of(world: World, *, backwards: bool = False) -> Bed:
    """The engine over the same world."""
    documents = [written(policy) for policy in world.policies]
    store = None if world.store else FaultyCounters.down(MemoryCounters(FakeClock()))
    return Bed(*documents[:: -1 if backwards else 1], prices=Prices(), mode=Mode(world.mode), counters=store)


def counter_id(world: World, key: oracle.CounterKey) -> CounterId:
    policy, name, who, life = key
    charge = next(
        counter.charge
        for one in world.policies
        for counter in one.counters
        if (one.qualified, counter.name) == (policy, name)
    )
    return CounterId(policy, name, (who,), charge, WINDOW, life=life)


async def begin(world: World, bed: Bed) -> None:
    """Bring the store to where the oracle's is."""
    charges = tuple((counter_id(world, key), amount) for key, amount in world.spent.items())
    await bed.memory.settle(Settle("before", "before", charges))


async def spent(world: World, bed: Bed, keys: Sequence[oracle.CounterKey]) -> dict[oracle.CounterKey, tuple[int, int]]:
    """What the store says has been charged, and what is still held."""
    answer = await bed.memory.read(Read(tuple(counter_id(world, key) for key in keys)))
    return {key: (one.value, one.held) for key, one in zip(keys, answer.counters, strict=True)}


async def made(bed: Bed, one: Asked) -> Outcome:
    """The call, made."""
    kind = "text/event-stream" if one.stream else "application/json"
    return await bed.acall(
        one.body,
        headers=one.headers,
        chunks=one.answer,
        response_headers=[("content-type", kind), ("server", "own")],
    )


def done(one: Asked, out: Outcome) -> dict[str, object]:
    """What was done about a call, as its upstream and its client saw it."""
    return {
        "sent": one.body if out.sent == b"" else out.sent,  # a body that nothing reads passes as it came
        "request headers": (sorted(out.request_headers.items()), sorted(out.removed)),
        "moved": out.moved,
        "response headers": sorted(out.response_headers.items()),
        "answer": (out.rejected.status, out.rejected.headers) if out.rejected else None,
        "body": out.body,
    }


def told(out: Outcome) -> dict[str, object]:
    """What its record says of a call."""
    record = out.record
    return {
        "verdict": (record.verdict, record.would, record.enforced, record.reason, record.determined_by),
        "degraded": record.degraded,
        "rules": sorted(map(repr, record.rules)),
        "conflicts": sorted(record.conflicts),
    }


def first_call(world: World, one: Asked, *, backwards: bool = False) -> Outcome:
    """One call on a fresh bed over this world."""

    async def run() -> Outcome:
        bed = bed_of(world, backwards=backwards)
        await begin(world, bed)
        return await made(bed, one)

    return RUNNER.run(run())
