"""Counters that live in Redis, shared by every process that is told of it.

Rule 1: one round trip an operation: one script, EVALSHA, for all its counters and its session's reading.
Rule 2: nothing raises and nothing waits long: what cannot be done in time is a `failure` in the answer.
Rule 3: what got lost on its way is asked again under the same key, as long as its time allows; scripts do it once.
Rule 4: the time is Redis's. Its calendars are ours: Lua knows no time zones, so we tell it when periods begin.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from policyd.adapters.counters_redis.asking import (
    Asking,
    Calendars,
    ClockDiffers,
    Question,
    answer,
    bad_hold,
    bad_settlement,
    owed_by,
)
from policyd.adapters.counters_redis.lane import Patience, server_of
from policyd.adapters.counters_redis.owed import Backlog, Outcome, Owed
from policyd.adapters.counters_redis.parts import (
    Places,
    joined,
    part_of_hold,
    part_of_read,
    part_of_settlement,
    places_of,
)
from policyd.adapters.counters_redis.scripts import SCRIPTS
from policyd.adapters.counters_redis.shards import Shards
from policyd.adapters.counters_redis.wire import Lost, Refused, Unavailable
from policyd.core.model.counters import CounterId, Readings, SessionId
from policyd.core.model.steps import Extend, Read, Reserve, Settle

__all__ = ["Condition", "Patience", "RedisCounters", "server_of"]

REMEMBER_S = 900.0  # how long the operations of a finished call are still recognised
_MOST_CALLS = 100_000  # running calls of this process that are remembered; of a forgotten one Redis still knows


@dataclass(slots=True)
class _Running:
    """What this process knows of a call of its own."""

    tags: dict[str, None] = field(default_factory=dict)  # in the order in which they came to hold something
    granted: dict[CounterId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Condition:
    """How the store is, for people and for `/metrics`."""

    away: str  # which server cannot be asked, and why; empty when all can
    calls: int  # running calls of this process that hold something, or did
    owed: int  # settlements that it could not take yet
    journal: int  # bytes that these have on disk


class RedisCounters:
    """A CounterStore in Redis 6.2 or newer, alone or a cluster.

    `url`: redis://, rediss:// or unix://. `state`: the folder that keeps what Redis could not take.
    `clock`: seconds since 1970 in Redis's place, for tests; None: Redis's own. `own_clock`: ours, for calendars.
    An operation is recognised while its call runs (its last 64) and for `remember_s` afterwards.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] | None = None,
        own_clock: Callable[[], float] = time.time,
        patience: Patience | None = None,
        remember_s: float = REMEMBER_S,
        state: Path | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self._shards = Shards(url, self._patience)
        self._clock, self._own_clock, self._remember_s = clock, own_clock, remember_s
        self._ahead = 0.0  # how far Redis's clock is ahead of ours, seconds, as far as that matters
        self._calendars = Calendars()
        self._backlog = Backlog(self._settle_again, folder=state, remember_s=remember_s, clock=self._now)
        self._calls: OrderedDict[str, _Running] = OrderedDict()

    async def read(self, need: Read) -> Readings:
        """What these counters stand at; the holds of every call are `held`."""
        answers = []
        for tag, places in places_of(need.counters, need.session).items():
            part = part_of_read(need, tag, places)
            answers.append((places, await self._ask(partial(self._read_question, part, tag))))
        return joined(len(need.counters), answers)

    async def reserve(self, need: Reserve) -> Readings:
        """Hold all or nothing."""
        return await self._hold(need, need.session)

    async def extend(self, need: Extend) -> Readings:
        """Hold more, all or nothing. Whatever the answer, the lease is renewed and `observed` remembered."""
        return await self._hold(need, None)

    async def settle(self, step: Settle) -> Readings:
        """Drop the call's holds and count what it used. What Redis cannot take now it gets as soon as it can."""
        if failure := bad_settlement(step):
            return Readings(failure=failure)
        known = self._calls.pop(step.call, None)
        session = step.session.session if step.session else None
        answers = []
        for tag, places in places_of([each for each, _ in step.charges], session, known.tags if known else ()).items():
            part = part_of_settlement(step, tag, places)
            answers.append((places, await self._settle_or_keep(owed_by(part, tag, self._now()))))
        return joined(len(step.charges), answers)

    async def _settle_or_keep(self, owed: Owed) -> Readings:
        found, lost = await self._settle(owed)
        if not found.failure:
            return found
        kept = "kept, to be settled" if self._backlog.keep(replace(owed, sent=lost)) else "given up: too many are kept"
        return replace(found, failure=f"{found.failure}; {kept}")

    async def _settle(self, owed: Owed) -> tuple[Readings, bool]:
        return await self._try(lambda: self._asking().settle(owed))

    async def _settle_again(self, owed: Owed) -> Outcome:
        found, lost = await self._settle(owed)
        if not found.failure:
            return Outcome.DONE
        return Outcome.UNKNOWN if lost else Outcome.NOT_DONE

    def open(self) -> None:
        """Take over what an earlier process still owed. Raises UnreadableInput. Redis need not be there yet."""
        self._backlog.open()
        self._shards.state()  # begins to connect: how it is shall be known before the first call

    def condition(self) -> Condition:
        """How it is now."""
        return Condition(self._shards.state(), len(self._calls), len(self._backlog), self._backlog.size)

    async def close(self) -> None:
        """End every connection. What is still owed stays on disk."""
        await self._backlog.close()
        await self._shards.close()

    # ---- holding ----------------------------------------------------------------------------------------------------

    async def _hold(self, need: Reserve | Extend, session: SessionId | None) -> Readings:
        if failure := bad_hold(need):
            return Readings(failure=failure)
        known = self._calls.get(need.call) if not need.holds else None
        places = places_of([hold.counter for hold in need.holds], session, known.tags if known else ())
        running = self._running(need.call, places)
        if len(places) == 1:
            ((tag, all_of_them),) = places.items()
            return joined(len(need.holds), [(all_of_them, await self._hold_in(tag, need, running))])
        return await self._hold_apart(need, places, running)

    async def _hold_apart(self, need: Reserve | Extend, places: Places, running: _Running) -> Readings:
        """All parts at once; what some were granted is given back when another is refused."""
        parts = [(tag, part_of_hold(need, tag, here)) for tag, here in places.items()]
        before = [[running.granted.get(hold.counter, 0) for hold in part.holds] for _, part in parts]
        found = await asyncio.gather(*(self._hold_in(tag, part, running) for tag, part in parts))
        whole = joined(len(need.holds), list(zip(places.values(), found, strict=True)))
        if not whole.failure and whole.refused is None:
            return whole
        for (tag, part), had, one in zip(parts, before, found, strict=True):
            if not one.failure and one.refused is None:
                await self._give_back(tag, part, had, running)
        return self._refused_whole(whole, need, running)

    def _refused_whole(self, found: Readings, need: Reserve | Extend, running: _Running) -> Readings:
        """Parts that were granted and given back say what the call has now."""
        counters = tuple(
            replace(reading, granted=running.granted.get(hold.counter, 0))
            for hold, reading in zip(need.holds, found.counters, strict=False)
        )
        return replace(found, counters=counters)

    async def _give_back(self, tag: str, part: Reserve | Extend, before: Sequence[int], running: _Running) -> None:
        now = [running.granted.get(hold.counter, 0) for hold in part.holds]
        amounts = [max(0, after - had) for after, had in zip(now, before, strict=True)]
        found = await self._ask(lambda: self._asking().undo(part, tag, amounts))
        if not found.failure:  # else it is held until the call is settled, or its lease ends
            for hold, had in zip(part.holds, before, strict=True):
                running.granted[hold.counter] = had

    async def _hold_in(self, tag: str, need: Reserve | Extend, running: _Running) -> Readings:
        counters = [hold.counter for hold in need.holds]
        had = [running.granted.get(counter, 0) for counter in counters]
        found = await self._ask(lambda: self._asking().hold(need, tag, had))
        for counter, reading in zip(counters, found.counters, strict=False):
            running.granted[counter] = reading.granted
        return found

    def _running(self, call: str, places: Places) -> _Running:
        # INVARIANT: before it is asked, since a hold may come to be without our seeing its answer
        running = self._calls.get(call)
        if running is None:
            running = self._calls[call] = _Running()
            if len(self._calls) > _MOST_CALLS:
                self._calls.popitem(last=False)
        running.tags.update(dict.fromkeys(places))
        return running

    def _read_question(self, need: Read, tag: str) -> Question:
        return self._asking().read(need, tag)

    # ---- asking -----------------------------------------------------------------------------------------------------

    def _asking(self) -> Asking:
        given = self._clock() if self._clock is not None else 0.0
        return Asking(self._calendars, self._now(), given, self._remember_s)

    def _now(self) -> float:
        return self._clock() if self._clock is not None else self._own_clock() + self._ahead

    async def _ask(self, question: Callable[[], Question]) -> Readings:
        return (await self._try(question))[0]

    async def _try(self, question: Callable[[], Question]) -> tuple[Readings, bool]:
        """The answer, or why there is none in time; and then, whether it may have been done all the same."""
        lost = False
        try:
            async with asyncio.timeout(self._patience.answer_s):
                while True:
                    try:
                        return answer(await self._run(question())), lost
                    except ClockDiffers as differs:
                        self._ahead = differs.now - self._own_clock()
                    except Lost:  # asked again under its key it is done once
                        lost = True
                        await asyncio.sleep(0)
        except TimeoutError:
            return Readings(failure="timeout"), True
        except Unavailable as error:
            return Readings(failure=error.reason), lost
        except Refused as refused:
            return Readings(failure=refused.reason), lost

    async def _run(self, question: Question) -> bytes:
        script, rest = SCRIPTS[question.script], (str(len(question.keys)), *question.keys, *question.args)
        try:
            return await self._shards.ask(question.keys[0], ("EVALSHA", script.sha, *rest))
        except Refused as refused:
            if refused.code != "NOSCRIPT":
                raise
            return await self._shards.ask(question.keys[0], ("EVAL", script.text, *rest))
