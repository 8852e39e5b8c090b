"""Redaction of strings that begin and end where they stand: every string of a response that is no growing text.

Rule 1: JSON text in such a string, and text in base64, are searched decoded.
Rule 2: what is found in a string that cannot be edited in place takes the whole string with it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from policyd.core.errors import Malformed
from policyd.core.stream.dialects import BLANKS, Path, Rename, Segment
from policyd.core.stream.dialects.redact_content import ContentRedactor
from policyd.core.stream.holdback import redact_text
from policyd.core.stream.redactor import Redactor

Redactors = tuple[Redactor, ...]


@functools.lru_cache(maxsize=256)  # patterns are the policies' own
def _searching(redactors: Redactors) -> ContentRedactor:
    return ContentRedactor(redactors)


def redact_alone(text: str, redactors: Redactors, *, arguments: bool = False) -> str:
    """One string, redacted; the same object when nothing was found. `arguments`: it is the JSON text of a tool call."""
    if not redactors:
        return text
    try:
        return _searching(redactors).text(text, arguments=arguments)
    except Malformed:
        return redactors[0].replacement


def alone_changes(segments: Iterable[Segment], redactors: Redactors) -> list[tuple[Path, object]]:
    """What takes every find out of these strings: by path, what stands there afterwards."""
    changes: list[tuple[Path, object]] = []
    for one in segments if redactors else ():
        if one.name:
            if (name := redact_text(one.text, redactors)) != one.text:
                changes.append((one.path, Rename(name)))
        elif (text := redact_alone(one.text, redactors)) != one.text:
            changes.append((one.path, text))
    return changes


def veil_changes(veils: Iterable[Segment], texts: Iterable[Segment], redactors: Redactors) -> list[tuple[Path, object]]:
    """The veils to blank because what is to be redacted stands in them."""
    found = {one.path for one in texts if redact_text(one.text, redactors) != one.text} if redactors else set[Path]()
    return [(one.path, BLANKS[one.text]) for one in veils if one.path in found]


def blank(segments: Iterable[Segment]) -> list[tuple[Path, object]]:
    """These strings, gone: of an event that leaves in part."""
    return [(one.path, Rename("_") if one.name else "") for one in segments]
