"""What a redaction looks for, ready to search with.

Rule 1: redactors are ordered; where two match at the same place the first wins.
Rule 2: every redactor has a finite reach.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import re2

from policyd.core.model.decision import Redaction
from policyd.core.model.detectors import DETECTORS, Detector, Finder, Tail, Validator
from policyd.core.model.prefix import beginnings
from policyd.core.model.reach import bound_hint, compiled, compiled_unlimited, reach
from policyd.core.stream.window import Window

UNBOUNDED = 1 << 40  # the reach of a pattern without one
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Redactor:
    """One pattern (RE2, finite reach in characters), what proves its finds, and what takes their place."""

    pattern: str
    reach: int
    replacement: str
    validator: Validator | None = None
    tail: Tail | None = None
    finder: Finder | None = None  # all finds of a text, in place of trying the pattern at each place
    detector: str = ""  # whose finds they are; empty for a pattern of the policy's own

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


@functools.lru_cache(maxsize=1024)  # they are the policies' own: each call asks for the same ones
def _of(redaction: Redaction) -> tuple[Redactor, ...]:
    return tuple(_made(redaction))


def _made(redaction: Redaction) -> Iterable[Redactor]:
    for name in redaction.detectors:
        detector = DETECTORS[name]
        if detector.finder is not None:
            yield replace(_together(detector, redaction.replacement), detector=name)
            continue
        for pattern in detector.patterns:
            found = redactor(pattern, redaction.replacement, detector.validator, detector.tail)
            yield replace(found, detector=name)
    for pattern in redaction.patterns:
        yield redactor(pattern, redaction.replacement)


def _together(detector: Detector, replacement: str) -> Redactor:
    """All patterns of a detector as one redactor: its finder knows which goes first."""
    pattern = "|".join(f"(?:{one})" for one in detector.patterns)
    far = max(reach(one) or 0 for one in detector.patterns)
    return Redactor(pattern, far, replacement, detector.validator, detector.tail, detector.finder)


# ---- searching ------------------------------------------------------------------------------------------------------


SHORT = 96
"""Characters. RE2 keeps a table of the states that its patterns pass through, and is a thousand times slower once it
has no room for them. Long texts can be made to pass through very many states of many patterns at once. So long texts
are searched by small groups of patterns, short ones by all patterns together, which is faster."""

GROUP_SIZE = 20_000  # instructions of RE2 that the patterns of a group may have together


@dataclass(frozen=True, slots=True)
class Beginnings:
    """What may begin a match of some patterns, at the end of a text; at most `reach` characters long."""

    pattern: re2._Regexp
    reach: int

    def since(self, window: Window, at: int) -> int:
        """The first place from `at` on where such a beginning stands."""
        found = self.pattern.search(window.data, window.byte(max(at, window.size - self.reach)))
        return window.size if found is None else window.place(found.start())


@dataclass(frozen=True, slots=True)
class Waiting:
    """Tells how much at the end of a text may still become a match of one of these patterns.

    `together` and `groups`: the beginnings of all patterns, and the same in groups. `reach`: the plain reach of those
    patterns for which no such pattern could be derived.
    """

    together: Beginnings | None
    groups: tuple[Beginnings, ...]
    reach: int

    def since(self, window: Window, at: int) -> int:
        """The first place from `at` on where what a match would be is not decided yet."""
        if self.together is not None and window.size - at <= SHORT:
            decided = self.together.since(window, at)
        else:
            decided = min((group.since(window, at) for group in self.groups), default=window.size)
        return decided if not self.reach else max(at, min(decided, window.size - self.reach + 1))


@functools.lru_cache(maxsize=256)  # patterns are the policies' own: each response asks for the same ones
def waiting(patterns: tuple[str, ...]) -> Waiting:
    """What tells when a match of one of these patterns is decided."""
    derived = [(pattern, _checked(beginnings(pattern))) for pattern in patterns]
    known = [(text, reach(pattern)) for pattern, text in derived if text is not None]
    rest = max((reach(pattern) or 0 for pattern, text in derived if text is None), default=0)
    groups: list[Beginnings] = []
    for indexes in _grouped([text for text, _ in known]):
        group = [known[at] for at in indexes]
        whole = _beginnings(group)
        parts = [_beginnings([one]) for one in group] if whole is None else [whole]
        groups += [one for one in parts if one is not None]
    return Waiting(_beginnings(known) if len(groups) > 1 else next(iter(groups), None), tuple(groups), rest)


def _beginnings(those: Sequence[tuple[str, int | None]]) -> Beginnings | None:
    """None: too much for one pattern."""
    far = max((UNBOUNDED if one is None else one for _, one in those), default=0)
    pattern = _checked("|".join(text for text, _ in those))
    return None if pattern is None else Beginnings(compiled_unlimited(f"(?:{pattern})\\z"), far)


def _grouped(patterns: Sequence[str]) -> list[tuple[int, ...]]:
    """Their indexes, neighbours together as long as the group stays small."""
    groups: list[list[int]] = []
    size = GROUP_SIZE
    for index, pattern in enumerate(patterns):
        more = compiled_unlimited(f"(?:{pattern})").programsize
        if size + more > GROUP_SIZE:
            groups.append([])
            size = 0
        groups[-1].append(index)
        size += more
    return [tuple(group) for group in groups]


def _checked(pattern: str | None) -> str | None:
    if pattern is None:
        return None
    try:
        compiled_unlimited(f"(?:{pattern})\\z")
    except ValueError:
        return None
    return pattern


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the redactors, by index, and one alternation of their patterns; None when that would be too large."""

    indexes: tuple[int, ...]
    any: re2._Regexp | None


@dataclass(frozen=True, slots=True)
class Search:
    """Redactors, compiled together: most text is passed by one search for any of them."""

    redactors: tuple[Redactor, ...]
    any: re2._Regexp | None  # one alternation; None when that would be too large
    groups: tuple[Group, ...]  # the same in groups
    each: tuple[re2._Regexp, ...]
    waiting: Waiting
    tails: tuple[tuple[re2._Regexp, Waiting] | None, ...] = field(default=())


@functools.lru_cache(maxsize=256)
def search_for(redactors: tuple[Redactor, ...]) -> Search:
    """These redactors, compiled; the same object for the same redactors."""
    return Search(
        redactors,
        _any(redactors),
        tuple(
            Group(indexes, _any([redactors[index] for index in indexes]))
            for indexes in _grouped([one.pattern for one in redactors])
        ),
        tuple((compiled if one.finder is None else compiled_unlimited)(one.pattern) for one in redactors),
        waiting(tuple(one.pattern for one in redactors)),
        tuple(_tail(one.tail) for one in redactors),
    )


def _any(redactors: Sequence[Redactor]) -> re2._Regexp | None:
    together = _checked("|".join(f"(?:{one.pattern})" for one in redactors))
    return None if together is None else compiled_unlimited(together)


def _tail(tail: Tail | None) -> tuple[re2._Regexp, Waiting] | None:
    return None if tail is None else (compiled(tail.until), waiting((tail.until,)))


def subject(text: str) -> str | bytes:
    """The text as RE2 searches it fastest: ASCII as bytes, for there the offsets are the same and none are counted."""
    return text.encode() if text.isascii() else text


def searchable(text: str) -> str:
    """The text with every lone surrogate, which UTF-8 cannot hold, replaced: as many characters as before."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
