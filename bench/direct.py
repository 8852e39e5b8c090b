"""The engine alone, without gRPC and Envoy: CPU per event of one call's answer, one event a message and a hundred."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from bench.caller import BODY
from bench.upstream import LAST, event
from policyd.adapters.counters_memory import MemoryCounters
from policyd.adapters.prices import load_prices
from policyd.core.compile.compiler import compile_documents
from policyd.core.model.decision import DecisionRecord
from policyd.core.model.steps import (
    BodyMode,
    Ended,
    PassRequestBody,
    PassResponseHeaders,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
)
from policyd.enforcer import Call, Enforcer

REQUEST = (
    (":method", "POST"),
    (":path", "/v1/chat/completions"),
    (":authority", "api.openai.com"),
    ("content-type", "application/json"),
    ("authorization", "Bearer sk-bench"),
    ("x-session-id", "s1"),
    ("x-team-id", "bench"),
)
ANSWER = ((":status", "200"), ("content-type", "text/event-stream"))


class _Sink:
    """Forgets every record but the last."""

    last: DecisionRecord | None = None

    def write(self, record: DecisionRecord) -> None:
        self.last = record


class Engine:
    """An enforcer over these policies."""

    def __init__(self, policies: str) -> None:
        compiled = compile_documents([("bench.yaml", policies)])
        if compiled.policy_set is None:
            raise RuntimeError("\n".join(map(str, compiled.issues)))
        found = compiled.policy_set
        self.sink = _Sink()
        self.enforcer = Enforcer(
            policies=lambda: found, counters=MemoryCounters(time.time), prices=load_prices(), sink=self.sink
        )

    def micros(self, together: int, events: int = 4000) -> float:
        """Microseconds of CPU that an event takes when so many come in one message."""
        return asyncio.run(self._micros(together, events))

    async def _micros(self, together: int, events: int) -> float:
        call, now = await self._begun()
        messages = [event(number) * together for number in range(events // together)]
        began = time.process_time_ns()
        await self._stream(call, messages, now)
        took = time.process_time_ns() - began
        await call.handle(ResponseChunk(LAST, True, now + 60))
        await call.handle(Ended(now + 60))
        await self.enforcer.drain()
        record = self.sink.last
        if record is None or record.ended != "complete" or record.events != events + 2:
            raise RuntimeError(f"the call did not go as it should: {record}")
        return took / events / 1000

    async def _begun(self) -> tuple[Call, float]:
        call, now = self.enforcer.open(), time.monotonic()
        await call.handle(RequestHeaders(REQUEST, False, now, time.time()))
        steps = await call.handle(RequestBody(BODY, now))
        assert isinstance(steps[-1], PassRequestBody), steps
        steps = await call.handle(ResponseHeaders(ANSWER, False, now))
        passed = next(step for step in steps if isinstance(step, PassResponseHeaders))
        assert passed.mode is BodyMode.STREAM, steps
        return call, now

    async def _stream(self, call: Call, messages: Sequence[bytes], now: float) -> None:
        for message in messages:
            now += 0.01
            await call.handle(ResponseChunk(message, False, now))
            while call.outstanding is not None:
                await call.deliver()


def best(engine: Engine, together: int, runs: int = 5) -> float:
    """The best of some runs, microseconds of CPU an event: what disturbs only ever adds."""
    return min(engine.micros(together) for _ in range(runs))
