"""`request.detections["card"]`: what of an expression is the count of one detector, and what is none.

Rule 1: detections are read by the name of a detector, so that only those that are named are run.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from policyd.core.compile.cel_tree import Call, Const, Ident, Node, Select, children
from policyd.core.model.detectors import DETECTOR_NAMES

FIELD = "detections"
ROOTS = ("request", "response")

Finding = tuple[int, str, str, str]
"""(offset, code, message, hint); see cel_limits.py"""


def detection(node: Node) -> tuple[str, str] | None:
    """The root and the detector of `request.detections["card"]`, however it is written; None for any other node."""
    match node:
        case Call(function="_[_]" | "_[?_]" | "_?._", args=(table, Const(value=str() as name))) if root := _root(table):
            return root, name
        case Select(operand=table, field=name) if root := _root(table):
            return root, name
        case _:
            return None


def _root(node: Node) -> str:
    """`request` or `response`, where this is its map of detections; empty where it is none."""
    match node:
        case Select(operand=Ident(name=root), field="detections", test=False) if root in ROOTS:
            return root
        case _:
            return ""


def misread(tree: Node) -> Iterator[Finding]:
    """Every use of detections that names no detector."""
    if found := detection(tree):
        if found[1] not in DETECTOR_NAMES:
            yield tree.at, "CEL002", f"unknown detector `{found[1]}`", _hint(found[1])
        return
    if root := _root(tree) or _asked(tree):
        yield (
            tree.at,
            "CEL010",
            f"`{root}.{FIELD}` is read with the constant name of a detector, and in no other way",
            f'write {root}.{FIELD}["card"] > 0',
        )
        return
    for child in children(tree):
        yield from misread(child)


def _asked(node: Node) -> str:
    """The root in `has(request.detections)` and `request.?detections`."""
    match node:
        case Select(operand=Ident(name=root), field="detections", test=True) if root in ROOTS:
            return root
        case Call(function="_?._", args=(Ident(name=root), Const(value="detections"))) if root in ROOTS:
            return root
        case _:
            return ""


def _hint(name: str) -> str:
    close = get_close_matches(name, DETECTOR_NAMES, n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`?" if close else f"there are {', '.join(f'`{one}`' for one in DETECTOR_NAMES)}"
