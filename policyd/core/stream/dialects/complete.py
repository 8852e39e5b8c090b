"""What a reader of a dialect does not read: every other string of an event, or of a body, that is content.

Rule 1: a reader gives segments to the texts that it knows. All other strings become segments too, each a text of its
        own (ALONE), so that rules on content and redaction miss none.
Rule 2: a string directly in an object that carries a stream's deltas may be one piece of a text that other events go on
        with. Rules read the pieces of one field as one text, too (LOOSE). Where an official SDK merges deltas at every
        depth (`deep`), so does this: elements of a list are merged by their `index`. Strings elsewhere in an event are
        read as one text by rules only, by where they stand (SCATTERED).
Rule 3: text in a field that the dialect does not know makes the response `partial`. A field that differs from a known
        one only in its case makes it unreadable.
Rule 4: where nobody reads content, only rule 3 is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import ALONE, LOOSE, SCATTERED, Channel, Path, Segment
from policyd.core.stream.dialects.content import Link, Structure, _Node, a_model, an_id, path_of
from policyd.core.stream.dialects.numbers import LEAST, NUMBERS, digits, long_numbers
from policyd.core.stream.dialects.shared import has_text
from policyd.core.stream.dialects.unread_calls import UNREAD_CALL, CallPlaces, holds_unread_call

MOST_KNOWN = 512  # structural values of one stream that are remembered
MOST_LOOSE = 1024  # fields of one stream whose pieces are read as one text; with more it cannot be judged

NO_CALLS = CallPlaces()
MISSPELLED = "a json key differs from a known one only in its case"  # to clients in Go it is the known one
UNKNOWN_TEXT = "an unknown field with text in it"
MOST_SCATTERED = 256  # the same for fields elsewhere in its events; with more each piece is a text by itself

_NOTHING = _Node()


class Found(NamedTuple):
    """One string that is content: a value, the digits of a long number, or (`name`) the name of a member."""

    text: str
    link: Link
    name: bool


class Scan:
    """One walk over a document: the strings that are content, in order, and whether text stands in unknown fields.
    `known`: structural values that were seen before, by their place: a stream repeats most of them in every event."""

    __slots__ = ("_known", "_names", "_structure", "_words", "found", "unknown")

    def __init__(self, structure: Structure, known: set[tuple[int, str, str]] | None = None) -> None:
        self._structure, self._names, self._words = structure, structure.names, structure.words
        self._known = set() if known is None else known
        self.found: list[Found] = []
        self.unknown = ""

    def walk(self, document: object) -> None:
        """Every string of this document."""
        if isinstance(document, dict):
            self._object(document, None, self._structure.root, False)
        elif isinstance(document, list):
            self._list(document, None, self._structure.root, "", {}, False)
        elif said := document if isinstance(document, str) else digits(document):
            self.found.append(Found(said, None, False))

    def _object(self, said: dict[str, object], link: Link, node: _Node, free: bool) -> None:
        names, below = self._names, node.below
        for name, value in said.items():
            kind = type(value)
            known = not free and name in names
            if not known:
                self._name(name, value, (link, name), free)
            if kind is str:
                if value and not (known and self._structural(value, below.get(name, _NOTHING), name, said)):  # type: ignore[arg-type]
                    self.found.append(Found(value, (link, name), False))  # type: ignore[arg-type]
            elif kind is dict:
                inner = not known or name in self._structure.free or (name == LIKELY and _by_token(value))
                self._object(value, (link, name), below.get(name, _NOTHING), inner)  # type: ignore[arg-type]
            elif kind is list:
                inner = not known or name in self._structure.free or (name == LIKELY and _by_token(value))
                self._list(value, (link, name), below.get(name, _NOTHING), name, said, inner)  # type: ignore[arg-type]
            elif kind in _COUNTS and not -LEAST < value < LEAST and not (known and name in NUMBERS):  # type: ignore[operator]
                self._number(value, (link, name))

    def _list(
        self,
        said: list[object],
        link: Link,
        node: _Node,
        name: str,
        beside: Mapping[str, object],
        free: bool,
    ) -> None:
        structural = not free and name in NUMBERS
        if not said or _numbers(said):
            for place, text in () if structural else long_numbers(said):
                self.found.append(Found(text, (link, place), False))
            return
        below = node.below.get(0, _NOTHING)
        for place, value in enumerate(said):
            if isinstance(value, dict):
                self._object(value, (link, place), below, free)
            elif isinstance(value, list):
                self._list(value, (link, place), below, name, beside, free)
            elif isinstance(value, str) and value and (free or not self._structural(value, below, name, beside)):
                self.found.append(Found(value, (link, place), False))
            elif not structural:
                self._number(value, (link, place))

    def _number(self, value: object, here: Link) -> None:
        if text := digits(value):
            self.found.append(Found(text, here, False))

    def _name(self, name: str, value: object, here: Link, free: bool) -> None:
        if name:
            self.found.append(Found(name, here, True))
        if free or self.unknown == MISSPELLED:
            return
        if name.strip().casefold() in self._structure.folded:
            self.unknown = MISSPELLED
        elif not self.unknown and has_text(value):
            self.unknown = UNKNOWN_TEXT

    def _structural(self, value: str, node: _Node, name: str, beside: Mapping[str, object]) -> bool:
        place = (id(node), name, value)
        if place in self._known:
            return True
        words = self._words.get(name)
        if words is not None and value in words:
            structural = True
        elif node.shape is None or not node.shape(value, beside):
            return False
        else:
            structural = node.shape in _PLAIN
        if structural and len(self._known) < MOST_KNOWN and len(value) <= 64:
            self._known.add(place)
        return True


LIKELY = "top_logprobs"

_PLAIN = frozenset({an_id, a_model})  # shapes that look at nothing beside the value


_COUNTS = {int, float}
_NUMBERS = {int, float, bool, type(None)}


def _numbers(values: list[object]) -> bool:
    """Whether nothing but numbers stands in a list: an embedding may be thousands of them."""
    return not set(map(type, values)) - _NUMBERS


def _by_token(likely: object) -> bool:
    """Whether these are likelihoods in objects whose names are tokens, such as `P`, and not names of the dialect."""
    objects = likely if isinstance(likely, list) else [likely]
    return all(isinstance(one, dict) and _numbers(list(one.values())) for one in objects)


def stranger(document: object, structure: Structure) -> str:
    """Why a document is not known through and through: a misspelled field, or text in one that the dialect does not
    know. Empty where it is."""
    found = ""
    if isinstance(document, dict):
        if not document.keys() <= structure.names:
            for name in document.keys() - structure.names:
                if name.strip().casefold() in structure.folded:
                    return MISSPELLED
                found = found or (UNKNOWN_TEXT if has_text(document[name]) else "")
        below = (
            value
            for name, value in document.items()
            if type(value) in _HOLDS
            and value
            and name in structure.names
            and name not in structure.free
            and not (name == LIKELY and _by_token(value))
        )
    elif isinstance(document, list) and not _numbers(document):
        below = (one for one in document if type(one) in _HOLDS)
    else:
        return ""
    for value in below:
        why = stranger(value, structure)
        if why == MISSPELLED:
            return why
        found = found or why
    return found


_HOLDS = (dict, list)


class Completion:
    """Completes the segments of one response. `wanted`: somebody reads content. `deltas`: the places, in an event of a
    stream, of the objects that carry its deltas; an index is 0. `deep`: objects and lists in them carry deltas, too.
    The names of tools that the request offers are the caller's own: a field `name` that holds one is structural.
    `calls`: the places of the tool calls that the reader reads. `wants_calls`: somebody reads them.
    `spelled`: the structure says how every field is spelled."""

    __slots__ = (
        "_calls",
        "_deep",
        "_deltas",
        "_known",
        "_loose",
        "_response",
        "_scattered",
        "_spelled",
        "_structure",
        "_tools",
        "wanted",
        "wants_calls",
    )

    def __init__(
        self,
        structure: Structure,
        deltas: frozenset[Path] = frozenset(),
        request: RequestFacts | None = None,
        response: ResponseFacts | None = None,
        *,
        deep: bool = False,
        calls: CallPlaces = NO_CALLS,
        spelled: bool = True,
    ) -> None:
        self._calls, self.wants_calls, self._spelled = calls, False, spelled
        self._structure, self._deltas, self._deep, self._response = structure, deltas, deep, response
        self._tools = frozenset(tool.name for tool in request.tools) if request and request.tools else frozenset[str]()
        self._loose: dict[Path, Channel] = {}
        self._scattered: dict[Path, Channel] = {}
        self._known: set[tuple[int, str, str]] = set()
        self.wanted = True

    def event(self, document: object, segments: list[Segment]) -> str:
        """Completes the segments of an event of a stream; why the response is partial by it, or nothing."""
        if not self.wanted:
            return self._judged(document, stranger(document, self._structure), self._calls.events)
        return self._judged(document, self._complete(document, segments, self._deltas), self._calls.events)

    def body(self, document: object, segments: list[Segment]) -> str:
        """Completes the segments of a body in one piece."""
        return self._judged(document, self._complete(document, segments, frozenset()), self._calls.body)

    def _judged(self, document: object, why: str, calls: frozenset[Path]) -> str:
        """Why the response is partial; where it cannot be judged by what was read of it, it says so."""
        response = self._response
        if response is None or response.status >= 400:
            return why
        if why == MISSPELLED and self._spelled:
            response.unreadable = why
        if self.wants_calls and holds_unread_call(document, self._structure, calls):
            response.unread_calls = UNREAD_CALL
        return why or response.unread_calls

    def plain(self, document: object, text: Path) -> bool:
        """Whether the text at this place is all content of the document."""
        scan = Scan(self._structure, self._known)
        scan.walk(document)
        return not scan.unknown and all(not one.name and path_of(one.link) == text for one in scan.found)

    def _complete(self, document: object, segments: list[Segment], deltas: frozenset[Path]) -> str:
        scan = Scan(self._structure, self._known)
        scan.walk(document)
        known = {one.path for one in segments if one.text}
        veils = [one.path for one in segments if one.channel[0] == "veil"]
        veiled: dict[Path, list[str]] = {}
        for one in scan.found:
            path = path_of(one.link)
            if not one.name and (path in known or (path[-1:] == ("name",) and one.text in self._tools)):
                continue
            if veils and (veil := next((veil for veil in veils if path[: len(veil)] == veil), None)) is not None:
                veiled.setdefault(veil, []).append(one.text)
                continue
            channel = ALONE if one.name or not deltas else self._channel(path, document)
            segments.append(Segment(channel, path, one.text, name=one.name))
        if len(segments) > 1:
            order = {(path_of(one.link), one.name): place for place, one in enumerate(scan.found)}
            segments.sort(key=lambda segment: order.get((segment.path, segment.name), -1))
        segments += [Segment(("veiled", 0, 0), veil, "".join(texts)) for veil, texts in veiled.items()]
        return scan.unknown

    def _channel(self, path: Path, document: object) -> Channel:
        """The channel of a string: one of its field's own where it may be a delta."""
        shape = tuple(0 if isinstance(step, int) else step for step in path)
        depth = next((end for end in range(len(path)) if shape[:end] in self._deltas), None)
        depth = depth if shape[:-1] not in self._deltas else len(path) - 1
        key = None
        if depth is not None and (depth == len(path) - 1 or self._deep):
            key = _merged(path, depth, document)
        if key is None:
            return self._by_place(path, document)
        known = self._loose.get(key)
        if known is None:
            if len(self._loose) >= MOST_LOOSE:
                if self._response is not None:
                    self._response.unreadable = f"more than {MOST_LOOSE} unknown fields in the deltas of a stream"
                return ALONE
            known = self._loose[key] = (LOOSE, 0, len(self._loose))
        return known

    def _by_place(self, path: Path, document: object) -> Channel:
        """The channel of a string that no SDK joins with others; a client may, by where they stand."""
        key = _merged(path, len(path), document) or path
        known = self._scattered.get(key)
        if known is None and len(self._scattered) < MOST_SCATTERED:
            known = self._scattered[key] = (SCATTERED, 0, len(self._scattered))
        return known or ALONE


def _merged(path: Path, depth: int, document: Any) -> Path | None:
    """By what the pieces of this field are known: its path, with the `index` of an element in the place of where it
    stands. None: in a delta, which is at `depth`, it stands in an element without an index."""
    key: list[str | int] = []
    for at, step in enumerate(path):
        document = document[step]
        if isinstance(step, int):
            index = document.get("index") if isinstance(document, dict) else None
            if type(index) is int:
                step = index
            elif at >= depth:
                return None
        key.append(step)
    return tuple(key)


def inner(prefix: Path, segments: Sequence[Segment]) -> list[Segment]:
    """The segments of a document that stands at a place of another one."""
    return [one._replace(path=(*prefix, *one.path)) for one in segments]
