"""What an expression may cost, judged on its typed tree with its variables inlined.

Rule 1: nothing that an author writes makes an evaluation long: few nodes, loops at most two deep, no text or list that
        grows inside a loop, regular expressions that RE2 takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import re2

from policyd.core.compile.cel_detections import misread
from policyd.core.compile.cel_facts import PACKAGE, ROOTS
from policyd.core.compile.cel_tree import Call, Const, Fields, Fold, Ident, Node, children, depth, walk

MAX_NODES = 1000
MAX_LOOPS = 2  # nested
MAX_WIRE_DEPTH = 80  # protobuf takes 100; the rest is for what a batch puts around a program
RESERVED = frozenset({*ROOTS, "counters", "params", "variables", "now"})

Finding = tuple[int, str, str, str]
"""(offset in the checked text, code, message, hint)"""


def findings(tree: Node) -> Iterator[Finding]:
    """Every limit that a tree breaks; a tree that is too large or too deep is looked at no further."""
    nodes = sum(1 for _ in walk(tree))
    if nodes > MAX_NODES:
        yield too_many(nodes)
        return
    if depth(tree) > MAX_WIRE_DEPTH:
        yield 0, "CEL006", "nested too deeply once its variables are inlined", "shorten the chain of variables"
        return
    yield from _loops(tree, 0)
    yield from misread(tree)
    for node in walk(tree):
        match node:
            case Call(function="matches"):
                yield from _pattern(node)
            case Fields(message=message) if message:
                yield (
                    node.at,
                    "CEL010",
                    "messages cannot be made here",
                    "write a map, or call timestamp() or duration()",
                )
            case Ident(name=name) if name.startswith(PACKAGE):
                yield node.at, "CEL010", "types of messages cannot be named here", "compare the fields"


def too_many(nodes: int) -> Finding:
    """The finding for a tree of so many nodes."""
    hint = "macros and inlined variables and parameters count; split it into rules"
    return 0, "CEL006", f"the expression has {nodes} parts, more than {MAX_NODES}", hint


def _loops(node: Node, level: int) -> Iterator[Finding]:
    if isinstance(node, Fold):
        yield from _names(node)
        yield from _loops(node.over, level)
        inner = level + node.loops
        if inner > MAX_LOOPS:
            hint = "work grows with the product of the lists; keep the inner list in a variable or use sets.contains"
            yield node.at, "CEL006", f"loops nested deeper than {MAX_LOOPS}", hint
            return
        for part in (node.init, node.condition, node.step, node.result):
            yield from _loops(part, inner)
        return
    if level and isinstance(node, Call) and _grows(node):
        hint = "text that grows in a loop has no bound; compare the parts instead"
        yield node.at, "CEL008", "a concatenation inside a loop", hint
    for child in children(node):
        yield from _loops(child, level)


def _grows(call: Call) -> bool:
    """A concatenation that the author wrote; the one that map() and filter() expand to adds to the loop's own list."""
    if call.function in ("join", "format", "replace", "flatten"):
        return True
    if call.function != "_+_" or not call.type.startswith(("string", "bytes", "list(", "dyn")):
        return False
    first = call.args[0]
    return not (getattr(first, "name", "").startswith(("@result", "__result__")))


def _names(fold: Fold) -> Iterator[Finding]:
    for name in (fold.var, fold.var2, fold.accu):
        if name in RESERVED:
            yield fold.at, "CEL010", f"`{name}` names the facts and cannot name a loop variable", "choose another name"


def _pattern(call: Call) -> Iterator[Finding]:
    pattern = call.args[-1]
    if not isinstance(pattern, Const) or not isinstance(pattern.value, str):
        hint = "write the pattern as a literal or a parameter; for plain text use contains()"
        yield pattern.at, "CEL007", "the pattern of matches() must be constant", hint
        return
    reason = regex_error(pattern.value)
    if reason:
        yield pattern.at, "CEL007", f"invalid regular expression: {reason}", _pattern_hint(pattern.value)


def _pattern_hint(text: str) -> str:
    if text.startswith(("*", "?", "+")):
        return f"`*` repeats what stands before it: write `{text.replace('*', '.*')}`, or contains() for plain text"
    if "(?" in text:
        return "RE2 has no backreferences or look-around"
    return "RE2 has no backreferences or look-around; write a backslash before ( [ { * + ? that stand for themselves"


@lru_cache(maxsize=1024)
def regex_error(pattern: str) -> str:
    """Why RE2 refuses a pattern; empty when it takes it."""
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        words = error.args[0] if error.args else error
        return words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
    return ""
