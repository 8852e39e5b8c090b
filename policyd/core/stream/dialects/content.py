"""Content: every string of a JSON document, except the structural fields that a dialect lists.

Rule 1: a string is content unless its path is listed and its value has the shape that the list demands. An id with
        spaces, a role that is no known word and media that is not base64 are content.
Rule 2: the name of a member is content unless the dialect knows the name. Below a field whose members the caller names
        (metadata, arguments, a JSON schema) every name is content.
Rule 3: JSON text in a string, and base64 that holds text, are also read decoded.
Rule 4: a long number is content as its digits: see numbers.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from json import JSONDecodeError
from json import loads as loads_leniently
from typing import NamedTuple

from policyd.core.errors import Malformed
from policyd.core.model.bounds import Bounds
from policyd.core.stream.dialects import Path
from policyd.core.stream.dialects.data_urls import data_of, within
from policyd.core.stream.dialects.numbers import NUMBERS, digits, long_numbers
from policyd.core.stream.json_bounds import check_text
from policyd.core.stream.json_strict import loads_event

Shape = Callable[[str, Mapping[str, object]], bool]
"""Whether a string is what a structural field may hold; the second argument is the object that it stands in."""

Link = tuple["Link | None", str | int] | None
"""A path as a chain from the last key to the first, so that one more key costs nothing."""

MOST_DEPTH = 4  # JSON texts in strings within JSON texts

# ---- shapes ---------------------------------------------------------------------------------------------------------

_ID = re.compile(r"[A-Za-z0-9_.:/-]{1,256}+")
_NUMBER = re.compile(r"[0-9_.:/-]{9,}+")
_MODEL = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9_.:/+-]{0,255}(?:@[a-z0-9-]{1,64})?")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\r\n-]{64,}+={0,2}\s?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?")
_HASH = re.compile(r"(?:sha\d{1,3}[:-])?[0-9a-fA-F]{32,128}")


def an_id(value: str, _: Mapping[str, object]) -> bool:
    """An id: one word of at most 256 characters that is not a long number."""
    return _ID.fullmatch(value) is not None and _NUMBER.fullmatch(value) is None


def is_id(value: object) -> bool:
    """Whether this is an id or the name of a model, which an ending may repeat as it came."""
    return isinstance(value, str) and (an_id(value, {}) or a_model(value, {}))


def a_model(value: str, _: Mapping[str, object]) -> bool:
    """The name of a model: one word, as providers write it."""
    return _MODEL.fullmatch(value) is not None


def a_time(value: str, _: Mapping[str, object]) -> bool:
    """A date or a timestamp of ISO 8601."""
    return _TIME.fullmatch(value) is not None


def a_hash(value: str, _: Mapping[str, object]) -> bool:
    """A digest in hexadecimal digits."""
    return _HASH.fullmatch(value) is not None


def base64(value: str, _: Mapping[str, object]) -> bool:
    """Base64 of at least 64 characters: media, a signature, encrypted content. Text in base64 is no media."""
    return _BASE64.fullmatch(value) is not None and text_within(value) is None


def media(value: str, beside: Mapping[str, object]) -> bool:
    """Base64, or a data URL that holds base64."""
    data = data_of(value)
    return data is not None and base64(data, beside)


def typed(shape: Shape, *types: str) -> Shape:
    """The shape, in an object whose `type` is one of these."""
    return lambda value, beside: beside.get("type") in types and shape(value, beside)


def text_within(value: str) -> str | None:
    """The text that base64 (or a data URL) holds; None when it holds something else."""
    found = within(value)
    return None if found is None else found.text


# ---- what a dialect lists -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    """The listed fields at and below one place; `below` of a list has its elements under 0."""

    shape: Shape | None = None
    below: dict[str | int, _Node] = field(default_factory=dict)


_NOTHING = _Node()


@dataclass(frozen=True)
class Structure:
    """The structural fields of one dialect.

    `fields`: by path ("messages[].tool_call_id"), the shape that makes a value structural. `words`: by field name, the
    words that are structural in a field of that name. `names`: field names that are no content. `free`: fields whose
    members the caller names.
    """

    fields: Mapping[str, Shape] = field(default_factory=dict)
    words: Mapping[str, frozenset[str]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    free: frozenset[str] = frozenset()
    root: _Node = field(default_factory=_Node, init=False, repr=False, compare=False)
    folded: frozenset[str] = field(default=frozenset(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for path, shape in self.fields.items():
            node = self.root
            for step in _steps(path):
                node = node.below.setdefault(step, _Node())
            node.shape = shape
        listed = {step for path in self.fields for step in _steps(path) if isinstance(step, str)}
        object.__setattr__(self, "names", self.names | self.words.keys() | self.free | listed)
        object.__setattr__(self, "folded", frozenset(name.casefold() for name in self.names))


def _steps(path: str) -> Iterator[str | int]:
    for part in path.split("."):
        name = part.rstrip("[]")
        if name:
            yield name
        yield from (0,) * part.count("[]")


ANYTHING = Structure()
"""Of a body that no dialect describes: every string and every name is content."""


# ---- the walk -------------------------------------------------------------------------------------------------------


class Leaf(NamedTuple):
    """One string of a document: a value, or (`key`) the name of a member, or (`number`) the digits of a number."""

    text: str
    link: Link
    key: bool = False
    number: bool = False

    @property
    def path(self) -> Path:
        """Where it stands; of a name, where its member stands."""
        return path_of(self.link)


def path_of(link: Link) -> Path:
    """A chain as a path."""
    steps: list[str | int] = []
    while link is not None:
        link, step = link
        steps.append(step)
    return tuple(reversed(steps))


def leaves(document: object, structure: Structure = ANYTHING) -> Iterator[Leaf]:
    """Every string that is content, in order of appearance; a name stands before its value."""
    # A stack of iterators: a document may be 200 levels deep, and a chain of generators costs each of its levels.
    stack: list[Iterator[Leaf | _Below]] = [iter((_Below(document, None, structure.root, "", {}, free=False),))]
    while stack:
        item = next(stack[-1], None)
        if item is None:
            stack.pop()
        elif isinstance(item, Leaf):
            yield item
        elif isinstance(item.value, str):
            if item.value and not item.structural(structure):
                yield Leaf(item.value, item.link)
        elif isinstance(item.value, dict):
            stack.append(_members(item, item.value, structure))
        elif isinstance(item.value, list):
            stack.append(_elements(item, item.value))
        elif number := digits(item.value):
            yield Leaf(number, item.link, number=True)


class _Below(NamedTuple):
    """A value on the way: `name` is its field's, also of the elements of a list; `beside` the object it stands in."""

    value: object
    link: Link
    node: _Node
    name: str
    beside: Mapping[str, object]
    free: bool

    def structural(self, structure: Structure) -> bool:
        if self.free:
            return False
        assert isinstance(self.value, str)
        if self.value in structure.words.get(self.name, ()):
            return True
        return self.node.shape is not None and self.node.shape(self.value, self.beside)


