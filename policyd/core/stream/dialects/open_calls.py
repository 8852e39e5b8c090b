"""The tool calls of a stream that are not complete, and their arguments, as they were after any of its events.

Rule 1: a place in the stream is one number, so that every event can be marked with it: a mark holds no text.
Rule 2: memory is eight bytes for each event that adds arguments.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from policyd.core.model.growing import Growing

K = TypeVar("K", bound=Hashable)
NO_CALLS: Mapping[int, str] = MappingProxyType({})
_CLOSED = (1 << 32) - 1


class OpenCalls(Generic[K]):
    """A journal: which call grew to which size, and which one closed. `K` names a call on the wire."""

    __slots__ = ("_entries", "_known", "_texts")

    def __init__(self) -> None:
        self._texts: list[tuple[K, Growing]] = []
        self._known: dict[K, int] = {}  # open calls: their newest place in `_texts`
        self._entries = array("I")  # pairs: a place in `_texts`, and the size or _CLOSED

    @property
    def at(self) -> int:
        """The place that the stream has reached."""
        return len(self._entries)

    def grew(self, key: K, text: Growing) -> None:
        """This call has begun, or its arguments have grown or were replaced."""
        place = self._known.get(key)
        if place is None or self._texts[place][1] is not text:
            place = self._known[key] = len(self._texts)
            self._texts.append((key, text))
        self._entries.append(place)
        self._entries.append(text.size)

    def close(self, key: K) -> None:
        """This call is complete."""
        place = self._known.pop(key, None)
        if place is not None:
            self._entries.append(place)
            self._entries.append(_CLOSED)

    def half(self, at: int) -> dict[K, str]:
        """The calls that were open at this place, in order of appearance, and their arguments until then."""
        sizes: dict[K, tuple[int, int]] = {}
        for index in range(0, at, 2):
            place, size = self._entries[index], self._entries[index + 1]
            key = self._texts[place][0]
            if size == _CLOSED:
                sizes.pop(key, None)
            else:
                sizes[key] = (place, size)
        return {key: self._texts[place][1].text()[:size] for key, (place, size) in sizes.items()}
