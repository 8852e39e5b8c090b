"""One stream, one call: spoken to over real gRPC, with a call that does as a table says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.config import PROCESS_METHOD, SERVICE, largest_message
from policyd.adapters.envoy.service import Conversation, handler
from policyd.core.model.estimate import Rate
from policyd.core.model.options import Options
from policyd.core.model.steps import (
    BodyMode,
    Break,
    Ended,
    Event,
    Failed,
    PassRequestBody,
    PassRequestHeaders,
    PassResponseBody,
    PassResponseHeaders,
    PassTrailers,
    Reject,
    Release,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
    ResponseTrailers,
    Step,
    Tick,
    WakeAt,
)

Script = Callable[[Event], Sequence[Step]]
MAX_REQUEST = 100  # bytes


def passing(event: Event) -> Sequence[Step]:
    """Reads everything and changes nothing."""
    match event:
        case RequestHeaders():
            return [PassRequestHeaders(want_body=not event.end)]
        case RequestBody():
            return [PassRequestBody()]
        case ResponseHeaders():
            return [PassResponseHeaders(mode=BodyMode.STREAM)]
        case ResponseChunk():
            return [Release(event.data, event.end)]
        case ResponseTrailers():
            return [PassTrailers()]
        case _:
            return []


def but(**answers: Any) -> Script:
    """`passing`, but for these events, by their class's name: steps, or what gives them."""

    def script(event: Event) -> Sequence[Step]:
        answer = answers.get(type(event).__name__, passing)
        return answer(event) if callable(answer) else answer

    return script


