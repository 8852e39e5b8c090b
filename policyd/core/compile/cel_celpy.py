"""The second engine, cel-python, behind the same interface: the differential peer of the first.

Rule 1: it judges what Scope.compile checked, on the same lowered trees and inputs, written as text again.
Rule 2: it is no part of a running server: it is slow, not safe beside other threads, and raises the recursion limit of
        the whole process.
Rule 3: what plain CEL cannot write (optionals, extensions) is a CelFailure that says so, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import celpy
from celpy import celtypes
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as PbMessage
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from policyd.core.compile.cel_batch import Inputs, reason
from policyd.core.compile.cel_problems import Want
from policyd.core.compile.cel_unparse import NoText, unparse
from policyd.core.compile.policyset import ALL_KNOWN, Batch, CelFailure, CounterRef, Program, TextTruth, Unknown
from policyd.core.model.facts import CounterFacts, Facts

_NOT_OFFERED = CelFailure("the second engine does not offer what this expression uses")


class CelpyEngine:
    """Judges compiled programs with cel-python."""

    def batch(self, programs: Sequence[Program]) -> Batch:
        """Programs that are judged together; each is evaluated by itself."""
        return _CelpyBatch(programs)


class _CelpyBatch:
    def __init__(self, programs: Sequence[Any]) -> None:
        self._inputs = Inputs(one for program in programs for one in program.inputs)
        self._names: dict[str, str] = {}
        self._wants = [program.want for program in programs]
        self._runners = [self._runner(program) for program in programs]

    def _runner(self, program: Any) -> Callable[[Any], Any] | None:
        try:
            text = unparse(program.tree, self._name)
        except NoText:
            return None
        environment = celpy.Environment(runner_class=celpy.InterpretedRunner)
        evaluate: Callable[[Any], Any] = environment.program(environment.compile(text)).evaluate
        return evaluate

    def _name(self, name: str) -> str:
        return self._names.setdefault(name, f"v{len(self._names)}")

    def evaluate(
        self,
        facts: Facts,
        counters: Mapping[CounterRef, CounterFacts],
        hits: TextTruth,
        unknown: Unknown = ALL_KNOWN,
    ) -> list[object]:
        """One value per program, in order, or its CelFailure."""
        values = self._inputs.values(facts, counters, hits, unknown)
        known = {self._name(name): _to_cel(value) for name, value in values.items()}
        return [_judged(runner, want, known) for runner, want in zip(self._runners, self._wants, strict=True)]


def _judged(runner: Callable[[Any], Any] | None, want: Want, known: Mapping[str, object]) -> object:
    if runner is None:
        return _NOT_OFFERED
    try:
        value = _from_cel(runner(known))
    except Exception as error:  # the engine lets more than its own errors out
        return CelFailure(reason(str(error)))
    return value if _fits(value, want) else CelFailure("a value has another type than its place needs")


def _fits(value: object, want: Want) -> bool:
    match want:
        case Want.BOOL:
            return isinstance(value, bool)
        case Want.STRING:
            return isinstance(value, str)
        case Want.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Want.SCALAR:
            return isinstance(value, str | int | float)
        case Want.KEYS:
            return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _to_cel(value: object) -> Any:
    match value:
        case bool():
            return celtypes.BoolType(value)
        case int():
            return celtypes.IntType(value)
        case float():
            return celtypes.DoubleType(value)
        case str():
            return celtypes.StringType(value)
        case StringValue():
            return celtypes.StringType(value.value)
        case Timestamp():
            return celtypes.TimestampType(value.ToJsonString())
        case Duration():
            return celtypes.DurationType(value.ToTimedelta())
        case list() | Sequence() if not isinstance(value, str):
            return celtypes.ListType([_to_cel(item) for item in value])
        case Mapping():
            pairs = [(celtypes.StringType(key), _to_cel(item)) for key, item in value.items()]
            return celtypes.MapType(pairs)
        case PbMessage():
            names = [field.name for field in value.DESCRIPTOR.fields]
            return celtypes.MapType([(celtypes.StringType(name), _to_cel(getattr(value, name))) for name in names])
        case _:
            raise TypeError(f"no value of CEL: {type(value).__name__}")


def _from_cel(value: object) -> object:
    match value:
        case celtypes.BoolType():
            return bool(value)
        case celtypes.DoubleType():
            return float(value)
        case celtypes.IntType():
            return int(value)
        case celtypes.StringType():
            return str(value)
        case list():
            return [_from_cel(item) for item in value]
        case _:
            return value
