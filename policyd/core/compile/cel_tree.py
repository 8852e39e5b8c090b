"""A CEL expression as a tree of frozen nodes, and how to walk and change it. cel_wire.py reads and writes it.

Rule 1: a node knows its static type as text ("double", "list(string)", a message's full name; "" when unchecked).
Rule 2: `at` is the node's offset in the text that was compiled; -1 when it has none.
Rule 3: nodes have no identity: trees may be shared and joined freely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Const:
    """A literal; `kind` is null, bool, int64, uint64, double, string or bytes."""

    kind: str
    value: object
    type: str = ""
    at: int = -1


@dataclass(frozen=True, slots=True)
class Ident:
    """A variable, by its whole dotted name."""

    name: str
    type: str = ""
    at: int = -1


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`; with `test` it is has(operand.field)."""

    operand: Node
    field: str
    test: bool = False
    type: str = ""
    at: int = -1


@dataclass(frozen=True, slots=True)
class Call:
    """An operator or function; `target` is the object of a method call."""

    function: str
    args: tuple[Node, ...]
    target: Node | None = None
    overloads: tuple[str, ...] = ()
    type: str = ""
    at: int = -1

    @property
    def operands(self) -> tuple[Node, ...]:
        """The target, if any, and the arguments: what an error message's list of types speaks of."""
        return self.args if self.target is None else (self.target, *self.args)


@dataclass(frozen=True, slots=True)
class Items:
    """A list literal."""

    elements: tuple[Node, ...]
    optional: tuple[int, ...] = ()
    type: str = ""
    at: int = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a map literal, or one field of a message literal."""

    key: Node | str
    value: Node
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Fields:
    """A map literal, or with a `message` a message literal."""

    entries: tuple[Entry, ...]
    message: str = ""
    type: str = ""
    at: int = -1


@dataclass(frozen=True, slots=True)
class Fold:
    """What a macro (exists, all, map, filter, cel.bind, ...) expands to."""

    var: str
    var2: str
    over: Node
    accu: str
    init: Node
    condition: Node
    step: Node
    result: Node
    type: str = ""
    at: int = -1

    @property
    def loops(self) -> bool:
        """False for cel.bind, which is a fold over an empty list."""
        return not (isinstance(self.over, Items) and not self.over.elements)


Node = Const | Ident | Select | Call | Items | Fields | Fold


# ---- walking ----------------------------------------------------------------------------------------------------


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below."""
    match node:
        case Const() | Ident():
            return ()
        case Select():
            return (node.operand,)
        case Call():
            return node.operands
        case Items():
            return node.elements
        case Fields():
            return tuple(part for entry in node.entries for part in _parts(entry))
        case Fold():
            return (node.over, node.init, node.condition, node.step, node.result)


def _parts(entry: Entry) -> tuple[Node, ...]:
    return (entry.value,) if isinstance(entry.key, str) else (entry.key, entry.value)


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, parents first."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        todo += reversed(children(node))


def conjuncts(node: Node) -> list[Node]:
    """The parts that must all be true, in the order of the text."""
    if isinstance(node, Call) and node.function == "_&&_":
        return [part for operand in node.args for part in conjuncts(operand)]
    return [node]


def start_of(node: Node) -> int:
    """Where the text of a node begins: the position of `a.b` is that of its dot, and of `a > b` its sign."""
    match node:
        case Select():
            return start_of(node.operand)
        case Call() if node.target is not None:
            return start_of(node.target)
        case Call(function="_[_]" | "_[?_]" | "_?._", args=(operand, *_)):
            return start_of(operand)
        case _:
            return node.at


def depth(node: Node) -> int:
    """How deep the tree's wire form nests, in messages."""
    own = 3 if isinstance(node, Fields) else 2
    return own + max(map(depth, children(node)), default=0)


def rebuild(node: Node, change: Callable[[Node], Node]) -> Node:
    """The node with every child changed."""
    match node:
        case Const() | Ident():
            return node
        case Select():
            return replace(node, operand=change(node.operand))
        case Call():
            target = None if node.target is None else change(node.target)
            return replace(node, target=target, args=tuple(map(change, node.args)))
        case Items():
            return replace(node, elements=tuple(map(change, node.elements)))
        case Fields():
            return replace(node, entries=tuple(_rebuilt(entry, change) for entry in node.entries))
        case Fold():
            return replace(
                node,
                over=change(node.over),
                init=change(node.init),
                condition=change(node.condition),
                step=change(node.step),
                result=change(node.result),
            )


def _rebuilt(entry: Entry, change: Callable[[Node], Node]) -> Entry:
    key = entry.key if isinstance(entry.key, str) else change(entry.key)
    return replace(entry, key=key, value=change(entry.value))


def placed(node: Node, at: int) -> Node:
    """The tree as if all of it stood at this offset."""
    return replace(rebuild(node, lambda child: placed(child, at)), at=at)
