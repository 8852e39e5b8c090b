"""What the scripts are asked and how their answers read. No I/O.

Rule 1: numbers travel as JSON and as %.0f, so that every whole number up to 2**53 - 1 arrives as it left.
Rule 2: what makes no sense is found here, before anything is sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from policyd.adapters.counters_redis.keys import call_key, counter_key, leases_key, session_key
from policyd.adapters.counters_redis.owed import Due, Owed
from policyd.core.model.counters import (
    MAX_AMOUNT,
    CounterId,
    Hold,
    Reading,
    Readings,
    SessionId,
    SessionReading,
    Window,
    WindowKind,
)
from policyd.core.model.sketch import SIZE
from policyd.core.model.steps import Extend, Read, Reserve, Settle
from policyd.core.model.windows import period_end

_KINDS = {WindowKind.LIFETIME: 0, WindowKind.IDLE: 1, WindowKind.SLIDING: 2, WindowKind.CALENDAR: 3}
_LONGEST = {"Day": 26 * 3600.0, "Week": 8 * 86400.0, "Month": 32 * 86400.0, "Year": 367 * 86400.0}  # seconds
_FOREVER = 1e11  # seconds; JSON knows no infinity


@dataclass(frozen=True, slots=True)
class Question:
    """One script with its keys and arguments."""

    script: str  # hold | settle | read
    keys: Sequence[str]
    args: Sequence[str | bytes]


class ClockDiffers(Exception):  # noqa: N818 - no error: it is how Redis asks for another calendar
    """Redis's time lies outside the calendar that it was told; `now` is its time."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self.now = now


class Calendars:
    """The beginnings of calendar periods around now, as the scripts want them: Lua knows no time zones."""

    def __init__(self) -> None:
        self._known: dict[Window, tuple[float, float, str]] = {}

    def words(self, window: Window, now: float) -> str:
        """The window as JSON: its kind and its span."""
        if window.kind is not WindowKind.CALENDAR:
            return _span(window.kind, window.seconds)
        known = self._known.get(window)
        if known is None or not known[0] <= now < known[1]:
            known = self._known[window] = _calendar(window, now)
        return known[2]


@lru_cache(1024)  # policies name few of them
def _span(kind: WindowKind, seconds: float) -> str:
    return f"{_KINDS[kind]},{min(seconds, _FOREVER)!r}"


def _calendar(window: Window, now: float) -> tuple[float, float, str]:
    """The period of `now`, and as JSON the beginnings of the one before, its own and the next two's ends."""
    span = list(_boundaries(window, now))
    words = f"{_KINDS[window.kind]},{json.dumps(span)}"
    return max(at for at in span if at <= now), min(at for at in span if at > now), words


def _boundaries(window: Window, now: float) -> Iterator[float]:
    at, later = now - 2 * _LONGEST[window.calendar], 0
    while later < 3:
        at = period_end(window.calendar, window.time_zone, at)
        later += at > now
        yield at


# ---- questions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asking:
    """What every question has in common. Times in seconds; `time` 0: Redis's own."""

    calendars: Calendars
    now: float  # the best guess at the time of Redis, for calendars
    time: float
    remember_s: float

    def hold(self, need: Reserve | Extend, tag: str, had: Sequence[int]) -> Question:
        """`had`: what this holder was granted of each counter so far."""
        extends = isinstance(need, Extend)
        observed = need.observed if isinstance(need, Extend) else (0,) * len(need.holds)
        session = need.session if isinstance(need, Reserve) else None
        holds = [
            f"[{hold.least},{hold.most},{_limit(hold)},{min(seen, MAX_AMOUNT)},{held},"
            f"{self._window(hold.counter)},{json.dumps(hold.counter.member)}]"
            for hold, seen, held in zip(need.holds, observed, had, strict=True)
        ]
        head = f"{self.time!r},{self.remember_s!r},{need.lease_s!r},{_bool(session is not None)},{_bool(extends)}"
        counters = [counter_key(hold.counter) for hold in need.holds]
        keys = (leases_key(tag), call_key(tag, need.call), *_session_keys(session), *counters)
        return Question("hold", keys, (f"[{','.join((head, *holds))}]", need.op.encode("utf-8", "surrogatepass")))

    def settle(self, owed: Owed) -> Question:
        charges = [
            f"[{due.amount},{self.calendars.words(due.window, self.now)},{json.dumps(due.member)}]"
            for due in owed.charges
        ]
        session = f"[{owed.session[1]},{owed.session[2]}]" if owed.session else "false"
        sessions = owed.session[:1] if owed.session else ()
        keys = (leases_key(owed.tag), call_key(owed.tag, owed.call), *sessions, *(due.key for due in owed.charges))
        words = f"[{','.join((f'{self.time!r},{self.remember_s!r},{session}', *charges))}]"
        return Question("settle", keys, (words, bytes.fromhex(owed.sketch)))

    def undo(self, need: Reserve | Extend, tag: str, amounts: Sequence[int]) -> Question:
        """`amounts`: what this operation was granted of each counter."""
        keys = (leases_key(tag), call_key(tag, need.call), *(counter_key(hold.counter) for hold in need.holds))
        words = f"[{','.join((f'{self.time!r}', *map(str, amounts)))}]"
        return Question("undo", keys, (words, need.op.encode("utf-8", "surrogatepass")))

    def read(self, need: Read, tag: str) -> Question:
        counters = [counter_key(counter) for counter in need.counters]
        keys = (leases_key(tag), *_session_keys(need.session), *counters)
        members = json.dumps([counter.member for counter in need.counters])
        words = f"[{self.time!r},{self.remember_s!r},{_bool(need.session is not None)},{members}]"
        return Question("read", keys, (words,))

    def _window(self, counter: CounterId) -> str:
        return self.calendars.words(counter.window, self.now)


