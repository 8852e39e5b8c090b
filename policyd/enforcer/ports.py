"""What the enforcer needs of the world: where counters live, where records go, and how long either may take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from policyd.core.model.counters import Readings
from policyd.core.model.decision import DecisionRecord
from policyd.core.model.steps import Extend, Need, Read, Reserve, Settle

log = logging.getLogger("policyd")


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
    judging_s: float | None = None  # evaluating one large message for whose answer Envoy waits; None: no limit


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


async def asked(store: CounterStore, need: Need, seconds: float) -> Readings:
    """What the store answers to this need within the time, or why it does not."""
    match need:
        case Read():
            return await within(store.read(need), seconds)
        case Reserve():
            return await within(store.reserve(need), seconds)
        case Extend():
            return await within(store.extend(need), seconds)
        case Settle():
            return await within(store.settle(need), seconds)


def _defect(error: Exception) -> Readings:
    log.exception("a defect of the counter store; it is taken as not available")
    return Readings(failure=f"the counter store failed ({type(error).__name__})")
