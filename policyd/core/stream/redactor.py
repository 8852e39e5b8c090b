"""What a redaction looks for, ready to search with.

Rule 1: redactors are ordered; where two match at the same place the first wins.
Rule 2: every redactor has a finite reach.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import re2

from policyd.core.model.decision import Redaction
from policyd.core.model.detectors import DETECTORS, Tail, Validator
from policyd.core.model.prefix import beginnings
from policyd.core.model.reach import bound_hint, compiled, compiled_unlimited, reach

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Redactor:
    """One pattern (RE2, finite reach in characters), what proves its finds, and what takes their place."""

    pattern: str
    reach: int
    replacement: str
    validator: Validator | None = None
    tail: Tail | None = None

    def finds(self, text: str) -> bool:
        """Whether a matched text is meant. An empty match never is: it would replace nothing by something."""
        return bool(text) and (self.validator is None or self.validator(text))


def redactor(pattern: str, replacement: str, validator: Validator | None = None, tail: Tail | None = None) -> Redactor:
    """A redactor for one RE2 pattern. Raises ValueError when it is refused, or when its reach is unbounded."""
    far = reach(pattern)
    if far is None:
        raise ValueError(f"a match of `{pattern}` can be endless: {bound_hint(pattern)}")
    return Redactor(pattern, far, replacement, validator, tail)


def redactors(redactions: Iterable[Redaction]) -> tuple[Redactor, ...]:
    """Everything that these redactions look for, in their order, each pattern once."""
    found: dict[tuple[str, Validator | None], Redactor] = {}
    for redaction in redactions:
        for one in _of(redaction):
            found.setdefault((one.pattern, one.validator), one)
    return tuple(found.values())


def _of(redaction: Redaction) -> Iterable[Redactor]:
    for name in redaction.detectors:
        detector = DETECTORS[name]
        for pattern in detector.patterns:
            yield redactor(pattern, redaction.replacement, detector.validator, detector.tail)
    for pattern in redaction.patterns:
        yield redactor(pattern, redaction.replacement)


# ---- searching ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Waiting:
    """Tells how much at the end of a text may still become a match of one of these patterns.

    `pattern`: everything that may begin a match, at the end of the text. `reach`: the plain reach of those patterns
    for which no such pattern could be derived.
    """

    pattern: re2._Regexp | None
    reach: int

    def since(self, subject: str | bytes, at: int) -> int:
        """The first place from `at` on where what a match would be is not decided yet."""
        decided = len(subject)
        if self.pattern is not None:
            found = self.pattern.search(subject, at)
            decided = found.start() if found is not None else decided
        return decided if not self.reach else max(at, min(decided, len(subject) - self.reach + 1))


@functools.lru_cache(maxsize=256)  # patterns are the policies' own: each answer asks for the same ones
def waiting(patterns: tuple[str, ...]) -> Waiting:
    """What tells when a match of one of these patterns is decided."""
    derived = [(pattern, _checked(beginnings(pattern))) for pattern in patterns]
    together = _checked("|".join(text for _, text in derived if text is not None))
    if together is None:  # too much for one pattern
        return Waiting(None, max((reach(pattern) or 0 for pattern in patterns), default=0))
    rest = max((reach(pattern) or 0 for pattern, text in derived if text is None), default=0)
    return Waiting(compiled_unlimited(f"(?:{together})\\z"), rest)


def _checked(pattern: str | None) -> str | None:
    if pattern is None:
        return None
    try:
        compiled_unlimited(f"(?:{pattern})\\z")
    except ValueError:
        return None
    return pattern


@dataclass(frozen=True, slots=True)
class Search:
    """Redactors, compiled together: most text is passed by one search for any of them."""

    redactors: tuple[Redactor, ...]
    any: re2._Regexp | None  # one alternation; None when that would be too large
    each: tuple[re2._Regexp, ...]
    waiting: Waiting
    tails: tuple[tuple[re2._Regexp, Waiting] | None, ...] = field(default=())


@functools.lru_cache(maxsize=256)
def search_for(redactors: tuple[Redactor, ...]) -> Search:
    """These redactors, compiled; the same object for the same redactors."""
    together = _checked("|".join(f"(?:{one.pattern})" for one in redactors))
    return Search(
        redactors,
        None if together is None else compiled_unlimited(together),
        tuple(compiled(one.pattern) for one in redactors),
        waiting(tuple(one.pattern for one in redactors)),
        tuple(_tail(one.tail) for one in redactors),
    )


def _tail(tail: Tail | None) -> tuple[re2._Regexp, Waiting] | None:
    return None if tail is None else (compiled(tail.until), waiting((tail.until,)))


def subject(text: str) -> str | bytes:
    """The text as RE2 searches it fastest: ASCII as bytes, for there the offsets are the same and none are counted."""
    return text.encode() if text.isascii() else text


def searchable(text: str) -> str:
    """The text with every lone surrogate, which UTF-8 cannot hold, replaced: as many characters as before."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
