"""Loops over lists of the facts: the elements that a condition could be true of, found before CEL sees the list.

CEL's runtime compiles a regular expression anew for each element and cannot be interrupted, so that one condition over
thousands of messages stops every other call. Here each pattern is compiled once.

Rule 1: an element is left out only where one part of the condition that must be true is false of it: `false && x` is
        false, whatever x is, so a loop without that element gives what it would have given.
Rule 2: only tests of a field of the element against a constant are understood, and `||` of such tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from policyd.core.compile.cel_facts import FACTS, INCOMPLETE, PART_FIELDS, part_of, well_formed
from policyd.core.compile.cel_tree import Call, Const, Fold, Ident, Node, Select, conjuncts
from policyd.core.model.reach import compiled_unlimited

_KINDS = {"contains": "contains", "matches": "matches", "startsWith": "begins", "endsWith": "ends", "_==_": "equals"}


@dataclass(frozen=True, slots=True)
class Test:
    """One text that a field of an element is compared with; `each`: any string of the field, which is a list."""

    field: str
    kind: str  # contains, matches, begins, ends, equals
    pattern: str
    each: bool = False

    def holds(self, item: object) -> bool:
        """Whether it is true of this element."""
        value: Any = getattr(item, self.field)
        if self.field in INCOMPLETE and getattr(item, "open", False):
            value = () if self.each else ""
        if self.each:
            return any(map(self._of, value))
        return self._of(value or "")

    def _of(self, text: str) -> bool:
        match self.kind:
            case "contains":
                return self.pattern in text
            case "begins":
                return text.startswith(self.pattern)
            case "ends":
                return text.endswith(self.pattern)
            case "equals":
                return text == self.pattern
            case _:
                data = text.encode() if text.isascii() else well_formed(text)
                return compiled_unlimited(self.pattern).search(data) is not None


Tests = tuple[tuple[Test, ...], ...]
"""Of each of these, one must hold."""


def sieve(fold: Fold) -> tuple[str, Tests] | None:
    """The path of the list that a loop goes over, and what must hold of an element that matters; None where nothing is
    known."""
    match fold.over:
        case Select(operand=Ident(name=root), field=name, test=False) if part_of_path(f"{root}.{name}"):
            path = f"{root}.{name}"
        case _:
            return None
    condition = _condition(fold)
    if condition is None or fold.var2:
        return None
    tests = tuple(found for part in conjuncts(condition) if (found := _tests(part, fold.var)))
    return (path, tests) if tests else None


def part_of_path(path: str) -> str:
    """The message that the list at this path holds, or nothing."""
    fact = FACTS.get(path)
    return part_of(fact) if fact else ""


def _condition(fold: Fold) -> Node | None:
    """What must be true of an element that changes what the loop gives."""
    match fold.step:
        case Call(function="_||_", args=(Ident(name=accu), condition)) if accu == fold.accu:
            return condition if isinstance(fold.init, Const) and fold.init.value is False else None
        case Call(function="_?_:_", args=(condition, _, Ident(name=accu))) if accu == fold.accu:
            return condition
        case _:
            return None


def _tests(node: Node, var: str) -> tuple[Test, ...]:
    """The tests of which one must hold where this is true; none where that is not known."""
    match node:
        case Call(function="_||_", args=(left, right)):
            ones, others = _tests(left, var), _tests(right, var)
            return (*ones, *others) if ones and others else ()
        case Fold(over=Select(operand=Ident(name=name), field=field, test=False)) if name == var and not node.var2:
            within = _condition(node)
            return _all_each(within, node.var, field) if within is not None else ()
        case Call():
            found = _test(node)
            if found is None:
                return ()
            match found[0]:
                case Select(operand=Ident(name=name), field=field, test=False) if name == var and _is_text(found[0]):
                    return (Test(field, *found[1:]),)
    return ()


def _all_each(condition: Node, var: str, field: str) -> tuple[Test, ...]:
    """The same for a loop over the strings of a field: one part of its condition is enough."""
    if not any(field in fields for _, fields in PART_FIELDS.values()):
        return ()
    for part in conjuncts(condition):
        if isinstance(part, Call) and (found := _test(part)) is not None:
            match found[0]:
                case Ident(name=name, type="string") if name == var:
                    return (Test(field, *found[1:], each=True),)
    return ()


def _test(node: Call) -> tuple[Node, str, str] | None:
    """What is compared, how, and with which text."""
    kind = _KINDS.get(node.function)
    match node.operands:
        case (subject, Const(value=str() as pattern)) if kind and (pattern or kind == "equals"):
            return subject, kind, pattern
        case (Const(value=str() as pattern), subject) if kind == "equals":
            return subject, kind, pattern
        case _:
            return None


def _is_text(node: Node) -> bool:
    return node.type == "string"


def sieved(tests: Tests, read: Callable[[Any], Any]) -> Callable[[Any], Sequence[object]]:
    """Reads of facts the elements of a list that matter."""

    def matter(item: object) -> bool:
        return all(any(test.holds(item) for test in either) for either in tests)

    return lambda facts: [item for item in read(facts) if matter(item)]
