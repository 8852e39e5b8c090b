"""The sub-expressions of a checked expression, each with its text, ready for the engine that judges the whole.

Rule 1: a part is a piece of the very tree that is judged: its value is the engine's, never a second telling of CEL.
Rule 2: what has a value of its own only inside a loop is no part; the loop is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from policyd.core.compile.cel import CompiledProgram
from policyd.core.compile.cel_literals import quoted
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
from policyd.core.compile.cel_problems import Want
from policyd.core.compile.cel_tree import Call, Const, Fold, Ident, Items, Node, children, walk
from policyd.core.compile.cel_unparse import NoText, Writer

_LOGIC = ("_&&_", "_||_")
_BOOLEAN = frozenset(
    {
        "!_",
        "_==_",
        "_!=_",
        "_<_",
        "_<=_",
        "_>_",
        "_>=_",
        "@in",
        "contains",
        "startsWith",
        "endsWith",
        "matches",
        *_LOGIC,
    }
)


@dataclass(frozen=True, slots=True)
class Part:
    """One sub-expression; `depth` counts from 0, the whole. `leaf`: what it reads, when it is nothing but that."""

    text: str
    depth: int
    program: CompiledProgram
    leaf: Input | None = None


def parts(program: CompiledProgram) -> tuple[Part, ...]:
    """The whole and everything in it that has a value, parents first, each text once."""
    names = {one.name: _name(one) for one in program.inputs}
    found: dict[str, Part] = {}
    for node, depth in _below(program.tree, 0):
        text = written(node, names)
        if text not in found:
            found[text] = _part(text, depth, node, program)
    return tuple(found.values())


def _below(node: Node, depth: int) -> Iterator[tuple[Node, int]]:
    if isinstance(node, Const) or (isinstance(node, Items) and _is_constant(node)):
        return
    if not node.type.startswith("optional_type("):  # which has no value to show, what it is made of has
        yield node, depth
    if isinstance(node, Fold):
        yield from _below(node.over, depth + 1)
        return
    for child in _terms(node):
        yield from _below(child, depth + 1)


def _is_constant(node: Node) -> bool:
    return all(isinstance(part, Const | Items) for part in walk(node))


def _terms(node: Node) -> Iterator[Node]:
    """What stands right below; of `a && b && c` the three, however they are nested."""
    for child in children(node):
        same = isinstance(node, Call) and isinstance(child, Call) and child.function == node.function
        if same and isinstance(node, Call) and node.function in _LOGIC:
            yield from _terms(child)
        else:
            yield child


def _part(text: str, depth: int, node: Node, program: CompiledProgram) -> Part:
    names = {part.name for part in walk(node) if isinstance(part, Ident)}
    inputs = tuple(one for one in program.inputs if one.name in names)
    leaf = inputs[0] if isinstance(node, Ident) and inputs else None
    want = Want.BOOL if _is_truth(node, leaf) else Want.KEYS
    return Part(text, depth, replace(program, source=text, tree=node, inputs=inputs, want=want, parts=()), leaf)


def _is_truth(node: Node, leaf: Input | None) -> bool:
    """Whether it is sure to give a truth, so that it may be judged together with others."""
    if isinstance(node, Call):
        return node.function in _BOOLEAN
    return isinstance(leaf, WatchInput) or (isinstance(leaf, FactInput | CounterInput) and leaf.present)


# ---- texts ----------------------------------------------------------------------------------------------------------


def _name(one: Input) -> str:
    """A leaf as its author wrote it."""
    match one:
        case FactInput(path=path, present=present):
            return f"has({path})" if present else path
        case CounterInput(counter=(_, counter), field=field, present=present):
            path = f"counters.{counter}.{field}" if field else f"counters.{counter}"
            return f"has({path})" if present else path
        case TextSizeInput():
            return "response.text.size()"
        case SieveInput(path=path):
            return path
        case DetectionInput(name=name):
            return name
        case WholeInput(root=root):
            return root
        case WatchInput(watcher=watcher):
            return f"response.text.{watcher.kind}({quoted(watcher.pattern)})"


def written(node: Node, names: dict[str, str]) -> str:
    """The text of a tree, its outermost parentheses left out."""
    text = _Aloud(lambda name: names.get(name, name)).text(node)
    return text[1:-1] if isinstance(node, Call) and _is_wrapped(text) else text


def _is_wrapped(text: str) -> bool:
    """Whether the first parenthesis ends with the text. Only asked of calls, whose own pair is the outermost."""
    if not (text.startswith("(") and text.endswith(")")):
        return False
    level, inside, at = 0, "", 0
    while at < len(text):
        char = text[at]
        if inside:
            at += char == "\\"
            inside = "" if char == inside else inside
        elif char == '"':
            inside = char
        else:
            level += (char == "(") - (char == ")")
            if level == 0:
                return at == len(text) - 1
        at += 1
    return False


class _Aloud(Writer):
    """For people: what plain CEL has no words for is written as CEL with optionals has it, or left out."""

    def text(self, node: Node) -> str:
        try:
            return super().text(node)
        except NoText:
            return "…"

    def _call(self, node: Call) -> str:
        match node.function, node.args:
            case "_?._", (operand, Const(value=name)):
                return f"{self.text(operand)}.?{name}"
            case "_[?_]", (operand, key):
                return f"{self.text(operand)}[?{self.text(key)}]"
            case "_?_:_", (_, Call(function="optional.of", args=(value,)), Call(function="optional.none")):
                return self._optional(value)
            case "optional.of" | "optional.none" | "optional.ofNonZeroValue" as name, args:
                return f"{name}({', '.join(map(self.text, args))})"
            case _:
                return super()._call(node)

    def _optional(self, value: Node) -> str:
        root, _, field = self.text(value).rpartition(".")
        return f"{root}.?{field}"
