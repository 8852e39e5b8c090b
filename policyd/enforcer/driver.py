"""Opens calls, settles them, and tells them of another policy set.

Rule 1: one policy set is in force at a time, and a call keeps the one that it began with.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from policyd.core.compile.policyset import CompiledPolicy, PolicySet
from policyd.core.decide.plan import Plans, reads_likeness, reads_session
from policyd.core.decide.rollout import Variants
from policyd.core.exchange import Exchange, Ground
from policyd.core.model.counters import Readings
from policyd.core.model.estimate import Estimates
from policyd.core.model.options import Options
from policyd.core.model.prices import PriceTable
from policyd.core.model.sketch import sketch
from policyd.core.model.steps import Extend, Need, Settle
from policyd.core.model.tokens import NoVocabularies, Vocabularies
from policyd.enforcer.call import Call
from policyd.enforcer.long_work import Threads
from policyd.enforcer.memory import Memory
from policyd.enforcer.ports import CounterStore, Deadlines, RecordSink, answer_of, within

log = logging.getLogger("policyd")


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
        memory: Memory | None = None,
    ) -> None:
        self._policies, self.counters, self.sink = policies, counters, sink
        self._prices, self.options = prices, options or Options()
        self.deadlines, self.clock, self.new_id = deadlines or Deadlines(), clock, new_id
        self._ground: Ground | None = None
        self.vocabularies = vocabularies or NoVocabularies()
        self.estimates = Estimates()  # INVARIANT: what was learned of models outlives every policy set
        self.memory = memory or Memory()
        self.threads = Threads()
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
        call = Call(self, Exchange(self.ground(), self.new_id()))
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

    def settle(self, step: Settle | Extend) -> None:
        """Charge what a call used, or keep it held, off its byte path."""
        at_once = self.at_once
        if at_once is not None and (isinstance(step, Extend) or not (step.session and step.session.said)):
            _told(answer_of(at_once, step), step)
            return
        task = asyncio.ensure_future(self._settle(step))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, step: Settle | Extend) -> None:
        asked = self.counters.extend(step) if isinstance(step, Extend) else self.counters.settle(_sketched(step))
        _told(await within(asked, self.deadlines.settle_s), step)

    async def drain(self) -> None:
        """Wait until every settlement that was begun is over."""
        while self._settling:
            await asyncio.gather(*self._settling)


def _told(answer: Readings, step: Settle | Extend) -> None:
    if answer.failure:
        log.error("a settlement failed: %s; call %s is charged when its lease ends", answer.failure, step.call)


def _sketched(step: Settle) -> Settle:
    """What was said, as the sketch that the store gets: worked out here, when the answer's last byte has left."""
    charge = step.session
    if charge is None or not charge.said:
        return step
    return replace(step, session=replace(charge, said="", sketch=sketch(charge.said, charge.session)))
