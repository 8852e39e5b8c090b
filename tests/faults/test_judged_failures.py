"""A failure is judged like anything else: each of them, under each failure policy, in each mode.

Fail: nothing unjudged reaches anybody, and the caller sees an error in its own dialect. Ignore: the call goes on as it
came, and the record says degraded. Monitor: nothing changes. Always: one record, nothing held, the call ends.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest

from policyd.adapters.counters_memory import MemoryCounters
from policyd.core.model.bounds import Bounds, bound_in
from policyd.core.model.counters import Readings
from policyd.core.model.decision import Mode, Verdict
from policyd.core.model.steps import (
    Break,
    Ended,
    Event,
    Failed,
    Reject,
    Release,
    RequestBody,
    RequestHeaders,
    Reserve,
    ResponseChunk,
    ResponseHeaders,
    ResponseTrailers,
    Step,
)
from policyd.enforcer import Call, Deadlines
from tests.driving import Bed, Outcome, answer_of, chat, policy, stream_of
from tests.fakes import EPOCH, Fault, FaultyCounters

SECRET = "not-judged"  # what must never leave under Fail: it stands where the failure is, or behind it
QUICK = Deadlines(store_s=0.01, settle_s=0.01)  # seconds
MOST = 4096  # bytes of a body
DOWN = (Fault.FAIL, Fault.HANG, Fault.LOST, Fault.LOST_HANG)

TOKENS = "counters: [{name: out, key: session.id, charge: OutputTokens, window: {lifetime: 1h}, limit: 90 tokens}]"
CALLS = "counters: [{name: calls, key: session.id, charge: Requests, window: {lifetime: 1h}, limit: 9 requests}]"


def when(condition: str, action: str = "terminate: {}") -> str:
    return f"rules: [{{name: r, severity: Critical, when: {json.dumps(condition)}, {action}}}]"


READS_REQUEST = when('request.model == "nobody"')
READS_TEXT = when('response.text.contains("@")')  # one character: nothing has to be kept back for it
REDACTS = when("true", "constrain: {redact: {patterns: ['not-[a-z]{1,9}'], in: [response]}}")
READS_EVENTS = when("response.events > 1000")

STREAM = chat(stream=True)
BEFORE = stream_of("one ", "two ")[:-1]  # two events, and no end
PLAIN = (("content-type", "application/json"),)
GZIPPED = gzip.compress(answer_of(SECRET))
OK_STREAM = [*BEFORE, *stream_of(SECRET)]


@dataclass(frozen=True)
class Case:
    """What fails: the rules that meet it, the call, and where it is noticed. `left`: the request had left by then."""

    spec: str
    left: bool = False
    cut: int | None = None  # the event before which a stream is cut; None: refused whole
    call: dict[str, Any] = field(default_factory=lambda: {"body": chat(), "chunks": [answer_of(SECRET)]})
    faults: dict[str, Fault] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    heard: str | None = None  # the text before a cut, where not all of it has left
    acting_only: bool = False  # it fails only where something could be acted on: nobody else waits for it


def asked(body: bytes, *headers: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"body": body, "headers": headers, "chunks": [answer_of(SECRET)], **more}


def answered(*chunks: bytes, **more: Any) -> dict[str, Any]:
    return {"body": chat(), "chunks": chunks, "response_headers": PLAIN, **more}


def streamed(*chunks: bytes, **more: Any) -> dict[str, Any]:
    headers = (("content-type", "text/event-stream"),)
    return {"body": STREAM, "chunks": [*BEFORE, *chunks], "response_headers": headers, **more}


def down(name: str, spec: str, faults: Sequence[Fault] = DOWN, **more: Any) -> dict[str, Case]:
    return {f"{name} {fault}": Case(spec, faults={name: fault}, **more) for fault in faults}


CASES = {
    "an expression over the request": Case(when('request.headers["none"] == "x"')),
    "an expression of a constrain": Case(when('request.headers["none"] == "x"', "constrain: {cap: {max_tokens: 1}}")),
    "an expression of a reroute": Case(when('request.headers["none"] == "x"', "reroute: {model: other}")),
    "a condition of a match": Case('matchConditions: [{name: c, expression: "1 / 0 == 1"}]\n' + READS_REQUEST),
    "an expression over the answer's headers": Case(when('response.headers["none"] == "x"'), left=True),
    "an expression over an answer": Case(when('response.finish_reasons[5] == "x"'), left=True),
    "an expression over an event": Case(when("10 / (3 - response.events) == 77"), True, 2, streamed(*OK_STREAM[2:])),
    "an unpriced model": Case(CALLS.replace("Requests", "Cost").replace("9 requests", "1 USD")),
    **down("reserve", CALLS),
    **down("read", when("session.calls > 1000"), (Fault.FAIL, Fault.HANG)),
    **down(
        "extend", TOKENS, left=True, cut=2, call=streamed(*OK_STREAM[2:]), options={"slice_tokens": 2}, acting_only=True
    ),
    "a malformed request": Case(READS_REQUEST, call=asked(b'{"model": "gpt-4o", "messages": [}')),
    "a request of another shape": Case(READS_REQUEST, call=asked(b'{"model": 5, "messages": []}')),
    "a request with a key twice": Case(READS_REQUEST, call=asked(b'{"model": "a", "model": "b", "messages": []}')),
    "a request whose encoding is broken": Case(
        READS_REQUEST, call=asked(gzip.compress(chat())[:-4], ("content-encoding", "gzip"))
    ),
    "a request in an unknown encoding": Case(
        READS_REQUEST, call=asked(gzip.compress(chat()), ("content-encoding", "compress"))
    ),
    "a request that says it is too large": Case(
        READS_REQUEST, call=asked(chat("x" * MOST), ("content-length", str(MOST + 100)))
    ),
    "a request that is too large": Case(READS_REQUEST, call=asked(chat("x" * MOST))),
    "a request that a constrain cannot change": Case(
        when("true", "constrain: {cap: {max_tokens: 1}}"), call=asked(b"[]")
    ),
    "a request in no dialect of ours": Case(
        "match: {operations: [unknown]}\n" + when("true", "constrain: {cap: {max_tokens: 1}}"),
        call=asked(b"{}", path="/v1/some/new/call"),
    ),
    "a malformed event": Case(READS_TEXT, True, 2, streamed(f"data: {{{SECRET}\n\n".encode(), *stream_of("b"))),
    "an event of another shape": Case(
        READS_TEXT, True, 2, streamed(f'data: {{"choices": "{SECRET}"}}\n\n'.encode(), *stream_of("b"))
    ),
    "an event that is not utf-8": Case(
        READS_EVENTS, True, 2, streamed(b"data: \xff" + SECRET.encode() + b"\n\n", *stream_of("b"))
    ),
    "an event that is too large": Case(
        READS_TEXT, True, 2, streamed(b"data: " + SECRET.encode() * 200_000, *stream_of("b"))
    ),
    "a stream that ends within an event": Case(READS_TEXT, True, 2, streamed(f'data: {{"id": "{SECRET}'.encode())),
    "a stream that is no stream": Case(
        READS_TEXT, True, 0, {**streamed(), "chunks": [b"<html>" + SECRET.encode(), b"</html>"]}
    ),
    "a malformed answer": Case(READS_TEXT, True, call=answered(b'{"choices": "' + SECRET.encode())),
    "an answer that is no completion": Case(READS_TEXT, True, call=answered(json.dumps({"a": SECRET}).encode())),
    "an answer that is a page": Case(READS_TEXT, True, call=answered(f"<html>{SECRET}</html>".encode())),
    "an answer with a key twice": Case(
        READS_TEXT, True, call=answered(b'{"choices": [], "choices": ["%b"]}' % SECRET.encode())
    ),
    "an answer whose encoding is broken": Case(
        READS_TEXT, True, call=answered(GZIPPED[:-4], response_headers=(*PLAIN, ("content-encoding", "gzip")))
    ),
    "an answer in an unknown encoding": Case(
        READS_TEXT, True, call=answered(GZIPPED, response_headers=(*PLAIN, ("content-encoding", "compress, gzip")))
    ),
    "a stream in an unknown encoding": Case(
        READS_TEXT,
        True,
        call=streamed(
            zlib.compress(b"".join(OK_STREAM)),
            response_headers=(("content-type", "text/event-stream"), ("content-encoding", "dcb")),
        ),
    ),
    "an answer that says it is too large": Case(
        READS_TEXT,
        True,
        call=answered(answer_of(SECRET * MOST), response_headers=(*PLAIN, ("content-length", str(12 * MOST)))),
        acting_only=True,
    ),
    "an answer to be redacted that is malformed": Case(
        REDACTS,
        True,
        call=answered(b'{"choices": "' + SECRET.encode()),
        acting_only=True,
    ),
    "an event to be redacted that is malformed": Case(
        REDACTS,
        True,
        2,
        streamed(f"data: {{{SECRET}\n\n".encode(), *stream_of("b")),
        acting_only=True,
    ),
    "an answer to be metered that is malformed": Case(TOKENS, True, call=answered(b'{"choices": "' + SECRET.encode())),
    "a stream to be metered whose events cannot be found": Case(
        TOKENS, True, 2, streamed(b"data: " + SECRET.encode() * 200_000, *stream_of("b"))
    ),
    "more of a stream waits than may be kept": Case(
        when('response.text.contains("zzz")', "holdBack: 4096, terminate: {}"),
        True,
        2,
        streamed(*stream_of(SECRET * 40)),
        options={"bounds": Bounds(held_text=512)},
        heard="",
        acting_only=True,
    ),
    "more text than a rule may read": Case(
        when("response.text.size() > 1000000"),
        True,
        2,
        streamed(*stream_of(SECRET * 10)),
        options={"bounds": Bounds(response_text=50)},
    ),
}
each_case = pytest.mark.parametrize("name", CASES)
each_mode = pytest.mark.parametrize("mode", ["Monitor", "Soft", "Full"])


def run(case: Case, policy_: str, mode: str) -> tuple[Bed, Outcome]:
    """The case's call, once."""
    options = {"max_request": MOST, "lease_s": 1e6, **case.options}
    bed = Bed(policy(f"failurePolicy: {policy_}\n{case.spec}", mode=mode), deadlines=QUICK, **options)
    bed.enforcer.counters = FaultyCounters(bed.memory, otherwise=dict(case.faults))
    return bed, bed.call(**case.call)


