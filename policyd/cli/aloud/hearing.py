"""Listens to the engine while a call is judged: every condition's sub-expressions, with the values of that moment.

Rule 1: the engine judges as ever; listening asks it once more, over the same facts, and changes nothing.
Rule 2: the moment of a rule that matched or failed is that one; of one that never matched it is the end of the call, or
        for a rule of the request the time when it was judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policyd.core.compile.cel import CelEngine, CompiledProgram
from policyd.core.compile.cel_batch import Inputs
from policyd.core.compile.cel_parts import Part, parts
from policyd.core.compile.policyset import (
    ALL_KNOWN,
    Batch,
    CelFailure,
    CompiledPolicy,
    CounterRef,
    Engine,
    PolicySet,
    Program,
    TextTruth,
    Unknown,
)
from policyd.core.model.facts import CounterFacts, Facts
from policyd.core.model.route import Route


@dataclass(frozen=True, slots=True)
class Value:
    """One sub-expression and what it gave: a plain value, a CelFailure, or a fact as it is held."""

    text: str
    depth: int
    value: object


@dataclass(slots=True)
class Heard:
    """One condition: what it gave last, over what, and the values of the moment that counts."""

    program: CompiledProgram
    facts: Facts
    counters: Mapping[CounterRef, CounterFacts]
    hits: TextTruth
    unknown: Unknown = ALL_KNOWN
    answer: object = False
    values: tuple[Value, ...] = ()

    def now(self) -> tuple[Value, ...]:
        """Its sub-expressions over what it was judged over, as that stands now."""
        found = parts(self.program)
        world = (self.facts, self.counters, self.hits, self.unknown)
        answers = CelEngine().batch([part.program for part in found]).evaluate(*world)
        held = Inputs(self.program.inputs).values(*world)
        return tuple(
            Value(part.text, part.depth, _told(part, answer, held)) for part, answer in zip(found, answers, strict=True)
        )

    def of(self, *, matched: bool) -> tuple[Value, ...]:
        """The values that go with an outcome."""
        return self.values if self.values and (matched or self.answer is False) else self.now()


def _told(part: Part, answer: object, held: Mapping[str, object]) -> object:
    """A fact that is no plain value, a list or a map, is shown as it is held."""
    return held[part.leaf.name] if isinstance(answer, CelFailure) and part.leaf and part.leaf.name in held else answer


@dataclass(slots=True)
class Listening:
    """An engine that is listened to."""

    engine: Engine
    heard: dict[int, Heard] = field(default_factory=dict)  # by the id of the program, which its policy keeps alive

    def batch(self, programs: Sequence[Program]) -> Batch:
        return _Batch(self, tuple(programs), self.engine.batch(programs))

    def of(self, program: Program | None) -> Heard | None:
        return None if program is None else self.heard.get(id(program))


@dataclass(frozen=True, slots=True)
class _Batch:
    listening: Listening
    programs: tuple[Program, ...]
    inner: Batch

    def evaluate(
        self,
        facts: Facts,
        counters: Mapping[CounterRef, CounterFacts],
        hits: TextTruth,
        unknown: Unknown = ALL_KNOWN,
    ) -> list[object]:
        answers = self.inner.evaluate(facts, counters, hits, unknown)
        for program, answer in zip(self.programs, answers, strict=True):
            if isinstance(program, CompiledProgram):
                self._note(Heard(program, facts, counters, hits, unknown, answer))
        return answers

    def _note(self, new: Heard) -> None:
        known = self.listening.heard.get(id(new.program))
        if new.answer is not False or (known is None and not new.facts.response.events):
            new.values = new.now()
        elif known is not None:
            new.answer, new.values = known.answer, known.values  # what was once true is what counts
        self.listening.heard[id(new.program)] = new


@dataclass(frozen=True, slots=True)
class HeardSet:
    """A policy set whose engine is listened to; in all else the very same."""

    inner: PolicySet
    listening: Listening

    @property
    def digest(self) -> str:
        return self.inner.digest

    @property
    def policies(self) -> tuple[CompiledPolicy, ...]:
        return self.inner.policies

    @property
    def running(self) -> tuple[CompiledPolicy, ...]:
        return self.inner.running

    @property
    def engine(self) -> Engine:
        return self.listening

    @property
    def reads(self) -> frozenset[str]:
        return self.inner.reads

    def select(
        self, operation: str, provider: str, path: str, model: str | tuple[str, ...] | None, route: Route | None = None
    ) -> tuple[CompiledPolicy, ...]:
        return self.inner.select(operation, provider, path, model, route)
