"""From a typed tree to one that the runtime evaluates fast, and the list of what it reads.

Rule 1: a field of the facts becomes a variable of its own (`request.model`), so that an activation holds what is read
        and nothing else; has() on it becomes another one (`request.model?`), because has() on a dotted name lies.
Rule 2: a literal or regular expression searched in response.text, response.content or response.reasoning becomes the
        truth of a watcher: growing text does not enter CEL for it.
Rule 3: a whole object used as a value (dyn(request)) reads all of its fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from policyd.core.compile.cel_detections import FIELD, detection
from policyd.core.compile.cel_facts import COUNTER_FACTS, FACTS, PACKAGE, PART_FIELDS, ROOTS, fields_of, part_of
from policyd.core.compile.cel_sieve import Tests, sieve
from policyd.core.compile.cel_tree import Call, Const, Fold, Ident, Node, Select, children, rebuild, walk
from policyd.core.compile.policyset import CounterRef, Watcher
from policyd.core.model.reach import VIEWS, reach


@dataclass(frozen=True, slots=True)
class FactInput:
    """A fact, or whether it was sent (`present`); of a list of messages only these `parts`."""

    name: str
    path: str
    present: bool = False
    parts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TextSizeInput:
    """The number of characters of response.text, or of another text of the response that grows (`of`, see VIEWS)."""

    name: str
    of: str = "text"


@dataclass(frozen=True, slots=True)
class WholeInput:
    """A root as one message."""

    name: str
    root: str


@dataclass(frozen=True, slots=True)
class CounterInput:
    """A counter's field, or whether it is there; the whole counter when `field` is empty."""

    name: str
    counter: CounterRef
    field: str
    present: bool = False


@dataclass(frozen=True, slots=True)
class WatchInput:
    """The truth of a watcher."""

    name: str
    watcher: Watcher


@dataclass(frozen=True, slots=True)
class DetectionInput:
    """How often a detector found something in the content of the request, or of the response so far."""

    name: str
    root: str  # request | response
    detector: str


@dataclass(frozen=True, slots=True)
class SieveInput:
    """Those elements of a list of the facts that a loop's condition could be true of; of each only these `parts`."""

    name: str
    path: str
    tests: Tests
    parts: frozenset[str] = frozenset()


Input = SieveInput | FactInput | TextSizeInput | WholeInput | CounterInput | WatchInput | DetectionInput


@dataclass(slots=True)
class Lowered:
    """A tree whose free names are its inputs."""

    tree: Node
    inputs: tuple[Input, ...]
    reads: frozenset[str]
    watchers: tuple[Watcher, ...]


def lower(tree: Node, policy: str) -> Lowered:
    """Lowers the checked tree of an expression of this policy (its qualified name)."""
    lowering = _Lowering(policy, _parts(tree))
    lowered = lowering.node(tree)
    inputs = tuple(lowering.inputs.values())
    watchers = tuple(one.watcher for one in inputs if isinstance(one, WatchInput))
    return Lowered(lowered, inputs, frozenset(lowering.reads), watchers)


@lru_cache(maxsize=1024)
def watcher(kind: str, pattern: str, of: str = "text") -> Watcher:
    """The watcher for a literal (`contains`) or a regular expression (`matches`) that RE2 takes."""
    return Watcher(kind, pattern, len(pattern) if kind == "contains" else reach(pattern), of)


