"""The watchers of one stream; also those that come while it runs.

Rule 1: a rule reads the parts of a choice as one response.text, so matches of it are found by watches over whole
        choices. response.content and response.reasoning are read channel by channel.
Rule 2: where in a channel a match stands is told by the channel's own watch, which only hold-back needs.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from policyd.core.model.reach import Watcher
from policyd.core.stream.dialects import JOINED, Channel, Segment
from policyd.core.stream.dialects.content import decoded
from policyd.core.stream.watch import Watch, holds, matches_nothing

_VIEW = attrgetter("of")


STANDS_ALONE = frozenset({"alone", "veiled", *JOINED})
"""Kinds of channels of which each segment is a text by itself."""


def covers(view: str, kind: str) -> bool:
    """Whether text of a channel of this kind is part of this text of the response (see VIEWS)."""
    return kind == view or (view == "content" and kind != "veil")


class _View:
    """Watchers of one text of the response."""

    __slots__ = ("_by_key", "_late", "of", "watchers")

    def __init__(self, of: str, watchers: tuple[Watcher, ...]) -> None:
        self.of, self.watchers = of, watchers
        self._by_key: dict[Hashable, list[Watch]] = {}
        self._late: list[tuple[tuple[Watcher, ...], Mapping[int, str]]] = []  # and what each choice had said by then

    def look(self, segments: Sequence[Segment], hits: set[Watcher]) -> None:
        """Law 4 in the small: a watcher sees the text as it stands after the whole event, not between its segments."""
        texts: dict[Hashable, str] = {}
        for segment in segments:
            channel = segment.channel
            if not segment.text or segment.again or not covers(self.of, channel[0]):
                continue
            if channel[0] in STANDS_ALONE:
                said = (segment.text, *decoded(segment.text))
                hits.update(watcher for watcher in self._every() if any(holds(watcher, one) for one in said))
                if channel[0] not in JOINED:
                    continue
            key: Hashable = channel[1] if self.of == "text" else channel
            texts[key] = texts[key] + segment.text if key in texts else segment.text
        for one, text in texts.items():
            watches = self._by_key.get(one)
            if watches is None:
                watches = self._by_key[one] = [Watch(self.watchers), *self._begun(one)]
            for watch in watches:
                hits.update(watch.push(text))

    def _every(self) -> Iterable[Watcher]:
        return (*self.watchers, *(watcher for late, _ in self._late for watcher in late))

    def _begun(self, key: Hashable) -> Iterable[Watch]:
        """Watches of the watchers that came late, at the text of this key that they missed."""
        for watchers, said in self._late:
            yield _seeded(watchers, _said(key, said))

    def also(self, late: tuple[Watcher, ...], said: Mapping[int, str], hits: set[Watcher]) -> None:
        """Look for these too, in what comes, and in what was `said` by each choice before."""
        if self.of != "reasoning":
            for text in said.values():
                hits.update(Watch(late).push(text))
        self._late.append((late, dict(said)))
        for key, watches in self._by_key.items():
            watches.append(_seeded(late, _said(key, said)))


class Watches:
    """What is looked for in the texts of a response (see VIEWS). `hits` grows as it is found. `keeps`: the texts of
    which something is kept back."""

    def __init__(self, watchers: Iterable[Watcher], *, keeps: Collection[str], sought: Iterable[Watcher] = ()) -> None:
        self.watchers = tuple(dict.fromkeys(watchers))
        self.hits: set[Watcher] = {watcher for watcher in self.watchers if matches_nothing(watcher)}
        self.followed: set[Watcher] = set(self.watchers)
        self._keeps = frozenset(keeps)
        self.sought = tuple(dict.fromkeys(sought))  # text is kept back for these, but others tell whether they match
        self._views = {of: _View(of, tuple(those)) for of, those in groupby(sorted(self.watchers, key=_VIEW), _VIEW)}
        self._by_channel: dict[Channel, Watch] = {}

    def look(self, segments: Sequence[Segment]) -> None:
        """The texts of one event."""
        for view in self._views.values():
            view.look(segments, self.hits)
        if self._keeps:
            for segment in segments:
                if segment.text and not segment.again and self._keeps_back(segment.channel):
                    self.of(segment.channel).push(segment.text)

    def _keeps_back(self, channel: Channel) -> bool:
        return channel[0] not in STANDS_ALONE and any(covers(view, channel[0]) for view in self._keeps)

    def of(self, channel: Channel) -> Watch:
        """The watch that tells where in this channel a match stands."""
        watch = self._by_channel.get(channel)
        if watch is None:
            about = [watcher for watcher in (*self.watchers, *self.sought) if covers(watcher.of, channel[0])]
            watch = self._by_channel[channel] = Watch(about, keeps=True)
        return watch

    def also(self, watchers: Iterable[Watcher], said: Mapping[int, str]) -> None:
        """Look for these too, in what comes, and in the visible text that each choice `said` before."""
        late = tuple(dict.fromkeys(watchers))
        self.hits.update(watcher for watcher in late if matches_nothing(watcher))
        self.followed.update(late)
        for of, those in groupby(sorted(late, key=_VIEW), _VIEW):
            self._views.setdefault(of, _View(of, ())).also(tuple(those), said, self.hits)


def _said(key: Hashable, said: Mapping[int, str]) -> str:
    """The visible text of this key, a choice or a channel."""
    if isinstance(key, int):
        return said.get(key, "")
    return said.get(key[1], "") if isinstance(key, tuple) and key[0] == "text" else ""


def _seeded(watchers: Sequence[Watcher], said: str) -> Watch:
    """A watch that goes on where this text ends: a match may have begun in it."""
    watch = Watch(watchers)
    watch.push(said)
    return watch
