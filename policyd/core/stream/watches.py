"""The watchers of one stream, channel by channel; also those that come while it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from policyd.core.model.reach import Watcher
from policyd.core.stream.dialects import Channel, Segment
from policyd.core.stream.watch import Watch, matches_nothing


class Both:
    """A watch, and one that came later: whoever asks where a match stands asks the first."""

    __slots__ = ("_first", "_late")

    def __init__(self, first: Watch | Both, late: Watch) -> None:
        self._first, self._late = first, late

    def push(self, text: str) -> list[Watcher]:
        return [*self._first.push(text), *self._late.push(text)]

    def first_start(self, low: int, high: int, watchers: Collection[Watcher]) -> int | None:
        return self._first.first_start(low, high, watchers)

    def undecided(self, low: int, high: int) -> int:
        return self._first.undecided(low, high)

    def forget(self, offset: int) -> None:
        self._first.forget(offset)


class Watches:
    """What is looked for in visible text ("text" channels), each choice by itself. `hits` grows as it is found."""

    def __init__(self, watchers: Iterable[Watcher], *, keeps: bool) -> None:
        self.watchers = tuple(dict.fromkeys(watchers))
        self.hits: set[Watcher] = {watcher for watcher in self.watchers if matches_nothing(watcher)}
        self._keeps = keeps
        self._by_channel: dict[Channel, Watch | Both] = {}
        self._late: list[tuple[tuple[Watcher, ...], dict[int, str]]] = []  # and what each choice had said by then

    def look(self, segments: Sequence[Segment]) -> None:
        """Law 4 in the small: a watcher sees the text as it stands after the whole event, not between its segments."""
        if len(segments) == 1:
            only = segments[0]
            if only.text and only.channel[0] == "text":
                self.hits.update(self.of(only.channel).push(only.text))
            return
        texts: dict[Channel, str] = {}
        for segment in segments:
            if segment.channel[0] == "text" and segment.text and not segment.again:
                texts[segment.channel] = texts.get(segment.channel, "") + segment.text
        for channel, text in texts.items():
            self.hits.update(self.of(channel).push(text))

    def of(self, channel: Channel) -> Watch | Both:
        """The watch of this channel."""
        watch = self._by_channel.get(channel)
        if watch is None:
            watch = Watch(self.watchers, keeps=self._keeps)
            for late, said in self._late:
                watch = Both(watch, _seeded(late, said.pop(channel[1], "")))
            self._by_channel[channel] = watch
        return watch

    def also(self, watchers: Iterable[Watcher], said: Mapping[int, str]) -> None:
        """Look for these too, in what comes, and in what was `said` by each choice before."""
        late = tuple(dict.fromkeys(watchers))
        self.hits.update(watcher for watcher in late if matches_nothing(watcher))
        for text in said.values():
            self.hits.update(Watch(late).push(text))
        for channel, watch in self._by_channel.items():
            self._by_channel[channel] = Both(watch, _seeded(late, said.get(channel[1], "")))
        self._late.append((late, dict(said)))


def _seeded(watchers: Sequence[Watcher], said: str) -> Watch:
    """A watch that goes on where this text ends: a match may have begun in it."""
    watch = Watch(watchers)
    watch.push(said)
    return watch
