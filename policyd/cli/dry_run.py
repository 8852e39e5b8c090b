"""Recorded calls through the enforcer that serves, on the clock of the recording.

Rule 1: the same enforcer, counters and prices as `serve`; here is only what Envoy and the wall clock do elsewhere.
Rule 2: time is the recording's. Nothing waits: a timer that was asked for is due when the recording passes it.
Rule 3: the counters' clock never runs backwards, whatever the recordings say.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Protocol

from policyd.adapters.counters_memory import MemoryCounters
from policyd.adapters.recordings import Recording
from policyd.cli.gathering import Gathering, Undoable, gathered, is_broken
from policyd.core.compile.policyset import PolicySet
from policyd.core.exchange.call import Call as Judging
from policyd.core.exchange.identity import RECORDED
from policyd.core.exchange.opening import open_call
from policyd.core.model.decision import DecisionRecord
from policyd.core.model.facts import CallerFacts, Facts
from policyd.core.model.options import Options
from policyd.core.model.prices import PriceTable
from policyd.core.model.steps import (
    BodyMode,
    Break,
    Ended,
    Event,
    Headers,
    PassRequestHeaders,
    PassResponseBody,
    PassResponseHeaders,
    Reject,
    Release,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
    Step,
    Tick,
    WakeAt,
)
from policyd.core.model.tokens import Vocabularies
from policyd.enforcer import Call, CounterStore, Deadlines, Enforcer

_HOP_BY_HOP = frozenset(("connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "host"))


@dataclass(frozen=True, slots=True)
class Rechunk:
    """How to cut answers anew: pieces of at most `most` bytes, of random sizes when there is a seed."""

    most: int
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Played:
    """One recorded call as it was judged now."""

    recording: Recording
    record: DecisionRecord
    facts: Facts
    output_sha256: str  # of the body that the client would have got


class Clock:
    """The recording's time, seconds since 1970, UTC. Calls without a time of their own follow one another."""

    def __init__(self) -> None:
        self.now = 0.0  # of the call that runs
        self.latest = 0.0  # of anything so far: what the counters see

    def begin(self, recording: Recording) -> None:
        start = recording.time
        if start is None:
            start = self.latest or _dated(recording) or time.time()
        self.to(start)

    def to(self, now: float) -> None:
        self.now = now
        self.latest = max(self.latest, now)

    def counters(self) -> float:
        return self.latest


def _dated(recording: Recording) -> float | None:
    """The Date of the response: a call is priced by what held on its own day, whatever was recorded before it."""
    date = dict(recording.response_headers).get("date", "")
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


@dataclass(slots=True)
class Kept:
    """A record sink that keeps the newest record."""

    record: DecisionRecord | None = None

    def write(self, record: DecisionRecord) -> None:
        self.record = record


class Watcher(Protocol):
    """Sees what is done with a call and its bytes: for who wants to know more of it than its record."""

    def step(self, step: Step) -> None: ...
    def output(self, data: bytes) -> None: ...


