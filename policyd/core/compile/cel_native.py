"""The one file that touches cel-expr-python (cel-cpp).

Rule 1: nothing of cel-expr-python leaves this file but opaque handles.
Rule 2: no Python function is ever registered: a call of one leaks its arguments.
Rule 3: `.value()` is called only on a value whose type has been seen, and which is no null: a null is returned without
        its reference being counted, which ends the process on Python 3.11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from cel_expr_python import cel
from google.protobuf import descriptor_pool

from policyd.core.compile._pb import facts_pb2
from policyd.core.compile.cel_tree import Node
from policyd.core.compile.cel_wire import read_checked, read_parsed, write_checked

_CONFIG = cel.NewEnvConfigFromYaml(
    "name: policyd\nextensions:\n- name: sets\n- name: lists\n- name: optional\n"
    "- name: strings\n- name: math\n- name: bindings\n"
)
_PACKAGE = facts_pb2.DESCRIPTOR.package
_ROOTS = {name: cel.Type(f"{_PACKAGE}.{name.title()}") for name in ("request", "caller", "session", "response")}
_COUNTER = cel.Type(f"{_PACKAGE}.Counter")

StaticType: TypeAlias = cel.Type
Activation: TypeAlias = cel.Activation
DYN: StaticType = cel.Type.DYN


class Rejected(Exception):  # noqa: N818
    """The checker's own words, several errors in one text."""


class Checker:
    """Checks expressions that may name the facts, these counters, and these variables."""

    def __init__(self, counters: Sequence[str], variables: Mapping[str, StaticType]) -> None:
        types = {**_ROOTS, "now": cel.Type.TIMESTAMP}
        types |= {f"counters.{name}": _COUNTER for name in counters}
        types |= {f"variables.{name}": type_ for name, type_ in variables.items()}
        self._env = cel.NewEnv(descriptor_pool.Default(), config=_CONFIG, variables=types)

    def check(self, text: str) -> tuple[Node, StaticType]:
        """The typed tree of an expression; raises Rejected."""
        try:
            expression = self._env.compile(text)
        except RuntimeError as error:
            raise Rejected(str(error)) from None
        return read_checked(expression.serialize()), expression.return_type()

    def parse(self, text: str) -> Node:
        """The untyped tree of an expression that parses; raises Rejected."""
        try:
            return read_parsed(self._env.compile(text, disable_check=True).serialize())
        except RuntimeError as error:
            raise Rejected(str(error)) from None


class Failed(Exception):  # noqa: N818
    """An evaluation gave no value; holds the runtime's own words, which may quote content."""


_RUNTIME = cel.NewEnv(descriptor_pool.Default(), config=_CONFIG, variables={})
_BOOL, _STRING, _INT, _DOUBLE = cel.Type.BOOL, cel.Type.STRING, cel.Type.INT, cel.Type.DOUBLE
_SCALARS = (_BOOL, _STRING, _INT, _DOUBLE)


class Plan:
    """One tree, ready to evaluate."""

    __slots__ = ("_eval",)

    def __init__(self, tree: Node) -> None:
        self._eval = _RUNTIME.deserialize(write_checked(tree)).eval

    def truth(self, activation: Activation) -> bool | None:
        """Of a tree whose root is a logical operator, and so never null: its truth; None when it has none."""
        try:
            value = self._eval(activation).value()
        except Exception:  # the iteration budget, a text that is no text, a value that has no form in Python
            return None
        return value if value is True or value is False else None

    def value(self, activation: Activation) -> object:
        """A bool, int, float, str, or list of str. Raises Failed, and nothing else."""
        try:
            return _plain(self._eval(activation))
        except Failed:
            raise
        except Exception as error:
            raise Failed(str(error)) from None


def _plain(result: cel.Value) -> object:
    type_ = result.type()
    if type_ in _SCALARS:
        return result.value()
    if type_ == cel.Type.ERROR:
        raise Failed(str(result.value()))
    if type_ != cel.Type.LIST:
        raise Failed("the value has a type that its place cannot use")
    return _strings(result.value())


def _strings(items: Sequence[cel.Value]) -> list[str]:
    if any(item.type() != _STRING for item in items):
        raise Failed("the list holds something that is no string")
    return [item.value() for item in items]


def activate(values: Mapping[str, object]) -> Activation:
    """A fresh activation; values are converted when an expression first reads them."""
    return _RUNTIME.Activation(values)
