"""The watchers of one stream; also those that come while it runs.

Rule 1: a rule reads the parts of a choice as one text, so what has matched is told by watches over whole choices.
Rule 2: where in a channel a match stands is told by the channel's own watch, which only hold-back needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from policyd.core.model.reach import Watcher
from policyd.core.stream.dialects import Channel, Segment
from policyd.core.stream.watch import Watch, matches_nothing


class Watches:
    """What is looked for in visible text ("text" channels), each choice by itself. `hits` grows as it is found."""

    def __init__(self, watchers: Iterable[Watcher], *, keeps: bool) -> None:
        self.watchers = tuple(dict.fromkeys(watchers))
        self.hits: set[Watcher] = {watcher for watcher in self.watchers if matches_nothing(watcher)}
        self.followed: set[Watcher] = set(self.watchers)
        self._keeps = keeps
        self._by_choice: dict[int, list[Watch]] = {}
        self._by_channel: dict[Channel, Watch] = {}
        self._late: list[tuple[tuple[Watcher, ...], Mapping[int, str]]] = []  # and what each choice had said by then

    def look(self, segments: Sequence[Segment]) -> None:
        """Law 4 in the small: a watcher sees the text as it stands after the whole event, not between its segments."""
        if len(segments) == 1:
            only = segments[0]
            if only.text and only.channel[0] == "text" and not only.again:
                self._said(only.channel[1], only.text)
                if self._keeps:
                    self.of(only.channel).push(only.text)
            return
        texts: dict[int, str] = {}
        for segment in segments:
            if segment.channel[0] == "text" and segment.text and not segment.again:
                texts[segment.channel[1]] = texts.get(segment.channel[1], "") + segment.text
                if self._keeps:
                    self.of(segment.channel).push(segment.text)
        for choice, text in texts.items():
            self._said(choice, text)

    def _said(self, choice: int, text: str) -> None:
        watches = self._by_choice.get(choice)
        if watches is None:
            late = (_seeded(watchers, said.get(choice, "")) for watchers, said in self._late)
            watches = self._by_choice[choice] = [Watch(self.watchers), *late]
        for watch in watches:
            self.hits.update(watch.push(text))

    def of(self, channel: Channel) -> Watch:
        """The watch that tells where in this channel a match stands."""
        watch = self._by_channel.get(channel)
        if watch is None:
            watch = self._by_channel[channel] = Watch(self.watchers, keeps=True)
        return watch

    def also(self, watchers: Iterable[Watcher], said: Mapping[int, str]) -> None:
        """Look for these too, in what comes, and in what was `said` by each choice before."""
        late = tuple(dict.fromkeys(watchers))
        self.hits.update(watcher for watcher in late if matches_nothing(watcher))
        self.followed.update(late)
        for text in said.values():
            self.hits.update(Watch(late).push(text))
        for choice, watches in self._by_choice.items():
            watches.append(_seeded(late, said.get(choice, "")))
        self._late.append((late, dict(said)))


def _seeded(watchers: Sequence[Watcher], said: str) -> Watch:
    """A watch that goes on where this text ends: a match may have begun in it."""
    watch = Watch(watchers)
    watch.push(said)
    return watch
