"""Whether a condition, once true, stays true while the answer grows; derived from its tree.

Rule 1: unsure means no. A wrong yes would let a cut be found at the wrong event; a wrong no only costs time.
Rule 2: what is said of errors: a condition that stays true never becomes an error, for every part that could fail is
        taken as varying, except arithmetic on what only grows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from policyd.core.compile.cel_detections import detection
from policyd.core.compile.cel_facts import COUNTER_FACTS, FACTS, FIXED, GROWS, PACKAGE, ROOTS
from policyd.core.compile.cel_tree import Call, Const, Fields, Fold, Ident, Items, Node, Select, children


class Trend(Enum):
    """What a value does while the answer runs. UP: it only grows, or turns true; text and lists grow at their end."""

    FIXED = 0
    UP = 1
    DOWN = -1
    ANY = 2

    def __neg__(self) -> Trend:
        return _NEGATED[self]


_NEGATED = {Trend.FIXED: Trend.FIXED, Trend.UP: Trend.DOWN, Trend.DOWN: Trend.UP, Trend.ANY: Trend.ANY}
_OF = {FIXED: Trend.FIXED, GROWS: Trend.UP}
Bound = Mapping[str, Trend]
"""Loop variables: what the element itself does."""

_PART_TRENDS = {"name": Trend.FIXED, "arguments": Trend.UP, "role": Trend.FIXED, "text": Trend.FIXED}


def is_monotone(tree: Node) -> bool:
    """True for a condition that stays true once it is true; watchers are still in the tree as calls."""
    return trend(tree, {}) in (Trend.FIXED, Trend.UP)


def join(*trends: Trend) -> Trend:
    """What a value does that rises with each of these."""
    moving = set(trends) - {Trend.FIXED}
    if not moving:
        return Trend.FIXED
    return moving.pop() if len(moving) == 1 else Trend.ANY


def trend(node: Node, bound: Bound) -> Trend:
    """What the value of this node does."""
    if found := detection(node):
        return Trend.UP if found[0] == "response" else Trend.FIXED
    match node:
        case Const():
            return Trend.FIXED
        case Ident(name="now"):
            return Trend.FIXED
        case Ident(name=name) if name in ("request", "session", "caller"):
            return Trend.FIXED
        case Ident(name=name):
            return Trend.ANY if node.type == f"{PACKAGE}.ToolCall" else bound.get(name, Trend.ANY)
        case Select():
            return _select(node, bound)
        case Call():
            return _call(node, bound)
        case Fold():
            return _fold(node, bound)
        case Items() | Fields():
            return _all_fixed(node, bound)


def _all_fixed(node: Node, bound: Bound) -> Trend:
    fixed = all(trend(child, bound) is Trend.FIXED for child in children(node))
    return Trend.FIXED if fixed else Trend.ANY


def _select(node: Select, bound: Bound) -> Trend:
    match node.operand:
        case Ident(name=name) if name in bound:
            part = node.operand.type.removeprefix(f"{PACKAGE}.")
            if part == "ToolCall" and not node.test:
                return _PART_TRENDS.get(node.field, Trend.ANY)
            return Trend.FIXED if bound[name] is Trend.FIXED and part != "ToolCall" else Trend.ANY
        case Ident(name=name) if name in ROOTS:
            return _OF.get(FACTS[f"{name}.{node.field}"].trend, Trend.ANY)
        case Ident(name=name) if name.startswith("counters."):
            return _OF.get(COUNTER_FACTS[node.field].trend, Trend.ANY)
        case operand:
            return Trend.FIXED if trend(operand, bound) is Trend.FIXED else Trend.ANY


# ---- calls ----------------------------------------------------------------------------------------------------------


def _call(node: Call, bound: Bound) -> Trend:
    trends = [trend(operand, bound) for operand in node.operands]
    if all(one is Trend.FIXED for one in trends):
        return Trend.FIXED
    match node.function:
        case "_&&_" | "_||_":
            return join(*trends)
        case "!_" | "-_":
            return -trends[0]
        case "_>_" | "_>=_" | "_-_" if _numeric(node):
            return join(trends[0], -trends[1])
        case "_<_" | "_<=_" if _numeric(node):
            return join(-trends[0], trends[1])
        case "_+_" if _numeric(node):
            return join(*trends)
        case "_*_" | "_/_":
            return _scaled(node, trends)
        case "_?_:_":
            return join(*trends[1:]) if trends[0] is Trend.FIXED else Trend.ANY
        case "size" | "double" | "int":
            return trends[0]
        case "@in":
            return trends[1] if trends[0] is Trend.FIXED and node.args[1].type.startswith("list(") else Trend.ANY
        case "contains":
            return trends[0] if trends[1] is Trend.FIXED and not _has_newline(node.operands[1]) else Trend.ANY
        case "matches":
            return trends[0] if _unanchored(node.operands[1]) else Trend.ANY
        case _:
            return Trend.ANY


def _numeric(node: Call) -> bool:
    return all(operand.type in ("int", "double") for operand in node.operands)


def _scaled(node: Call, trends: list[Trend]) -> Trend:
    """Times or divided by a positive literal."""
    left, right = node.operands
    if _positive(right):
        return trends[0]
    return trends[1] if node.function == "_*_" and _positive(left) else Trend.ANY


def _positive(node: Node) -> bool:
    return isinstance(node, Const) and isinstance(node.value, int | float) and node.value > 0


def _has_newline(node: Node) -> bool:
    """Text of several choices is joined with newlines: a literal that spans two choices may cease to be there."""
    return not isinstance(node, Const) or "\n" in str(node.value)


def _unanchored(node: Node) -> bool:
    return isinstance(node, Const) and isinstance(node.value, str) and not has_anchor(node.value)


_PIECE = re.compile(
    r"""\\Q.*?(?:\\E|\Z)                                     # quoted text
      | \\[AzbB](?P<escaped>)
      | \\.
      | \[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]           # a class
      | [$^](?P<bare>)
      | .""",
    re.VERBOSE | re.DOTALL,
)


def has_anchor(pattern: str) -> bool:
    r"""Whether an RE2 pattern looks at its surroundings: ^ $ \A \z \b \B outside of classes and quotes."""
    return any(piece["escaped"] is not None or piece["bare"] is not None for piece in _PIECE.finditer(pattern))


# ---- loops ----------------------------------------------------------------------------------------------------------


def _fold(node: Fold, bound: Bound) -> Trend:
    if not node.loops:  # cel.bind
        return trend(node.result, {**bound, node.accu: trend(node.init, bound)})
    over = trend(node.over, bound)
    inner = {**bound, node.var: Trend.FIXED, node.var2: Trend.FIXED, node.accu: Trend.FIXED}
    parts = (node.init, node.condition, node.step, node.result)
    whole = {trend(part, inner) for part in parts}
    if over is Trend.FIXED and whole == {Trend.FIXED}:
        return Trend.FIXED
    if over not in (Trend.FIXED, Trend.UP) or not node.over.type.startswith("list("):
        return Trend.ANY
    predicate = _exists(node) or _filter(node)
    if predicate is None or trend(predicate, inner) not in (Trend.FIXED, Trend.UP):
        return Trend.ANY
    return Trend.UP


def _exists(node: Fold) -> Node | None:
    """The predicate of an exists()."""
    match node.init, node.step, node.result:
        case Const(value=False), Call(function="_||_", args=(Ident(name=accu), predicate)), Ident(name=result):
            return predicate if accu == result == node.accu else None
        case _:
            return None


def _filter(node: Fold) -> Node | None:
    """The predicate of a filter(): the elements themselves are kept, nothing made of them."""
    match node.step, node.result:
        case (
            Call(
                function="_?_:_",
                args=(predicate, Call(function="_+_", args=(_, Items(elements=(Ident(name=kept),)))), Ident(name=rest)),
            ),
            Ident(name=result),
        ):
            return predicate if rest == result == node.accu and kept == node.var else None
        case _:
            return None