def owed_by(step: Settle, tag: str, at: float) -> Owed:
    """What a settlement comes to. Amounts above MAX_AMOUNT count as that."""
    charges = tuple(
        Due(counter_key(counter), min(amount, MAX_AMOUNT), counter.window, counter.member)
        for counter, amount in step.charges
    )
    added = step.session
    if added is None:
        return Owed(step.call, tag, charges, None, at)
    sketch = added.sketch[:SIZE].hex()
    session = (session_key(added.session), min(added.cost_nano, MAX_AMOUNT), min(added.tokens, MAX_AMOUNT))
    return Owed(step.call, tag, charges, session, at, sketch=sketch)


def _session_keys(session: SessionId | None) -> tuple[str, ...]:
    return () if session is None else (session_key(session),)


def _limit(hold: Hold) -> int:
    return -1 if hold.limit is None else min(hold.limit, MAX_AMOUNT)


def _bool(flag: bool) -> str:
    return "true" if flag else "false"


# ---- what makes no sense --------------------------------------------------------------------------------------------


def bad_hold(need: Reserve | Extend) -> str:
    """A hold that makes no sense is a mistake of the caller's program, never of a user. Empty: all is well."""
    observed: Sequence[int] = need.observed if isinstance(need, Extend) else ()
    if isinstance(need, Extend) and len(observed) != len(need.holds):
        return "observed does not fit the holds"
    sound = all(hold.makes_sense for hold in need.holds)
    return "" if sound and all(seen >= 0 for seen in observed) else "amount out of range"


def bad_settlement(step: Settle) -> str:
    """Empty: all is well."""
    session = step.session
    amounts = [amount for _, amount in step.charges] + ([session.cost_nano, session.tokens] if session else [])
    return "" if all(amount >= 0 for amount in amounts) else "amount out of range"


# ---- answers --------------------------------------------------------------------------------------------------------


def answer(words: bytes) -> Readings:
    """A script's answer. Raises ClockDiffers."""
    if words.startswith(b"!"):
        kind, *rest = words[1:].decode().split()
        if kind == "clock":
            raise ClockDiffers(float(rest[0]))
        return Readings(failure=kind)
    refused, first, *numbers = words.split()
    session = None
    if first != b"-":
        age, *like = map(float, numbers[2].split(b","))
        session = SessionReading(int(first), int(numbers[0]), int(numbers[1]), age, tuple(like))
        del numbers[:3]
    at = int(refused)
    return Readings(tuple(_readings(numbers)), session, None if at < 0 else at)


def _readings(numbers: Sequence[bytes]) -> Iterator[Reading]:
    every = iter(numbers)
    for value, held, granted, times in zip(every, every, every, every, strict=True):
        told, seen = times.removesuffix(b"!"), times.endswith(b"!")
        if told == b"-":
            yield Reading(int(value), int(held), int(granted), seen=seen)
        else:
            retry, _, resets = told.partition(b"/")
            yield Reading(int(value), int(held), int(granted), True, _seconds(retry), _seconds(resets), seen)


def _seconds(word: bytes) -> float | None:
    return None if word == b"-" else float(word)