@dataclass
class ScriptedCall:
    script: Script
    events: list[Event] = field(default_factory=list)
    outstanding: asyncio.Future[Any] | None = None
    rates: dict[str, Rate] = field(default_factory=dict)
    late: Sequence[Step] = ()
    wake: Callable[[], None] = lambda: None
    news: Sequence[Step] = ()

    def join(self) -> Sequence[Step]:
        news, self.news = self.news, ()
        return news

    async def handle(self, event: Event) -> Sequence[Step]:
        self.events.append(event)
        return self.script(event)

    async def deliver(self) -> Sequence[Step]:
        self.outstanding = None
        return self.late

    @property
    def said(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


@dataclass
class ScriptedCalls:
    script: Script = passing
    calls: list[ScriptedCall] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic
    options: Options = field(default_factory=lambda: Options(max_request=MAX_REQUEST))
    leaving: bool = False

    def open(self) -> ScriptedCall:
        self.calls.append(ScriptedCall(self.script))
        return self.calls[-1]


@asynccontextmanager
async def served(calls: ScriptedCalls) -> AsyncIterator[Any]:
    """A way to open streams to a server of these calls."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler(calls),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.stream_stream(
            f"/{SERVICE}/{PROCESS_METHOD}",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=pb.ProcessingResponse.FromString,
        )
    await server.stop(None)


@dataclass
class Talk:
    """What came of one stream."""

    answers: list[pb.ProcessingResponse]
    code: grpc.StatusCode
    calls: list[ScriptedCall]

    @property
    def kinds(self) -> list[str]:
        return [str(answer.WhichOneof("response")) for answer in self.answers]

    @property
    def body(self) -> bytes:
        return b"".join(streamed(answer).body for answer in self.answers)


def streamed(answer: pb.ProcessingResponse) -> pb.StreamedBodyResponse:
    return answer.response_body.response.body_mutation.streamed_response


def said(script: Script, *messages: Any, wait: int | None = None, calls: ScriptedCalls | None = None) -> Talk:
    """Says these messages and hears everything. `wait`: closes only after so many answers."""

    async def talk() -> Talk:
        nonlocal calls
        calls = calls or ScriptedCalls(script)
        calls.script = script
        async with served(calls) as open_stream:
            stream = open_stream()
            answers: list[pb.ProcessingResponse] = []
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the server may have ended it by now
                for message in messages:
                    await stream.write(message)
                answers += [await stream.read() for _ in range(wait or 0)]
                await stream.done_writing()
            answers += [answer async for answer in hear(stream)]
            return Talk(answers, await stream.code(), calls.calls)

    return asyncio.run(talk())


async def hear(stream: Any) -> AsyncIterator[pb.ProcessingResponse]:
    with suppress(grpc.aio.AioRpcError):
        while (answer := await stream.read()) is not grpc.aio.EOF:
            yield answer


# ---- messages --------------------------------------------------------------------------------------------------------


def req(end: bool = False) -> pb.ProcessingRequest:
    message = pb.ProcessingRequest(request_headers=pb.HttpHeaders(end_of_stream=end))
    message.request_headers.headers.headers.add(key=":path", raw_value=b"/")
    return message


def body(data: bytes = b"{}", end: bool = True) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=data, end_of_stream=end))


def resp(end: bool = False) -> pb.ProcessingRequest:
    message = pb.ProcessingRequest(response_headers=pb.HttpHeaders(end_of_stream=end))
    message.response_headers.headers.headers.add(key=":status", raw_value=b"200")
    return message


def chunk(data: bytes = b"x", end: bool = False) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(response_body=pb.HttpBody(body=data, end_of_stream=end))


REQ_TRAILERS = pb.ProcessingRequest(request_trailers=pb.HttpTrailers())
TRAILERS = pb.ProcessingRequest(response_trailers=pb.HttpTrailers())
WHOLE_CALL = (req(), body(), resp(), chunk(b"a"), chunk(b"b", end=True))
OK, PRECONDITION = grpc.StatusCode.OK, grpc.StatusCode.FAILED_PRECONDITION
INVALID = grpc.StatusCode.INVALID_ARGUMENT

# ---- order -----------------------------------------------------------------------------------------------------------


def test_a_call_goes_through() -> None:
    talk = said(passing, *WHOLE_CALL)
    assert talk.kinds == ["request_headers", "request_body", "response_headers", "response_body", "response_body"]
    assert (talk.body, streamed(talk.answers[-1]).end_of_stream, talk.code) == (b"ab", True, OK)
    assert talk.calls[0].said[-1] == "Ended"


def test_a_call_with_trailers_goes_through() -> None:
    talk = said(passing, req(end=True), resp(), chunk(b"a"), TRAILERS)
    assert talk.kinds[-1] == "response_trailers"
    assert talk.code is OK


def test_an_empty_stream_is_no_call() -> None:
    talk = said(passing)
    assert (talk.answers, talk.code, talk.calls) == ([], OK, [])


OUT_OF_ORDER = {
    "body before headers": ((body(),), "immediate_response"),
    "two request headers": ((req(), req()), "immediate_response"),
    "answer before request": ((resp(),), "immediate_response"),
    "a chunk before anything": ((chunk(),), ""),
    "a body that nobody asked for": ((req(end=True), body()), "immediate_response"),
    "two bodies": ((req(), body(), body()), "immediate_response"),
    "two answers": ((req(end=True), resp(), resp()), "immediate_response"),
    "a chunk before the answer's headers": ((req(end=True), chunk()), ""),
    "request trailers after the answer began": ((req(end=True), resp(), REQ_TRAILERS), ""),
    "trailers before the answer": ((req(end=True), TRAILERS), ""),
    "a chunk after trailers": ((req(end=True), resp(), TRAILERS, chunk()), None),
    "nothing that we know": ((req(end=True), pb.ProcessingRequest()), ""),
}


@pytest.mark.parametrize("case", OUT_OF_ORDER)
def test_what_is_out_of_order_is_told_and_never_passes(case: str) -> None:
    messages, last = OUT_OF_ORDER[case]
    talk = said(passing, *messages)
    if last is None:  # after the end nothing matters
        assert talk.code is OK
        return
    assert [event.reason for event in talk.calls[0].events if isinstance(event, Failed)] == ["out_of_order"]
    assert talk.code is PRECONDITION
    assert (talk.kinds[-1] if talk.kinds else "") == last or not last
    assert talk.calls[0].said.count("Ended") == 1


def test_what_the_exchange_says_about_disorder_is_done() -> None:
    talk = said(but(Failed=[Reject(400, (), b"no")]), body())
    assert talk.answers[0].immediate_response.status.code == 400
    assert talk.code is OK


def test_envoys_own_refusal_without_a_body_passes() -> None:
    talk = said(passing, resp(end=True))
    assert (talk.kinds, talk.code, talk.calls) == (["response_headers"], OK, [])


def test_a_message_that_cannot_be_read_breaks_the_stream() -> None:
    talk = said(passing, req(end=True), b"\x12\xff")
    assert [event.reason for event in talk.calls[0].events if isinstance(event, Failed)] == ["malformed_message"]
    assert talk.code is INVALID


def test_unread_trailers_pass() -> None:
    whole = but(ResponseHeaders=[PassResponseHeaders(mode=BodyMode.WHOLE)], ResponseChunk=[PassResponseBody()])
    talk = said(whole, req(), body(), REQ_TRAILERS, resp(), chunk(), TRAILERS)
    assert talk.kinds == [
        "request_headers",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
    ]
    assert "ResponseTrailers" not in talk.calls[0].said


def test_an_answer_that_nobody_reads_ends_the_stream() -> None:
    """Nothing of it will be asked any more, and then the call does not hang on us."""
    talk = said(but(ResponseHeaders=[PassResponseHeaders()]), req(end=True), resp(), wait=2)
    assert (talk.kinds, talk.code) == (["request_headers", "response_headers"], OK)
    assert [event.cancelled for event in talk.calls[0].events if isinstance(event, Ended)] == [False]


def test_what_comes_after_the_end_is_not_looked_at() -> None:
    ending = but(ResponseChunk=[Release(b"bye", end=True), Release(b"never")])
    talk = said(ending, req(end=True), resp(), chunk(), chunk(), TRAILERS)
    assert (talk.body, talk.code) == (b"bye", OK)
    assert talk.calls[0].said.count("ResponseChunk") == 1


# ---- what is owed ----------------------------------------------------------------------------------------------------

UNANSWERED = {
    "request headers": (but(RequestHeaders=[]), (req(),), 1),
    "request body": (but(RequestBody=[]), (req(), body()), 2),
    "response headers": (but(ResponseHeaders=[]), (req(end=True), resp()), 2),
    "whole body": (
        but(ResponseHeaders=[PassResponseHeaders(mode=BodyMode.WHOLE)], ResponseChunk=[]),
        (req(end=True), resp(), chunk(end=True)),
        3,
    ),
}


@pytest.mark.parametrize("case", UNANSWERED)
def test_a_message_without_an_answer_refuses_and_breaks(case: str) -> None:
    script, messages, answers = UNANSWERED[case]
    talk = said(script, *messages)
    assert len(talk.answers) == answers
    assert talk.answers[-1].immediate_response.status.code == 503
    assert talk.code is PRECONDITION


def test_a_chunk_may_wait_for_later_ones() -> None:
    held = but(ResponseChunk=lambda event: [Release(b"all", end=True)] if event.end else [])
    talk = said(held, req(end=True), resp(), chunk(), chunk(), chunk(end=True))
    assert (talk.body, talk.code) == (b"all", OK)


def test_a_break_is_never_a_clean_end() -> None:
    talk = said(but(ResponseChunk=[Release(b"a"), Break("deadline")]), req(end=True), resp(), chunk())
    assert (talk.body, talk.code) == (b"a", grpc.StatusCode.ABORTED)
    assert talk.kinds[-1] == "response_body"


def test_a_break_before_the_answer_is_a_refusal_too() -> None:
    """A filter that fails open lets a call pass whose stream breaks: a refusal it has to carry out."""
    talk = said(but(RequestHeaders=[Break("internal")]), req())
    assert (talk.kinds, talk.code) == (["immediate_response"], grpc.StatusCode.ABORTED)


def raising(_event: Event) -> Sequence[Step]:
    raise RuntimeError("a defect")


@pytest.mark.parametrize("where", ["RequestHeaders", "ResponseHeaders", "ResponseChunk"])
def test_a_defect_is_judged_like_any_failure(where: str) -> None:
    talk = said(but(**{where: raising}), req(end=True), resp(), chunk())
    assert [event.reason for event in talk.calls[0].events if isinstance(event, Failed)] == ["internal"]
    assert talk.code is grpc.StatusCode.INTERNAL
    assert talk.calls[0].said.count("Ended") == 1


# ---- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(len(WHOLE_CALL)))
def test_a_cancelled_stream_ends_its_call_once(after: int) -> None:
    async def cancelled() -> list[Event]:
        calls, ended = ScriptedCalls(), asyncio.Event()
        calls.script = but(Ended=lambda _: ended.set() or [])
        async with served(calls) as open_stream:
            stream = open_stream()
            for message in WHOLE_CALL[: after + 1]:
                await stream.write(message)
                await stream.read()
            stream.cancel()
            await asyncio.wait_for(ended.wait(), 5)
        return calls.calls[0].events

    events = asyncio.run(cancelled())  # gRPC may tell the end before the cancellation: only that it ends once is sure
    assert sum(isinstance(event, Ended) for event in events) == 1


def test_a_stream_that_is_given_up_while_policyd_is_busy_says_that_nothing_left() -> None:
    """Envoy takes its request back while the decision is being made: what was decided never reached it."""

    async def given_up() -> list[Event]:
        calls, ended = ScriptedCalls(), asyncio.Event()

        def busy(_: Event) -> list[Step]:
            stream.cancel()
            until = time.monotonic() + 0.2
            while time.monotonic() < until:  # the one loop stands still; the cancellation waits in line behind this
                pass
            return [PassRequestHeaders()]

        calls.script = but(RequestHeaders=busy, Ended=lambda _: ended.set() or [])
        async with served(calls) as open_stream:
            stream = open_stream()
            await stream.write(WHOLE_CALL[0])
            await asyncio.wait_for(ended.wait(), 5)
        return calls.calls[0].events

    assert [event.unsent for event in asyncio.run(given_up()) if isinstance(event, Ended)] == [True]


@dataclass
class Lost:
    """A stream whose reader goes away while its last message is judged."""

    messages: list[pb.ProcessingRequest]
    written: int = 0

    async def read(self) -> bytes:
        return self.messages.pop(0).SerializeToString()

    async def write(self, _: bytes) -> None:
        self.written += 1


@dataclass
class Waits:
    """Counts what it is told; `clock` says how long the call waited."""

    given: int = 0

    def message(self, _: float) -> None: ...

    def given_up(self) -> None:
        self.given += 1


@pytest.mark.parametrize(("seconds", "given_up"), [(0.5, 0), (1.0, 1)])
def test_a_call_that_is_given_up_while_it_is_judged_has_not_left(seconds: float, given_up: int) -> None:
    """Judging waits for a thread: what it comes to never reaches Envoy, which gave up, or whose caller left."""
    now, waits = [100.0], Waits()

    def lost(_: Event) -> list[Step]:
        now[0] += seconds
        raise asyncio.CancelledError

    calls = ScriptedCalls(clock=lambda: now[0])
    calls.script = but(RequestBody=lost)

    with suppress(asyncio.CancelledError):
        asyncio.run(Conversation(calls, Lost([req(), body()]), set(), waits, None).hold())

    assert [event.unsent for event in calls.calls[0].events if isinstance(event, Ended)] == [True]
    assert waits.given == given_up


def test_a_stream_that_is_given_up_before_a_message_was_read_is_told_as_a_failure() -> None:
    class GivenUp:
        async def read(self) -> object:
            raise asyncio.CancelledError

    calls = ScriptedCalls()
    calls.script = but(Failed=lambda _: [])

    with suppress(asyncio.CancelledError):
        asyncio.run(Conversation(calls, GivenUp(), set(), None, None).hold())

    assert [event.reason for event in calls.calls[0].events if isinstance(event, Failed)] == ["not_read"]
    assert calls.calls[0].said.count("Ended") == 1


@pytest.mark.parametrize("after", range(len(WHOLE_CALL)))
def test_a_closed_stream_ends_its_call_once(after: int) -> None:
    talk = said(passing, *WHOLE_CALL[: after + 1])
    assert [event.cancelled for event in talk.calls[0].events if isinstance(event, Ended)] == [False]
    assert talk.code is OK


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_a_body_above_the_limit_is_told_as_such() -> None:
    talk = said(passing, req(), body(b"x" * (MAX_REQUEST + 1)))
    assert [(len(one.data), one.truncated) for one in talk.calls[0].events if isinstance(one, RequestBody)] == [
        (100, True)
    ]


def test_grpc_takes_more_than_envoy_buffers() -> None:
    assert largest_message(32 << 20) > 2 * (32 << 20)
    assert largest_message(1 << 30) < 1 << 31


def test_a_body_that_envoy_refused_is_judged_as_too_large() -> None:
    talk = said(but(RequestBody=[Reject(413, (), b"in the caller's words")]), req(), resp())
    assert talk.calls[0].said == ["RequestHeaders", "RequestBody", "Ended"]
    assert talk.answers[-1].immediate_response.body == b"in the caller's words"


def test_a_body_that_envoy_refused_and_nobody_minds_leaves_envoys_answer() -> None:
    talk = said(passing, req(), resp(), chunk(b"too large", end=True))
    assert talk.kinds == ["request_headers", "response_headers", "response_body"]
    assert (talk.body, talk.code) == (b"too large", OK)


def test_a_whole_answer_is_its_own_end() -> None:
    whole = but(ResponseHeaders=[PassResponseHeaders(mode=BodyMode.WHOLE)], ResponseChunk=[PassResponseBody(b"new")])
    talk = said(whole, req(end=True), resp(), chunk(b"old", end=False), TRAILERS)
    assert [event.end for event in talk.calls[0].events if isinstance(event, ResponseChunk)] == [True]
    assert talk.kinds[-2:] == ["response_body", "response_trailers"]


# ---- time ------------------------------------------------------------------------------------------------------------


def test_a_call_is_woken_when_it_asked_to_be() -> None:
    asked = time.monotonic() + 0.03
    script = but(
        ResponseHeaders=[PassResponseHeaders(mode=BodyMode.STREAM), WakeAt(asked)],
        Tick=[Release(b"too slow", end=True), WakeAt(None)],
    )
    talk = said(script, req(end=True), resp(), chunk(b"a, "), wait=4)
    ticks = [event.now for event in talk.calls[0].events if isinstance(event, Tick)]
    assert len(ticks) == 1
    assert ticks[0] >= asked
    assert talk.body == b"a, too slow"


def test_an_answer_that_is_to_end_before_its_first_byte_came_is_broken() -> None:
    script = but(
        ResponseHeaders=[PassResponseHeaders(mode=BodyMode.STREAM), WakeAt(time.monotonic())],
        Tick=[Release(b"too slow", end=True), WakeAt(None)],
    )
    talk = said(script, req(end=True), resp(), wait=3)
    assert talk.kinds == ["request_headers", "response_headers", "immediate_response"]


def test_a_call_that_called_off_its_waking_is_left_alone() -> None:
    past = time.monotonic() - 1
    script = but(ResponseHeaders=[PassResponseHeaders(mode=BodyMode.STREAM), WakeAt(past), WakeAt(None)])
    talk = said(script, req(end=True), resp(), chunk(end=True), wait=3)
    assert "Tick" not in talk.calls[0].said


def test_paced_bytes_wait_and_nothing_overtakes_them() -> None:
    async def paced() -> tuple[list[tuple[bytes, bool]], float]:
        start = time.monotonic()
        steps = [
            Release(b"a"),
            Release(b"b", at=start + 0.05),
            Release(b"c"),
            Release(b"d", at=start + 0.08),
            Release(b"e", end=True),
        ]
        async with served(ScriptedCalls(but(ResponseChunk=steps))) as open_stream:
            stream = open_stream()
            for message in (req(end=True), resp(), chunk(end=True)):
                await stream.write(message)
            answers = [await stream.read() for _ in range(5)]
            took = time.monotonic() - start
            await stream.done_writing()
        return [(streamed(answer).body, streamed(answer).end_of_stream) for answer in answers[2:]], took

    answers, took = asyncio.run(paced())
    assert answers == [(b"a", False), (b"bc", False), (b"de", True)]
    assert took >= 0.08


def test_trailers_wait_for_paced_bytes() -> None:
    script = but(ResponseChunk=lambda _: [Release(b"a", at=time.monotonic() + 0.02)])
    talk = said(script, req(end=True), resp(), chunk(), TRAILERS, wait=4)
    assert talk.kinds[-2:] == ["response_body", "response_trailers"]


def test_what_was_outstanding_is_delivered() -> None:
    async def delivered() -> bytes:
        calls, asked = ScriptedCalls(), asyncio.Event()

        def ask(_event: Event) -> Sequence[Step]:
            calls.calls[0].outstanding = asyncio.get_running_loop().create_future()
            calls.calls[0].late = [Release(b"granted", end=True)]
            asked.set()
            return []

        calls.script = but(ResponseChunk=ask)
        async with served(calls) as open_stream:
            stream = open_stream()
            for message in (req(end=True), resp()):
                await stream.write(message)
                await stream.read()
            await stream.write(chunk(end=True))
            await asked.wait()
            assert calls.calls[0].outstanding
            calls.calls[0].outstanding.set_result(None)
            return streamed(await stream.read()).body

    assert asyncio.run(delivered()) == b"granted"
