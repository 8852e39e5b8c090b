"""Calls that mean harm to counters, whole, over a real Redis, in every mode: each is counted once, and as its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from policyd.adapters.counters_redis import Patience, RedisCounters
from policyd.core.compile.compiler import compile_documents
from policyd.core.model.decision import Verdict
from policyd.core.model.steps import Ended, RequestBody, RequestHeaders, ResponseChunk, ResponseHeaders
from policyd.enforcer import Deadlines
from tests.driving import Bed, Outcome, answer_of, chat, policy, stream_of
from tests.fakes import EPOCH
from tests.redis.servers import RedisServer

MODES = ("Monitor", "Soft", "Full")
PATIENT = Deadlines(store_s=5)  # a busy machine is no fault of the store's


def calls_of(key: str, limit: int) -> str:
    return (
        f"counters:\n- {{name: calls, key: {key}, charge: Requests, window: {{lifetime: 1h}}, limit: {limit} requests}}"
    )


def over_redis(server: RedisServer, spec: str, mode: str, story: Callable[[Bed], Awaitable[None]]) -> None:
    with server.client() as client:
        client.flushall()

    async def whole() -> None:
        store = RedisCounters(server.url, patience=Patience(5, 5))
        try:
            await story(Bed(policy(spec, mode=mode), counters=store, deadlines=PATIENT))
        finally:
            await store.close()

    asyncio.run(whole())


async def ask(bed: Bed, **headers: str) -> Outcome:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await bed.acall(chat(), headers=named, chunks=[answer_of("x")])


HOSTILE = ["{a}", "a}b{c", "}", ":", "a;b=c", "a\0b", "x" * 10_000, "~plain", "pd:{default}:c", "\u2028", " "]


@pytest.mark.parametrize("mode", MODES)
def test_no_tenant_and_no_session_reaches_anothers_counter(redis_server: RedisServer, mode: str) -> None:
    async def story(bed: Bed) -> None:
        for tenant in HOSTILE:
            for session in (*HOSTILE, "plain"):
                out = await ask(bed, x_tenant_id=tenant, x_session_id=session)
                assert (out.record.verdict, out.rejected) == (Verdict.ALLOW, None), "the first of this session"
        for session in HOSTILE:
            out = await ask(bed, x_tenant_id=HOSTILE[0], x_session_id=session)
            assert (out.rejected is not None) == (mode != "Monitor")
            assert out.record.would is Verdict.TERMINATE

    over_redis(redis_server, calls_of("session.id", 1), mode, story)


@pytest.mark.parametrize("mode", MODES)
def test_of_sixty_four_that_race_for_the_last_unit_one_gets_it(redis_server: RedisServer, mode: str) -> None:
    async def story(bed: Bed) -> None:
        calls = [bed.enforcer.open() for _ in range(64)]
        head = ((":method", "POST"), (":path", "/v1/chat/completions"), ("x-session-id", "s"))
        await asyncio.gather(*(call.handle(RequestHeaders(head, False, 0.0, EPOCH)) for call in calls))
        left = [call for call in calls if not call.done]
        assert len(left) == (64 if mode == "Monitor" else 1)
        for call in calls:
            await call.handle(Ended(0.0))
        await bed.enforcer.drain()

    over_redis(redis_server, calls_of("session.id", 1), mode, story)


@pytest.mark.parametrize("mode", MODES)
def test_a_session_that_is_renamed_at_each_call_dodges_no_budget_of_its_key(
    redis_server: RedisServer, mode: str
) -> None:
    async def story(bed: Bed) -> None:
        outs = [await ask(bed, authorization="Bearer sk-one", x_session_id=f"s{n}") for n in range(5)]
        refused = [out.rejected is not None for out in outs]
        assert refused == [False] * 3 + [mode != "Monitor"] * 2

    over_redis(redis_server, calls_of("caller.key", 3), mode, story)


def test_a_limit_that_is_lowered_below_what_is_held_stops_new_calls_and_no_running_one(
    redis_server: RedisServer,
) -> None:
    spec = (
        "counters:\n- {name: out, key: session.id, charge: OutputTokens, window: {lifetime: 1h}, limit: LIMIT tokens}"
    )
    head = ((":method", "POST"), (":path", "/v1/chat/completions"), ("x-session-id", "s"))
    streams = ((":status", "200"), ("content-type", "text/event-stream"))

    async def story(bed: Bed) -> None:
        call = bed.enforcer.open()
        await call.handle(RequestHeaders(head, False, 0.0, EPOCH))
        await call.handle(RequestBody(chat(stream=True, max_tokens=50), 0.0))
        await call.handle(ResponseHeaders(streams, False, 0.0))
        lowered = compile_documents([("p.yaml", policy(spec.replace("LIMIT", "5")))]).policy_set
        assert lowered is not None
        bed.policy_set = lowered
        refused = await ask(bed, x_session_id="s")
        assert refused.record.reason == "out_exceeded"
        for chunk in stream_of(*["w "] * 20):
            await call.handle(ResponseChunk(chunk, False, 0.0))
        await call.handle(ResponseChunk(b"", True, 0.0))
        await call.handle(Ended(0.0))
        await bed.enforcer.drain()
        record = bed.sink.records[-1]
        assert (record.ended, record.counters[0].spent, record.counters[0].limit) == ("complete", 20, 100)
        assert (await ask(bed, x_session_id="s")).record.reason == "out_exceeded", (
            "what was spent is over the new limit"
        )

    over_redis(redis_server, spec.replace("LIMIT", "100"), "Full", story)
