"""A tree as CEL text again, macros included; every operation in parentheses.

Rule 1: what has no text in plain CEL (optionals, cel.bind, two-variable macros, bytes) is refused, never approximated.
"""

from __future__ import annotations

from collections.abc import Callable

from policyd.core.compile.cel_literals import quoted
from policyd.core.compile.cel_tree import Call, Const, Entry, Fields, Fold, Ident, Items, Node, Select

_INFIX = {"_+_": "+", "_-_": "-", "_*_": "*", "_/_": "/", "_%_": "%", "_&&_": "&&", "_||_": "||", "@in": "in",
          "_==_": "==", "_!=_": "!=", "_<_": "<", "_<=_": "<=", "_>_": ">", "_>=_": ">="}  # fmt: skip
_BEYOND = frozenset({"_?._", "_[?_]", "optional.of", "optional.none", "optional.ofNonZeroValue"})


class NoText(Exception):  # noqa: N818
    """A tree that plain CEL cannot write."""


def unparse(node: Node, name: Callable[[str], str]) -> str:
    """The text of a tree; `name` says how a free variable is written."""
    return Writer(name).text(node)


class Writer:
    """Writes trees; each operation in parentheses."""

    def __init__(self, name: Callable[[str], str]) -> None:
        self._name = name
        self._loops: list[str] = []

    def text(self, node: Node) -> str:
        match node:
            case Const():
                return _constant(node)
            case Ident(name=name):
                return name if name in self._loops else self._name(name)
            case Select():
                text = f"{self.text(node.operand)}.{node.field}"
                return f"has({text})" if node.test else text
            case Call():
                return self._call(node)
            case Items(optional=()):
                return "[" + ", ".join(map(self.text, node.elements)) + "]"
            case Fields(message=""):
                return "{" + ", ".join(map(self._entry, node.entries)) + "}"
            case Fold():
                return self._fold(node)
            case _:
                raise NoText("a message or an optional element")

    def _entry(self, entry: Entry) -> str:
        if entry.optional or isinstance(entry.key, str):
            raise NoText("an optional entry")
        return f"{self.text(entry.key)}: {self.text(entry.value)}"

    def _call(self, node: Call) -> str:
        parts = [self.text(operand) for operand in node.operands]
        if node.function in _INFIX:
            return f"({parts[0]} {_INFIX[node.function]} {parts[1]})"
        match node.function:
            case function if function in _BEYOND:
                raise NoText("an optional")
            case "!_" | "-_":
                return f"({node.function[0]}{parts[0]})"
            case "_[_]":
                return f"{parts[0]}[{parts[1]}]"
            case "_?_:_":
                return f"({parts[0]} ? {parts[1]} : {parts[2]})"
            case function if node.target is not None:
                return f"{parts[0]}.{function}({', '.join(parts[1:])})"
            case function:
                return f"{function}({', '.join(parts)})"

    def _fold(self, fold: Fold) -> str:
        macro, bodies = _macro(fold)
        over = self.text(fold.over)
        self._loops.append(fold.var)
        written = [self.text(body) for body in bodies]
        self._loops.pop()
        return f"{over}.{macro}({', '.join((fold.var, *written))})"


def _macro(fold: Fold) -> tuple[str, tuple[Node, ...]]:
    """The macro that a fold comes from, and its arguments after the variable."""
    if fold.var2:
        raise NoText("a macro with two variables")
    match fold.init, fold.step, fold.result:
        case Const(value=False), Call(function="_||_", args=(Ident(name=fold.accu), predicate)), Ident():
            return "exists", (predicate,)
        case Const(value=True), Call(function="_&&_", args=(Ident(name=fold.accu), predicate)), Ident():
            return "all", (predicate,)
        case Const(value=0), Call(function="_?_:_", args=(predicate, _, _)), Call(function="_==_"):
            return "exists_one", (predicate,)
        case Items(elements=()), Call(function="_+_", args=(_, Items(elements=(element,)))), Ident():
            return "map", (element,)
        case (
            Items(elements=()),
            Call(function="_?_:_", args=(predicate, Call(args=(_, Items(elements=(element,)))), _)),
            Ident(),
        ):
            return ("filter", (predicate,)) if _is_loop_variable(element, fold) else ("map", (predicate, element))
        case _:
            raise NoText("a macro of an extension")


def _is_loop_variable(node: Node, fold: Fold) -> bool:
    return isinstance(node, Ident) and node.name == fold.var


def _constant(constant: Const) -> str:
    match constant.value:
        case None:
            return "null"
        case bool(value):
            return "true" if value else "false"
        case int(value) if constant.kind == "uint64":
            return f"{value}u"
        case int(value):
            return f"({value})" if value < 0 else str(value)
        case float(value):
            return f"({value!r})" if value < 0 else repr(value)
        case str(value):
            return quoted(value)
        case _:
            raise NoText("bytes")