def sent(case: Case) -> bytes:
    return b"".join(case.call["chunks"])


def as_asked(body: bytes | None) -> bytes | None:
    """The request as its caller sent it: where tokens are counted, usage is asked for in its name."""
    return body and body.replace(b',"stream_options":{"include_usage":true}', b"")


def let_go(bed: Bed) -> bool:
    """Whether nothing is held and no call is open: a hold would outlive every window and session by far."""
    bed.clock.advance(31 * 24 * 3600)  # ids of withheld responses are kept for 30 days
    return bed.memory.size() == 0 and bed.enforcer.open_calls == 0


def is_openai_error(body: bytes) -> bool:
    error = json.loads(body)["error"]
    return error["code"] == "policy_error" and isinstance(error["message"], str)


@each_case
@pytest.mark.parametrize("mode", ["Soft", "Full"])
def test_under_fail_nothing_unjudged_leaves(name: str, mode: str) -> None:
    case = CASES[name]
    bed, out = run(case, "Fail", mode)
    record = out.record
    assert (record.verdict, record.reason, record.enforced) == (Verdict.TERMINATE, "policy_error", True)
    assert (out.sent is not None) is case.left
    assert SECRET.encode() not in out.body
    assert out.ended
    if case.cut is None:
        assert out.rejected is not None
        assert (out.rejected.status, record.status, record.ended) == (503, 503, "rejected")
        assert is_openai_error(out.body)
    else:
        assert (record.ended, record.event, record.status) == ("cut", case.cut, 200)
        heard = "one two "[: 4 * case.cut] if case.heard is None else case.heard
        shown, _, said = out.text.rpartition("Rule ")
        assert shown == (f"{heard}\n\n" if heard else "")
        over = bound_in(record.rules[0].reason)
        assert said.partition(" could not be evaluated, so the call was stopped")[2].endswith(
            f"(bound {over})." if over else "."
        )
        assert out.data[-1] == "[DONE]"
    assert not record.degraded
    assert let_go(bed)


