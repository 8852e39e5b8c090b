r"""Redaction of one growing text: what is final may leave, what may still become a match waits.

Rule 1: what leaves equals one pass over the whole text, left to right, the leftmost match first, the first redactor
        where two begin together, however the text was cut into pieces.
Rule 2: a place is final when no continuation of the text can make a match begin there; not when enough characters have
        come. So ordinary text hardly waits, though a redactor may reach a thousand characters.
Rule 3: one character left of the text still searched is kept, for `\b` and `^` look there.
Rule 4: all offsets are absolute, in characters from the beginning of the channel.
Rule 5: text may follow after the text was closed. A match that begins before the close and ends after it is replaced
        from the close on, whether or not the text before it has left.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from policyd.core.stream.finds import Finds
from policyd.core.stream.json_view import JsonView
from policyd.core.stream.redactor import Redactor, Search, search_for, searchable
from policyd.core.stream.window import Window

_START = attrgetter("start")
_SLICE = 16_384  # characters searched at a time, so that a long text costs what it is long


@dataclass(slots=True)
class Swap:
    """The text from `start` to `end` leaves as `replacement`, at `start`. `end` grows while a tail runs."""

    start: int
    end: int
    replacement: str
    detector: str = ""  # see Redactor


@dataclass(slots=True)
class _Tail:
    """A match that goes on: which redactor's, and the offset that it cannot pass."""

    index: int
    limit: int


class _Open(NamedTuple):
    """The state of the search before the text was closed: the search goes on from here if more text comes."""

    scan: int
    base: int  # where `window` begins
    window: str