class DryRun:
    """Plays recordings, one after another, against one policy set and one set of counters."""

    def __init__(
        self,
        policies: PolicySet,
        prices: PriceTable,
        options: Options,
        rechunk: Rechunk | None = None,
        *,
        counters: Callable[[Callable[[], float]], CounterStore] | None = None,
        gather: bool = True,
        vocabularies: Vocabularies | None = None,
    ) -> None:
        """`counters`: a store that is not in memory. `gather`: chunks may come as one where that changes nothing."""
        self.clock = Clock()
        self.on_played: Callable[[Judging], None] | None = None  # is shown each call when it is over
        self._kept = Kept()
        self._calls, self._captured = 0, ""
        self._rechunk = rechunk
        self._random = random.Random(rechunk.seed) if rechunk and rechunk.seed is not None else None
        store = Undoable(MemoryCounters(self.clock.counters, remember_s=0.0))
        gathers = gather and rechunk is None and counters is None
        self._gathering = Gathering(policies, store, options.lease_s / 2) if gathers else None
        self._enforcer = Enforcer(
            policies=lambda: policies,
            counters=store if counters is None else counters(self.clock.counters),
            prices=prices,
            sink=self._kept,
            options=options,
            deadlines=Deadlines(store_s=3600.0, settle_s=3600.0),
            clock=lambda: self.clock.now,
            new_id=self._id,
            vocabularies=vocabularies,
        )

    def _id(self) -> str:
        """As it was captured, or a number, so that the same run gives the same bytes again."""
        return self._captured or f"{self._calls:024x}"

    async def play(self, recording: Recording, watcher: Watcher | None = None) -> Played:
        """One call, from its first header to its record."""
        self.clock.begin(recording)
        self._calls, self._captured = self._calls + 1, recording.decision
        began = self.clock.now, self.clock.latest
        gathering = self._gathering if watcher is None else None
        playing, record = await self._once(recording, watcher, gathering)
        if playing.gathered and gathering is not None:
            if record.ended == "complete":
                gathering.store.keep()
            else:
                gathering.store.undo()
                self.clock.now, self.clock.latest = began
                playing, record = await self._once(recording, watcher, None)
        if self.on_played is not None:
            self.on_played(playing.call.judging)
        return Played(recording, record, playing.call.facts, playing.output.hexdigest())

    async def _once(
        self, recording: Recording, watcher: Watcher | None, gathering: Gathering | None
    ) -> tuple[_Playing, DecisionRecord]:
        self._kept.record = None
        playing = _Playing(self._enforcer.open(), self.clock, recording, watcher, gathering)
        playing.call.estimate_by(recording.rates)
        playing.call.replayed(_dated(recording) if recording.time is None else None)
        await playing.run(tuple(self._cut(recording.chunks)))
        await self._enforcer.drain()
        assert self._kept.record is not None, "INVARIANT: a call that began is recorded once"
        return playing, self._kept.record

    def _cut(self, chunks: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
        if self._rechunk is None:
            yield from chunks
            return
        most = self._rechunk.most
        for ms, data in chunks:
            if not data:
                yield ms, data
            while data:
                size = self._random.randint(1, most) if self._random else most
                yield ms, data[:size]
                data = data[size:]


@dataclass(slots=True)
class _Playing:
    """One call under way."""

    call: Call
    clock: Clock
    recording: Recording
    watcher: Watcher | None = None
    gathering: Gathering | None = None
    gathered: bool = False
    output: hashlib._Hash = field(default_factory=hashlib.sha256)
    over: bool = False  # whatever comes now, the client gets nothing more
    body_mode: BodyMode = BodyMode.NONE
    wants_body: bool = False
    wake: float | None = None
    _base: float = 0.0

    async def run(self, chunks: Sequence[tuple[float, bytes]]) -> None:
        self._base = self.clock.now
        await self._request()
        if not self.over and self.recording.status:
            await self._answer(chunks)
        broken = not self.recording.status or is_broken(chunks)
        await self._feed(Ended(self.clock.now, cancelled=broken and not self.over))

    async def _request(self) -> None:
        recording, now = self.recording, self.clock.now
        headers = request_headers(recording)
        known = caller_metadata(recording)
        end = not recording.body
        await self._feed(RequestHeaders(headers, end, now, now, known, deployment=recording.deployment))
        if self.wants_body and not self.over:
            await self._feed(RequestBody(recording.body, now))

    async def _answer(self, chunks: Sequence[tuple[float, bytes]]) -> None:
        recording = self.recording
        if chunks:
            await self._pass_time(chunks[0][0])
        headers = ((":status", str(recording.status)), *_plain(recording.response_headers))
        await self._feed(ResponseHeaders(headers, not chunks, self.clock.now))
        if self.over or not chunks:
            return
        match self.body_mode:
            case BodyMode.NONE:
                for _, data in chunks:
                    self._put(data)
            case BodyMode.WHOLE:
                await self._pass_time(chunks[-1][0])
                if not is_broken(chunks):
                    await self._feed(ResponseChunk(b"".join(data for _, data in chunks), True, self.clock.now))
            case BodyMode.STREAM:
                await self._stream(chunks)

    async def _stream(self, chunks: Sequence[tuple[float, bytes]]) -> None:
        broken = is_broken(chunks)
        if not broken and self._may_gather(chunks):
            chunks = tuple(gathered(chunks))
        last = len(chunks) - 1
        for index, (ms, data) in enumerate(chunks):
            await self._pass_time(ms)
            if not data and self.wake is not None and not self.over:
                await self._feed(Tick(self.clock.now))  # so long the answer was silent
            if self.over or (broken and index == last):
                return
            await self._feed(ResponseChunk(data, index == last, self.clock.now))

    def _may_gather(self, chunks: Sequence[tuple[float, bytes]]) -> bool:
        if self.gathering is None or self.wake is not None:
            return False
        until = self._base + chunks[-1][0] / 1000
        if self.gathering.may(self.call.judging, chunks, self._base, until):
            self.gathering.store.begin(self.call.judging.ground.estimates)
            self.gathered = True
        return self.gathered

    async def _pass_time(self, ms: float) -> None:
        """Until so many milliseconds after the call's start; what is due on the way is brought."""
        until = self._base + ms / 1000
        while self.wake is not None and self.wake <= until and not self.over:
            at, self.wake = max(self.wake, self.clock.now), None
            self.clock.to(at)
            await self._feed(Tick(at))
        self.clock.to(max(until, self.clock.now))

    async def _feed(self, event: Event) -> None:
        self._do(await self.call.handle(event))
        while self.call.outstanding:
            self._do(await self.call.deliver())

    def _do(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if not self.over or isinstance(step, WakeAt):
                self._one(step)

    def _one(self, step: Step) -> None:
        if self.watcher is not None:
            self.watcher.step(step)
        match step:
            case PassRequestHeaders(want_body=want):
                self.wants_body = want
            case PassResponseHeaders(mode=mode):
                self.body_mode = mode
            case PassResponseBody(data=data):
                self._put(self._recorded() if data is None else data)
            case Release(data=data, end=end):
                self._put(data)
                self.over = end
            case Reject(body=body):
                self._put(body)
                self.over = True
            case Break():
                self.over = True
            case WakeAt(at=at):
                self.wake = at
            case _:
                pass

    def _put(self, data: bytes) -> None:
        self.output.update(data)
        if self.watcher is not None:
            self.watcher.output(data)

    def _recorded(self) -> bytes:
        return b"".join(data for _, data in self.recording.chunks)


def request_headers(recording: Recording) -> Headers:
    """The request's headers as Envoy would show them."""
    return (
        (":method", recording.method),
        (":path", recording.path),
        (":authority", recording.host),
        (":scheme", recording.scheme),
        *_plain(recording.headers),
    )


def caller_of(recording: Recording) -> CallerFacts:
    """Who made a recorded call, as a dry run sees it."""
    event = RequestHeaders(request_headers(recording), True, 0.0, 0.0, caller_metadata(recording))
    return open_call(event, Options().identity)[0].caller


def caller_metadata(recording: Recording) -> Mapping[str, Mapping[str, object]]:
    """What a recording says about its caller beside its headers. A capture holds the pseudonym of each credential: it
    must not become a pseudonym of a pseudonym."""
    return {RECORDED: {"pseudonyms": True, **({"tenant": recording.tenant} if recording.tenant else {})}}


def _plain(headers: Headers) -> Headers:
    """What Envoy shows: no header that belongs to one connection only."""
    return tuple(pair for pair in headers if pair[0] not in _HOP_BY_HOP)
