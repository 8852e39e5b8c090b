"""Tool calls that a response holds where its dialect has none, or in a shape that its reader does not know.

Rule 1: what looks like a call and was not read makes `response.tool_calls` unknown: rules that depend on it err.
Rule 2: a call is an object with a name and arguments, an object whose type ends in `call` or `use`, or what stands in a
        field named after calls, where the dialect names its types. What repeats a call that was read is none.
Rule 3: below fields whose members the caller or a tool names nothing is looked at: arguments may have any shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from policyd.core.stream.dialects import Path
from policyd.core.stream.dialects.asking import at
from policyd.core.stream.dialects.content import Structure
from policyd.core.stream.dialects.shared import has_text


class CallPlaces(NamedTuple):
    """Where a reader reads tool calls: in events of a stream, and in a body in one piece; an index is 0."""

    events: frozenset[Path] = frozenset()
    body: frozenset[Path] = frozenset()


UNREAD_CALL = "a tool call of an unknown shape"

_FIELDS = frozenset({"toolcall", "toolcalls", "functioncall", "functioncalls", "tooluse", "tooluses"})
_ODD_FIELD = re.compile(r"(?:calls?|tooluses?|invocations?)$")
_TYPE = re.compile(r"(?:call|tooluse|invocation)$")
_NAMES = frozenset({"name", "toolname", "functionname", "tool", "function", "recipientname"})
_ARGUMENTS = frozenset({"arguments", "args", "input", "toolinput", "toolargs", "argumentsjson", "inputjson"})


@lru_cache(4096)
def _plain(name: str) -> str:
    """A field's name or a type as all spellings have it in common."""
    return re.sub(r"[\s_.-]", "", name[:64]).casefold()


def holds_unread_call(document: object, structure: Structure, places: frozenset[Path]) -> bool:
    """Whether something in a document looks like a tool call and stands at none of these places, where the dialect's
    reader reads one; an index in a place is 0."""
    ways = frozenset(place[:end] for place in places for end in range(1, len(place) + 1))
    types = structure.words.get("type", frozenset())
    found = list(_unread(document, structure, places, ways, types))
    if not found:
        return False
    odd = {id(one) for one in found}
    read = [value for way in ways for value in _at(document, way) if id(value) not in odd]
    return any(one not in read for one in found)


def _unread(
    document: object, structure: Structure, places: frozenset[Path], ways: frozenset[Path], types: frozenset[str]
) -> Iterator[object]:
    """What looks like a call where none is read."""
    todo: list[tuple[object, Path]] = [(document, ())]
    while todo:
        value, path = todo.pop()
        if isinstance(value, list):
            todo += [(one, (*path, 0)) for one in value if isinstance(one, dict | list)]
            continue
        if not isinstance(value, dict):
            continue  # the document itself, where it is no object
        if _is_call(value, types, read=path in places):
            yield value
            continue
        for name, below in value.items():
            if not isinstance(below, dict | list) or not below:
                continue
            where, known = (*path, name), name in structure.names
            plain = _plain(name)
            named = plain in _FIELDS or (not known and _ODD_FIELD.search(plain) is not None)
            if types and named and where not in ways and has_text(below):
                yield below
            elif not (known and name in structure.free):
                todo.append((below, where))


def _is_call(value: dict[str, object], types: frozenset[str], *, read: bool) -> bool:
    type_ = value.get("type")
    known = type_ is None or (isinstance(type_, str) and type_ in types)
    if not known and isinstance(type_, str) and _TYPE.search(_plain(type_)):
        return True
    if read and known:
        return False
    fields = {_plain(name): below for name, below in value.items()}
    named = any(isinstance(said := fields.get(name), str) and said for name in _NAMES)
    return named and any(_are_arguments(fields[name]) for name in _ARGUMENTS if name in fields)


def _are_arguments(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and not all(isinstance(one, dict) for one in value)
    return isinstance(value, dict) or (isinstance(value, str) and bool(value))


def _at(document: object, way: Path) -> Iterator[object]:
    """What stands at a place where calls are read, or on the way there."""
    if 0 not in way:
        yield at(document, way)
        return
    index = way.index(0)
    listed = at(document, way[:index])
    for one in listed if isinstance(listed, list) else ():
        yield from _at(one, way[index + 1 :])
