"""What is legal and yet hardly meant.

Rule 1: a warning never refuses; it names the expression that would say what was probably meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policyd.core.compile.cel_facts import FACTS, ROOTS
from policyd.core.compile.cel_limits import Finding
from policyd.core.compile.cel_literals import quoted
from policyd.core.compile.cel_native import Failed, Plan, activate
from policyd.core.compile.cel_tree import Call, Const, Ident, Node, Select, children, start_of, walk

_ORDERINGS = {"_>_": ">", "_>=_": ">=", "_<_": "<", "_<=_": "<="}


def warnings(own: Node, whole: Node) -> Iterator[Finding]:
    """`own` is the tree as it was written, `whole` the same with variables inlined: a has() in one counts."""
    asked = frozenset(_asked(whole))
    for node, parent in _with_parents(own):
        match node:
            case Call(function=function) if function in _ORDERINGS:
                yield from _unset_number(node, asked)
            case Call(function="_[_]", args=(table, Const(value=str() as key))) if not _in_has(parent):
                yield from _missing_key(table, key, asked)
            case Select(operand=table, field=key, test=False) if not _in_has(parent):
                yield from _missing_key(table, key, asked)


def _with_parents(tree: Node) -> Iterator[tuple[Node, Node | None]]:
    todo: list[tuple[Node, Node | None]] = [(tree, None)]
    while todo:
        node, parent = todo.pop()
        yield node, parent
        todo += [(child, node) for child in reversed(children(node))]


def _in_has(parent: Node | None) -> bool:
    return isinstance(parent, Select) and parent.test


def _path(node: Node) -> str:
    match node:
        case Select(operand=Ident(name=root), field=name) if root in ROOTS:
            return f"{root}.{name}"
        case _:
            return ""


def _asked(tree: Node) -> Iterator[str]:
    """What the expression asks the presence of: paths, and `path[key]` of maps."""
    for node in walk(tree):
        match node:
            case Select(operand=operand, field=name, test=True):
                yield _path(node) or f"{_path(operand)}[{name}]"
            case Call(function="_?._", args=(Ident(name=root), Const(value=str() as name))):
                yield f"{root}.{name}"
            case Call(function="@in", args=(Const(value=str() as key), table)):
                yield f"{_path(table)}[{key}]"


def _unset_number(node: Call, asked: frozenset[str]) -> Iterator[Finding]:
    for operand in node.args:
        if isinstance(operand, Call) and operand.function == "double":
            operand = operand.args[0]
        path = _path(operand)
        if path in FACTS and FACTS[path].optional_number and path not in asked:
            label = f"`{path}` reads as 0 when it was not sent"
            yield start_of(operand), "CEL101", label, f"write has({path}) && …, or !has({path}) || …"


def _missing_key(table: Node, key: str, asked: frozenset[str]) -> Iterator[Finding]:
    path = _path(table)
    if path in FACTS and FACTS[path].type == "map(string, string)" and f"{path}[{key}]" not in asked:
        key = key.lower() if path.endswith(".headers") else key
        label = f"a call without {quoted(key)} in `{path}` makes this an error"
        yield start_of(table), "CEL102", label, f'write {path}[?{quoted(key)}].orValue("")'


def constant(tree: Node) -> Iterator[Finding]:
    """Whether a condition that reads nothing is always the same; a lone true or false is taken as meant."""
    if isinstance(tree, Const):
        return
    try:
        value = Plan(tree).value(activate({}))
    except Failed:
        yield 0, "CEL103", "this reads nothing of the call, and always fails", "name a fact, as in request.model"
        return
    yield 0, "CEL103", f"this reads nothing of the call: it is always {str(value).lower()}", "name a fact"


def places(found: Sequence[Finding]) -> list[Finding]:
    """In the order of the text, each once."""
    return sorted(set(found))
