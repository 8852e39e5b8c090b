"""What the evaluation of an expression will cost, from its tree and the sizes of what it reads in this call.

The runtime cannot be interrupted, and holds the interpreter: an evaluation that takes too long stops every other call.

Rule 1: a step is one operation, about half a microsecond. A loop costs its body for each element, a loop within a loop
        the product. Searching text costs steps by its length.
Rule 2: an expression without a loop, and without a function that makes a list or a text of a text, is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from policyd.core.compile.cel_tree import Call, Const, Fold, Ident, Items, Node, Select, children, walk
from policyd.core.model.facts import Facts

MATCH = 100  # steps: the runtime compiles a pattern each time
_SEARCHED, _MADE = 500, 50  # characters a step
_MAKES = frozenset(
    {"split", "replace", "lowerAscii", "upperAscii", "join", "format", "reverse", "substring", "trim", "indexOf"}
)
_LISTS = frozenset(
    {"@in", "sets.contains", "sets.equivalent", "sets.intersects", "distinct", "flatten", "sort", "sortBy"}
)
_FEW = 64


class Shape(NamedTuple):
    """How many characters or elements a value has, and what an element is."""

    size: int = 1
    each: Shape | None = None  # of an element, or of the strings of one


_ONE = Shape()


def may_cost(tree: Node) -> bool:
    """Whether its cost depends on the sizes of lists, or on making new texts."""
    return any(
        (isinstance(node, Fold) and node.loops) or getattr(node, "function", "") in _MAKES for node in walk(tree)
    )


def shapes(values: Mapping[str, object], facts: Facts) -> dict[str, Shape]:
    """The sizes of the inputs of expressions."""
    return {name: _shape(name, value, facts) for name, value in values.items()}


def _shape(name: str, value: object, facts: Facts) -> Shape:
    if isinstance(value, str):
        return Shape(len(value), _ONE)
    if isinstance(value, Mapping):
        return Shape(len(value), Shape(_FEW))
    if not isinstance(value, list):
        return _ONE
    count = max(len(value), 1)
    if name.startswith("response.tool_calls"):
        calls = facts.response.tool_calls
        strings = sum(len(call.strings) for call in calls) // count
        return Shape(len(value), Shape(sum(call.said.size for call in calls) // count, Shape(strings, Shape(_FEW))))
    chars = sum(map(len, value)) if value and isinstance(value[0], str) else len(facts.request.text or "")
    return Shape(len(value), Shape(chars // count))


def cost(tree: Node, known: Mapping[str, Shape]) -> int:
    """The steps that an evaluation takes at most; `known`: the sizes of what the tree reads."""
    return _cost(tree, known)[0]


def _cost(node: Node, known: Mapping[str, Shape]) -> tuple[int, Shape]:
    match node:
        case Const():
            return 1, Shape(len(node.value)) if isinstance(node.value, str) else _ONE
        case Ident():
            return 1, known.get(node.name, _ONE)
        case Select():
            steps, shape = _cost(node.operand, known)
            return steps + 1, shape.each or shape if node.type.startswith("list(") else shape
        case Call():
            return _call(node, known)
        case Fold():
            return _loop(node, known)
        case _:
            found = [_cost(child, known) for child in children(node)]
            each = max((shape for _, shape in found), key=lambda shape: shape.size, default=_ONE)
            return 1 + sum(steps for steps, _ in found), Shape(len(found), each)


def _call(node: Call, known: Mapping[str, Shape]) -> tuple[int, Shape]:
    found = [_cost(operand, known) for operand in node.operands]
    steps, shape = 1 + sum(steps for steps, _ in found), found[0][1] if found else _ONE
    chars = max((shape.size for _, shape in found), default=1)
    match node.function:
        case "matches":
            return steps + MATCH + chars // _SEARCHED, _ONE
        case "split":
            return steps + chars // 5, Shape(chars // 4, _ONE)
        case "_+_":
            return steps + chars // _SEARCHED, Shape(sum(shape.size for _, shape in found), shape.each)
        case name if name in _MAKES:
            return steps + chars // _MADE, shape
        case name if name in _LISTS:
            return steps + chars, shape
        case _:
            return steps + (chars // _SEARCHED if _is_long(node) else 0), shape


def _is_long(node: Call) -> bool:
    """Whether its work grows with its operands: a list is compared by its elements, a text by its characters."""
    return any(operand.type == "string" or operand.type.startswith("list(") for operand in node.operands)


def _loop(node: Fold, known: Mapping[str, Shape]) -> tuple[int, Shape]:
    over, shape = _cost(node.over, known)
    begun, first = _cost(node.init, known)
    if not node.loops:  # cel.bind
        result, last = _cost(node.result, {**known, node.accu: first})
        return 1 + over + begun + result, last
    each = shape.each or _ONE
    grown = Shape(shape.size, each) if isinstance(node.init, Items) else first
    within = {**known, node.var: each, node.accu: grown} | ({node.var2: each} if node.var2 else {})
    body = _cost(node.condition, within)[0] + _cost(node.step, within)[0]
    return over + begun + shape.size * body + _cost(node.result, within)[0], grown