@each_case
@pytest.mark.parametrize("mode", ["Soft", "Full"])
def test_under_ignore_the_call_goes_on_and_says_so(name: str, mode: str) -> None:
    case = CASES[name]
    bed, out = run(case, "Ignore", mode)
    assert (out.rejected, out.broken) == (None, False)
    assert as_asked(out.sent) in (case.call["body"], b"")  # b"": it was not even asked for
    assert out.body == sent(case)
    record = out.record
    assert (record.verdict, record.degraded, record.reason) == (Verdict.ALLOW, True, "")
    assert record.ended == "complete"
    assert let_go(bed)


@each_case
@pytest.mark.parametrize("policy_", ["Fail", "Ignore"])
def test_monitor_changes_nothing(name: str, policy_: str) -> None:
    case = CASES[name]
    bed, out = run(case, policy_, "Monitor")
    assert (out.rejected, out.broken) == (None, False)
    assert out.sent in (case.call["body"], b"")  # b"": it was not even asked for
    assert out.body == sent(case)
    assert (out.request_headers, out.removed, out.response_headers) == ({}, set(), {})
    assert not out.record.enforced
    assert out.record.mode is Mode.MONITOR
    assert let_go(bed)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.acting_only])
def test_monitor_says_what_fail_would_have_done(name: str) -> None:
    _, out = run(CASES[name], "Fail", "Monitor")
    assert (out.record.verdict, out.record.would) == (Verdict.TERMINATE, Verdict.TERMINATE)


