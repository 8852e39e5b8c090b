"""Stand-ins that tests hand in where the real thing would wait, fail or write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from policyd.core.model.counters import Readings
from policyd.core.model.decision import DecisionRecord
from policyd.core.model.steps import Extend, Read, Reserve, Settle

if TYPE_CHECKING:
    from policyd.enforcer import CounterStore

EPOCH = 1_767_225_600.0  # 2026-01-01T00:00:00Z, a Thursday


class FakeClock:
    """A clock that moves only when told. Calling it gives seconds since 1970; `monotonic` counts from its making."""

    def __init__(self, now: float = EPOCH) -> None:
        self.now = now
        self._begun = now

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - self._begun

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Fault(StrEnum):
    """What happens to one operation on its way to a store and back."""

    NONE = "none"
    FAIL = "fail"  # refused at once: nothing was done
    HANG = "hang"  # never answered, and nothing was done: only a deadline ends it
    LATE = "late"  # done and answered once the test says `release()`
    LOST = "lost"  # done, but the answer never comes back: a failure is all that the caller sees
    LOST_HANG = "lost_hang"  # done, and never answered


@dataclass(slots=True)
class FaultyCounters:
    """A store wrapped in faults.

    `faults`: for each operation (read, reserve, extend, settle) what happens to its next calls, in order; when they are
    used up, `otherwise` says. `calls` lists every operation that was asked for, with what happened to it.
    """

    inner: CounterStore
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    otherwise: dict[str, Fault] = field(default_factory=dict)
    reason: str = "unavailable"
    calls: list[tuple[str, Fault]] = field(default_factory=list)
    _gate: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def down(
        cls, inner: CounterStore, operations: Iterable[str] = ("read", "reserve", "extend", "settle")
    ) -> FaultyCounters:
        """A store that refuses these operations for good."""
        return cls(inner, otherwise=dict.fromkeys(operations, Fault.FAIL))

    def release(self) -> None:
        """Let everything LATE go on."""
        self._gate.set()

    def heal(self) -> None:
        """No more faults; what is LATE goes on, what hangs stays hanging."""
        self.faults.clear()
        self.otherwise.clear()
        self.release()

    async def read(self, need: Read) -> Readings:
        return await self._run("read", lambda: self.inner.read(need))

    async def reserve(self, need: Reserve) -> Readings:
        return await self._run("reserve", lambda: self.inner.reserve(need))

    async def extend(self, need: Extend) -> Readings:
        return await self._run("extend", lambda: self.inner.extend(need))

    async def settle(self, step: Settle) -> Readings:
        return await self._run("settle", lambda: self.inner.settle(step))

    async def _run(self, name: str, operation: Callable[[], Awaitable[Readings]]) -> Readings:
        fault = self._next(name)
        self.calls.append((name, fault))
        match fault:
            case Fault.NONE:
                return await operation()
            case Fault.FAIL:
                return Readings(failure=self.reason)
            case Fault.HANG:
                await asyncio.Event().wait()
            case Fault.LATE:
                await self._gate.wait()
                return await operation()
            case Fault.LOST:
                await operation()
                return Readings(failure=self.reason)
            case Fault.LOST_HANG:
                await operation()
                await asyncio.Event().wait()
        raise AssertionError("an event that nobody sets was set")

    def _next(self, name: str) -> Fault:
        queue = self.faults.get(name)
        return queue.pop(0) if queue else self.otherwise.get(name, Fault.NONE)


@dataclass(slots=True)
class Retrying:
    """A caller that asks again, word for word, until it is answered: what a lost answer makes of every client."""

    inner: CounterStore
    attempts: int = 10

    async def read(self, need: Read) -> Readings:
        return await self._again(lambda: self.inner.read(need))

    async def reserve(self, need: Reserve) -> Readings:
        return await self._again(lambda: self.inner.reserve(need))

    async def extend(self, need: Extend) -> Readings:
        return await self._again(lambda: self.inner.extend(need))

    async def settle(self, step: Settle) -> Readings:
        return await self._again(lambda: self.inner.settle(step))

    async def _again(self, operation: Callable[[], Awaitable[Readings]]) -> Readings:
        answer = await operation()
        for _ in range(self.attempts):
            if answer.failure != "unavailable":
                break
            answer = await operation()
        return answer


@dataclass(slots=True)
class ListSink:
    """A RecordSink that keeps what it is given."""

    records: list[DecisionRecord] = field(default_factory=list)

    def write(self, record: DecisionRecord) -> None:
        self.records.append(record)


@dataclass(slots=True)
class ScriptedKube:
    """An API server of which only list and watch are heard: each takes the next of its answers, or raises it."""

    lists: list[Any]  # (revision, names) or an error
    watches: list[list[Any]]  # events as (type, name, revision), or an error; after the last nothing comes any more
    asked: list[str] = field(default_factory=list)  # the revision that each watch began with; "list" for a list
    over: asyncio.Event = field(default_factory=asyncio.Event)  # the script has been played

    async def pages(self, _: str, __: Mapping[str, str]) -> AsyncIterator[Any]:
        self.asked.append("list")
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        revision, names = answer
        yield SimpleNamespace(revision=revision, items=[])
        for name in names:  # a page each
            yield SimpleNamespace(revision=revision, items=[_named(name, revision)])

    async def watch(self, _: str, revision: str, __: Mapping[str, str]) -> AsyncIterator[Any]:
        self.asked.append(revision)
        if not self.watches:
            self.over.set()
            await asyncio.Event().wait()
        for one in self.watches.pop(0):
            if isinstance(one, Exception):
                raise one
            kind, name, at = one
            yield {"type": kind, "object": _named(name, at)}


def _named(name: str, revision: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": revision}}
