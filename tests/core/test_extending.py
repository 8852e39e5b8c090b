"""Extensions are asked for ahead of need, and cut a stream at the same event whenever their answers come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policyd.core.exchange import Exchange
from policyd.core.model.steps import (
    Ended,
    Extend,
    Read,
    Record,
    Release,
    RequestBody,
    RequestHeaders,
    Reserve,
    ResponseChunk,
    ResponseHeaders,
    Settle,
    Step,
)
from policyd.enforcer import Call, Deadlines
from tests.driving import Bed, chat, policy, stream_of
from tests.fakes import EPOCH, Fault, FaultyCounters

BUDGET = """failurePolicy: {fail}
counters:
- {{name: out, key: session.id, charge: OutputTokens, window: {{lifetime: 1h}}, limit: {limit} tokens}}"""
SESSION = ("x-session-id", "s")
HEAD = ((":method", "POST"), (":path", "/v1/chat/completions"), SESSION)
STREAMS = ((":status", "200"), ("content-type", "text/event-stream"))
SLICE = 8  # tokens; the words below have one each


def words(count: int) -> list[bytes]:
    return stream_of(*["w "] * count)


def bed_of(limit: int, *, fail: str = "Fail") -> Bed:
    return Bed(policy(BUDGET.format(limit=limit, fail=fail)), slice_tokens=SLICE, deadlines=Deadlines(store_s=5.0))


def played(limit: int, chunks: Sequence[bytes], delays: Sequence[int]) -> tuple[bytes, Record, int]:
    """One stream whose extensions are answered so many messages late, in turn: the bytes, the record, the questions."""
    bed = bed_of(limit)
    exchange = Exchange(bed.enforcer.ground(), "call")
    steps: list[Step] = []
    asked, due, lags = 0, 0, iter(delays)
    answer = None
    events = (RequestHeaders(HEAD, False, 0.0, EPOCH), RequestBody(chat(stream=True), 0.0))
    later = (ResponseChunk(data, data is chunks[-1], 0.0) for data in chunks)
    for at, event in enumerate((*events, ResponseHeaders(STREAMS, False, 0.0), *later, *[None] * 1000)):
        if event is not None:
            steps += exchange.receive(event)
        while (need := exchange.need) is not None:
            match need:
                case Extend() if answer is None:
                    asked, answer = asked + 1, bed.memory.extend_now(need)
                    due = at + next(lags, 0)
                case Reserve():
                    steps += exchange.resume(bed.memory.reserve_now(need))
                case Settle() | Read():
                    raise AssertionError(need)
            if answer is not None:
                if due > at:
                    break
                found, answer = answer, None
                steps += exchange.resume(found)
        if any(isinstance(step, Record) for step in steps):
            break
    body = b"".join(step.data for step in steps if isinstance(step, Release))
    return body, next(step for step in steps if isinstance(step, Record)), asked


@given(
    limit=st.integers(1, 60),
    count=st.integers(1, 80),
    delays=st.lists(st.integers(0, 20), max_size=12),
    together=st.integers(1, 30),
)
@example(limit=24, count=40, delays=[0, 3], together=1)
def test_a_stream_is_cut_at_the_same_event_whenever_its_extensions_are_answered(
    limit: int, count: int, delays: list[int], together: int
) -> None:
    events = words(count)
    chunks = [b"".join(events[at : at + together]) for at in range(0, len(events), together)]
    body, record, _ = played(limit, chunks, delays)
    prompt, plain, _ = played(limit, events, ())

    assert body == prompt
    assert (record.record.event, record.record.usage) == (plain.record.event, plain.record.usage)
    assert (body.count(b"w ") == count) == (count <= limit)


def test_one_question_a_slice() -> None:
    for count in (SLICE * 3 // 4, SLICE, 10 * SLICE, 250 * SLICE):
        _, record, asked = played(10**6, words(count), ())
        assert record.record.ended == "complete"
        assert asked <= count // SLICE


def test_text_goes_on_while_more_is_asked_for_and_waits_only_where_the_slice_is_spent() -> None:
    async def story() -> None:
        bed = bed_of(100)
        store = FaultyCounters(bed.memory, otherwise={"extend": Fault.LATE})
        bed.enforcer.counters = store
        call = await opened(bed)
        seen = [await left(call, chunk) for chunk in words(12)[:-1]]
        assert [bool(data) for data in seen] == [True] * SLICE + [False] * 4
        assert [name for name, _ in store.calls] == ["reserve", "extend"], "asked once, at three quarters"
        store.heal()
        assert call.outstanding is not None
        await call.outstanding
        more = b"".join(step.data for step in await call.deliver() if isinstance(step, Release))
        assert more.count(b"w ") == 4
        await call.handle(Ended(0.0))
        await bed.enforcer.drain()

    asyncio.run(story())


@pytest.mark.parametrize("fail", ["Fail", "Ignore"])
def test_a_store_that_failed_is_asked_again_when_the_answer_is_needed(fail: str) -> None:
    bed = bed_of(100, fail=fail)
    store = FaultyCounters(bed.memory, faults={"extend": [Fault.LOST]})
    bed.enforcer.counters = store
    out = bed.call(body=chat(stream=True), headers=[SESSION], chunks=words(12))
    assert (out.text.count("w "), out.record.degraded, out.record.ended) == (12, False, "complete")
    assert sum(bed.memory.snapshot().values()) == 12, "what was done although its answer was lost is done once"


def test_only_where_the_slice_is_spent_is_a_store_that_fails_judged() -> None:
    for fail, tokens in (("Fail", SLICE), ("Ignore", 12)):
        bed = bed_of(100, fail=fail)
        bed.enforcer.counters = FaultyCounters.down(bed.memory, ["extend"])
        out = bed.call(body=chat(stream=True), headers=[SESSION], chunks=words(12))
        assert out.text.count("w ") == tokens
        assert out.record.ended == ("cut" if fail == "Fail" else "complete")
        assert out.record.degraded == (fail == "Ignore")


def test_an_answer_that_ends_within_its_slice_is_not_asked_about() -> None:
    """The request says how long it may get, and all of that is held."""
    bed = bed_of(100)
    store = FaultyCounters(bed.memory)
    bed.enforcer.counters = store
    out = bed.call(body=chat(stream=True, max_tokens=SLICE), headers=[SESSION], chunks=words(SLICE))
    assert out.record.ended == "complete"
    assert [name for name, _ in store.calls] == ["reserve", "settle"]


async def opened(bed: Bed) -> Call:
    call = bed.enforcer.open()
    await call.handle(RequestHeaders(HEAD, False, 0.0, EPOCH))
    await call.handle(RequestBody(chat(stream=True), 0.0))
    await call.handle(ResponseHeaders(STREAMS, False, 0.0))
    return call


async def left(call: Call, data: bytes) -> bytes:
    steps = await call.handle(ResponseChunk(data, False, 0.0))
    return b"".join(step.data for step in steps if isinstance(step, Release))
