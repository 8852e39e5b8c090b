"""What a condition over the response gives whatever the response is: told from its tree before it comes.

Rule 1: unsure means no: what may still have a value is judged when it can have one.
Rule 2: a failure is absorbed as CEL absorbs it: `false && failure` is false, `true || failure` is true.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from policyd.core.compile.cel import CompiledProgram
from policyd.core.compile.cel_batch import paths_of
from policyd.core.compile.cel_problems import Want
from policyd.core.compile.cel_tree import Call, Const, Fold, Ident, Node, children, walk
from policyd.core.compile.policyset import CelFailure, Program, Unknown

Outcomes = frozenset[object]
"""What a node may give: True, False, a value that is no truth, or a failure."""

_VALUE, _FAILURE = "value", "failure"
_FAILS: Outcomes = frozenset({_FAILURE})
_TRUTHS: Outcomes = frozenset({True, False})


@dataclass(frozen=True, slots=True)
class Outlook:
    """One condition; `settled` are those parts of it that have their value before the response comes."""

    tree: Node
    paths: Mapping[str, frozenset[str]]  # of each input, by name
    settled: tuple[CompiledProgram, ...]
    places: Mapping[int, int]  # by the id of a node of the tree: which of `settled` it is

    def always_fails(self, unknown: Unknown, values: Sequence[object]) -> bool:
        """Whether it has no value, whatever the response is. `values` are those of `settled`."""
        absent = {name for name, paths in self.paths.items() if paths & unknown.facts}
        return _Reading(self, absent, values).of(self.tree) == _FAILS

    @property
    def may_hold(self) -> bool:
        """Whether it can be true whatever the response is: as `a || b` is where `a` reads the request."""
        absent = {name for name, paths in self.paths.items() if any(is_response(path) for path in paths)}
        unsettled = _Reading(replace(self, places={}), absent, ())
        return True in unsettled.of(self.tree)


def is_response(path: str) -> bool:
    """Whether this is the response, or a part of it."""
    return path == "response" or path.startswith("response.")


def outlook(program: Program, early: frozenset[str]) -> Outlook:
    """The outlook of a condition; `early`: the paths that are known before the response comes."""
    assert isinstance(program, CompiledProgram)
    paths = {one.name: frozenset(paths_of(one)) for one in program.inputs}
    names = {name for name, parts in paths.items() if parts and parts <= early}
    nodes = list(_settled(program.tree, names))
    return Outlook(
        tree=program.tree,
        paths=paths,
        settled=tuple(_part(program, node) for node in nodes),
        places={id(node): at for at, node in enumerate(nodes)},
    )


def _part(program: CompiledProgram, node: Node) -> CompiledProgram:
    names = _names(node)
    inputs = tuple(one for one in program.inputs if one.name in names)
    return replace(program, tree=node, inputs=inputs, want=Want.BOOL, parts=())


def _settled(node: Node, names: set[str]) -> Iterator[Node]:
    """The largest parts that are truths and read nothing but these names."""
    if node.type == "bool" and isinstance(node, Call | Fold) and (read := _names(node)) and read <= names:
        yield node
    elif not isinstance(node, Fold):
        for child in children(node):
            yield from _settled(child, names)


def _names(node: Node) -> set[str]:
    bound = {name for one in walk(node) if isinstance(one, Fold) for name in (one.var, one.var2, one.accu)}
    return {one.name for one in walk(node) if isinstance(one, Ident)} - bound


@dataclass(frozen=True, slots=True)
class _Reading:
    """What each node may give, where these names are absent."""

    outlook: Outlook
    absent: set[str]
    values: Sequence[object]

    def of(self, node: Node) -> Outcomes:
        if (at := self.outlook.places.get(id(node))) is not None:
            value = self.values[at]
            return _FAILS if isinstance(value, CelFailure) else frozenset({value})
        match node:
            case Const():
                return frozenset({node.value}) if isinstance(node.value, bool) else frozenset({_VALUE})
            case Ident():
                return _FAILS if node.name in self.absent else _any(node)
            case Call():
                return self._call(node)
            case Fold():
                return _FAILS if self.of(node.over) == _FAILS else _any(node) | _FAILS
            case _:
                return self._strict(node, children(node))

    def _call(self, node: Call) -> Outcomes:
        match node.function:
            case "_&&_":
                return self._joined(node, False)
            case "_||_":
                return self._joined(node, True)
            case "!_":
                return frozenset(not one if isinstance(one, bool) else _FAILURE for one in self._truths(node.args[0]))
            case "_?_:_":
                return self._chosen(node)
            case "or" | "orValue":  # what stands in for a missing value is read only where it is missing
                return self._strict(node, node.operands[:1])
            case _:
                return self._strict(node, node.operands)

    def _joined(self, node: Call, decides: bool) -> Outcomes:
        """`&&` is decided by false, `||` by true; a failure beside what decides nothing is a failure."""
        left, right = (self._truths(arg) for arg in node.args)
        return frozenset(_join(one, other, decides) for one in left for other in right)

    def _chosen(self, node: Call) -> Outcomes:
        condition, *branches = node.args
        truths = self._truths(condition)
        found = _FAILS if truths - _TRUTHS else frozenset()
        for truth, branch in zip((True, False), branches, strict=True):
            found |= self.of(branch) if truth in truths else frozenset()
        return found

    def _truths(self, node: Node) -> Outcomes:
        """What an operand of a logical operator may give: a value there is a truth."""
        found = self.of(node)
        return (found - {_VALUE}) | _TRUTHS if _VALUE in found else found

    def _strict(self, node: Node, operands: Sequence[Node]) -> Outcomes:
        """Any failure among these is the failure of the whole."""
        return _FAILS if any(self.of(one) == _FAILS for one in operands) else _any(node) | _FAILS


def _any(node: Node) -> Outcomes:
    return _TRUTHS if node.type == "bool" else frozenset({_VALUE})


def _join(one: object, other: object, decides: bool) -> object:
    if one is decides or other is decides:
        return decides
    return one if isinstance(one, bool) and isinstance(other, bool) else _FAILURE
