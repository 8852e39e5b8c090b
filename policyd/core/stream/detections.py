"""How often detectors find something: in a whole text, and in the content of a response while it grows.

Rule 1: a find counts when it is complete: when no text that follows can change where it begins or ends. So a count
        never falls, and does not depend on how the network cut the text. The end of a text completes what stands there.
Rule 2: each channel is a text of its own, and each detector searches by itself: finds of two detectors may overlap.
Rule 3: the search is the one of redactions, so what is counted is what would be redacted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from policyd.core.model.decision import Redaction
from policyd.core.stream.dialects import LOOSE, Channel, Segment
from policyd.core.stream.holdback import ArgumentsHold, HoldBack
from policyd.core.stream.redactor import Redactor, redactors
from policyd.core.stream.watches import STANDS_ALONE, covers


@lru_cache(maxsize=64)
def _finders(detector: str) -> tuple[Redactor, ...]:
    return redactors((Redaction(detectors=(detector,)),))


def count_finds(text: str, detectors: Iterable[str]) -> dict[str, int]:
    """The finds of each detector in a whole text."""
    return {name: _count(text, name) for name in detectors}


def count_in_parts(text: str, runs: Iterable[Sequence[str]], detectors: Iterable[str]) -> dict[str, int]:
    """The finds of each detector in a whole text, and those across the borders of parts that stand in it: `runs` of
    parts that are also read as one text each."""
    runs = list(runs)
    counts = {}
    for name in detectors:
        across = (_count("".join(parts), name) - sum(_count(one, name) for one in parts) for parts in runs)
        counts[name] = _count(text, name) + sum(max(0, more) for more in across)
    return counts


def _count(text: str, detector: str, *, arguments: bool = False) -> int:
    search = _Search(detector, arguments=arguments)
    search.push(text)
    search.close()
    return search.finds


class _Search:
    """One detector in one text that grows."""

    __slots__ = ("_forgotten", "_hold")

    def __init__(self, detector: str, *, arguments: bool) -> None:
        self._hold = ArgumentsHold(_finders(detector)) if arguments else HoldBack(_finders(detector))
        self._forgotten = 0  # finds that the search no longer remembers

    @property
    def finds(self) -> int:
        return self._forgotten + len(self._hold.swaps)

    def push(self, text: str) -> None:
        self._hold.push(text)
        known = len(self._hold.swaps)
        self._hold.forget(self._hold.decided)
        self._forgotten += known - len(self._hold.swaps)

    def close(self) -> None:
        self._hold.close()


class Finds:
    """The finds in the content of one response. `counts` is kept up to date: what `response.detections` reads."""

    __slots__ = ("_alone", "_missed", "_searches", "counts")

    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts
        self._searches: dict[Channel, dict[str, _Search]] = {}
        self._alone: dict[Channel, dict[str, int]] = {}  # finds in pieces that may be texts by themselves
        self._missed: dict[str, Mapping[int, str]] = {}  # by detector that came late: what each choice had said

    def look_for(self, detectors: Iterable[str], said: Mapping[int, str] | None = None) -> None:
        """Count the finds of these, too; `said`: the visible text of each choice so far."""
        for name in detectors:
            if name not in self.counts:
                self.counts[name] = sum(_count(text, name) for text in (said or {}).values())
                self._missed[name] = dict(said or {})
                for channel, searches in self._searches.items():
                    searches[name] = self._begun(name, channel)

    def take(self, segments: Sequence[Segment], closes: Sequence[Channel]) -> bool:
        """The texts of one event, and the channels that it closes. Whether any count has grown."""
        if not self.counts:
            return False
        grown = False
        for segment in segments:
            channel = segment.channel
            if not segment.text or segment.again or not covers("content", channel[0]):
                continue
            if channel[0] == LOOSE:
                grown |= self._push(channel, segment.text, count_finds(segment.text, self.counts))
            elif channel[0] in STANDS_ALONE:
                grown |= self._add(count_finds(segment.text, self.counts))
            else:
                grown |= self._push(channel, segment.text)
        for channel in closes:
            grown |= self._close(channel)
        return grown

    def finish(self) -> bool:
        """The body is over."""
        closed = [self._close(channel) for channel in self._searches]
        return any(closed)

    def _push(self, channel: Channel, text: str, alone: Mapping[str, int] | None = None) -> bool:
        """More of a channel. `alone`: the finds in this piece, where it may be a text by itself."""
        searches = self._searches.get(channel)
        if searches is None:
            searches = self._searches[channel] = {name: self._begun(name, channel) for name in self.counts}
        before = self._found(channel)
        if alone is not None:
            known = self._alone.get(channel, {})
            self._alone[channel] = {name: known.get(name, 0) + count for name, count in alone.items()}
        for search in searches.values():
            search.push(text)
        return self._grown(channel, before)

    def _close(self, channel: Channel) -> bool:
        before = self._found(channel)
        for search in self._searches.get(channel, {}).values():
            search.close()
        return self._grown(channel, before)

    def _found(self, channel: Channel) -> dict[str, int]:
        """The finds in a channel: of its pieces, one by one and joined, the greater number."""
        alone = self._alone.get(channel, {})
        return {name: max(one.finds, alone.get(name, 0)) for name, one in self._searches.get(channel, {}).items()}

    def _grown(self, channel: Channel, before: Mapping[str, int]) -> bool:
        return self._add({name: count - before[name] for name, count in self._found(channel).items()})

    def _add(self, more: Mapping[str, int]) -> bool:
        for name, count in more.items():
            self.counts[name] += count
        return any(more.values())

    def _begun(self, detector: str, channel: Channel) -> _Search:
        """A search at the end of the text that this channel had before anybody looked: a find may have begun in it."""
        search = _Search(detector, arguments=channel[0] == "args")
        if channel[0] == "text" and (text := self._missed.get(detector, {}).get(channel[1])):
            search.push(text)
        return search
