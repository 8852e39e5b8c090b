"""The events of one stream on their way out: what has been judged leaves, in order, and nothing else does.

Rule 1: events leave in the order in which they came; one that waits keeps all later ones waiting.
Rule 2: an event that is not edited leaves as the bytes it came in.
Rule 3: what leaves, and what a cut leaves behind, depends on the events alone, never on when `release` was called.
Rule 4: after a cut nothing leaves any more.
Rule 5: a finish reason closes no channel: clients append text that comes after it. A channel closes where the protocol
        has gone on to another block, and at the end of the body. Text that comes after a close is searched together
        with the text before it, and from then on only the end of the body closes that channel.

Entries are numbered from 0 as they are added, comment blocks included.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice

from policyd.core.model.reach import Watcher
from policyd.core.stream.alone import alone_changes, blank, redact_alone, veil_changes
from policyd.core.stream.dialects import BLANKS, LOOSE, SCATTERED, Channel, Path, Segment
from policyd.core.stream.holdback import Swap, detectors_of, finds_of, swapped
from policyd.core.stream.lanes import Echo, Entry, Keep, Lane, Piece
from policyd.core.stream.redactor import Redactor
from policyd.core.stream.watches import Watches, covers

Edit = Callable[[bytes, list[tuple[Path, object]]], bytes]
"""Re-serialises one raw event with new values at these paths of its document; every other byte stays."""

_NO_KEEP = Keep()
_NO_LANE = frozenset({"alone", SCATTERED, "veil", "veiled"})
_Raw = tuple[bytes, Sequence[Segment], Sequence[Channel], Sequence[Channel]]


class Outbox:
    """The queue of a stream's events.

    `redactors` edit text of every kind; `watchers` look at the texts of the response; `sought`: what else text is kept
    back for, found by others; `keep`: characters of visible
    text kept back until the channel closes (all of them for rules that do not say which text they look for), or how
    much is kept of each text of the response (see VIEWS); `hold_args`: an event that carries a tool call's arguments
    waits until that tool call is complete; `repeats`: texts are said again, or `told` will be asked, so what leaves is
    remembered from the start; `edit` re-serialises an event.
    """

    def __init__(
        self,
        *,
        redactors: Iterable[Redactor] = (),
        watchers: Iterable[Watcher] = (),
        sought: Iterable[Watcher] = (),
        keep: int | Mapping[str, Keep] = 0,
        hold_args: bool = False,
        repeats: bool = False,
        edit: Edit,
    ) -> None:
        self._redactors = tuple(redactors)
        self._keeps = keep if not isinstance(keep, int) else {"text": Keep(keep, keep)} if keep else {}
        self._watches = Watches(watchers, keeps=self._keeps, sought=sought)
        self._looks = bool(self._watches.watchers or self._watches.sought)
        self._hold_args = hold_args
        self._edit = edit
        self._holds = bool(self._redactors or self._keeps or hold_args or repeats)
        self._told: dict[Channel, str] = {}  # of the lanes that a cut has dropped
        self._plain: list[_Raw] = []  # what has not left, while nothing is ever held
        self._queue: deque[Entry] = deque()  # what has not left, otherwise
        self._free = 0  # entries of the queue that could leave before the newest one was known
        self._lanes: dict[Channel, Lane] = {}
        self._added = 0
        self._cut = False
        self.changed = False  # some text has left changed
        self.redacted: Counter[str] = Counter()  # by detector: finds that were taken out of what has left
        self.reopened = False  # text that is redacted went on after its end, where SDKs add it to what has left
        self.hits, self.followed = self._watches.hits, self._watches.followed
        self.released_events = 0  # entries that left, the last one perhaps in part
        self.partial = False  # whether the last one left in part
        self.spared = ""  # after a cut: text that may leave, of an entry that may not
        self.pending_bytes = 0  # of entries that have not left

    @property
    def added(self) -> int:
        """How many entries were added: the number of the next one."""
        return self._added

    def told(self) -> dict[Channel, str]:
        """What has left of each channel, as far as it is remembered."""
        return self._told if self._cut else {channel: lane.told() for channel, lane in self._lanes.items()}

    def clean(self, text: str) -> str:
        """A string as it would leave now."""
        return redact_alone(text, self._redactors)

    # ---- in ---------------------------------------------------------------------------------------------------------

    def add(
        self,
        raw: bytes,
        segments: Sequence[Segment],
        closes: Sequence[Channel],
        complete: Sequence[Channel] = (),
    ) -> int:
        """Appends the next event, or a comment block without segments; the number of this entry. `closes`: channels in
        which no more text is expected; `complete`: channels of tool calls that are complete."""
        number = self._added
        self._added = number + 1
        if self._cut:
            return number
        self.pending_bytes += len(raw)
        if self._looks and segments:
            self._watches.look(segments)
        if self._holds:
            free = number - len(self._queue) + self._advance()
            entry = self._entry((raw, segments, closes, complete), number)
            entry.free = free
            self._queue.append(entry)
        else:
            self._plain.append((raw, segments, closes, complete))
        return number

    def _advance(self) -> int:
        """How many entries of the queue may leave before the next event is known. INVARIANT: a cut releases as much,
        whether or not `release` was called in the meantime (rule 3)."""
        while self._free < len(self._queue) and self._queue[self._free].may_leave():
            self._free += 1
        return self._free

    def look(self, segments: Sequence[Segment]) -> None:
        """Look for what is watched in texts that are part of no event as they stand."""
        if self._looks and not self._cut:
            self._watches.look(segments)

    def close(self) -> None:
        """The body is over: all text is final, every tool call complete."""
        for lane in self._lanes.values():
            lane.complete_by = self._added if lane.complete_by is None else lane.complete_by
            self._close_lane(lane, self._added)

    def set_redactors(self, redactors: Iterable[Redactor], event: int | None = None) -> None:
        """Look for these too, in the text of entry `event` (None: the next one) and all after it that has not left.

        What was looked for before still is: redactions unite. A match that begins in an earlier entry stays.
        """
        united = tuple(dict.fromkeys((*self._redactors, *redactors)))
        if united == self._redactors:
            return
        first = self._first()
        skipped = max((self._added if event is None else event) - first, 0)
        bounds = self._bounds(skipped)
        starts = {channel: bounds[id(lane)][0] for channel, lane in self._lanes.items()}
        self._redactors = united
        for channel, lane in self._lanes.items():
            lane.hold.use(united, max(starts[channel], lane.released))
        for index, entry in enumerate(self._queue):
            if index >= skipped:
                entry.redactors = united
        if not self._holds:
            self._begin_to_hold(first, skipped)

    def _begin_to_hold(self, first: int, skipped: int) -> None:
        """From now on entries may wait. Those before `skipped` are none of it: they leave as they came."""
        self._holds = True
        for index, one in enumerate(self._plain):
            entry = self._entry(one, first + index) if index >= skipped else Entry(one[0], ())
            self._queue.append(entry)
        self._plain = []

    def watch_also(self, watchers: Iterable[Watcher], said: Mapping[int, str]) -> None:
        """Look for these too; `said`: by each choice before. Nothing is kept back for them: what could be has left."""
        self._watches.also(watchers, said)
        self._looks = True

    def _entry(self, came: _Raw, number: int) -> Entry:
        raw, segments, closes, complete = came
        pieces: list[Piece] = []
        echoes: list[Echo] = []
        others: dict[str, list[Segment]] = {}
        for one in segments:
            kind = one.channel[0]
            if kind in _NO_LANE:
                others.setdefault(kind, []).append(one)
            elif one.again:
                echoes.append(Echo(self._lane(one.channel), one.path, one.text))
            else:
                pieces.append(self._piece(one))
        for channel in complete:
            if (lane := self._lanes.get(channel)) is not None:
                lane.complete_by = number
        for channel in closes:
            if (lane := self._lanes.get(channel)) is not None and not lane.reopened:
                self._close_lane(lane, number)
        veils, veiled = (others.get(kind, ()) for kind in ("veil", "veiled"))
        alone = [*others.get("alone", ()), *others.get(SCATTERED, ())]
        return Entry(raw, pieces, echoes, veils, veiled, alone, self._redactors)

    def _piece(self, segment: Segment) -> Piece:
        lane = self._lane(segment.channel)
        start = lane.hold.length
        self.reopened = self.reopened or (lane.hold.closed and bool(start and segment.text and self._redactors))
        lane.push(segment.text)
        return Piece(lane, segment.path, segment.text, start, lane.hold.length, self._waits(segment.channel))

    def _lane(self, channel: Channel) -> Lane:
        return self._lanes.get(channel) or self._open(channel)

    def _open(self, channel: Channel) -> Lane:
        keep = self._kept(channel[0])
        watch = self._watches.of(channel) if keep.most and (self._watches.watchers or self._watches.sought) else None
        lane = self._lanes[channel] = Lane(channel, self._redactors, watch, keep)
        return lane

    def _kept(self, kind: str) -> Keep:
        if kind == LOOSE:
            return _NO_KEEP  # rules judge it with the event that carries it
        found = [keep for view, keep in self._keeps.items() if covers(view, kind)]
        return Keep(*map(max, zip(*found, strict=True))) if found else _NO_KEEP

    def _waits(self, channel: Channel) -> bool:
        return self._hold_args and channel[0] in ("args", "input")

    @staticmethod
    def _close_lane(lane: Lane, number: int) -> None:
        if not lane.hold.closed:
            lane.closed_by = number
            if lane.first_closed_by is None:
                lane.first_closed_by = number
            lane.hold.close()

    # ---- out --------------------------------------------------------------------------------------------------------

    def release(self) -> bytes:
        """Everything that may leave now."""
        if not self._holds:
            return self._release_plain()
        out: list[bytes] = []
        while self._queue and self._queue[0].may_leave():
            entry = self._queue.popleft()
            self._free = max(self._free - 1, 0)
            out.append(self._written(entry))
            self._left(entry.raw, 1)
        return b"".join(out)

    def _release_plain(self) -> bytes:
        waiting = self._plain
        if not waiting:
            return b""
        data = waiting[0][0] if len(waiting) == 1 else b"".join([one[0] for one in waiting])
        self.released_events += len(waiting)
        self.pending_bytes = 0
        self._plain = []
        return data

    def _left(self, raw: bytes, entries: int) -> None:
        self.released_events += entries
        self.pending_bytes -= len(raw)

    def _written(self, entry: Entry) -> bytes:
        changes: list[tuple[Path, object]] = []
        for piece in entry.pieces:
            text = piece.text
            if piece.lane.hold.swaps:
                text = swapped(text, piece.start, piece.lane.hold.swaps)
            if piece.lane.kind == LOOSE:
                text = redact_alone(text, entry.redactors)
            if text != piece.text:
                changes.append((piece.path, text))
                self.redacted.update(detectors_of(piece.lane.hold.swaps, piece.start, piece.end))
            piece.lane.said.append(text)
            piece.lane.forget(piece.end)
        if entry.alone:
            changes += self._alone(entry)
        return self._edited(entry, changes)

    def _alone(self, entry: Entry) -> list[tuple[Path, object]]:
        changes = alone_changes(entry.alone, entry.redactors)
        if changes:
            paths = {path for path, _ in changes}
            texts = (one.text for one in entry.alone if one.path in paths)
            self.redacted.update(name for text in texts for name in finds_of(text, entry.redactors))
        return changes

    def _edited(self, entry: Entry, changes: list[tuple[Path, object]]) -> bytes:
        for echo in entry.echoes:
            if (told := echo.lane.told()) != echo.text:
                changes.append((echo.path, told))
        if changes:
            self.changed = True
            changes += [(one.path, BLANKS[one.text]) for one in entry.veils]
        elif self.changed and entry.veils and not any(piece.text for piece in entry.pieces):
            changes += [(one.path, BLANKS[one.text]) for one in entry.veils]
        elif entry.veiled and (blanks := veil_changes(entry.veils, entry.veiled, entry.redactors)):
            self.changed = True
            changes += blanks
        return self._edit(entry.raw, changes) if changes else entry.raw

    # ---- a cut ------------------------------------------------------------------------------------------------------

    def cut(self, event: int, watchers: Collection[Watcher] | None = None, last: int = -1) -> bytes:
        """A rule matched at entry `event`: what may still leave; after it nothing does.

        `watchers`: those that the rule reads (None: all). Where none of them matched in what `keep` holds, what could
        be the beginning of a match of any watcher is dropped of it, and the last characters that are kept for rules
        that do not say what they look for.
        Without hold-back that is all entries before `event`. With it, what lies before the match, up to the first
        entry that cannot leave whole: that one leaves in part when some of its text may. `last`: the entry that says
        that the stream is over. It leaves whole or not at all, for nothing could be said behind it; what of its text
        could leave is `spared`.
        """
        first = self._first()
        before = max(event - first, 0)
        if not self._holds:
            self._plain = self._plain[:before]
            data = self._release_plain()
        else:
            data = self._cut_held(event, before, self._watches.watchers if watchers is None else watchers, last)
        self._forget_all()
        return data

    def _cut_held(self, event: int, before: int, watchers: Collection[Watcher], last: int) -> bytes:
        known = self._queue[before].free - self._first() if before < len(self._queue) else self._advance()
        bounds, free = self._bounds(before), min(max(known, 0), before)
        limits, swaps = self._limits(before, watchers, bounds, self._freed(free)), {}
        for lane in self._lanes.values():
            swaps[id(lane)] = lane.hold.as_if_closed(lane.released, bounds[id(lane)][1])
        out: list[bytes] = []
        for index, entry in enumerate(self._queue):
            ends = [min(limits[id(piece.lane)], piece.end) for piece in entry.pieces]
            whole = index < free or (
                index < before and all(end == piece.end for end, piece in zip(ends, entry.pieces, strict=True))
            )
            ends = [piece.end for piece in entry.pieces] if whole else ends
            if index > before or any(piece.waits and not piece.lane.complete_before(event) for piece in entry.pieces):
                break
            if not whole and all(end <= piece.start for end, piece in zip(ends, entry.pieces, strict=True)):
                break
            if not whole and self._first() + index == last:
                self.spared = _spared(entry, ends, swaps)
                break
            out.append(self._cut_entry(entry, ends, swaps, whole=whole))
            self._left(entry.raw, 1)
            if not whole:
                self.partial = True
                break
        return b"".join(out)

    def _cut_entry(self, entry: Entry, ends: Sequence[int], swaps: dict[int, list[Swap]], *, whole: bool) -> bytes:
        changes: list[tuple[Path, object]] = []
        for piece, end in zip(entry.pieces, ends, strict=True):
            kept = piece.text[: max(end - piece.start, 0)]
            text = swapped(kept, piece.start, swaps[id(piece.lane)])
            if piece.lane.kind == LOOSE:
                text = redact_alone(text, entry.redactors)
            if text != piece.text:
                changes.append((piece.path, text))
                self.redacted.update(detectors_of(swaps[id(piece.lane)], piece.start, min(piece.end, end)))
            piece.lane.said.append(text)
        changes += self._alone(entry) if whole else blank(entry.alone)
        return self._edited(entry, changes)

    def _limits(
        self,
        before: int,
        watchers: Collection[Watcher],
        bounds: Mapping[int, tuple[int, int]],
        freed: Mapping[int, int],
    ) -> dict[int, int]:
        """By lane: the offset at which its text ends after a cut at this place of the queue."""
        limits: dict[int, int] = {}
        kept: dict[int, int] = {}  # where what `keep` held back begins
        matched = False
        for lane in self._lanes.values():
            start, end = bounds[id(lane)]
            closed = lane.closed_at(before + self._first(), end)
            limits[id(lane)] = start
            if not lane.keep or closed:
                continue
            floor = lane.hold.floor if lane.hold.floor < end else 0
            low = max(start - lane.keep, freed[id(lane)], floor)
            kept[id(lane)] = self._innocent(lane, low, start)
            about = [watcher for watcher in watchers if covers(watcher.of, lane.kind)]
            found = lane.watch.first_start(low, end, about) if lane.watch is not None and about else None
            if found is not None:
                matched = True
                limits[id(lane)] = max(found, low)
        return limits if matched else {**limits, **kept}

    def _freed(self, free: int) -> dict[int, int]:
        """By lane: how much of it the first `free` entries carry, or have carried."""
        ends = {id(lane): lane.released for lane in self._lanes.values()}
        for entry in islice(self._queue, free):
            ends.update({id(piece.lane): piece.end for piece in entry.pieces})
        return ends

    def _innocent(self, lane: Lane, low: int, start: int) -> int:
        """Up to where kept text may leave that no rule has matched: not what could begin what a rule forbids."""
        blind = max(start - lane.blind, low)
        return blind if lane.watch is None else min(blind, max(lane.watch.undecided(low, start), low))

    def _bounds(self, before: int) -> dict[int, tuple[int, int]]:
        """By lane: how long it was before the entry at this place of the queue, and after it."""
        bounds = {id(lane): (lane.released, lane.released) for lane in self._lanes.values()}
        for index, entry in enumerate(islice(self._queue, before + 1)):
            for piece in entry.pieces:
                start = bounds[id(piece.lane)][0] if index == before else piece.end
                bounds[id(piece.lane)] = (start, piece.end)
        return bounds

    def _first(self) -> int:
        """The number of the first entry that has not left."""
        return self._added - len(self._queue) - len(self._plain)

    def _forget_all(self) -> None:
        self._told = self.told()
        self._queue.clear()
        self._plain = []
        self._lanes.clear()
        self.pending_bytes = 0
        self._cut = True


def _spared(entry: Entry, ends: Sequence[int], swaps: dict[int, list[Swap]]) -> str:
    """What may leave of the first text in this entry, as it would."""
    lane = next((piece.lane for piece in entry.pieces if piece.lane.kind == "text" and piece.lane.keep), None)
    kept = [(piece, end) for piece, end in zip(entry.pieces, ends, strict=True) if piece.lane is lane]
    texts = [(piece, piece.text[: max(end - piece.start, 0)]) for piece, end in kept]
    return "".join(swapped(text, piece.start, swaps[id(piece.lane)]) for piece, text in texts)
