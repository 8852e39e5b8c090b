"""Messages that take long: other calls are served meanwhile, the answer comes in time, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.core.exchange.prepared import MOST, prepare
from policyd.core.model.decision import Verdict
from policyd.core.model.steps import Ended, Release, RequestBody, RequestHeaders, Step
from policyd.core.stream.redactor import search_for
from policyd.enforcer import LARGE, Deadlines
from policyd.enforcer.long_work import Overdue, Pieces, Threads, Work
from tests.driving import Bed, answer_of, chat, delta, policy, sse, stream_of

LONG = "word " * (LARGE // 4)
ON_TEXT = """failurePolicy: %s
counters:
- {name: calls, key: caller.key, charge: Requests, window: {sliding: 1m}, limit: 100 requests}
rules:
- {name: r, when: '%s.text.contains("forbidden")', terminate: {}}"""
KEY = (("authorization", "Bearer k"),)


class Slow(Threads):
    """Threads that begin only when nobody waits for them any more, where anybody minds."""

    async def do(self, work: Work, until: float | None = None) -> list[Step]:
        gate = threading.Event()
        if until is None:
            return await super().do(work)
        try:
            return await super().do(lambda: gate.wait(10) and work(), until)  # type: ignore[arg-type,return-value]
        finally:
            gate.set()


def slow(failure_policy: str, side: str) -> Bed:
    bed = Bed(policy(ON_TEXT % (failure_policy, side)), deadlines=Deadlines(judging_s=0.01))
    bed.enforcer.threads = Slow()
    return bed


def used(bed: Bed) -> Sequence[int]:
    return [tally.held for tally in bed.memory._tallies.values()]


@pytest.mark.parametrize("text", [LONG, LONG + "forbidden"])
def test_a_request_that_is_not_judged_in_time_is_rejected(text: str) -> None:
    bed = slow("Fail", "request")

    out = bed.call(body=chat(text), headers=KEY)

    assert out.rejected is not None
    assert out.rejected.status == 503
    assert "bound judging_time" in str(out.record)
    assert used(bed) in ([], [0])


def test_a_request_that_is_not_judged_in_time_passes_where_failures_are_ignored() -> None:
    bed, body = slow("Ignore", "request"), chat(LONG + "forbidden")

    out = bed.call(body=body, headers=KEY, chunks=[answer_of("hi")])

    assert out.sent == body
    assert out.body == answer_of("hi")
    assert out.record.degraded
    assert "bound judging_time" in out.record.inspection_reason
    assert [counter.spent for counter in out.record.counters] == [1]
    assert used(bed) == [0]


@pytest.mark.parametrize("text", [LONG, LONG + "forbidden"])
def test_a_response_in_one_piece_that_is_not_judged_in_time_is_rejected(text: str) -> None:
    out = slow("Fail", "response").call(body=chat(), headers=KEY, chunks=[answer_of(text)])

    assert out.rejected is not None
    assert out.rejected.status == 503
    assert b"word" not in out.body
    assert b"could not be evaluated" in out.body
    assert out.record.verdict is Verdict.TERMINATE
    assert "bound judging_time" in out.record.inspection_reason


@pytest.mark.parametrize("text", [LONG, LONG + "forbidden"])
def test_a_response_in_one_piece_that_is_not_judged_in_time_passes_where_failures_are_ignored(text: str) -> None:
    out = slow("Ignore", "response").call(body=chat(), headers=KEY, chunks=[answer_of(text)])

    assert out.body == answer_of(text)
    assert out.record.verdict is Verdict.ALLOW
    assert out.record.degraded
    assert "bound judging_time" in out.record.inspection_reason


def test_a_rule_on_the_inspection_minds_that_a_response_was_not_judged() -> None:
    spec = """failurePolicy: Ignore