@dataclass(slots=True)
class _Lowering:
    policy: str
    parts: frozenset[str]
    inputs: dict[str, Input] = field(default_factory=dict)
    reads: set[str] = field(default_factory=set)

    def node(self, node: Node) -> Node:
        if found := detection(node):
            return self._detection(node, *found)
        match node:
            case Ident():
                return self._ident(node)
            case Select(operand=Ident(name=root)) if _is_object(root):
                return self._field(root, node.field, node.test)
            case Call(function="_?._", args=(Ident(name=root), Const(value=str() as name))) if _is_object(root):
                return self._optional(root, name)
            case Call():
                return self._call(node)
            case Fold() if loop := sieve(node):
                return self._loop(node, *loop)
            case _:
                return rebuild(node, self.node)

    def _loop(self, node: Fold, path: str, tests: Tests) -> Node:
        self.reads.add(path)
        wanted = SieveInput(f"{path}?{tests}", path, tests, self._parts_of(path))
        return rebuild(node, lambda child: self._take(wanted) if child is node.over else self.node(child))

    def _ident(self, node: Ident) -> Node:
        if node.name == "now":
            self.reads.add("now")
            return self._take(FactInput("now", "now"))
        if not _is_object(node.name):
            return node
        if node.name in ROOTS:
            self.reads.update(fields_of(node.name))
            return self._take(WholeInput(node.name, node.name))
        counter = node.name.partition(".")[2]
        self.reads.update(f"{node.name}.{each}" for each in COUNTER_FACTS)
        return self._take(CounterInput(f"counters.{self.policy}.{counter}", (self.policy, counter), ""))

    def _field(self, root: str, name: str, present: bool) -> Node:
        path, mark = f"{root}.{name}", "?" if present else ""
        self.reads.add(path)
        if root not in ROOTS:
            counter = root.partition(".")[2]
            full = f"counters.{self.policy}.{counter}.{name}{mark}"
            return self._take(CounterInput(full, (self.policy, counter), name, present))
        return self._take(FactInput(path + mark, path, present, frozenset() if present else self._parts_of(path)))

    def _parts_of(self, path: str) -> frozenset[str]:
        part = part_of(FACTS[path])
        return (
            frozenset(one.partition(".")[2] for one in self.parts if one.startswith(f"{part}."))
            if part
            else frozenset()
        )

    def _optional(self, root: str, name: str) -> Node:
        """`request.?model`: an optional made from the field and its presence."""
        there, value = self._field(root, name, True), self._field(root, name, False)
        some = Call("optional.of", (value,), None, ("optional_of",))
        none = Call("optional.none", (), None, ("optional_none",))
        return Call("_?_:_", (there, some, none), None, ("conditional",))

    def _detection(self, node: Node, root: str, detector: str) -> Node:
        """The count of one detector, which is always there."""
        if isinstance(node, Select) and node.test:
            return Const("bool", True, "bool", node.at)
        self.reads.add(f"{root}.{FIELD}.{detector}")
        count = self._take(DetectionInput(f'{root}.{FIELD}["{detector}"]', root, detector))
        if isinstance(node, Call) and node.function != "_[_]":
            return Call("optional.of", (count,), None, ("optional_of",))
        return count

    def _call(self, node: Call) -> Node:
        match node.function, node.operands:
            case ("contains" | "matches") as kind, (subject, Const(value=str() as pattern)) if of := _view(subject):
                if pattern:
                    self.reads.add(f"response.{of}")
                    return self._take(WatchInput(f"{kind}:{of}:{pattern}", watcher(kind, pattern, of)))
            case "size", (subject,) if of := _view(subject):
                self.reads.add(f"response.{of}")
                return self._take(TextSizeInput(f"size(response.{of})", of))
        return rebuild(node, self.node)

    def _take(self, wanted: Input) -> Ident:
        self.inputs[wanted.name] = wanted
        return Ident(wanted.name)


def _is_object(name: str) -> bool:
    return name in ROOTS or name.startswith("counters.")


def _view(node: Node) -> str:
    """Which text of the response that grows this is (see VIEWS); empty when it is none."""
    match node:
        case Select(operand=Ident(name="response"), field=field, test=False) if field in VIEWS:
            return field
        case _:
            return ""


# ---- fields of messages in lists ------------------------------------------------------------------------------------


def _parts(tree: Node) -> frozenset[str]:
    """What is read of messages that stand in lists, such as `Message.role`; every field of a message that is used as
    a value."""
    found: set[str] = set()
    for node in walk(tree):
        selected = _selected(node)
        if selected is not None:
            found.add(selected)
        for child in children(node):
            part = _part(child)
            if part and selected is None and not _only_passes(node):
                found.update(f"{part}.{name}" for name in PART_FIELDS[part][1])
    return frozenset(found)


def _part(node: Node) -> str:
    name = node.type.removeprefix("optional_type(").removesuffix(")").removeprefix(f"{PACKAGE}.")
    return name if name in PART_FIELDS else ""


def _selected(node: Node) -> str | None:
    match node:
        case Select(operand=operand, field=name) if _part(operand):
            return f"{_part(operand)}.{name}"
        case Call(function="_?._", args=(operand, Const(value=str() as name))) if _part(operand):
            return f"{_part(operand)}.{name}"
        case _:
            return None


def _only_passes(node: Node) -> bool:
    """A node that hands a message on with its type, so that a select above it says what is read."""
    return bool(_part(node))
