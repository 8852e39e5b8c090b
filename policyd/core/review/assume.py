"""What must hold of a call for a condition to give true, or to give false: as cases, each narrower than what was given.

Rule 1: every call for which the condition gives the wanted truth is in one of the cases. No case: no such call.
Rule 2: a condition that fails gives neither.
Rule 3: bounded: more than MAX_CASES cases are taken as one that says nothing new, and so is everything once the effort
        of a review is spent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from policyd.core.compile.cel_batch import any_of
from policyd.core.compile.cel_native import Plan, activate
from policyd.core.compile.cel_tree import Call, Const, Fold, Ident, Items, Node, rebuild, walk
from policyd.core.review.ranges import Leaves, of_call
from policyd.core.review.values import ANYTHING, Known

MAX_CASES = 64
MAX_TRIED = 64  # values of a finite set that are put through the engine

Case = Mapping[Node, Known]
"""What is known of terms: leaves, and whatever else stands where a value is compared."""

_KINDS = {"string": "string", "int": "int64", "double": "double", "bool": "bool"}
_TYPES = {"string": str, "int64": int, "double": float, "bool": bool}
_MIRRORED = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_"}
_NEGATED = {"_<_": "_>=_", "_<=_": "_>_", "_>_": "_<=_", "_>=_": "_<_"}


def bare(node: Node) -> Node:
    """The node without its place and type: two of them are equal when they say the same."""
    return replace(rebuild(node, bare), at=-1, type="")


@dataclass(slots=True)
class Effort:
    """How much more a whole review may assume: parts of conditions, some 100,000 a second."""

    left: int = 1_000_000

    @property
    def spent(self) -> bool:
        return self.left < 0


@dataclass(slots=True)
class Assumption:
    """Assumes conditions over one set of leaves."""

    leaves: Leaves
    effort: Effort = field(default_factory=Effort)
    _bare: dict[Node, Node] = field(default_factory=dict)

    def cases(self, tree: Node, wanted: bool, given: Sequence[Case]) -> list[Case]:
        """The cases in which the tree gives this truth, given those. Twice, so that order does not matter."""
        once = self._all(tree, wanted, given)
        return self._all(tree, wanted, once)

    def _all(self, tree: Node, wanted: bool, given: Sequence[Case]) -> list[Case]:
        found = [case for one in given for case in self._assume(tree, wanted, one)]
        return found if len(found) <= MAX_CASES else list(given)

    def _assume(self, node: Node, wanted: bool, case: Case) -> list[Case]:
        self.effort.left -= 1
        if self.effort.spent:
            return [case]
        match node:
            case Const(value=bool(value)):
                return [case] if value is wanted else []
            case Call(function="!_", args=(operand,)):
                return self._assume(operand, not wanted, case)
            case Call(function="_&&_" | "_||_" as function, args=(left, right)):
                if wanted is (function == "_&&_"):
                    return self._all(right, wanted, self._assume(left, wanted, case))
                return self._either([*self._assume(left, wanted, case), *self._assume(right, wanted, case)], case)
            case Call(function="_?_:_", args=(condition, one, other)):
                yes = self._all(one, wanted, self._assume(condition, True, case))
                no = self._all(other, wanted, self._assume(condition, False, case))
                return self._either([*yes, *no], case)
            case _:
                return self._leaf(node, wanted, case)

    @staticmethod
    def _either(found: list[Case], case: Case) -> list[Case]:
        return found if len(found) <= MAX_CASES else [case]

    def _leaf(self, node: Node, wanted: bool, case: Case) -> list[Case]:
        match node:
            case Fold():
                return [case] if self._can_loop(node, wanted, case) else []
            case Call(function="_==_" | "_!=_" as function, args=(left, right)):
                return self._equal(node, left, right, wanted is (function == "_==_"), wanted, case)
            case Call(function=function, args=(left, right)) if function in _MIRRORED:
                return self._ordered(node, (left, function, right), wanted, case)
            case Call(function="@in", args=(term, Items(optional=(), elements=elements))):
                values = [element.value for element in elements if isinstance(element, Const)]
                if len(values) == len(elements):
                    return self._among(term, values, wanted, case)
        return self._truth(node, wanted, case)

    # ---- comparisons ------------------------------------------------------------------------------------------------

    def _equal(self, node: Node, left: Node, right: Node, same: bool, wanted: bool, case: Case) -> list[Case]:
        if isinstance(left, Const):
            left, right = right, left
        if not isinstance(right, Const):
            return self._truth(node, wanted, case)
        if isinstance(right.value, bool):
            return self._assume(left, right.value is same, case)
        return self._among(left, [right.value], same, case)

    def _among(self, term: Node, values: Sequence[object], inside: bool, case: Case) -> list[Case]:
        scalars = [value for value in values if isinstance(value, bool | int | float | str)]
        if len(scalars) < len(values):
            return [case]
        known = self.known(term, case)
        return self._with(term, known.among(scalars) if inside else known.excluding(scalars), case)

    def _ordered(self, node: Node, parts: tuple[Node, str, Node], wanted: bool, case: Case) -> list[Case]:
        left, sign, right = parts
        if isinstance(left, Const):
            left, sign, right = right, _MIRRORED[sign], left
        if not wanted and not self._has_order(left):
            return self._truth(node, wanted, case)
        sign = sign if wanted else _NEGATED[sign]
        if isinstance(right, Const) and _is_number(right.value):
            return self._with(left, _bounded(self.known(left, case), sign, right.value), case)
        if not self._may(self.known(left, case), sign, self.known(right, case)):
            return []
        return self._truth(node, wanted, case)

    @staticmethod
    def _may(left: Known, sign: str, right: Known) -> bool:
        """Whether two ranges leave room for this order."""
        if sign in ("_>_", "_>=_"):
            left, right = right, left
        strict = sign in ("_<_", "_>_") or left.low_open or right.high_open
        return left.low < right.high or (left.low == right.high and not strict)

    def _has_order(self, node: Node) -> bool:
        """Whether a value is above or not above another: arithmetic can give what is neither (NaN)."""
        match node:
            case Ident(name=name):
                return name != "request.temperature"
            case Call(function="double" | "int", args=(operand,)):
                return self._has_order(operand)
            case Call(type="int"):
                return True
            case Call(function="_[_]" | "size"):
                return of_call(node) is not ANYTHING  # ours, and never NaN
            case _:
                return False

    # ---- terms ------------------------------------------------------------------------------------------------------

    def known(self, node: Node, case: Case) -> Known:
        """What is known of a value."""
        found = case.get(self._key(node))
        return found if found is not None else self._before(node, case)

    def _before(self, node: Node, case: Case) -> Known:
        match node:
            case Const(value=value) if isinstance(value, bool | int | float | str):
                low, high = (value, value) if _is_number(value) else (-math.inf, math.inf)
                return Known(frozenset((value,)), low=float(low), high=float(high))
            case Ident(name=name):
                return self.leaves.known(name)
            case Call(function="double", args=(operand,)) if self.type(operand) == "int":
                inner = self.known(operand, case)
                return Known(low=inner.low, high=inner.high)
            case Call():
                return of_call(node)
            case _:
                return ANYTHING

    def type(self, node: Node) -> str:
        return self.leaves.type(node.name) or node.type if isinstance(node, Ident) else node.type

    def _with(self, term: Node, known: Known, case: Case) -> list[Case]:
        if self.type(term) == "int":
            known = known.whole()
        if known.empty:
            return []
        return [{**case, self._key(term): known}]

    def _key(self, node: Node) -> Node:
        key = self._bare.get(node)
        if key is None:
            key = self._bare[node] = bare(node)
        return key

    # ---- anything else that is true or false ------------------------------------------------------------------------

    def _truth(self, node: Node, wanted: bool, case: Case) -> list[Case]:
        narrowed = self._tried(node, wanted, case)
        if narrowed is None:
            return []
        known = self.known(node, narrowed).among([wanted])
        if known.empty:
            return []
        return self._sent(node, wanted, {**narrowed, self._key(node): known})

    def _sent(self, node: Node, wanted: bool, case: Case) -> list[Case]:
        """has(): what was not sent reads as empty, and what is empty counts as not sent."""
        unsent = self.leaves.unsent(node.name) if isinstance(node, Ident) else None
        if unsent is None:
            return [case]
        value = Ident(unsent[0])
        if not wanted:
            return self._with(value, self.known(value, case).among([unsent[1]]), case)
        if unsent[1] == "":
            return self._with(value, self.known(value, case).excluding([""]), case)
        return [case]

    def _tried(self, node: Node, wanted: bool, case: Case) -> Case | None:
        """Where the only leaf has few values left, those for which the engine gives this truth; None for none."""
        names = {part.name for part in walk(node) if isinstance(part, Ident)}
        leaf = Ident(next(iter(names))) if len(names) == 1 else None
        kind = _KINDS.get(self.leaves.type(leaf.name)) if leaf else None
        if leaf is None or kind is None or leaf == self._key(node):
            return case
        known = self.known(leaf, case)
        if (
            known.only is None
            or len(known.only) > MAX_TRIED
            or any(type(one) is not _TYPES[kind] for one in known.only)
        ):
            return case
        kept = [value for value in known.only if _gives(node, leaf.name, Const(kind, value), wanted)]
        return {**case, leaf: known.among(kept)} if kept else None

    # ---- loops ------------------------------------------------------------------------------------------------------

    def _can_loop(self, node: Fold, wanted: bool, case: Case) -> bool:
        """An exists() is true only if its predicate can be true of some element."""
        predicate = _exists(node)
        if predicate is None or not wanted:
            return True
        around = {term: known for term, known in case.items() if not _mentions(term, node.var)}
        return bool(self.cases(predicate, True, [around]))


def _exists(node: Fold) -> Node | None:
    match node.init, node.step, node.result:
        case Const(value=False), Call(function="_||_", args=(Ident(name=accu), predicate)), Ident(name=result):
            return predicate if accu == result == node.accu and not node.var2 else None
        case _:
            return None


def _mentions(term: Node, name: str) -> bool:
    return any(isinstance(part, Ident) and part.name == name for part in walk(term))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bounded(known: Known, sign: str, value: object) -> Known:
    assert isinstance(value, int | float)
    match sign:
        case "_<_" | "_<=_":
            return known.below(value, strict=sign == "_<_")
        case _:
            return known.above(value, strict=sign == "_>_")


def _gives(tree: Node, name: str, value: Const, wanted: bool) -> bool:
    """Whether the engine may give this truth with the leaf at this value: an error gives none."""
    return Plan(any_of([_put(tree, name, value)])).truth(activate({})) is wanted


def _put(node: Node, name: str, value: Const) -> Node:
    if isinstance(node, Ident) and node.name == name:
        return value
    return rebuild(node, lambda child: _put(child, name, value))