# ---- however the network cut it --------------------------------------------------------------------------------------

STREAMS = [name for name, case in CASES.items() if case.cut is not None and len(sent(case)) < 10_000]


@pytest.mark.parametrize("policy_", ["Fail", "Ignore"])
@pytest.mark.parametrize("name", STREAMS)
def test_however_the_network_cut_it(name: str, policy_: str) -> None:
    """Whole, byte by byte and in threes: the same decision, the same event, the same bytes."""
    case, data = CASES[name], sent(CASES[name])
    seen = set()
    for size in (len(data), 3, 1):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        how = {"response_headers": (("content-type", "text/event-stream"),), **case.call, "chunks": chunks}
        _, out = run(replace(case, call={**how, "step_s": 0.0}), policy_, "Full")
        seen.add((out.body, out.record.event, out.record.reason, out.record.ended))
    assert len(seen) == 1


# ---- each dialect ----------------------------------------------------------------------------------------------------

CLAUDE = b'{"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]%b}'
STARTED = b'event: message_start\ndata: {"type": "message_start", "message": {"id": "m", "model": "claude"}}\n\n'


def ask_claude(body: bytes, **more: Any) -> Outcome:
    bed = Bed(policy(when('request.model == "x" || response.events > 999')))
    return bed.call(body=body, path="/v1/messages", **more)


def test_anthropics_callers_get_anthropics_error() -> None:
    out = ask_claude(CLAUDE % b', "model": "x"')
    assert out.rejected is not None
    assert out.rejected.status == 503
    assert json.loads(out.body)["type"] == "error"
    assert out.record.reason == "policy_error"


def test_anthropics_streams_get_anthropics_ending() -> None:
    out = ask_claude(CLAUDE % b', "stream": true', chunks=[STARTED, b"event: ping\ndata: {not-judged\n\n"])
    assert out.body.startswith(STARTED)
    assert b"not-judged" not in out.body
    assert b"could not be evaluated" in out.body
    assert b'{"type":"message_stop","policyd":{' in out.body