rules:
- {name: r, when: 'response.inspection != "full" || response.text.contains("x")', terminate: {status: 403}}"""
    bed = Bed(policy(spec), deadlines=Deadlines(judging_s=0.01))
    bed.enforcer.threads = Slow()

    out = bed.call(body=chat(), chunks=[answer_of(LONG)])

    assert out.rejected is not None
    assert out.record.verdict is Verdict.TERMINATE


def test_a_message_that_is_judged_in_time_is_judged() -> None:
    bed = Bed(policy(ON_TEXT % ("Fail", "request")), deadlines=Deadlines(judging_s=30))

    assert bed.call(body=chat(LONG + "forbidden"), headers=KEY).record.rules[0].outcome == "matched"


def test_a_rejection_in_a_thread_is_recorded_where_the_caller_has_gone() -> None:
    async def run() -> int:
        bed = Bed(policy(ON_TEXT % ("Fail", "request")))
        call = bed.enforcer.open()
        head = ((":method", "POST"), (":path", "/v1/chat/completions"), *KEY)
        await call.handle(RequestHeaders(head, False, 0.0, 0.0))
        task = asyncio.ensure_future(call.handle(RequestBody(chat(LONG + "forbidden"), 0.0)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await call.handle(Ended(0.0, cancelled=True))
        await bed.enforcer.drain()
        return len(bed.sink.records)

    assert asyncio.run(run()) == 1


def test_memory_of_overdue_work_is_taken_until_its_thread_is_done() -> None:
    async def run() -> tuple[int, int]:
        bed, gate = slow("Fail", "request"), threading.Event()
        threads = bed.enforcer.threads = Threads(1)
        call, body = bed.enforcer.open(), chat(LONG)
        head = ((":method", "POST"), (":path", "/v1/chat/completions"), *KEY)
        await call.handle(RequestHeaders(head, False, 0.0, 0.0))
        receive = call._exchange.receive
        call._exchange.receive = lambda event: receive(event) if gate.wait(10) else []  # type: ignore[method-assign]
        await call.handle(RequestBody(body, 0.0))
        await call.handle(Ended(0.0))
        taken = bed.enforcer.memory.used
        gate.set()
        await threads.do(list)  # the one thread is free again
        assert bed.enforcer.memory.used == 0
        return taken, len(body)

    taken, size = asyncio.run(run())
    assert taken == 8 * size


def test_overdue_work_is_stopped() -> None:
    turns = [0]

    def endless() -> list[Step]:
        while True:
            with contextlib.suppress(Exception):
                turns[0] += 1

    async def run() -> None:
        threads, loop = Threads(1), asyncio.get_running_loop()
        for _ in range(20):
            with pytest.raises(Overdue) as overdue:
                await threads.do(endless, loop.time() + 0.005)
            assert overdue.value.running is not None
            assert await asyncio.wrap_future(overdue.value.running) == []
            assert await threads.do(lambda: [Release(b"x")], loop.time() + 10) == [Release(b"x")]

    asyncio.run(run())
    assert turns[0]


def test_work_that_ends_just_in_time_is_not_stopped_later() -> None:
    async def run() -> None:
        threads, loop = Threads(2), asyncio.get_running_loop()
        for number in range(300):
            with contextlib.suppress(Overdue):
                await threads.do(lambda: [Release(b"x")], loop.time() + number * 1e-6)
        assert await threads.do(lambda: [Release(b"y")]) == [Release(b"y")]

    asyncio.run(run())


# ---- pieces ---------------------------------------------------------------------------------------------------------

EVENTS = b"".join(stream_of(*["word "] * 2000))
STOPS = """rules:
- {name: r, when: 'response.text.contains("word stop")', holdBack: 9, terminate: {fallback: end}}"""


def test_another_call_is_served_between_the_pieces_of_a_streamed_message() -> None:
    async def run() -> list[str]:
        bed, order = Bed(policy(STOPS)), list[str]()

        async def large() -> None:
            out = await bed.acall(body=chat(stream=True), chunks=[EVENTS])
            assert out.body == EVENTS
            order.append("large")

        async def small() -> None:
            await asyncio.sleep(0)
            out = await bed.acall(body=chat(stream=True), chunks=stream_of("hi"))
            assert out.text == "hi"
            order.append("small")

        await asyncio.gather(large(), small())
        return order

    assert asyncio.run(run()) == ["small", "large"]


@pytest.mark.parametrize("place", [0, 1, 700, 1999])
def test_a_cut_within_a_large_message_is_the_cut_of_small_ones(place: int) -> None:
    texts = ["word "] * 2000
    texts[place] = "word stop"
    chunks = stream_of(*texts)

    whole, single = (Bed(policy(STOPS)).call(body=chat(stream=True), chunks=c) for c in ([b"".join(chunks)], chunks))

    assert whole.body == single.body
    assert whole.record.event == single.record.event
    assert whole.record.ended == "cut"


def test_an_event_larger_than_a_piece_is_read() -> None:
    data = sse(delta("a " * 60_000 + "word stop"), delta("", "stop"))

    out = Bed(policy(STOPS)).call(body=chat(stream=True), chunks=[data])

    assert out.record.ended == "cut"


def test_a_stream_that_is_only_read_along_leaves_as_it_came() -> None:
    out = Bed(policy(STOPS, mode="Monitor")).call(body=chat(stream=True), chunks=[EVENTS])

    assert out.body == EVENTS
    assert out.record.events == 2002


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=100_000), st.randoms(use_true_random=False))
def test_pieces_are_the_bytes_in_order(data: bytes, rng: random.Random) -> None:
    cut, pieces = Pieces(), []
    for piece in cut.of(data):
        pieces.append(piece)
        cut.took(rng.choice([0.0, 0.002, 1.0]))

    assert b"".join(piece for piece, _ in pieces) == data
    assert [last for _, last in pieces] == [False] * (len(pieces) - 1) + [True] * bool(pieces)
    assert all(len(piece) <= LARGE for piece, _ in pieces)


# ---- what is prepared -----------------------------------------------------------------------------------------------

REDACTS = """rules:
- {name: a, constrain: {redact: {detectors: [card], patterns: ['CUST-[0-9]{8}'], in: [request]}}}
- {name: b, constrain: {redact: {detectors: [iban], in: [response]}}}"""


def test_the_first_call_finds_its_redactions_compiled() -> None:
    search_for.cache_clear()
    bed = Bed(policy(REDACTS))
    prepare(bed.policy_set)
    before = search_for.cache_info().misses

    bed.call(body=chat("CUST-12345678"), chunks=stream_of("hi"))

    assert search_for.cache_info().misses == before


def test_very_many_redactions_are_not_prepared() -> None:
    rule = "- {name: r%d, constrain: {redact: {patterns: ['x%d'], in: [request]}}}"
    search_for.cache_clear()
    texts = [policy("rules:\n" + "\n".join(rule % (n, n) for n in range(50)), name=name) for name in ("p", "q")]
    assert MOST < 2 * 50
    prepare(Bed(*texts).policy_set)

    assert search_for.cache_info().misses == 0
