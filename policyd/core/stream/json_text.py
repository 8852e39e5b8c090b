"""Edits to a JSON document in its bytes: every byte that no edit names stays as it came.

Rule 1: the bytes have been read by `loads` before: they are well formed and no key stands twice.
Rule 2: edits apply in order, each to the document that the ones before it left.
Rule 3: edits that cannot get in one another's way are applied in one pass over the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from policyd.core.errors import Malformed
from policyd.core.stream.dialects import Edit, Rename
from policyd.core.stream.json_strict import MAX_COUNT, dumps, loads, loads_event, loads_request, refuse_twins

__all__ = ["MAX_COUNT", "dumps", "loads", "loads_event", "loads_request", "refuse_twins", "splice"]

_BLANK = re.compile(rb"[ \t\n\r]*+")
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_SIMPLE = re.compile(rb"%s|[^\s,\[\]{}\"]++" % _TEXT, re.DOTALL)  # a value that holds no other
_KEY = re.compile(rb"(%s)[ \t\n\r]*+:[ \t\n\r]*+" % _TEXT, re.DOTALL)
_NEXT = re.compile(rb"[ \t\n\r]*+,?+[ \t\n\r]*+")
_NESTING = re.compile(rb'(?:[^"\[\]{}]++|%s)*+(?:([\[{])|([\]}]))' % _TEXT, re.DOTALL)

Key = str | int


@dataclass(slots=True)
class _Node:
    """The edits at and below one place."""

    edit: Edit | None = None
    rename: str | None = None  # the member's new name
    below: dict[Key, _Node] = field(default_factory=dict)
    first_shift: int = 1 << 62  # elements from here on are moved by an insert or a remove of this pass


def splice(data: bytes, edits: Sequence[Edit], known: object = None) -> bytes:
    """The document with the edits applied. Missing objects on the way are made, null counts as missing. Raises
    Malformed when something else stands in the way, or an index is out of range. `known`: the document as it was read,
    where it is at hand: what only adds to it need not be looked for in its bytes."""
    root = _Node()
    for edit in edits:
        if not _plant(root, edit):
            data, root, known = _apply(data, root, known), _Node(), None
            _plant(root, edit)
    return _apply(data, root, known)


def _plant(root: _Node, edit: Edit) -> bool:
    """False when this edit needs the ones before it to be applied first."""
    if isinstance(edit.value, Rename):
        return _plant_name(root, edit.path, edit.value.name)
    node: _Node | None = root
    for key in edit.path:
        if node is None:
            break
        if node.edit is not None or (isinstance(key, int) and key >= node.first_shift):
            return False
        node = node.below.get(key)
    if node is not None and (node.edit is not None or node.below):
        return False
    node = parent = root
    for key in edit.path:
        parent, node = node, node.below.setdefault(key, _Node())
    node.edit = edit
    if edit.path and (edit.insert or edit.remove) and isinstance(edit.path[-1], int):
        parent.first_shift = edit.path[-1]
    return True


def _plant_name(root: _Node, path: Sequence[Key], name: str) -> bool:
    node = root
    for key in path:
        if node.edit is not None:
            return False
        node = node.below.setdefault(key, _Node())
    node.rename = name
    return True


def _apply(data: bytes, root: _Node, known: object) -> bytes:
    if root.edit is not None:
        return _dump(root.edit.value)
    if not root.below:
        return data
    if isinstance(known, dict) and all(isinstance(key, str) and key not in known for key in root.below):
        return _appended(data, root, bool(known))
    start = _skip_blank(data, 0)
    text, end = _rewrite(data, start, root)
    return data[:start] + text + data[end:]


def _appended(data: bytes, root: _Node, filled: bool) -> bytes:
    """An object with members that it did not have. INVARIANT: the bytes that `_rewrite` would have made."""
    added = [_member(key, below) for key, below in root.below.items() if _adds(below)]
    close = data.rindex(b"}")
    at = len(data[:close].rstrip(b" \t\n\r")) if filled else close
    return data[:at] + b",".join((*((b"",) if filled and added else ()), *added)) + data[at:]


def _member(key: Key, below: _Node) -> bytes:
    return _dump(key) + b":" + _dump(_value_of(below))


def _dump(value: object) -> bytes:
    return dumps(value).encode()


# ---- a small scanner of well-formed JSON ----------------------------------------------------------------------------


class _Child(NamedTuple):
    """One member or element: where it begins (its key, if it has one), where its value begins, where it ends, and its
    value with the edits below it, where there are any."""

    key: Key
    start: int
    value: int
    end: int
    edited: bytes | None = None


def _skip_blank(data: bytes, at: int) -> int:
    match = _BLANK.match(data, at)
    return match.end() if match else at


def _skip_value(data: bytes, at: int) -> int:
    """Where the value that begins here ends."""
    simple = _SIMPLE.match(data, at)
    if simple is not None:
        return simple.end()
    depth = 0
    while True:
        match = _NESTING.match(data, at)
        if match is None:
            raise Malformed("broken json")
        at = match.end()
        depth += 1 if match[1] is not None else -1
        if depth == 0:
            return at


def _children(data: bytes, at: int, node: _Node) -> tuple[list[_Child], int]:
    """The members or elements of the container that begins here, and where it ends. INVARIANT: a child with edits below
    it is read once, however deep it is."""
    members, close = data[at] == 123, 125 if data[at] == 123 else 93
    found: list[_Child] = []
    at = _skip_blank(data, at + 1)
    while data[at] != close:
        start, key = at, cast("Key", len(found))
        if members:
            key, at = _key(data, at)
        below, edited = node.below.get(key), None
        if below is not None and below.edit is None and below.below:
            edited, end = _rewrite(data, at, below)
        else:
            end = _skip_value(data, at)
        found.append(_Child(key, start, at, end, edited))
        at = cast("re.Match[bytes]", _NEXT.match(data, end)).end()  # it matches even nothing
    return found, at + 1


def _key(data: bytes, at: int) -> tuple[str, int]:
    """The key that stands here, and where its value begins."""
    match = _KEY.match(data, at)
    if match is None:
        raise Malformed("broken json")
    raw = match[1]
    return str(loads_event(raw)) if b"\\" in raw else raw[1:-1].decode(), match.end()


# ---- one pass ------------------------------------------------------------------------------------------------------


def _rewrite(data: bytes, at: int, node: _Node) -> tuple[bytes, int]:
    """The value that begins here with the edits below it, and where the original ends."""
    if data[at] == 110:  # null
        return _dump(_made(node)) if _adds(node) else b"null", at + 4
    keys = {type(key) for key in node.below}
    if keys != ({str} if data[at] == 123 else {int} if data[at] == 91 else set()):
        raise Malformed("an edit needs an object or a list where the body has something else")
    children, end = _children(data, at, node)
    items = _Items(data, at, end, children)
    if data[at] == 123:
        _edit_members(items, node)
    else:
        _edit_elements(items, node)
    return items.joined(), end


class _Items:
    """The children of a container as they will be written."""

    __slots__ = ("_at", "_data", "_end", "added", "children", "renamed", "texts")

    def __init__(self, data: bytes, at: int, end: int, children: list[_Child]) -> None:
        self._data, self._at, self._end = data, at, end
        self.children = children
        self.texts: list[bytes | None] = [data[child.start : child.end] for child in children]
        self.added: dict[int, list[bytes]] = {}  # before the child of this index
        self.renamed: set[Key] = set()  # new names

    def rewrite(self, index: int, node: _Node) -> None:
        """Apply a node's edits to one child."""
        child = self.children[index]
        if node.edit is None:
            value = self._data[child.value : child.end] if child.edited is None else child.edited
        elif node.edit.remove:
            self.texts[index] = None
            return
        else:
            value = _dump(node.edit.value)
        self.texts[index] = self._lead_of(child, node) + value

    def _lead_of(self, child: _Child, node: _Node) -> bytes:
        """What stands before a member's value: its name and the colon."""
        lead = self._data[child.start : child.value]
        if node.rename is None:
            return lead
        name, taken = node.rename, {one.key for one in self.children} | self.renamed
        while name in taken:
            name += "_"
        self.renamed.add(name)
        found = cast("re.Match[bytes]", _KEY.match(lead))
        return _dump(name) + lead[found.end(1) :]

    def joined(self) -> bytes:
        """INVARIANT: what stood between two children that both stay, still does."""
        out = [self._data[self._at : self._lead()]]
        count = len(self.children)
        wrote = False
        for index in range(count + 1):
            for text in self.added.get(index, ()):
                out += (b"," if wrote else b"", text)
                wrote = True
            if index < count and (kept := self.texts[index]) is not None:
                out += (self._between(index) if wrote else b"", kept)
                wrote = True
        out.append(self._data[self.children[-1].end if count else self._end - 1 : self._end])
        return b"".join(out)

    def _lead(self) -> int:
        return self.children[0].start if self.children else self._end - 1

    def _between(self, index: int) -> bytes:
        return self._data[self.children[index - 1].end : self.children[index].start] if index else b","