# ---- the store, late -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.NONE, *DOWN])
def test_a_settlement_is_not_waited_for_and_changes_nothing(fault: Fault) -> None:
    bed = Bed(policy(CALLS), deadlines=QUICK)
    bed.enforcer.counters = FaultyCounters(bed.memory, otherwise={"settle": fault})
    out = bed.call(body=chat(), chunks=[answer_of("x")])
    assert (out.record.verdict, out.record.degraded, out.record.ended) == (Verdict.ALLOW, False, "complete")
    assert out.body == answer_of("x")
    charged = fault in (Fault.NONE, Fault.LOST, Fault.LOST_HANG)
    assert sum(bed.memory.snapshot().values()) == int(charged)


def test_text_waits_for_a_late_extension_and_then_leaves() -> None:
    """Not one event behind the grant leaves before the store has said yes."""

    async def story() -> None:
        bed = Bed(policy(TOKENS), slice_tokens=2, deadlines=Deadlines(store_s=5.0))
        store = FaultyCounters(bed.memory, otherwise={"extend": Fault.LATE})
        bed.enforcer.counters = store
        call = await opened(bed, STREAM)
        seen = [await left(call, ResponseChunk(chunk, False, 0.0)) for chunk in stream_of("a ", "b ", "c ", "d ")[:-1]]
        assert seen == [*stream_of("a ", "b ")[:-1], b"", b""]
        assert call.outstanding is not None
        store.heal()
        await call.outstanding
        assert b"".join(step.data for step in await call.deliver() if isinstance(step, Release)) == b"".join(
            stream_of("c ", "d ")[:-1]
        )
        await call.handle(Ended(0.0))
        await bed.enforcer.drain()
        assert sum(bed.memory.snapshot().values()) == 4
        assert let_go(bed)

    asyncio.run(story())


def test_a_store_that_raises_is_a_store_that_is_down() -> None:
    class Raising(MemoryCounters):
        def reserve_now(self, need: Reserve) -> Readings:
            raise KeyError(need.op)

    for at_once, (policy_, reason) in product((True, False), (("Fail", "policy_error"), ("Ignore", ""))):
        bed = Bed(policy(f"failurePolicy: {policy_}\n{CALLS}"))
        store = Raising(bed.clock)
        bed.enforcer.counters = store if at_once else FaultyCounters(store)
        out = bed.call(body=chat(), chunks=[answer_of("x")])
        assert (out.record.reason, out.record.degraded) == (reason, not reason)


# ---- a deadline, a client that goes away -----------------------------------------------------------------------------


async def opened(bed: Bed, body: bytes, kind: str = "text/event-stream") -> Call:
    """A call that is being answered."""
    call = bed.enforcer.open()
    await call.handle(RequestHeaders(((":method", "POST"), (":path", "/v1/chat/completions")), False, 0.0, EPOCH))
    await call.handle(RequestBody(body, 0.0))
    await call.handle(ResponseHeaders(((":status", "200"), ("content-type", kind)), False, 0.0))
    return call


async def left(call: Call, event: Event) -> bytes:
    """What leaves for this event."""
    return b"".join(step.data for step in await call.handle(event) if isinstance(step, Release))


@pytest.mark.parametrize(("policy_", "mode"), [*product(("Fail", "Ignore"), ("Monitor", "Soft", "Full"))])
def test_an_overrun_deadline_is_judged(policy_: str, mode: str) -> None:
    async def story() -> bytes:
        call = await opened(bed, STREAM)
        body = b"".join([await left(call, ResponseChunk(chunk, False, 0.0)) for chunk in BEFORE])
        body += await left(call, Failed("deadline", 0.0))
        body += b"".join(
            [await left(call, ResponseChunk(chunk, chunk == OK_STREAM[-1], 0.0)) for chunk in OK_STREAM[2:]]
        )
        await call.handle(Ended(0.0))
        await bed.enforcer.drain()
        return body

    bed = Bed(policy(f"failurePolicy: {policy_}\n{READS_TEXT}", mode=mode))
    body = asyncio.run(story())
    (record,) = bed.sink.records
    if policy_ == "Fail" and mode != "Monitor":
        assert SECRET.encode() not in body
        assert body.startswith(b"".join(BEFORE))
        assert (record.ended, record.reason, body.endswith(b"data: [DONE]\n\n")) == ("cut", "policy_error", True)
    else:
        assert body == b"".join(OK_STREAM)
        assert (record.ended, record.degraded) == ("complete", True)
    assert let_go(bed)


