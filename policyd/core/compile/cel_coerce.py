"""Integer literals beside doubles read as doubles: which ones, found from the checker's complaint.

Rule 1: only literals change, and what is made of them alone (`60 * 2`, `[1, 2]`, `c ? 1 : 2`); a variable never does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from policyd.core.compile.cel_complaints import Complaint, split_types
from policyd.core.compile.cel_tree import Call, Const, Fields, Ident, Items, Node, Select, walk

_MISMATCH = re.compile(r"found no matching overload for '(.+?)' applied to '\((.*)\)'")
_ARITHMETIC = frozenset({"_+_", "_-_", "_*_", "_/_"})


def misread_literals(tree: Node, complaint: Complaint) -> tuple[list[int], str]:
    """The offsets of integer literals that stand where the complaint wants doubles; and, when something else than a
    literal is in the way, what to write instead of it."""
    match = _MISMATCH.match(complaint.message)
    if match is None:
        return [], ""
    types = split_types(match[2])
    if not any(_holds(type_, "double") for type_ in types):
        return [], ""
    for node in walk(tree):
        if isinstance(node, Call) and node.function == match[1] and node.at == complaint.offset:
            return _literals(node, types)
    return [], ""


def _holds(type_: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", type_) is not None


def _literals(call: Call, types: list[str]) -> tuple[list[int], str]:
    found: list[int] = []
    for operand, type_ in zip(call.operands, types, strict=False):
        if not _holds(type_, "int") or _holds(type_, "double"):
            continue
        made = list(_made_of(operand))
        if None in made or not made:
            return [], f"convert the int: `double({_written(operand)})`"
        found += [offset for offset in made if offset is not None]
    return found, ""


def _made_of(node: Node) -> Iterator[int | None]:
    """The offsets of the integer literals that a value is made of; None for any other part of it."""
    match node:
        case Const(kind="int64"):
            yield node.at
        case Const(kind="double"):
            return
        case Call(function="-_") | Call(function="_[_]"):
            yield from _made_of(node.args[0])
        case Call(function="_?_:_"):
            yield from (part for branch in node.args[1:] for part in _made_of(branch))
        case Call(function=function) if function in _ARITHMETIC:
            yield from (part for operand in node.args for part in _made_of(operand))
        case Items():
            yield from (part for element in node.elements for part in _made_of(element))
        case Fields(message=""):
            yield from (part for entry in node.entries for part in _made_of(entry.value))
        case Select(operand=Fields() as literal, test=False):
            yield from _made_of(literal)
        case _:
            yield None


def _written(node: Node) -> str:
    """A plain path as its author wrote it."""
    match node:
        case Ident():
            return node.name
        case Select(test=False):
            inner = _written(node.operand)
            return "…" if inner == "…" else f"{inner}.{node.field}"
        case _:
            return "…"
