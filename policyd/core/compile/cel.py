"""The one door to CEL: checks an expression, derives what it reads, and judges programs in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policyd.core.compile.cel_problems import CelProblem, Want
from policyd.core.compile.policyset import Batch, Program, Watcher

__all__ = ["CelEngine", "CelProblem", "CompiledProgram", "Scope", "Want"]


@dataclass(frozen=True, slots=True, eq=False)
class CompiledProgram:
    """One checked expression, ready to be judged in a batch."""

    source: str
    policy: str
    reads: frozenset[str]
    watchers: tuple[Watcher, ...] = ()
    monotone: bool = False
    warnings: tuple[CelProblem, ...] = field(default=())


class Scope:
    """What the expressions of one policy may name."""

    def __init__(
        self, *, policy: str, counters: Sequence[str], params: Mapping[str, object], variables: Sequence[tuple[str, str]]
    ) -> None:
        self.problems: Mapping[str, tuple[CelProblem, ...]] = {}
        self.warnings: Mapping[str, tuple[CelProblem, ...]] = {}

    def compile(self, source: str, want: Want) -> CompiledProgram | tuple[CelProblem, ...]:
        raise NotImplementedError


class CelEngine:
    """Judges compiled programs with cel-expr-python."""

    def batch(self, programs: Sequence[Program]) -> Batch:
        raise NotImplementedError