class HoldBack:
    """One channel's text. `swaps`: the final replacements, ascending, that do not lie wholly in forgotten text."""

    __slots__ = (
        "_base",
        "_open",
        "_past",
        "_resumed",
        "_scan",
        "_search",
        "_since",
        "_stopped",
        "_tail",
        "_window",
        "closed",
        "floor",
        "length",
        "swaps",
        "view",
    )

    def __init__(self, redactors: Sequence[Redactor] = (), *, view: JsonView | None = None) -> None:
        """`view`: the text is JSON, decoded by it."""
        self._search: Search = search_for(tuple(redactors))
        self._since: tuple[int, ...] = (0,) * len(redactors)  # where each redactor begins to look
        self.view = view
        self._past: deque[str] = deque()  # searched, but not forgotten: from `_base` to where the window begins
        self._base = 0
        self._window = ""  # from one character before `_scan`, to the end
        self._scan = 0  # everything before is decided
        self._tail: _Tail | None = None
        self._open = _Open(0, 0, "")
        self._stopped: _Tail | None = None  # the tail that only the close has ended
        self._resumed = 0  # where the search went on after the newest close
        self.length = 0
        self.closed = False
        self.floor = 0  # where the text went on after a close: everything before is final
        self.swaps: deque[Swap] = deque()

    @property
    def decided(self) -> int:
        """Everything before this offset is final."""
        return max(self._scan, self.floor)

    def push(self, text: str) -> None:
        """The next piece of the text."""
        if not text:
            return
        if self.closed:
            self._reopen()
        self.length += len(text)
        self._feed(searchable(text))

    def close(self) -> None:
        """No more text is expected."""
        if self.closed:
            return
        self.closed = True
        self._finish()

    def _finish(self) -> None:
        self._open, self._stopped = _Open(self._scan, self._window_base(), self._window), None
        self._advance(final=True)

    def whole(self, text: str) -> None:
        """The only piece of the text: it is searched once."""
        self.length = len(text)
        self._window = searchable(text)
        self.close()

    def _reopen(self) -> None:
        """Text follows after the close: what waited for more text then is searched again, together with it."""
        self.closed = False
        self.floor = self.length
        self._tail, self._stopped = self._stopped, None
        self._scan = self._resumed = max(self._open.scan, self.swaps[-1].end if self.swaps else 0)
        begins = self._window_base()
        if self._base <= begins:
            text = "".join([*self._past, self._window])
            self._past = deque([text[: begins - self._base]])
            self._window = text[begins - self._base :]
        else:
            self._past, self._base = deque(), begins
            self._window = self._open.window[begins - self._open.base :]

    def forget(self, offset: int) -> None:
        """Everything before this offset, which must be decided, has left."""
        while self._past and self._base + len(self._past[0]) < offset:
            self._base += len(self._past.popleft())
        while len(self.swaps) > 1 and self.swaps[0].end <= offset:
            self.swaps.popleft()

    def as_if_closed(self, start: int, end: int) -> list[Swap]:
        """The replacements, if the text had ended at `end`; nothing before `start` is decided anew. Neither is
        forgotten yet."""
        begins = start
        if start <= self.floor < end:
            start, begins = self.floor, self._resumed
        kept = [
            Swap(swap.start, min(swap.end, end), swap.replacement, swap.detector)
            for swap in self.swaps
            if swap.start < start
        ]
        again = HoldBack(self._search.redactors)
        again._since, again.view = self._since, self.view
        again._scan = max(begins, kept[-1].end if kept else 0)
        again.floor = self.floor if self.floor < end else 0
        again.swaps = deque(kept)
        if kept and self.swaps[-1].start < start:
            again._tail = self._tail
        text = "".join([*self._past, self._window])
        begins = again._window_base()
        again._feed(text[begins - self._base : end - self._base])
        again.close()
        return list(again.swaps)

    def use(self, redactors: Sequence[Redactor], since: int) -> None:
        """Look for these, the old ones among them: the new ones find what begins at `since`, which is not yet
        forgotten, or after it."""
        known = dict(zip(self._search.redactors, self._since, strict=True))
        running = self._search.redactors[self._tail.index] if self._tail is not None else None
        text = "".join([*self._past, self._window])
        self._search = search_for(tuple(redactors))
        self._since = tuple(known.get(redactor, since) for redactor in redactors)
        while self.swaps and self.swaps[-1].start >= since:
            self.swaps.pop()
            self._tail = None
        if self._tail is not None and running is not None:
            self._tail.index = self._search.redactors.index(running)
        self._scan = min(self._scan, max(since, self.swaps[-1].end if self.swaps else 0))
        begins = self._window_base()
        self._past = deque([text[: begins - self._base]])
        self._window = ""
        self._feed(text[begins - self._base :])
        if self.closed:
            self._finish()

    # ---- searching --------------------------------------------------------------------------------------------------

    def _feed(self, seen: str) -> None:
        if not self._search.redactors:  # nothing is looked for: all of it is decided
            begins = self._window_base()
            self._window += seen
            self._scan = begins + len(self._window)
            self._trim(begins)
            return
        for at in range(0, len(seen), _SLICE):
            self._window += seen[at : at + _SLICE]
            self._advance(final=False)

    def _advance(self, *, final: bool) -> None:
        """Take every match that is final."""
        if not self._search.redactors:
            return
        begins, window = self._window_base(), Window(self._window)
        finds: Finds | None = None  # the window does not change here, so what is found in it is found once
        decided = -1
        while True:
            if self._tail is not None:
                if not self._run_tail(window, begins, final):
                    break
                continue
            at = self._scan - begins
            if decided < at:
                decided = window.size if final else self._search.waiting.since(window, at)
            if decided <= at:
                break
            if finds is None:
                finds = Finds(self._search, window, at, [since - begins for since in self._since])
            found = finds.first(at)
            if found is None or found[0] >= decided:
                self._scan = begins + decided
                break
            start, index, end = found
            self._swap(index, begins + start, begins + end)
            self._scan = begins + end
        self._trim(begins)

    def _swap(self, index: int, start: int, end: int) -> None:
        redactor = self._search.redactors[index]
        replacement = redactor.replacement
        if self.view is not None:
            replacement = json.dumps(replacement)[slice(1, -1) if self.view.in_string(start) else slice(None)]
        begins = max(start, self.floor) if end > self.floor else start
        self.swaps.append(Swap(begins, end, replacement, redactor.detector))
        if redactor.tail is not None:
            self._tail = _Tail(index, end + redactor.tail.most)

    def _run_tail(self, window: Window, begins: int, final: bool) -> bool:
        """Takes away what belongs to the tail; False when more text must tell where it ends."""
        tail, ends = self._tail, None
        assert tail is not None
        rule, compiled = self._search.redactors[tail.index].tail, self._search.tails[tail.index]
        assert rule is not None and compiled is not None
        at, limit = self._scan - begins, self._tail_limit(tail) - begins
        decided = window.size if final else compiled[1].since(window, at)
        found = compiled[0].search(window.data, window.byte(at))
        if found is not None and (start := window.place(found.start())) < decided and start <= limit:
            ends = window.place(found.end()) if rule.through else start
        elif final or decided > limit:
            ends = min(decided, limit)
            self._stopped = tail if decided < limit else None
        stop = min(decided, limit) if ends is None else ends
        self.swaps[-1].end = begins + stop
        self._scan = begins + stop
        if ends is None:
            return False
        self._tail = None
        return True

    def _tail_limit(self, tail: _Tail) -> int:
        """What the tail cannot pass: its own limit, and the end of the JSON string that it began in."""
        if self.view is None or not self.view.in_string(self._scan):
            return tail.limit
        quote = self.view.next_quote(self._scan)
        return tail.limit if quote is None else min(tail.limit, quote)

    def _trim(self, begins: int) -> None:
        """The window, which began here, moves on to what is not decided, keeping one character of left neighbour."""
        moved = self._window_base() - begins
        if moved:
            self._past.append(self._window[:moved])
            self._window = self._window[moved:]

    def _window_base(self) -> int:
        return max(self._scan - 1, 0)


