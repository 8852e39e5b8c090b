"""Drives one exchange: brings the readings that it needs, keeps deadlines, and turns their failures into events.

The exchange decides, the enforcer fetches.

Rule 1: no store makes a call wait longer than `Deadlines.store_s`; a late answer is a failure, and judged as one.
Rule 2: a large message is worked on in a thread, so that it holds up no other call.
Rule 3: whatever happens, a call that began is settled once and recorded once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from policyd.core.compile.policyset import CompiledPolicy, PolicySet
from policyd.core.decide.plan import Plans, reads_likeness, reads_session
from policyd.core.decide.rollout import Variants
from policyd.core.exchange import Exchange, Ground, State
from policyd.core.exchange.call import Call as Judging
from policyd.core.model.counters import Readings
from policyd.core.model.decision import DecisionRecord
from policyd.core.model.estimate import Estimates, Rate
from policyd.core.model.facts import Facts
from policyd.core.model.options import Options
from policyd.core.model.prices import PriceTable
from policyd.core.model.sketch import sketch
from policyd.core.model.steps import (
    Ended,
    Event,
    Extend,
    Need,
    Read,
    Record,
    RequestBody,
    Reserve,
    ResponseChunk,
    Settle,
    Step,
    Tick,
)
from policyd.core.model.tokens import NoVocabularies, Vocabularies

log = logging.getLogger("policyd")

LARGE = 16_384  # bytes of one message that are worked on in a thread
LARGE_ENCODED = 32  # the same where they are compressed: a thousand times as many may come of them
THREADS = 4  # large messages that are worked on at once


class CounterStore(Protocol):
    """Where counters live. Every operation is idempotent by its `op`; none raises: a failure is in the answer."""

    async def read(self, need: Read) -> Readings: ...
    async def reserve(self, need: Reserve) -> Readings: ...
    async def extend(self, need: Extend) -> Readings: ...
    async def settle(self, step: Settle) -> Readings: ...


class AtOnce(Protocol):
    """What a CounterStore in this process may offer beside: the same answers without a task and a timer for each, for
    there is nothing that could be late."""

    def at_once(self, need: Need) -> Readings: ...


class RecordSink(Protocol):
    """Where decision records go. `write` returns at once; the work is done off the byte path."""

    def write(self, record: DecisionRecord) -> None: ...


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long the world may take, seconds."""

    store_s: float = 0.05  # one operation of the counter store
    settle_s: float = 5.0  # a settlement, which nobody waits for


class Enforcer:
    """Opens calls. One policy set is in force at a time; a call keeps the one that it began with."""

    def __init__(
        self,
        *,
        policies: Callable[[], PolicySet],
        counters: CounterStore,
        prices: PriceTable,
        sink: RecordSink,
        options: Options | None = None,
        deadlines: Deadlines | None = None,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: secrets.token_hex(12),
        vocabularies: Vocabularies | None = None,
    ) -> None:
        self._policies, self.counters, self.sink = policies, counters, sink
        self._prices, self.options = prices, options or Options()
        self.deadlines, self.clock, self._new_id = deadlines or Deadlines(), clock, new_id
        self._ground: Ground | None = None
        self.vocabularies = vocabularies or NoVocabularies()
        self.estimates = Estimates()  # INVARIANT: what was learned of models outlives every policy set
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="policyd-large")
        self._settling: set[asyncio.Task[None]] = set()
        self.calls: set[Call] = set()
        self._told: tuple[CompiledPolicy, ...] = ()  # the policies for calls in flight that calls know of
        self.leaving = False  # this process is about to end: nobody waits for an answer that passes by

    def ground(self) -> Ground:
        """What calls that begin now stand on. INVARIANT: the set is read once, so no call sees two."""
        policies = self._policies()
        ground = self._ground
        if ground is None or ground.policies is not policies:
            # Of the whole set at once: this is on the way of the first call after each change of ten thousand policies.
            session_readers, likeness_readers = reads_session(policies.reads), reads_likeness(policies.reads)
            plans = Plans(
                policies.engine,
                self.options.mode,
                session_readers,
                likeness_readers=likeness_readers,
                also_reads=self.options.also_reads,
            )
            ground = Ground(
                policies,
                plans,
                self._prices,
                self.options,
                Variants(),
                self.estimates,
                self.vocabularies,
            )
            self._ground = ground
        return ground

    def changed(self) -> None:
        """Another set may be in force. Every call in flight that this concerns is told, and takes it up by itself."""
        ground = self.ground()
        if ground.policies.running != self._told:
            self._told = ground.policies.running
            for call in [one for one in self.calls if one.concerns(ground)]:
                call.wake()

    def leave(self) -> None:
        """This process is about to end: calls whose answers only pass by are let go."""
        self.leaving = True
        for call in tuple(self.calls):
            call.wake()

    def open(self) -> Call:
        """A call begins."""
        call = Call(self, Exchange(self.ground(), self._new_id()))
        self.calls.add(call)
        return call

    @property
    def at_once(self) -> Callable[[Need], Readings] | None:
        """What answers in the store's place without a wait, where it lives in this process."""
        return getattr(self.counters, "at_once", None)

    @property
    def open_calls(self) -> int:
        return len(self.calls)

    async def keep_leases(self) -> None:
        """Renew what running calls hold, three times a lease, until cancelled: for stores in which a holder can die."""
        while True:
            await asyncio.sleep(self.options.lease_s / 3)
            renewals = [renewal for call in tuple(self.calls) if (renewal := call.renewal()) is not None]
            for renewal in renewals:
                await within(self.counters.extend(renewal), self.deadlines.store_s)

    def settle(self, step: Settle) -> None:
        """Charge what a call used, off its byte path."""
        at_once = self.at_once
        if at_once is not None and not (step.session and step.session.said):
            _told(answer_of(at_once, step), step)
            return
        task = asyncio.ensure_future(self._settle(step))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, step: Settle) -> None:
        _told(await within(self.counters.settle(_sketched(step)), self.deadlines.settle_s), step)

    async def drain(self) -> None:
        """Wait until every settlement that was begun is over."""
        while self._settling:
            await asyncio.gather(*self._settling)


