"""Where the values of a document stand in its file, down to the characters inside a text.

Rule 1: exact for text on one line, plain or quoted, and for literal blocks; for every other way to write a text its
        beginning is the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from policyd.core.errors import Span

Path = tuple[str | int, ...]
"""Where a value stands in a document: keys and indexes from the top."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one value stands: its own first character, that of its key, and how it is written."""

    line: int
    column: int
    key_line: int
    key_column: int
    style: str = ""  # of a scalar: "" plain, ' or " quoted, | literal, > folded, - for anything else
    start: int = 0  # index of the first character, and of the one after the last
    end: int = 0


@dataclass(slots=True)
class Document:
    """One YAML document as plain data. Read-only once built."""

    file: str
    text: str  # of the whole file
    value: object = None
    places: dict[Path, Place] = field(default_factory=dict)

    def span(self, path: Path = ()) -> Span:
        """Where the value at `path` begins; the nearest one above it when there is none."""
        place = self._nearest(path)
        return Span(self.file, place.line, place.column)

    def key_span(self, path: Path) -> Span:
        """Where the key of the value at `path` begins; for an item of a list, the item."""
        place = self._nearest(path)
        return Span(self.file, place.key_line, place.key_column)

    def inside(self, path: Path, line: int, column: int) -> Span:
        """Where the character at `line` and `column` (from 1) of the text at `path` stands in the file.

        Exact for text on one line and for literal blocks; the beginning of the text for all other ways to write it.
        """
        place = self._nearest(path)
        value = self._at(path)
        exact = isinstance(value, str) and path in self.places
        found = _locate(self.text, place, str(value), line, column) if exact else None
        at_line, at_column = found or (place.line, place.column)
        return Span(self.file, at_line, at_column)

    def comment_after(self, path: Path) -> Span | None:
        """Where a comment begins right after the plain text at `path`: it may have been meant as part of it."""
        place = self.places.get(path)
        if place is None or place.style or not isinstance(self._at(path), str):
            return None
        rest = self.text[place.end :].split("\n", 1)[0]
        if not rest.lstrip().startswith("#"):
            return None
        line = self.text.count("\n", 0, place.end) + 1
        column = place.end - (self.text.rfind("\n", 0, place.end) + 1) + 1
        return Span(self.file, line, column + len(rest) - len(rest.lstrip()))

    def _nearest(self, path: Path) -> Place:
        while path and path not in self.places:
            path = path[:-1]
        return self.places[path]

    def _at(self, path: Path) -> object:
        value: Any = self.value
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value


# ---- places inside a text -----------------------------------------------------------------------------------------


def _locate(raw: str, place: Place, value: str, line: int, column: int) -> tuple[int, int] | None:
    """Line and column in the file of a character inside a scalar; None when only its beginning is known."""
    if place.style == "|":
        return _locate_literal(raw, place, value, line, column)
    written = raw[place.start : place.end]
    if place.style in ("-", ">") or line != 1 or "\n" in written:
        return None
    starts = list(_characters(written, place.style))
    return place.line, place.column + (starts[column - 1] if column <= len(starts) else len(written))


def _characters(written: str, style: str) -> Iterator[int]:
    """Where each character of a one-line scalar begins, as it is written. The closing quote counts as one more."""
    escapes = {"'": _SINGLE, '"': _DOUBLE}.get(style)
    if escapes is None:
        yield from range(len(written))
        return
    at = 1
    while at < len(written):
        yield at
        found = escapes.match(written, at)
        at = found.end() if found else at + 1


_SINGLE = re.compile("''")
_DOUBLE = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)")


def _locate_literal(raw: str, place: Place, value: str, line: int, column: int) -> tuple[int, int] | None:
    lines = value.split("\n")
    written = raw[raw.find("\n", place.start) + 1 :].split("\n", line)
    if line > len(lines) or line > len(written):
        return None
    indent = _indentation(lines, raw, place)
    return place.line + line, indent + column


def _indentation(lines: list[str], raw: str, place: Place) -> int:
    """How far a literal block is indented: what its first line that is not empty has more than its value."""
    written = raw[raw.find("\n", place.start) + 1 : place.end].split("\n")
    for text, value in zip(written, lines, strict=False):
        if value:
            return len(text.rstrip("\r")) - len(value)
    return 0