def _edit_members(items: _Items, node: _Node) -> None:
    places = {child.key: index for index, child in enumerate(items.children)}
    for key, below in node.below.items():
        if key in places:
            items.rewrite(places[key], below)
        elif _adds(below):
            items.added.setdefault(len(items.children), []).append(_member(key, below))


def _edit_elements(items: _Items, node: _Node) -> None:
    count = len(items.children)
    for index, below in node.below.items():
        assert isinstance(index, int)
        if below.edit is not None and below.edit.insert:
            if not 0 <= index <= count:
                raise Malformed("an edit names an element that is not there")
            items.added.setdefault(index, []).append(_dump(below.edit.value))
        elif 0 <= index < count:
            items.rewrite(index, below)
        elif _adds(below):
            raise Malformed("an edit names an element that is not there")


def _adds(node: _Node) -> bool:
    """Whether anything would come to be where nothing is: a remove alone makes nothing."""
    if node.edit is not None:
        return not node.edit.remove
    return any(_adds(below) for below in node.below.values())


def _value_of(node: _Node) -> object:
    return _made(node) if node.edit is None else node.edit.value


def _made(node: _Node) -> object:
    """What the edits below a missing place make of it."""
    if all(isinstance(key, str) for key in node.below):
        return {key: _value_of(below) for key, below in node.below.items() if _adds(below)}
    if list(node.below) == [0] and (edit := node.below[0].edit) and edit.insert:
        return [edit.value]
    raise Malformed("an edit names an element that is not there")
