"""Text rules, matched as the text grows: `contains` and `matches` without judging the whole text at every event.

Rule 1: a watcher has matched at the first event whose text-so-far it is true of, and stays so.
Rule 2: `contains` and patterns of finite reach look only at what an event could have completed. A pattern of unbounded
        reach (`\\d+x`) searches all the text at every event: linear in the text for each of its events, so an answer of
        n characters costs n * n / 2 characters of search in the worst case (20 ms for 8,000 in steps of 4). That is
        why its text is bounded, and why `check` should advise to bound the pattern.
Rule 3: `^` and `$` mean the beginning and the end of the whole text so far.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import re2

from policyd.core.model.reach import Watcher, compiled
from policyd.core.stream.redactor import Waiting, searchable, subject, waiting
from policyd.core.stream.window import Window

MAX_TEXT = 262_144  # characters of one channel that a pattern of unbounded reach sees: the newest


def reach_of(watcher: Watcher) -> int:
    """How far back of its end a match can begin, in characters."""
    if watcher.kind == "contains":
        return len(watcher.pattern)
    return MAX_TEXT if watcher.reach is None else watcher.reach


NOTHING_WAITS = Waiting(None, (), 0)


def _pattern_of(watcher: Watcher) -> str:
    return re2.escape(searchable(watcher.pattern)) if watcher.kind == "contains" else watcher.pattern


class Watch:
    """The watchers of one channel. `keeps`: text stays until it is forgotten, so that matches can be placed in it."""

    __slots__ = (
        "_base",
        "_keeps",
        "_literals",
        "_overlap",
        "_patterns",
        "_reach",
        "_spare",
        "_text",
        "_waiting",
        "length",
    )

    def __init__(self, watchers: Sequence[Watcher], *, keeps: bool = False) -> None:
        if wrong := [watcher.kind for watcher in watchers if watcher.kind not in ("contains", "matches")]:
            raise ValueError(f"unknown kind of watcher {wrong[0]}")
        self._keeps = keeps
        # What has not matched yet.
        self._literals = [(watcher.pattern, watcher) for watcher in watchers if watcher.kind == "contains"]
        self._patterns = [(compiled(watcher.pattern), watcher) for watcher in watchers if watcher.kind == "matches"]
        self._overlap = max((len(literal) for literal, _ in self._literals), default=0)
        self._reach = max((reach_of(watcher) for watcher in watchers), default=0)
        self._waiting = waiting(tuple(map(_pattern_of, watchers))) if keeps else NOTHING_WAITS
        self._spare = 2 * self._reach + 1  # characters: as much may stay
        self._text = ""  # from `_base` on
        self._base = 0
        self.length = 0

    def push(self, text: str) -> list[Watcher]:
        """The next piece of the text; the watchers that have now matched for the first time."""
        size = len(text)
        self.length += size
        self._text += searchable(text)
        recent = self._text[-size - self._overlap :]
        hits = [watcher for literal, watcher in self._literals if literal in recent]
        if self._patterns:
            hits += [watcher for pattern, watcher in self._patterns if self._matches(pattern, watcher, size)]
        if hits:
            self._literals = [item for item in self._literals if item[1] not in hits]
            self._patterns = [item for item in self._patterns if item[1] not in hits]
        if not self._keeps and len(self._text) > self._spare:
            self._trim(self.length)
        return hits

    def first_start(self, low: int, high: int, watchers: Collection[Watcher]) -> int | None:
        """Where the leftmost match begins that ends after `low`, in the text up to `high`; None when there is none."""
        text = self._text[: max(high - self._base, 0)]
        starts = [self._place(watcher, text, low - self._base) for watcher in watchers]
        found = [start for start in starts if start is not None]
        return self._base + min(found) if found else None

    def undecided(self, low: int, high: int) -> int:
        """Where, in the text from `low` to `high`, the first match could begin that more text would complete."""
        window = Window(self._text[: max(high - self._base, 0)])
        return self._base + self._waiting.since(window, max(low - self._base, 0))

    def forget(self, offset: int) -> None:
        """No match that ends at or before this offset will be asked for."""
        self._trim(offset)

    def _trim(self, offset: int) -> None:
        # One more than the reach: the left neighbour of a match. Twice as much may stay, so that trimming is rare.
        spare = offset - self._base - self._reach - 1
        if spare > self._reach:
            self._text = self._text[spare:]
            self._base += spare

    def _matches(self, pattern: re2._Regexp, watcher: Watcher, new: int) -> bool:
        """Whether the newest characters complete a match (or decide one that looked past the old end)."""
        begins = max(len(self._text) - new - reach_of(watcher), 0)
        left = max(begins - 1, 0)
        return pattern.search(subject(self._text[left:]), begins - left) is not None

    def _place(self, watcher: Watcher, text: str, low: int) -> int | None:
        at = max(low - reach_of(watcher), 0)
        if watcher.kind == "contains":
            start = text.find(watcher.pattern, at)
            while start >= 0 and start + len(watcher.pattern) <= low:
                start = text.find(watcher.pattern, start + 1)
            return start if start >= 0 else None
        window, pattern = subject(text), compiled(watcher.pattern)
        while (found := pattern.search(window, at)) is not None:
            if found.end() > low:
                return int(found.start())
            at = found.start() + 1
        return None


def holds(watcher: Watcher, text: str) -> bool:
    """Whether it is true of a text that does not grow."""
    if watcher.kind == "contains":
        return watcher.pattern in text
    return compiled(watcher.pattern).search(subject(searchable(text))) is not None


def matches_nothing(watcher: Watcher) -> bool:
    """Whether it is true of no text at all, so before the first event."""
    return watcher.pattern == "" if watcher.kind == "contains" else compiled(watcher.pattern).search("") is not None