def _members(above: _Below, document: dict[str, object], structure: Structure) -> Iterator[Leaf | _Below]:
    for name, value in document.items():
        known = not above.free and name in structure.names
        link = (above.link, name)
        if not known and name:
            yield Leaf(name, link, key=True)
        if isinstance(value, str | dict | list):
            free = not known or (name in structure.free and not isinstance(value, str))
            node = above.node.below.get(name, _NOTHING)
            yield _Below(value, link, node, name, document, free)
        elif not (known and name in NUMBERS) and (number := digits(value)):
            yield Leaf(number, link, number=True)


def _elements(above: _Below, elements: list[object]) -> Iterator[Leaf | _Below]:
    numbers = dict(long_numbers(elements)) if above.free or above.name not in NUMBERS else {}
    node = above.node.below.get(0, _NOTHING)
    for place, value in enumerate(elements):
        if place in numbers:
            yield Leaf(numbers[place], (above.link, place), number=True)
        if isinstance(value, str | dict | list):
            yield _Below(value, (above.link, place), node, above.name, above.beside, above.free)


def misspelled(document: object, structure: Structure) -> bool:
    """Whether a name that the dialect knows is written in another case, where the dialect names the members: servers in
    Go read it as that name, and all others do not."""
    todo: list[object] = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            for name, below in value.items():
                if name in structure.names:
                    if name not in structure.free:
                        todo.append(below)
                elif name.strip().casefold() in structure.folded:
                    return True
    return False