class ArgumentsHold:
    """The JSON text of a tool call's arguments: like HoldBack, but what is searched is decoded. Offsets are those of
    the text as it came. A text that is no JSON is searched as it is."""

    __slots__ = ("_inner", "_view", "closed", "length")

    def __init__(self, redactors: Sequence[Redactor] = ()) -> None:
        self._view: JsonView | None = JsonView()
        self._inner = HoldBack(redactors, view=self._view)
        self.length = 0
        self.closed = False

    @property
    def decided(self) -> int:
        """Everything before this offset is final."""
        return self._raw(self._inner.decided)

    @property
    def floor(self) -> int:
        """Where the text went on after a close; see HoldBack."""
        return self._raw(self._inner.floor) if self._inner.floor else 0

    @property
    def swaps(self) -> Sequence[Swap]:
        """The final replacements; see HoldBack."""
        return self._came(self._inner.swaps) if self._inner.swaps else ()

    def push(self, text: str) -> None:
        """The next piece of the text."""
        if not text:
            return
        self.closed = False
        self.length += len(text)
        seen = None if self._view is None else self._view.push(text)
        if seen is None:
            self._inner.push(text)
            self._view = self._inner.view = None
        else:
            self._inner.push(seen)

    def close(self) -> None:
        """No more text is expected."""
        if self.closed:
            return
        self.closed = True
        if self._view is not None and (left := self._view.finish()):
            self._inner.push(left)
        self._inner.close()

    def forget(self, offset: int) -> None:
        """Everything before this offset, which must be decided, has left."""
        plain = self._plain(offset)
        self._inner.forget(plain)
        if self._view is not None and plain:
            self._view.forget(plain - 1)

    def as_if_closed(self, start: int, end: int) -> list[Swap]:
        """The replacements, if the text had ended at `end`; see HoldBack."""
        return self._came(self._inner.as_if_closed(self._plain(start), self._plain(end)))

    def use(self, redactors: Sequence[Redactor], since: int) -> None:
        """Look for these; see HoldBack."""
        self._inner.use(redactors, self._plain(since))

    def _came(self, swaps: Iterable[Swap]) -> list[Swap]:
        return [Swap(self._raw(one.start), self._raw(one.end), one.replacement, one.detector) for one in swaps]

    def _raw(self, offset: int) -> int:
        return offset if self._view is None else self._view.raw(offset)

    def _plain(self, offset: int) -> int:
        return offset if self._view is None else self._view.plain(offset)


# ---- replacing ------------------------------------------------------------------------------------------------------


def swapped(text: str, start: int, swaps: Iterable[Swap]) -> str:
    """The piece of the channel that begins at `start`, with the replacements that fall into it. Where a list of them is
    asked for many pieces, those before the piece are not looked at."""
    pieces: list[str] = []
    at, end = start, start + len(text)
    if isinstance(swaps, list):  # one that begins earlier may reach into the piece
        swaps = swaps[max(bisect_right(swaps, start, key=_START) - 1, 0) : bisect_left(swaps, end, key=_START)]
    for swap in swaps:
        if swap.start >= end:
            break
        if swap.start >= at:
            pieces += [text[at - start : swap.start - start], swap.replacement]
        at = max(at, swap.end)
    pieces.append(text[at - start :] if at < end else "")
    return "".join(pieces)


def redact_text(text: str, redactors: Sequence[Redactor], *, arguments: bool = False) -> str:
    """A whole text (of a request, of an answer that does not stream), redacted; the same object when nothing was
    found. `arguments`: it is the JSON text of a tool call."""
    if not redactors or not text:
        return text
    hold = ArgumentsHold(redactors) if arguments else HoldBack(redactors)
    if isinstance(hold, HoldBack) and len(text) <= _SLICE:
        hold.whole(text)
    else:
        hold.push(text)
        hold.close()
    return swapped(text, 0, hold.swaps) if hold.swaps else text


def finds_of(text: str, redactors: Sequence[Redactor], *, arguments: bool = False) -> list[str]:
    """The detectors that found something in a whole text, one name a find."""
    hold = ArgumentsHold(redactors) if arguments else HoldBack(redactors)
    hold.push(text)
    hold.close()
    return detectors_of(hold.swaps)


def detectors_of(swaps: Iterable[Swap], start: int = 0, end: int = 1 << 62) -> list[str]:
    """The detectors whose finds begin in this part of a text, one name a find."""
    return [one.detector for one in swaps if one.detector and start <= one.start < end]
