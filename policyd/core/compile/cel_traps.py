"""What type-checks and yet fails, is always the same, or cannot mean what it says: proven from an expression's tree.

Rule 1: a warning never refuses; it says what the expression does and what to write instead.
Rule 2: only what holds of every call is said: a doubt that cannot be proven is no warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from policyd.core.compile.amounts import seconds_text
from policyd.core.compile.cel_limits import Finding
from policyd.core.compile.cel_literals import quoted
from policyd.core.compile.cel_native import Failed, Plan, activate
from policyd.core.compile.cel_tree import Call, Const, Ident, Items, Node, Select, start_of, walk
from policyd.core.compile.cel_vocabulary import never_equal, never_key
from policyd.core.compile.globs_text import glob_fix, raw

_COMPARISONS = frozenset(("_==_", "_!=_", "_>_", "_>=_", "_<_", "_<=_"))
_SIGNS = {"_==_": "==", "_!=_": "!=", "_>_": ">", "_>=_": ">=", "_<_": "<", "_<=_": "<="}
_MIRRORED = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_"}
_ZONED = "2026-01-01T00:00:00Z"
_WHOLE_TEXT = frozenset(("contains", "startsWith", "endsWith"))
_REGEX = re.compile(r"\.\*|\.\+|\\[dwsb]|^\^.|\[[a-z0-9]-[a-z0-9]\]|\(\?[:i]|^\(.*\|.*\)$", re.IGNORECASE)
_GLOB_AS_REGEX = re.compile(r"^[A-Za-z0-9_/:.-]*[A-Za-z0-9_-]\*[A-Za-z0-9_/:.-]*$")
_PERCENT = 100
INDEX = "CEL108"


def traps(own: Node, whole: Node) -> Iterator[Finding]:
    """The traps of a tree. `whole`: the same with variables inlined, for a size that a variable asks for."""
    sized = frozenset((*_sized(own), *_sized(whole)))
    for node in walk(own):
        match node:
            case Call(function=function, args=(left, right)) if function in _COMPARISONS:
                yield from _compared(function, left, right)
            case Call(function="@in", args=(element, container)):
                yield from _within(element, container)
            case Call(function=function) if function in ("duration", "timestamp") or function.startswith("get"):
                yield from _failing(node)
            case Call(function="_[_]", args=(operand, Const(value=int() as at))) if operand.type.startswith("list("):
                yield from _unguarded(operand, at, sized)
            case Call(function="_[_]" | "_[?_]", args=(table, Const(value=str() as key) as at_)):
                yield from never_key(path_of(table), key, at_.at)
            case Select(operand=table, field=key):
                yield from never_key(path_of(table), key, start_of(table))
            case Call(function="_?._", args=(table, Const(value=str() as key))):
                yield from never_key(path_of(table), key, start_of(table))
            case Call() if node.target is not None:
                yield from _called(node)


def path_of(node: Node) -> str:
    """`request.model` of a node that reads it; `counters.spend.used` of a counter's field; empty for another."""
    match node:
        case Select(operand=Ident(name=root), field=name, test=False):
            return f"{root}.{name}"
        case _:
            return ""


# ---- comparisons --------------------------------------------------------------------------------------------------


def _compared(function: str, left: Node, right: Node) -> Iterator[Finding]:
    left, right = _folded(left), _folded(right)
    if isinstance(left, Const) and not isinstance(right, Const):
        left, right, function = right, left, _MIRRORED.get(function, function)
    if not isinstance(right, Const):
        return
    match right.value:
        case bool():
            return
        case int() | float() as number if share := _share(left):
            yield from _beyond_a_share(share, function, float(number), right.at)
        case str() as text if function in ("_==_", "_!=_"):
            yield from never_equal(left, path_of(left), text, right.at)
            yield from _case(left, text, right.at)
            yield from _glob(left, text, right.at)


def _folded(node: Node) -> Node:
    """A number that is made of constants, as one: `0.8 * 100`."""
    if not isinstance(node, Call) or node.type not in ("int", "double"):
        return node
    if node.function not in ("_+_", "_-_", "_*_", "_/_") or not all(isinstance(one, Const) for one in node.args):
        return node
    try:
        return Const(node.type, Plan(node).value(activate({})), node.type, start_of(node.args[0]))
    except Failed:
        return node


