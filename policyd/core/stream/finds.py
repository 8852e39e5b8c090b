"""The finds of several redactors in one text that does not change, from left to right.

Rule 1: one pass: each redactor goes on where it stands, and is asked again only when what it found was passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heapreplace

from policyd.core.stream.redactor import SHORT, Search
from policyd.core.stream.window import Window

Find = tuple[int, int, int]  # start, index of the redactor, end


class Finds:
    """What the redactors of `search` find; each begins to look at its place in `since`."""

    __slots__ = ("_heap", "_sources", "_window")

    def __init__(self, search: Search, window: Window, at: int, since: Sequence[int]) -> None:
        self._window = window
        self._heap: list[Find] = []
        self._sources: dict[int, _Source] = {}
        short = window.size - at <= SHORT
        if short and search.any is not None and search.any.search(window.data, window.byte(at)) is None:
            return
        for group in search.groups:
            if short or group.any is None or group.any.search(window.data, window.byte(at)) is not None:
                self._ask(search, group.indexes, at, since)
        heapify(self._heap)

    def _ask(self, search: Search, indexes: Sequence[int], at: int, since: Sequence[int]) -> None:
        for index in indexes:
            source = self._sources[index] = _Source(search, index, self._window)
            found = source.next(max(at, since[index]))
            if found is not None:
                self._heap.append((found[0], index, found[1]))

    def first(self, at: int) -> Find | None:
        """The leftmost find from `at` on, that of the first redactor where several begin together."""
        heap = self._heap
        while heap and heap[0][0] < at:
            index = heap[0][1]
            found = self._sources[index].next(at)
            heapreplace(heap, (found[0], index, found[1]) if found is not None else (self._window.size + 1, index, 0))
        return heap[0] if heap and heap[0][0] <= self._window.size else None


class _Source:
    """The finds of one redactor, ascending."""

    __slots__ = ("_end", "_finds", "_redactor", "_search", "_window")

    def __init__(self, search: Search, index: int, window: Window) -> None:
        self._redactor, self._search = search.redactors[index], search.each[index]
        self._window = window
        self._finds: Iterator[tuple[int, int]] | None = None
        self._end = -1  # of the newest find

    def next(self, at: int) -> tuple[int, int] | None:
        """The first find that begins at this place or after it. Places asked for ascend."""
        if self._finds is None or (self._end != at and self._redactor.finder is None):
            self._finds = self._from(at)
        for start, end in self._finds:
            if start >= at:
                self._end = end
                return start, end
        return None

    def _from(self, at: int) -> Iterator[tuple[int, int]]:
        redactor, window = self._redactor, self._window
        if redactor.finder is not None:
            found = self._search.search(window.data, window.byte(at))
            return iter(redactor.finder(window.text)) if found is not None else iter(())
        return self._plain(at) if redactor.validator is None else self._proven(at)

    def _plain(self, at: int) -> Iterator[tuple[int, int]]:
        """An empty match is no find: it would replace nothing by something."""
        place = self._window.place
        for found in self._search.finditer(self._window.data, self._window.byte(at)):
            start, end = found.span()
            if start < end:
                yield place(start), place(end)

    def _proven(self, at: int) -> Iterator[tuple[int, int]]:
        window, search, redactor = self._window, self._search.search, self._redactor
        while at <= window.size and (found := search(window.data, window.byte(at))) is not None:
            start, end = map(window.place, found.span())
            if redactor.finds(window.text[start:end]):
                yield start, end
            at = start + 1
