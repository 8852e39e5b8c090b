"""One call being driven: its events in order, what it needs, and how long that may take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from policyd.core.exchange import Exchange, Ground, State
from policyd.core.exchange.call import Call as Judging
from policyd.core.model.bounds import MEMORY
from policyd.core.model.counters import Readings
from policyd.core.model.estimate import Rate
from policyd.core.model.facts import Facts
from policyd.core.model.steps import (
    BodyMode,
    Ended,
    Event,
    Extend,
    Record,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    Settle,
    Step,
    Tick,
)
from policyd.enforcer.long_work import Abandoned, Overdue, Pieces, Work
from policyd.enforcer.memory import EXPANDS, Share
from policyd.enforcer.ports import answer_of, asked

if TYPE_CHECKING:
    from policyd.enforcer.driver import Enforcer

log = logging.getLogger("policyd")

LARGE = 16_384  # bytes of one message that are worked on in a thread
LARGE_ENCODED = 32  # the same where they are compressed: a thousand times as many may come of them


class Call:
    """One call being driven. `handle` every event in order; while `outstanding` is set, `deliver` when it is done."""

    def __init__(self, enforcer: Enforcer, exchange: Exchange) -> None:
        self._enforcer, self._exchange = enforcer, exchange
        self.outstanding: asyncio.Future[Readings] | None = None
        self.wake: Callable[[], None] = lambda: None  # who carries out the call is to look: `join` has news
        self._over = False
        self._large = False  # what is worked on may take long
        self._until: float | None = None  # on the loop's clock: when it has to be answered
        self._opening: RequestHeaders | None = None
        self._pieces = Pieces()
        self._share = Share(enforcer.memory)
        self._running: Future[list[Step]] | None = None  # overdue work on the exchange

    @property
    def id(self) -> str:
        return self._exchange.call.id

    @property
    def facts(self) -> Facts:
        return self._exchange.call.facts

    @property
    def judging(self) -> Judging:
        """The call as its rules see it, for whoever explains it. Nothing in there is to be changed."""
        return self._exchange.call

    @property
    def rates(self) -> Mapping[str, Rate]:
        """What is known of the models asked for and rerouted to: by it the call is estimated."""
        return self._exchange.call.rates

    def estimate_by(self, rates: Mapping[str, Rate] | None) -> None:
        """Estimate by these, whatever is known of the models: a dry run of what was recorded with them."""
        self._exchange.call.pinned = rates

    def replayed(self, priced_at: float | None) -> None:
        """The response was recorded earlier. Prices are those of this time, seconds since 1970; None: of the call's."""
        self._exchange.call.recorded, self._exchange.call.priced_at = True, priced_at

    def renewal(self) -> Extend | None:
        """What renews this call's lease."""
        return self._exchange.renewal()

    @property
    def done(self) -> bool:
        return self._exchange.state is State.DONE

    # ---- events -----------------------------------------------------------------------------------------------------

    async def handle(self, event: Event) -> Sequence[Step]:
        """What is to be done about this event. Never raises for anything that a policy could judge."""
        steps: list[Step] = []
        await self._guarded(event, steps, self._handle(event, steps))
        if isinstance(event, Ended):
            self._end()
        return self._carry_out(steps)

    async def _handle(self, event: Event, steps: list[Step]) -> None:
        if self._running is not None:
            steps += await self._late(event)
        try:
            await self._receive(event, steps)
        except Overdue as late:
            await self._overdue(event, late, steps)

    async def _guarded(self, event: Event, steps: list[Step], work: Coroutine[object, object, None]) -> None:
        """INVARIANT: what was decided is settled and recorded, also where nobody waits for it any more."""
        try:
            await work
        except Abandoned as abandoned:
            self._carry_out([*steps, *abandoned.steps])
            raise asyncio.CancelledError from None
        except asyncio.CancelledError:
            self._carry_out(steps)
            raise
        except Exception:
            steps += self._defect(event)

    async def _receive(self, event: Event, steps: list[Step]) -> None:
        self._large, self._until = False, None
        exchange = self._exchange
        match event:
            case ResponseChunk() if not self._is_whole:
                await self._stream_on(event, steps)
                return
            case ResponseChunk() if self._is_large(event):
                await self._judge_whole(event, steps)
                return
            case RequestBody():
                await self._judge_request(event, steps)
                return
            case RequestHeaders():
                event = self._opening = replace(event, crowded=True) if self._enforcer.memory.full else event
        steps += exchange.receive(event)
        if exchange.need is not None:
            await self._fetch(steps)

    async def _judge_request(self, event: RequestBody, steps: list[Step]) -> None:
        size = self._size_of(event)
        if not self._share.judging(size):
            event = RequestBody(b"", event.now, unread=MEMORY)
        elif self._is_large(event):
            self._in_time()
        exchange = self._exchange
        steps += await self._work(lambda: exchange.receive(event))
        if exchange.need is not None:
            await self._fetch(steps)
        self._share.judged(0 if event.unread else size)

    async def _judge_whole(self, event: ResponseChunk, steps: list[Step]) -> None:
        if not self._share.judging(self._size_of(event)):
            event = ResponseChunk(b"", event.end, event.now, unread=MEMORY)
        self._in_time()
        exchange = self._exchange
        judged = await self._work(lambda: exchange.judge_whole(event))
        self._until = None
        steps += await self._work(lambda: exchange.judged_whole(judged))
        await self._fetch(steps)
        self._share.judged()

    def _size_of(self, event: RequestBody | ResponseChunk) -> int:
        """What this body comes to, as far as can be told before it is read."""
        size = len(event.data)
        return min(EXPANDS * size, self._enforcer.options.max_request) if self._is_encoded(event) else size

    def _in_time(self) -> None:
        """What is worked on from here on is large, and Envoy waits for the answer."""
        self._large, seconds = True, self._enforcer.deadlines.judging_s
        self._until = None if seconds is None else asyncio.get_running_loop().time() + seconds

    async def _stream_on(self, event: ResponseChunk, steps: list[Step]) -> None:
        """More of a response that streams. INVARIANT: all pieces of a message have its time, and the last its end."""
        if self._pieces.whole(event.data):
            await self._piece(event, steps)
            return
        for data, last in self._pieces.of(event.data):
            began = perf_counter()
            await self._piece(ResponseChunk(data, event.end and last, event.now, event.truncated), steps)
            self._pieces.took(perf_counter() - began)
            if not last:
                await asyncio.sleep(0)  # other calls are served

    async def _piece(self, event: ResponseChunk, steps: list[Step]) -> None:
        exchange = self._exchange
        self._large = exchange.pending + len(event.data) > LARGE or self._is_encoded(event)
        if self._large:
            steps += await self._work(lambda: exchange.receive(event))
        else:
            steps += exchange.receive(event)
        self._share.holds(exchange.pending)
        if exchange.need is not None and self.outstanding is None:
            await self._fetch(steps)

    @property
    def _is_whole(self) -> bool:
        """Whether the response comes in one piece, and Envoy waits for the answer to it."""
        answering = self._exchange.answering
        return answering is not None and answering.mode is BodyMode.WHOLE and not self.done

    def _is_large(self, event: RequestBody | ResponseChunk) -> bool:
        """Whether this event may take long: many bytes, or few that many may come of."""
        return len(event.data) > LARGE or self._is_encoded(event)

    def _is_encoded(self, event: RequestBody | ResponseChunk) -> bool:
        if len(event.data) <= LARGE_ENCODED:
            return False
        facts = self._exchange.call.facts
        headers = facts.request.headers if isinstance(event, RequestBody) else facts.response.headers
        return headers.get("content-encoding", "identity") != "identity"

    async def _work(self, work: Work) -> list[Step]:
        """The core's steps. Long work is done in a thread, so that other calls are served meanwhile."""
        return await self._enforcer.threads.do(work, self._until) if self._large else work()

    # ---- what is not done in time -----------------------------------------------------------------------------------

    async def _overdue(self, event: Event, late: Overdue, steps: list[Step]) -> None:
        """Envoy waits no longer: the call cannot be judged, and its failurePolicy says what becomes of it."""
        reason = f"judging takes longer than {self._enforcer.deadlines.judging_s:g} s (bound judging_time)"
        log.warning("call %s: %s", self.id, reason)
        self._large, self._until = False, None
        if late.running is not None:
            self._share.lend(late.running)
        if isinstance(event, ResponseChunk):
            self._running = late.running
            said = self._exchange.overdue(reason)
            steps += said if late.running is not None else self._exchange.late_whole(event.now)
            return
        steps += self._begin_anew(reason, event.now)
        await self._fetch(steps)

    def _begin_anew(self, reason: str, now: float) -> list[Step]:
        """The request is judged once more, without its body: a thread may still have the exchange that reads it."""
        old = self._exchange.call
        held = [Settle(f"{old.id}:late:{holder}", holder, ()) for holder in sorted(old.holding.copy())]
        fresh = self._exchange = Exchange(old.ground, self._enforcer.new_id())
        fresh.call.pinned, fresh.call.priced_at = old.pinned, old.priced_at
        assert self._opening is not None
        fresh.receive(self._opening)
        return [*held, *fresh.receive(RequestBody(b"", now, unread=reason))]

    async def _late(self, event: Event) -> list[Step]:
        """The answer has been given, and the work that was to decide it has gone on: wait for its end."""
        running = self._running
        assert running is not None
        await asyncio.wait((asyncio.wrap_future(running),))
        self._running = None
        return [step for step in self._exchange.late_whole(event.now) if isinstance(step, Settle | Record)]

    # ---- between events ---------------------------------------------------------------------------------------------

    def concerns(self, ground: Ground) -> bool:
        """Whether it makes a difference to this call that another set is in force."""
        return self._exchange.concerns(ground)

    def join(self) -> Sequence[Step]:
        """What is to be done because another set is in force. Not while an event is handled."""
        ground, now = self._enforcer.ground(), self._enforcer.clock()
        if self._running is not None:
            return []  # it has been answered
        try:
            steps = self._exchange.join(ground, now) if self.concerns(ground) else []
        except Exception:
            steps = self._defect(Tick(now))
        return self._carry_out(steps)

    async def deliver(self) -> Sequence[Step]:
        """The extension that was asked for has been answered."""
        outstanding, self.outstanding = self.outstanding, None
        assert outstanding is not None
        readings = await outstanding
        now = self._enforcer.clock()
        steps: list[Step] = []
        self._until = None
        self._exchange.at(now)
        await self._guarded(Tick(now), steps, self._resumed(readings, steps))
        return self._carry_out(steps)

    async def _resumed(self, readings: Readings, steps: list[Step]) -> None:
        steps += await self._resume(readings)
        await self._fetch(steps)

    async def _fetch(self, steps: list[Step]) -> None:
        """Bring what is needed, until nothing is, or until only an extension is, for which text may wait."""
        at_once, store, seconds = self._enforcer.at_once, self._enforcer.counters, self._enforcer.deadlines.store_s
        while (need := self._exchange.need) is not None and self.outstanding is None:
            if at_once is not None:
                steps += await self._resume(answer_of(at_once, need))
                continue
            if not isinstance(need, Extend):
                steps += await self._resume(await asked(store, need, seconds))
                continue
            task = asyncio.ensure_future(asked(store, need, seconds))
            await asyncio.sleep(0)  # a store that need not wait has answered by now: then nothing has to wait
            if not task.done():
                self.outstanding = task
                return
            steps += await self._resume(await task)

    async def _resume(self, readings: Readings) -> list[Step]:
        exchange = self._exchange
        return await self._work(lambda: exchange.resume(readings))

    def _defect(self, event: Event) -> list[Step]:
        log.exception("call %s: a defect of policyd; the call is judged as one that cannot be judged", self.id)
        try:
            steps = self._exchange.defect(event)
            if self._exchange.recorded or not self.done:
                return steps
        except Exception:
            log.exception("call %s: a second defect; the call is broken", self.id)
        return self._exchange.abandon(event.now)

    def _carry_out(self, steps: Sequence[Step]) -> Sequence[Step]:
        for step in steps:
            match step:
                case Settle() | Extend():
                    self._enforcer.settle(step)
                case Record():
                    self._enforcer.sink.write(step.record)
                case _:
                    pass
        return steps

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        self._enforcer.calls.discard(self)
        self._share.end()
        if self.outstanding is not None:
            self.outstanding.cancel()
            self.outstanding = None
