"""What every fact is known to be, whatever the call: its range, the words that it can be, what it is when not sent.

Rule 1: only what policyd itself makes is said here. What a client or a provider writes may be anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from policyd.core.compile.cel_facts import COUNTER_FACTS, FACTS, Fact
from policyd.core.compile.cel_lower import CounterInput, DetectionInput, FactInput, Input, TextSizeInput, WatchInput
from policyd.core.compile.cel_tree import Call, Ident, Node
from policyd.core.compile.policyset import CompiledCounter, CompiledPolicy, CounterRef
from policyd.core.model.operations import OPERATIONS
from policyd.core.review.values import ANYTHING, Known, Scalar, between, one_of

_FROM_ZERO = frozenset(
    {
        "request.input_tokens",
        "session.calls",
        "session.cost_usd",
        "session.tokens",
        "response.events",
        "response.input_tokens",
        "response.output_tokens",
        "response.cached_input_tokens",
        "response.reasoning_tokens",
        "response.cost_usd",
        "response.elapsed_ms",
        "response.ttft_ms",
    }
)
_WORDS: Mapping[str, Known] = {
    "request.operation": one_of(*OPERATIONS),
    "response.inspection": one_of("full", "partial", "none"),
    "response.status": between(0, 999),
}
_CLOCK = {
    "getHours": (0, 23),
    "getMinutes": (0, 59),
    "getSeconds": (0, 59),
    "getMilliseconds": (0, 999),
    "getDayOfWeek": (0, 6),
    "getDayOfMonth": (0, 30),
    "getDate": (1, 31),
    "getMonth": (0, 11),
    "getDayOfYear": (0, 365),
}
_EMPTY: Mapping[str, Scalar] = {"string": "", "int": 0, "double": 0.0, "bool": False}
_BOTH = one_of(True, False)


@dataclass(slots=True)
class Leaves:
    """The names that trees may hold, and what is known of each before any condition."""

    counters: Mapping[CounterRef, CompiledCounter] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)

    def add(self, inputs: Iterable[Input]) -> None:
        self.inputs.update((one.name, one) for one in inputs)

    def known(self, name: str) -> Known:
        """What a leaf can be."""
        match self.inputs.get(name):
            case FactInput(present=True) | CounterInput(present=True) | WatchInput():
                return _BOTH
            case FactInput(path=path):
                return _fact(path)
            case TextSizeInput() | DetectionInput():
                return between(0)
            case CounterInput() as one if one.field:
                return _counter(one.field, self.counters.get(one.counter))
            case _:
                return ANYTHING

    def type(self, name: str) -> str:
        """The leaf's type; empty when it is none of ours."""
        match self.inputs.get(name):
            case FactInput(present=True) | CounterInput(present=True) | WatchInput():
                return "bool"
            case FactInput(path=path):
                return FACTS[path].type
            case TextSizeInput() | DetectionInput():
                return "int"
            case CounterInput(field=name) if name:
                return COUNTER_FACTS[name].type
            case _:
                return ""

    def unsent(self, name: str) -> tuple[str, Scalar] | None:
        """For a leaf that says whether something was sent: the leaf of its value, and what that is when it was not."""
        one = self.inputs.get(name)
        if not isinstance(one, FactInput | CounterInput) or not one.present:
            return None
        fact = FACTS[one.path] if isinstance(one, FactInput) else COUNTER_FACTS[one.field]
        return (name.removesuffix("?"), _EMPTY[fact.type]) if fact.type in _EMPTY else None


def leaves_of(policies: Iterable[CompiledPolicy]) -> Leaves:
    """The leaves of these policies' expressions; their inputs are added as they are looked at."""
    return Leaves({(policy.qualified, counter.name): counter for policy in policies for counter in policy.counters})


def _fact(path: str) -> Known:
    fact: Fact = FACTS[path]
    if fact.type == "bool":
        return _BOTH
    return between(0) if path in _FROM_ZERO else _WORDS.get(path, ANYTHING)


def _counter(field_: str, counter: CompiledCounter | None) -> Known:
    if field_ in ("exceeded", "available"):
        return one_of(False) if field_ == "exceeded" and counter and counter.limit is None else _BOTH
    if counter and counter.limit is None and field_ in ("limit", "remaining", "used"):
        return one_of(0.0)
    if field_ == "limit" and counter and counter.limit and counter.limit.by is None and counter.limit.default:
        return one_of(counter.limit.default / counter.charge.scale, 0.0)  # 0: the caller has no such key
    return between(0)


def of_call(node: Call) -> Known:
    """The range of what a function gives."""
    if node.function == "size":
        return between(0)
    if node.function in _CLOCK and any(one.startswith("timestamp_") for one in node.overloads):
        return between(*_CLOCK[node.function])
    if node.function == "_[_]" and _is_similarity(node.args[0]):
        return between(0, 1)
    return ANYTHING


def _is_similarity(node: Node) -> bool:
    return isinstance(node, Ident) and node.name == "session.similarity"