def _share(node: Node) -> str:
    path = path_of(node)
    if path.startswith("counters.") and path.endswith(".used"):
        return path
    if path in ("response.cost_confidence", "response.similarity", "caller.risk"):
        return path
    if isinstance(node, Call) and node.function == "_[_]" and path_of(node.args[0]) == "session.similarity":
        at = node.args[1]
        return f"session.similarity[{at.value if isinstance(at, Const) else '…'}]"
    return ""


def _beyond_a_share(share: str, function: str, number: float, at: int) -> Iterator[Finding]:
    if number <= 1:
        return
    sign = _SIGNS[function]
    label = f"`{share}` is a share, from 0 to 1: it is compared with {number:g}"
    if number <= _PERCENT and number > 2:
        yield at, "CEL105", label, f"write `{share} {sign} {number / _PERCENT:g}`"
        return
    counter = share.removesuffix(".used")
    other = (
        f"write `{counter}.exceeded`, or `{counter}.value {sign} {number:g}`" if counter != share else "write 1 or less"
    )
    yield at, "CEL105", label, other


def _within(element: Node, container: Node) -> Iterator[Finding]:
    if isinstance(element, Const) and isinstance(element.value, str):
        yield from never_key(path_of(container), element.value, element.at)
        if path_of(container) == "request.models":
            yield from _glob(container, element.value, element.at)
    if not isinstance(container, Items):
        return
    for one in container.elements:
        if isinstance(one, Const) and isinstance(one.value, str):
            yield from never_equal(element, path_of(element), one.value, one.at, listed_too=True)
            yield from _case(element, one.value, one.at)
            yield from _glob(element, one.value, one.at)


def _case(subject: Node, text: str, at: int) -> Iterator[Finding]:
    """`x.lowerAscii() == "ABC"`: no text in lower case equals it."""
    if not isinstance(subject, Call) or subject.target is None:
        return
    if subject.function == "lowerAscii" and text != text.lower():
        yield at, "CEL106", f"a text in lower case never has {quoted(text)}", f"write {quoted(text.lower())}"
    if subject.function == "upperAscii" and text != text.upper():
        yield at, "CEL106", f"a text in upper case never has {quoted(text)}", f"write {quoted(text.upper())}"


_NAMES = ("request.model", "request.models", "response.model", "request.path", "request.host", "request.upstream",
          "caller.user", "caller.team", "caller.tenant", "session.id", "request.provider")  # fmt: skip


def _glob(subject: Node, text: str, at: int) -> Iterator[Finding]:
    """`request.model == "gpt-4*"`: the star stands for itself."""
    path = path_of(subject) or (isinstance(subject, Select) and subject.field == "name" and "x.name") or ""
    if "*" not in text or (path not in _NAMES and path != "x.name"):
        return
    fix = glob_fix(path, text)
    yield at, "CEL107", f"{quoted(text)} is compared as it is: a `*` stands for itself here", f"write `{fix}`"


# ---- calls --------------------------------------------------------------------------------------------------------


def _called(node: Call) -> Iterator[Finding]:
    pattern = node.args[-1] if node.args else None
    if not isinstance(pattern, Const) or not isinstance(pattern.value, str) or node.target is None:
        return
    text = pattern.value
    if node.function in _WHOLE_TEXT:
        yield from _case(node.target, text, pattern.at)
        yield from never_part(node, text, pattern.at)
        if _REGEX.search(text):
            label = f"{node.function}() takes plain text, and {quoted(text)} looks like a pattern"
            yield pattern.at, "CEL107", label, f"write `.matches({raw(text)})`"
        elif len(text) > 1 and (text.strip("*%") != text) and text.strip("*%"):
            label = f"{node.function}() takes plain text: the `{text.strip(text.strip('*%'))[:1]}` stands for itself"
            yield pattern.at, "CEL107", label, f"write `.{node.function}({quoted(text.strip('*%'))})`"
    elif node.function == "matches":
        yield from _pattern(text, pattern.at)


def never_part(node: Call, text: str, at: int) -> Iterator[Finding]:
    """A path that begins without a slash."""
    if node.function == "startsWith" and node.target and path_of(node.target) == "request.path" and text[:1] not in "/":
        yield at, "CEL106", "`request.path` begins with a slash", f"write {quoted('/' + text)}"


