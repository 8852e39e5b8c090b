"""Callers: open streams through one listener of Envoy and note when each event arrives.

Rule 1: what is measured is a window in the middle: streams begin before it and end after it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.upstream import DIGITS, MARK

BODY = (
    b'{"model":"gpt-4o","stream":true,"max_tokens":4000,"temperature":0.7,"messages":['
    b'{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"Tell me about fuses."}]}'
)
_STAMP = re.compile(rb"%s(\d{%d})" % (MARK, DIGITS))
_ENDS = b"\r\n0\r\n\r\n"
SETTLE_S = 0.2
PATIENCE_S = 60.0
_numbers = itertools.count()


@dataclass(slots=True)
class Seen:
    """What callers saw: `delays` of events in nanoseconds, while `noting`."""

    noting: bool = False
    delays: list[int] = field(default_factory=list)
    events: int = 0
    wrong: bytes = b""


@dataclass(frozen=True, slots=True)
class Window:
    """One measurement: its length, the server's CPU time in it, and what came in it; `delays` are nanoseconds."""

    seconds: float
    cpu_ns: int
    events: int
    together: float = 1.0  # events in one message of Envoy's
    delays: tuple[int, ...] = ()


class Measured(Protocol):
    """One way through Envoy."""

    @property
    def port(self) -> int: ...
    def cpu_ns(self) -> int: ...
    @property
    def around(self) -> int: ...  # messages of a call besides its stream
    def messages(self) -> int: ...


class Caller(asyncio.Protocol):
    """One call on a connection of its own."""

    def __init__(self, seen: Seen, wants: str) -> None:
        self._seen, self._wants = seen, wants
        self._first = True
        self._tail = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: api.openai.com\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer sk-bench\r\nx-session-id: s{next(_numbers)}\r\nx-team-id: bench\r\n"
            f"{self._wants}content-length: {len(BODY)}\r\n\r\n"
        )
        transport.write(head.encode() + BODY)

    def data_received(self, data: bytes) -> None:
        seen = self._seen
        if self._first:
            self._first = False
            if not data.startswith(b"HTTP/1.1 200"):
                seen.wrong = data[:500]
                self._end()
        if seen.noting:
            now = time.monotonic_ns()
            seen.delays += [now - int(stamp) for stamp in _STAMP.findall(data)]
        seen.events += data.count(MARK)
        if (self._tail + data).endswith(_ENDS):
            self._end()
        self._tail = data[-8:]

    def connection_lost(self, _: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        self.transport.close()


async def _call(port: int, seen: Seen, events: int, pace: str = "") -> Caller:
    wants = f"x-bench-events: {events}\r\n{pace}"
    made = asyncio.get_running_loop().create_connection(lambda: Caller(seen, wants), "127.0.0.1", port)
    return (await made)[1]


def _checked(seen: Seen) -> None:
    if seen.wrong:
        raise RuntimeError(f"an unexpected answer: {seen.wrong!r}")


@dataclass(frozen=True, slots=True)
class Pace:
    """How events come: from so many streams, one each (or so many at once) every `gap_ms`, spread evenly over it."""

    streams: int
    gap_ms: float
    burst: int = 1


async def paced(way: Measured, pace: Pace, seconds: float) -> Window:
    """This way alone."""
    return (await at_once([way], pace, seconds))[0]


async def at_once(ways: Sequence[Measured], pace: Pace, seconds: float) -> list[Window]:
    """All these ways in one window: whatever else the machine does meets all of them alike."""
    runs = [_Run(way, way.messages()) for way in ways]
    for number, run in enumerate(runs):
        await run.open(pace, seconds, number / len(runs))
    await asyncio.sleep(SETTLE_S)
    for run in runs:
        run.begin()
    await asyncio.sleep(seconds)
    for run in runs:
        run.end()
    return [await run.window() for run in runs]


class _Run:
    """The streams of one way through Envoy, and what is noted of them."""

    def __init__(self, way: Measured, messages: int) -> None:
        self._way, self._messages = way, messages
        self._seen = Seen()
        self._callers: list[Caller] = []
        self._began = (0.0, 0, 0)
        self._ended = (0.0, 0, 0)

    async def open(self, pace: Pace, seconds: float, phase: float) -> None:
        """`phase`: where between two events of a stream those of this way lie, 0 to 1."""
        count = pace.burst * int((seconds + 3 * SETTLE_S) * 1000 / pace.gap_ms)
        wants = f"x-bench-burst: {pace.burst}\r\nx-bench-gap: {pace.gap_ms}\r\nx-bench-after: "
        for number in range(pace.streams):
            after = pace.gap_ms * (number + phase) / pace.streams
            self._callers.append(await _call(self._way.port, self._seen, count, f"{wants}{after}\r\n"))

    def _now(self) -> tuple[float, int, int]:
        return time.monotonic(), self._way.cpu_ns(), self._seen.events

    def begin(self) -> None:
        _checked(self._seen)
        self._began = self._now()
        self._seen.noting = True

    def end(self) -> None:
        self._seen.noting = False
        self._ended = self._now()

    async def window(self) -> Window:
        """What was noted, once all streams are over."""
        await _ended(self._callers, self._seen)
        seconds, cpu, events = (end - begin for end, begin in zip(self._ended, self._began, strict=True))
        together = _together(self._way, self._messages, self._seen, len(self._callers))
        return Window(seconds, int(cpu), int(events), together, tuple(self._seen.delays))


async def flooded(way: Measured, *, streams: int, events: int) -> Window:
    """Streams whose events are sent as fast as they are taken, to their ends."""
    seen, before = Seen(), way.messages()
    cpu, began = way.cpu_ns(), time.monotonic()
    callers = [await _call(way.port, seen, events) for _ in range(streams)]
    await _ended(callers, seen)
    took, cpu = time.monotonic() - began, way.cpu_ns() - cpu
    if seen.events != streams * events:
        raise RuntimeError(f"{streams * events} events were sent, {seen.events} arrived")
    return Window(took, cpu, seen.events, _together(way, before, seen, streams))


async def called(way: Measured, *, calls: int, at_once: int = 8) -> Window:
    """Calls whose answers are one event: what a call costs beside its stream. `events` are calls."""
    seen = Seen()
    cpu, began = way.cpu_ns(), time.monotonic()
    for _ in range(calls // at_once):
        await _ended([await _call(way.port, seen, 1) for _ in range(at_once)], seen)
    return Window(time.monotonic() - began, way.cpu_ns() - cpu, calls // at_once * at_once)


async def _ended(callers: list[Caller], seen: Seen) -> None:
    await asyncio.wait_for(asyncio.gather(*(caller.ended for caller in callers)), PATIENCE_S)
    _checked(seen)


def _together(way: Measured, before: int, seen: Seen, streams: int) -> float:
    """Events a message, without those messages that every call has."""
    bodies = way.messages() - before - way.around * streams
    return seen.events / bodies if bodies > 0 else 1.0
