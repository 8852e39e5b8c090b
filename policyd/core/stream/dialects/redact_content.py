"""Redaction of a request: what is found in any content string is replaced, wherever the string stands.

Rule 1: a find in the name of a member cannot be edited away: the call is refused, never forwarded with it.
Rule 2: texts of the parts of one message are searched together, too.
Rule 3: a number in which something is found becomes a string.
Rule 4: JSON text in a string, and text in base64, are searched decoded and edited in place: every other character of
        the string stays.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from policyd.core.errors import Malformed
from policyd.core.stream.dialects import Edit, Path
from policyd.core.stream.dialects.content import (
    MOST_DEPTH,
    Leaf,
    Link,
    Structure,
    decoded,
    embedded,
    leaves,
)
from policyd.core.stream.dialects.data_urls import within
from policyd.core.stream.dialects.numbers import digits
from policyd.core.stream.dialects.parts import runs_of
from policyd.core.stream.holdback import HoldBack, redact_text, swapped
from policyd.core.stream.json_bounds import check_text
from policyd.core.stream.json_strict import dumps, loads_event
from policyd.core.stream.json_text import splice
from policyd.core.stream.redactor import Redactor, search_for, searchable, subject

IN_A_NAME = "what is to be redacted stands in the name of a field, which cannot be edited"
IN_ESCAPES = "what is to be redacted stands in JSON text that cannot be parsed"
ARGUMENTS = frozenset({"arguments"})  # fields whose strings are JSON text, be it broken


class ContentRedactor:
    """Searches the strings of one request."""

    def __init__(self, redactors: Sequence[Redactor]) -> None:
        self._redactors = tuple(redactors)
        self._any = search_for(self._redactors).any

    def edits(self, document: object, structure: Structure) -> list[Edit]:
        """What takes every find out of the document. Raises Malformed where that is not possible."""
        found = [*leaves(document, structure)]
        out = {one.path: one for one in self._edits(found, MOST_DEPTH)}
        for run in runs_of(found):
            for path, before, after in zip(run.paths, run.texts, self._across(run.texts), strict=True):
                if after != before:
                    out[path] = Edit(path, after)
        return [*out.values()]

    def _across(self, parts: list[str]) -> list[str]:
        """The parts of one message, redacted. A find across borders is replaced in its first part, and removed from the
        others."""
        parts = self._crossing(parts, tuple(one for one in self._redactors if one.tail is not None))
        return self._crossing([self.text(one) for one in parts], self._redactors)

    def _crossing(self, parts: list[str], redactors: tuple[Redactor, ...]) -> list[str]:
        whole = "".join(parts)
        if not redactors or not self._matches(whole):
            return parts
        hold = HoldBack(redactors)
        hold.push(whole)
        hold.close()
        ends = [*accumulate(map(len, parts))]
        swaps = [one for one in hold.swaps if bisect_right(ends, one.start) != bisect_left(ends, one.end)]
        starts = [end - len(part) for end, part in zip(ends, parts, strict=True)]
        return [swapped(part, start, swaps) for part, start in zip(parts, starts, strict=True)] if swaps else parts

    def _edits(self, found: Iterable[Leaf], depth: int) -> list[Edit]:
        out: list[Edit] = []
        for leaf in found:
            if leaf.key:
                self._refuse_name(leaf.text)
                continue
            if leaf.number:
                text = self._plain(leaf.text)
            else:
                text = self.text(leaf.text, depth, arguments=_field(leaf.link) in ARGUMENTS)
            if text != leaf.text:
                out.append(Edit(leaf.path, text))
        return out

    def _refuse_name(self, name: str) -> None:
        if any(self._plain(one) != one for one in (name, *decoded(name))):
            raise Malformed(IN_A_NAME)

    def text(self, text: str, depth: int = MOST_DEPTH, *, arguments: bool = False) -> str:
        """One string, redacted; the same object when nothing was found. Raises Malformed."""
        if "\\" in text:
            return self._escaped(text, depth, arguments=arguments)
        if (held := within(text)) is not None and (clean := self._plain(held.text)) != held.text:
            return held.holding(clean)
        if not self._matches(text):
            return text
        return self._plain(text, arguments=arguments or embedded(text) is not None)

    def _escaped(self, text: str, depth: int, *, arguments: bool) -> str:
        """A string with backslashes: perhaps JSON text, whose escapes are undone before it is searched."""
        if not any(map(self._matches, (text, *decoded(text)))):
            return text
        document = _strictly(text) if depth else None
        if document is None:
            clean = self._plain(text, arguments=arguments or embedded(text) is not None)
            if any(map(self._left, decoded(clean))):
                raise Malformed(IN_ESCAPES)
            return clean
        if isinstance(document, str):
            clean = self.text(document, depth - 1)
            return text if clean == document else dumps(clean)
        if any(self._plain(name) != name for name in _names(document)):
            return dumps(self._renamed(document, depth))
        edits = self._edits((leaf for leaf in leaves(document) if not leaf.key and not leaf.number), depth - 1)
        edits += self._numbers(document, ())
        return splice(text.encode(), edits).decode() if edits else text

    def _renamed(self, value: object, depth: int) -> object:
        """A value with finds taken out of its names too."""
        if isinstance(value, dict):
            made = {self._plain(name): self._renamed(below, depth) for name, below in value.items()}
            if len(made) < len(value):
                raise Malformed(IN_A_NAME)
            return made
        if isinstance(value, list):
            return [self._renamed(one, depth) for one in value]
        return self.text(value, depth - 1) if isinstance(value, str) else self._number(value)

    def _numbers(self, value: object, path: Path) -> Iterator[Edit]:
        """Numbers that are finds: a card number is one without quotes, too."""
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, below in pairs:
            yield from self._numbers(below, (*path, key))
        if (clean := self._number(value)) is not value:
            yield Edit(path, clean)

    def _number(self, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        text = digits(value) or dumps(value)
        return value if (clean := self._plain(text)) == text else clean

    def _left(self, text: str) -> bool:
        """Whether anything is still to be redacted beside what took the place of finds."""
        for redactor in self._redactors:
            text = text.replace(redactor.replacement, "\0")
        return self._plain(text) != text

    def _matches(self, text: str) -> bool:
        """Whether a pattern matches at all: most strings are passed by one search."""
        return self._any is None or self._any.search(subject(searchable(text))) is not None

    def _plain(self, text: str, *, arguments: bool = False) -> str:
        return redact_text(text, self._redactors, arguments=arguments) if self._matches(text) else text


def _strictly(text: str) -> object:
    """The document, or None. Raises Malformed when it holds too many values."""
    check_text(text)
    try:
        return loads_event(text)
    except Malformed:
        return None


def _names(document: object) -> set[str]:
    return {leaf.text for leaf in leaves(document) if leaf.key}


def _field(link: Link) -> str:
    """The field that a value belongs to, be it in a list there."""
    while link is not None:
        above, step = link
        if isinstance(step, str):
            return step
        link = above
    return ""