def odd_names(names: Iterable[str], structure: Structure) -> bool:
    """Whether one of these may be misspelled; false of ordinary requests, which need no second look."""
    return any(name.strip().casefold() in structure.folded for name in names if name not in structure.names)


# ---- text within text -----------------------------------------------------------------------------------------------


def embedded(text: str) -> object:
    """The JSON document that a string holds; None when it holds none. Names that stand twice are all kept: see
    `Members`. Raises Malformed when it holds too many values."""
    start = text[:64].lstrip("\ufeff \t\r\n")[:1]
    if not start or start not in '{["':
        return None
    check_text(text)
    try:
        return loads_event(text)
    except Malformed:
        pass
    try:
        return loads_leniently(text.lstrip("\ufeff \t\r\n"), object_pairs_hook=Members.of, strict=False)
    except (JSONDecodeError, RecursionError):
        return None


class Members(dict[str, object]):
    """An object in which a name may stand twice: `lost` are the values that a later one replaced."""

    lost: list[object]

    @classmethod
    def of(cls, pairs: list[tuple[str, object]]) -> Members:
        """From its members in order."""
        found = cls()
        found.lost = []
        for name, value in pairs:
            if name in found:
                found.lost.append(found[name])
            found[name] = value
        return found


_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def unescaped(text: str) -> str:
    """The text with JSON's escapes undone, wherever they stand: for JSON that cannot be parsed."""
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else _ESCAPES.get(found[2], found[2]), text)
    return _well_formed(plain)


def _well_formed(text: str) -> str:
    """The text with pairs of surrogates joined and single ones replaced."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def decoded(text: str, depth: int = MOST_DEPTH) -> Iterator[str]:
    """What a string says beside its own characters: the strings of a JSON text in it that has escapes, the text of
    base64. Nothing of ordinary text."""
    if "\\" not in text:
        if (held := text_within(text)) is not None:
            yield held
        return
    if depth == 0:
        return
    document = embedded(text)
    if document is None:
        if text[:64].lstrip("\ufeff \t\r\n")[:1] in ("{", "[", '"'):
            yield unescaped(text)
        return
    for said in map(_well_formed, strings_of(document)):
        yield said
        yield from decoded(said, depth - 1)


def said_within(text: str) -> Iterator[str]:
    """What a text says beside its own characters, as `decoded`; of a JSON text, also what its strings say decoded."""
    document = embedded(text)
    if document is None:
        yield from decoded(text)
        return
    for said in map(_well_formed, strings_of(document)):
        if said not in text:
            yield said
        yield from decoded(said)


def strings_of(document: object) -> Iterator[str]:
    """Every string of a document, names included, in order of appearance."""
    stack: list[Iterator[object]] = [iter((document,))]
    while stack:
        for item in stack[-1]:
            if isinstance(item, str):
                if item:
                    yield item
            elif isinstance(item, dict):
                lost = item.lost if isinstance(item, Members) else []
                stack.append(iter([*(one for pair in item.items() for one in pair), *lost]))
                break
            elif isinstance(item, list):
                stack.append(iter(item))
                break
        else:
            stack.pop()


def string_leaves(text: str) -> list[str]:
    """The string values of a JSON text, decoded and without names: of a tool call's arguments. Of what cannot be
    parsed, the text with its escapes undone."""
    document = embedded(text)
    if document is None:
        return [unescaped(text)] if text.strip() else []
    return [_well_formed(leaf.text) for leaf in leaves(document) if not leaf.key and not leaf.number]


# ---- the fact -------------------------------------------------------------------------------------------------------


def content_of(document: object, structure: Structure, bounds: Bounds) -> str:
    """What `request.content` and `response.content` read. Raises Malformed beyond the bound `request_content`."""
    return joined((leaf.text for leaf in leaves(document, structure)), bounds)


def joined(texts: Iterable[str], bounds: Bounds) -> str:
    """Texts and what they say decoded, joined with newlines. Raises Malformed beyond the bound `request_content`."""
    found: list[str] = []
    size = 0
    for text in texts:
        for one in (text, *decoded(text)):
            found.append(one)
            size += len(one) + 1
            if size > bounds.request_content + 1:
                raise Malformed(bounds.over("request_content"))
    return "\n".join(found)