def _told(answer: Readings, step: Settle) -> None:
    if answer.failure:
        log.error("a settlement failed: %s; call %s is charged when its lease ends", answer.failure, step.call)


def _sketched(step: Settle) -> Settle:
    """What was said, as the sketch that the store gets: worked out here, when the answer's last byte has left."""
    charge = step.session
    if charge is None or not charge.said:
        return step
    return replace(step, session=replace(charge, said="", sketch=sketch(charge.said, charge.session)))


async def within(answer: Awaitable[Readings], seconds: float) -> Readings:
    """The store's answer, or why there is none."""
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        return Readings(failure="the counter store did not answer in time")
    except OSError as error:
        return Readings(failure=f"the counter store is not available ({type(error).__name__})")
    except Exception as error:
        return _defect(error)


def answer_of(at_once: Callable[[Need], Readings], need: Need) -> Readings:
    """The answer of a store in this process, or why there is none."""
    try:
        return at_once(need)
    except Exception as error:
        return _defect(error)


def _defect(error: Exception) -> Readings:
    log.exception("a defect of the counter store; it is taken as not available")
    return Readings(failure=f"the counter store failed ({type(error).__name__})")


class Call:
    """One call being driven. `handle` every event in order; while `outstanding` is set, `deliver` when it is done."""

    def __init__(self, enforcer: Enforcer, exchange: Exchange) -> None:
        self._enforcer, self._exchange = enforcer, exchange
        self.outstanding: asyncio.Future[Readings] | None = None
        self.wake: Callable[[], None] = lambda: None  # who carries out the call is to look: `join` has news
        self._over = False
        self._large = False  # what is worked on may take long

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

    def price_at(self, at: float | None) -> None:
        """Price by what held at this time, seconds since 1970; None: when the call began."""
        self._exchange.call.priced_at = at

    def renewal(self) -> Extend | None:
        """What renews this call's lease."""
        return self._exchange.renewal()

    @property
    def done(self) -> bool:
        return self._exchange.state is State.DONE

    async def handle(self, event: Event) -> Sequence[Step]:
        """What is to be done about this event. Never raises for anything that a policy could judge."""
        steps: list[Step] = []
        try:
            self._large = self._is_large(event)
            steps += await self._work(lambda: self._exchange.receive(event))
            if self._exchange.need is not None:
                await self._fetch(steps)
        except Exception:
            steps += self._defect(event)
        if isinstance(event, Ended):
            self._end()
        return self._carry_out(steps)

    def _is_large(self, event: Event) -> bool:
        """Whether this event may take long: many bytes, or few that many may come of."""
        if not isinstance(event, RequestBody | ResponseChunk):
            return False
        facts = self._exchange.call.facts
        headers = facts.request.headers if isinstance(event, RequestBody) else facts.response.headers
        encoded = headers.get("content-encoding", "identity") != "identity"
        return len(event.data) > (LARGE_ENCODED if encoded else LARGE)

    async def _work(self, work: Callable[[], list[Step]]) -> list[Step]:
        """The core's steps. Long work is done in a thread, so that other calls are served meanwhile.

        INVARIANT: a call is worked on in one place at a time: one that is cancelled waits for the thread first.
        """
        if not self._large:
            return work()
        future = asyncio.get_running_loop().run_in_executor(self._enforcer.threads, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def concerns(self, ground: Ground) -> bool:
        """Whether it makes a difference to this call that another set is in force."""
        return self._exchange.concerns(ground)

    def join(self) -> Sequence[Step]:
        """What is to be done because another set is in force. Not while an event is handled."""
        ground, now = self._enforcer.ground(), self._enforcer.clock()
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
        try:
            self._exchange.at(now)
            steps += await self._resume(readings)
            await self._fetch(steps)
        except Exception:
            steps += self._defect(Tick(now))
        return self._carry_out(steps)

    async def _fetch(self, steps: list[Step]) -> None:
        """Bring what is needed, until nothing is, or until only an extension is, for which text may wait."""
        at_once = self._enforcer.at_once
        while (need := self._exchange.need) is not None and self.outstanding is None:
            if at_once is not None:
                steps += await self._resume(answer_of(at_once, need))
                continue
            if not isinstance(need, Extend):
                steps += await self._resume(await self._ask(need))
                continue
            task = asyncio.ensure_future(self._ask(need))
            await asyncio.sleep(0)  # a store that need not wait has answered by now: then nothing has to wait
            if not task.done():
                self.outstanding = task
                return
            steps += await self._resume(await task)

    async def _resume(self, readings: Readings) -> list[Step]:
        return await self._work(lambda: self._exchange.resume(readings))

    async def _ask(self, need: Need) -> Readings:
        store, seconds = self._enforcer.counters, self._enforcer.deadlines.store_s
        match need:
            case Read():
                return await within(store.read(need), seconds)
            case Reserve():
                return await within(store.reserve(need), seconds)
            case Extend():
                return await within(store.extend(need), seconds)
            case Settle():
                return await within(store.settle(need), seconds)

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
                case Settle():
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
        if self.outstanding is not None:
            self.outstanding.cancel()
            self.outstanding = None