def _pattern(text: str, at: int) -> Iterator[Finding]:
    if found := re.fullmatch(r"/(.+)/([a-z]*)", text):
        flags = f"(?{found[2]})" if found[2] else ""
        label = "the slashes are part of the pattern"
        if found[2] or not text.startswith(("/v1", "/api", "/openai")):
            yield at, "CEL107", label, f"write `matches({raw(flags + found[1])})`"
    elif _GLOB_AS_REGEX.fullmatch(text):
        label = f"{quoted(text)} looks like a glob; in a pattern `*` repeats the character before it"
        yield (
            at,
            "CEL107",
            label,
            f"write `matches({raw('^' + text.replace('.', chr(92) + '.').replace('*', '.*') + '$')})`",
        )


# ---- what always fails --------------------------------------------------------------------------------------------


def _failing(node: Call) -> Iterator[Finding]:
    """A constant that no evaluation can make: `duration("3600")`, a time zone that there is not."""
    if node.function.startswith("get"):
        zone = node.args[0] if len(node.args) == 1 else None
        if not isinstance(zone, Const) or not isinstance(zone.value, str):
            return
        moment = Call("timestamp", (Const("string", _ZONED, "string"),), None, ("string_to_timestamp",), "timestamp")
        tried = Call(node.function, (zone,), moment, node.overloads, node.type)
        if _fails(tried):
            label = f"no time zone is called {quoted(zone.value)}: this always fails"
            yield zone.at, "CEL104", label, 'write it like "UTC" or "Europe/Berlin"'
        return
    if len(node.args) != 1 or not isinstance(node.args[0], Const) or not _fails(node):
        return
    given = str(node.args[0].value)
    if node.function == "duration":
        fix = seconds_text(given)
        hint = (
            f'write duration("{fix}")' if fix and fix != given else 'write it like duration("90s") or duration("24h")'
        )
        yield node.args[0].at, "CEL104", f"{quoted(given)} is no duration: this always fails", hint
    else:
        date = re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", given)
        hint = f'write timestamp("{date[0] if date else "2026-12-31"}T00:00:00Z")'
        yield node.args[0].at, "CEL104", f"{quoted(given)} is no time: this always fails", hint


def _fails(node: Node) -> bool:
    text = Call("string", (node,), None, (f"{node_type(node)}_to_string",), "string")
    try:
        Plan(text).value(activate({}))
    except Failed:
        return True
    return False


def node_type(node: Node) -> str:
    """The name of a type as overloads spell it."""
    return {"int": "int64"}.get(node.type, node.type)


# ---- indexes ------------------------------------------------------------------------------------------------------


def _unguarded(operand: Node, at: int, sized: frozenset[str]) -> Iterator[Finding]:
    key, shown = _spelled(operand), _spelled(operand) or "the list"
    if isinstance(operand, Items) or key in sized:
        return
    if at < 0:
        label = f"`{shown}[{at}]` always fails: a list is read from 0 on"
        yield (
            start_of(operand),
            INDEX,
            label,
            f"write `{shown}[{shown}.size() - 1]` for the last one, and ask for `{shown}.size() > 0` before",
        )
        return
    if isinstance(operand, Call) and operand.function == "split" and at == 0:
        return
    label = f"`{shown}[{at}]` fails where the list has no such item, and the rule counts as failed"
    hint = f"write `{shown}.size() > {at} && {shown}[{at}] …`" if key else f"read it with `[?{at}].orValue(…)`"
    yield start_of(operand), INDEX, label, hint


def _sized(tree: Node) -> Iterator[str]:
    for node in walk(tree):
        match node:
            case Call(function="size"):
                yield _spelled(node.operands[0])
            case Call(function="_==_" | "_!=_", args=(one, Items(elements=()))):
                yield _spelled(one)
            case Select(operand=Ident(name=root), field=name, test=True):
                yield f"{root}.{name}"


def _spelled(node: Node) -> str:
    match node:
        case Ident(name=name):
            return name
        case Select(test=False) if inner := _spelled(node.operand):
            return f"{inner}.{node.field}"
        case _:
            return ""