HEAD = RequestHeaders(((":method", "POST"), (":path", "/v1/chat/completions")), False, 0.0, EPOCH)
LIFE: tuple[Event, ...] = (
    HEAD,
    RequestBody(STREAM, 0.0),
    ResponseHeaders(((":status", "200"), ("content-type", "text/event-stream")), False, 0.0),
    *(ResponseChunk(chunk, False, 0.0) for chunk in OK_STREAM),
)


@pytest.mark.parametrize("mode", ["Monitor", "Full"])
@pytest.mark.parametrize("after", range(len(LIFE) + 1))
@pytest.mark.parametrize("reserve", [Fault.NONE, Fault.LOST])
def test_a_client_that_goes_away_leaves_one_record_and_no_hold(after: int, mode: str, reserve: Fault) -> None:
    """A call that has left is charged what was seen of it, one that has not is charged nothing."""

    async def story() -> None:
        call = bed.enforcer.open()
        for event in LIFE[:after]:
            await call.handle(event)
        await call.handle(Ended(0.0, cancelled=True))
        await call.handle(Ended(0.0))
        await bed.enforcer.drain()

    bed = Bed(policy(f"failurePolicy: Ignore\n{TOKENS}\n{READS_TEXT}", mode=mode), lease_s=1e6)
    bed.enforcer.counters = FaultyCounters(bed.memory, otherwise={"reserve": reserve})
    asyncio.run(story())
    assert [record.ended for record in bed.sink.records] == (["cancelled"] if after else [])
    assert (sum(bed.memory.snapshot().values()) > 0) == (after > 3)
    assert let_go(bed)


OUT_OF_ORDER: dict[str, tuple[Event, ...]] = {
    "a body before its headers": (RequestBody(STREAM, 0.0),),
    "headers twice": (HEAD, HEAD),
    "an answer before the request": (LIFE[2],),
    "an answer before the body": (HEAD, LIFE[2]),
    "a body twice": (*LIFE[:2], LIFE[1]),
    "an answer twice": (*LIFE[:4], LIFE[2]),
    "a chunk before the answer": (*LIFE[:2], LIFE[3]),
    "trailers before the answer": (*LIFE[:2], ResponseTrailers(0.0)),
}


@pytest.mark.parametrize(("policy_", "mode"), [*product(("Fail", "Ignore"), ("Monitor", "Full"))])
@pytest.mark.parametrize("case", OUT_OF_ORDER)
def test_what_is_out_of_order_never_passes(case: str, policy_: str, mode: str) -> None:
    async def story() -> list[Step]:
        call = bed.enforcer.open()
        for event in OUT_OF_ORDER[case][:-1]:
            await call.handle(event)
        steps = [*await call.handle(OUT_OF_ORDER[case][-1])]
        steps += await call.handle(LIFE[3])
        await call.handle(Ended(0.0))
        return steps

    bed = Bed(policy(f"failurePolicy: {policy_}\n{READS_TEXT}", mode=mode))
    steps = asyncio.run(story())
    (record,) = bed.sink.records
    fails = policy_ == "Fail" and mode == "Full"
    assert record.reason == ("policy_error" if fails else "")
    assert any(isinstance(step, Break | Reject) or (isinstance(step, Release) and step.end) for step in steps)
    assert (record.verdict is Verdict.TERMINATE) == (fails or (policy_ == "Fail" and case == "an answer twice"))
    assert bed.enforcer.open_calls == 0
