"""Programs that are judged together: one activation, one value each.

Rule 1: a batch never raises. Whatever goes wrong with a program becomes its CelFailure.
Rule 2: one fresh activation per evaluation, holding only what the programs read: a reused one grows.
Rule 3: conditions are judged together first: `a || b || c` is false only when each of them is false and none failed,
        which is the usual case. Anything else is judged one by one, so the shortcut never changes an answer.
Rule 4: no plan's root can give a null, see cel_native.py: a condition's is `… || false`, the rest are typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from policyd.core.compile.cel_cost import cost, may_cost, shapes
from policyd.core.compile.cel_facts import (
    COUNTER_FACTS,
    FACTS,
    TEXT_SIZES,
    fields_of,
    part_of,
    part_rows,
    well_formed,
    whole,
    whole_counter,
)
from policyd.core.compile.cel_lower import (
    CounterInput,
    DetectionInput,
    FactInput,
    Input,
    SieveInput,
    TextSizeInput,
    WatchInput,
    WholeInput,
)
from policyd.core.compile.cel_native import Activation, Failed, Plan, activate
from policyd.core.compile.cel_problems import Want
from policyd.core.compile.cel_sieve import sieved
from policyd.core.compile.cel_tree import Call, Const, Ident, Node
from policyd.core.compile.policyset import (
    ALL_KNOWN,
    KNOWN_OF_COUNTERS,
    CelFailure,
    CounterRef,
    TextTruth,
    Unknown,
    Watcher,
)
from policyd.core.model.facts import CounterFacts, Facts

GROUP = 16
"""How many conditions one shortcut covers: large enough to be one evaluation for most calls, small enough that one
condition that is true costs no more than its group."""


class Judgeable(Protocol):
    """What a batch needs of a compiled program."""

    @property
    def want(self) -> Want: ...
    @property
    def inputs(self) -> tuple[Input, ...]: ...
    @property
    def tree(self) -> Node: ...


class CelBatch:
    """See policyset.Batch."""

    def __init__(self, programs: Sequence[Judgeable]) -> None:
        self._inputs = Inputs(one for program in programs for one in program.inputs)
        self._plans = [Plan(_typed(program)) for program in programs]
        conditions = [index for index, program in enumerate(programs) if program.want is Want.BOOL]
        self._groups = [
            (group, Plan(any_of([programs[index].tree for index in group])))
            for group in (conditions[at : at + GROUP] for at in range(0, len(conditions), GROUP))
        ]
        self._others = [index for index, program in enumerate(programs) if program.want is not Want.BOOL]
        self._costly = [(at, program.tree) for at, program in enumerate(programs) if may_cost(program.tree)]
        self._bare = _bare(programs)

    def evaluate(
        self,
        facts: Facts,
        counters: Mapping[CounterRef, CounterFacts],
        hits: TextTruth,
        unknown: Unknown = ALL_KNOWN,
    ) -> list[object]:
        """One value per program, in order, or its CelFailure."""
        if self._bare and not unknown and (texts := _texts(self._bare, facts)):
            return texts
        try:
            values = self._inputs.values(facts, counters, hits, unknown)
            activation = activate(values)
        except Exception:  # a fact of a type that it cannot have: law 2 makes it data
            return [CelFailure("the facts could not be read")] * len(self._plans)
        answers: list[object] = [False] * len(self._plans)
        over = self._over(values, facts) if self._costly else ()
        for group, together in self._groups:
            if not over and together.truth(activation) is False:
                continue
            for index in group:
                if index not in over:
                    answers[index] = self._truth(self._plans[index], activation, values, unknown)
        for index in self._others:
            if index not in over:
                answers[index] = self._value(self._plans[index], activation, values, unknown)
        for index in over:
            answers[index] = CelFailure(facts.bounds.over("cel_cost"))
        return answers

    def _over(self, values: Mapping[str, object], facts: Facts) -> Collection[int]:
        """The programs that would take more steps than they may: they are not begun."""
        known, most = shapes(values, facts), facts.bounds.cel_cost
        return {index for index, tree in self._costly if cost(tree, known) > most}

    def _truth(self, plan: Plan, activation: Activation, values: Mapping[str, object], unknown: Unknown) -> object:
        truth = plan.truth(activation)
        return self._again(plan, values, unknown) if truth is None else truth

    def _value(self, plan: Plan, activation: Activation, values: Mapping[str, object], unknown: Unknown) -> object:
        try:
            return plan.value(activation)
        except Failed:
            return self._again(plan, values, unknown)

    def _again(self, plan: Plan, values: Mapping[str, object], unknown: Unknown) -> object:
        """Once more with texts made well-formed: half of a surrogate pair in a fact is no fault of the rule."""
        try:
            return plan.value(activate({name: _cleaned(value) for name, value in values.items()}))
        except Failed as error:
            words = str(error)
            path = self._inputs.unknown_path(missing(words), unknown) if unknown else ""
            return CelFailure(f"`{path}` is not known", path) if path else CelFailure(reason(words))


def _bare(programs: Sequence[Judgeable]) -> list[Callable[[Facts], object]]:
    """Where each of these is nothing but a text of the facts, as most keys are: what reads them. Else nothing."""
    getters = []
    for program in programs:
        only = program.inputs[0] if len(program.inputs) == 1 else None
        if not isinstance(program.tree, Ident) or not isinstance(only, FactInput) or only.present:
            return []
        if program.want is Want.BOOL or FACTS[only.path].type != "string" or program.tree.name != only.name:
            return []
        getters.append(FACTS[only.path].get)
    return getters


def _texts(getters: Sequence[Callable[[Facts], object]], facts: Facts) -> list[object]:
    """These texts, where the runtime would give them back as they are; else nothing."""
    texts = [get(facts) for get in getters]
    return texts if all(type(text) is str and text.isascii() for text in texts) else []


def _cleaned(value: object) -> object:
    match value:
        case str():
            return well_formed(value)
        case list():
            return [_cleaned(item) for item in value]
        case dict():
            return {well_formed(key): _cleaned(item) for key, item in value.items()}
        case _:
            return value


# ---- trees ----------------------------------------------------------------------------------------------------------


def any_of(trees: Sequence[Node]) -> Node:
    """`a || b || …`, balanced, and with a lone one `a || false`."""
    if len(trees) == 1:
        return _or(trees[0], Const("bool", False))
    return _balanced(trees)


def _balanced(trees: Sequence[Node]) -> Node:
    if len(trees) == 1:
        return trees[0]
    middle = len(trees) // 2
    return _or(_balanced(trees[:middle]), _balanced(trees[middle:]))


def _or(left: Node, right: Node) -> Call:
    return Call("_||_", (left, right), None, ("logical_or",), "bool")


def _typed(program: Judgeable) -> Node:
    return any_of([program.tree]) if program.want is Want.BOOL else program.tree


# ---- inputs ---------------------------------------------------------------------------------------------------------


class Inputs:
    """How to fill an activation."""

    def __init__(self, inputs: Iterable[Input]) -> None:
        self._facts: list[tuple[str, Callable[[Facts], object]]] = []
        self._counters: list[tuple[str, CounterRef, Callable[[CounterFacts], object]]] = []
        self._watchers: list[tuple[str, Watcher]] = []
        self._paths: dict[str, frozenset[str]] = {}  # by name: what may be unknown of it
        for one in _merged(inputs):
            self._add(one)

    def _add(self, one: Input) -> None:
        self._paths[one.name] = frozenset(paths_of(one))
        match one:
            case FactInput():
                self._facts.append((one.name, _fact_getter(one)))
            case SieveInput():
                self._facts.append((one.name, _sieve_getter(one)))
            case TextSizeInput(name=name, of=view):
                self._facts.append((name, TEXT_SIZES[view].get))
            case WholeInput(name=name, root=root):
                self._facts.append((name, partial(whole, root)))
            case DetectionInput(name=name, root=root, detector=detector):
                self._facts.append((name, partial(_count, root, detector)))
            case CounterInput():
                self._counters.append((one.name, one.counter, _counter_getter(one)))
            case WatchInput(name=name, watcher=watcher):
                self._watchers.append((name, watcher))

    def values(
        self,
        facts: Facts,
        counters: Mapping[CounterRef, CounterFacts],
        hits: TextTruth,
        unknown: Unknown = ALL_KNOWN,
    ) -> dict[str, object]:
        """What the programs read, by name. What is unknown is left out, and so is a counter that was not brought: an
        expression fails where its value depends on it."""
        if unknown:
            return self._known_values(facts, counters, hits, unknown)
        values = {name: get(facts) for name, get in self._facts}
        for name, ref, read in self._counters:
            counter = counters.get(ref)
            if counter is not None:
                values[name] = read(counter)
        for name, watcher in self._watchers:
            values[name] = hits.truth(watcher, facts)
        return values

    def _known_values(
        self, facts: Facts, counters: Mapping[CounterRef, CounterFacts], hits: TextTruth, unknown: Unknown
    ) -> dict[str, object]:
        paths = self._paths
        values = {name: get(facts) for name, get in self._facts if not paths[name] & unknown.facts}
        for name, ref, read in self._counters:
            counter = counters.get(ref)
            if counter is not None and not (ref in unknown.counters and paths[name]):
                values[name] = read(counter)
        for name, watcher in self._watchers:
            if not paths[name] & unknown.facts:
                values[name] = hits.truth(watcher, facts)
            elif hits.stays_true(watcher, facts):
                values[name] = True  # the part of the text that was read is enough
        return values

    def unknown_path(self, name: str, unknown: Unknown) -> str:
        """The path of an unknown input by its name; empty where it is known."""
        paths = self._paths.get(name, frozenset())
        if found := paths & unknown.facts:
            return min(found)
        refs = [ref for one, ref, _ in self._counters if one == name]
        return min(paths, default="") if unknown.counters.intersection(refs) else ""


def paths_of(one: Input) -> tuple[str, ...]:
    """The paths of what an input is made of; of a counter, those that only the store can tell."""
    match one:
        case FactInput(path=path) | SieveInput(path=path):
            return (path,)
        case TextSizeInput(of=view) | WatchInput(watcher=Watcher(of=view)):
            return (f"response.{view}",)
        case WholeInput(root=root):
            return fields_of(root)
        case DetectionInput(root=root):
            return (f"{root}.detections",)
        case CounterInput(counter=(_, counter), field=field):
            fields = (field,) if field else tuple(COUNTER_FACTS)
            return tuple(f"counters.{counter}.{each}" for each in fields if each not in KNOWN_OF_COUNTERS)


def _merged(inputs: Iterable[Input]) -> Iterator[Input]:
    """Each name once; of a list of messages the fields that any program reads."""
    merged: dict[str, Input] = {}
    for one in inputs:
        known = merged.get(one.name)
        if isinstance(one, FactInput | SieveInput) and isinstance(known, FactInput | SieveInput):
            one = replace(one, parts=one.parts | known.parts)
        merged[one.name] = one
    yield from merged.values()


def _fact_getter(wanted: FactInput) -> Callable[[Facts], object]:
    fact = FACTS[wanted.path]
    if wanted.present:
        return fact.present
    part = part_of(fact)
    if not part:
        return fact.get
    names = tuple(sorted(wanted.parts))
    return lambda facts: part_rows(part, fact.get(facts), names)


def _sieve_getter(wanted: SieveInput) -> Callable[[Facts], object]:
    fact, names = FACTS[wanted.path], tuple(sorted(wanted.parts))
    read = sieved(wanted.tests, fact.get)
    return lambda facts: part_rows(part_of(fact), read(facts), names)


def _count(root: str, detector: str, facts: Facts) -> int:
    """The finds of a detector."""
    known = facts.request.detections if root == "request" else facts.response.detections
    return known.get(detector, 0)


def _counter_getter(wanted: CounterInput) -> Callable[[CounterFacts], object]:
    if not wanted.field:
        return whole_counter
    fact = COUNTER_FACTS[wanted.field]
    return fact.present if wanted.present else fact.get


# ---- reasons --------------------------------------------------------------------------------------------------------

_REASONS = (
    ("Iteration budget", "loops ran too often"),
    ("No value with name", "a value that it reads is missing"),
    ("Key not found", "no such key in a map"),
    ("no such key", "no such key in a map"),
    ("no_such_field", "no such field"),
    ("Index error", "no such element in a list"),
    ("divide by zero", "division by zero"),
    ("modulus by zero", "modulus by zero"),
    ("overflow", "a number out of range"),
    ("out of range", "a number out of range"),
    ("onversion", "a value could not be converted"),
    ("cannot convert", "a value could not be converted"),
    ("o matching overload", "a value has another type than the expression needs"),
    ("optional.none()", "an optional without a value"),
    ("type that its place cannot use", "a value has another type than its place needs"),
    ("no string", "the list holds something that is no string"),
)


_MISSING = re.compile(r'No value with name "(.*)" found', re.DOTALL)


def missing(words: str) -> str:
    """The name of the input without a value that an evaluation failed over; empty where it failed for another cause."""
    found = _MISSING.search(words)
    return found[1] if found else ""


def reason(words: str) -> str:
    """Why an evaluation failed, in words that quote nothing of the call."""
    return next((said for mark, said in _REASONS if mark in words), "the expression failed")
