"""What happens in a conversation between two messages, over real gRPC: nobody waits for Envoy to say something."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.between import Between
from policyd.core.model.steps import (
    Break,
    Event,
    PassResponseHeaders,
    Reject,
    Release,
    ResponseChunk,
    Step,
    Tick,
    WakeAt,
)
from tests.envoy.test_service import TRAILERS, Script, ScriptedCall, ScriptedCalls, but, passing, served, streamed

REQUEST = pb.ProcessingRequest(request_headers=pb.HttpHeaders(end_of_stream=True))
ANSWER = pb.ProcessingRequest(response_headers=pb.HttpHeaders())
CHUNK = pb.ProcessingRequest(response_body=pb.HttpBody(body=b"data: 1\n\n"))
REFUSED = Reject(429, (), b"no")
HELD = but(ResponseHeaders=[PassResponseHeaders(held=True)])


@dataclass
class Talking:
    """One stream that is open."""

    stream: Any
    calls: ScriptedCalls

    @property
    def call(self) -> ScriptedCall:
        return self.calls.calls[0]

    async def say(self, *messages: pb.ProcessingRequest) -> None:
        """Says these, and hears the answer to each."""
        for message in messages:
            await self.stream.write(message)
            assert await self.hear() is not grpc.aio.EOF

    async def hear(self) -> Any:
        return await asyncio.wait_for(self.stream.read(), 10)

    def news(self, *steps: Step) -> None:
        """Policies have changed, and this is what the call makes of it."""
        self.call.news = steps
        self.call.wake()

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode(await asyncio.wait_for(self.stream.code(), 10))


def talk(story: Callable[[Talking], Awaitable[None]], script: Script = passing) -> ScriptedCalls:
    calls = ScriptedCalls(script)

    async def run() -> None:
        async with served(calls) as method:
            await story(Talking(method(), calls))

    asyncio.run(run())
    return calls


@pytest.mark.parametrize("messages", [(REQUEST,), (REQUEST, ANSWER), (REQUEST, ANSWER, CHUNK)], ids=len)
def test_what_policies_ask_for_is_sent_though_no_message_comes(messages: Sequence[pb.ProcessingRequest]) -> None:
    async def story(to: Talking) -> None:
        await to.say(*messages)
        to.news(REFUSED)
        assert (await to.hear()).immediate_response.status.code == 429
        await to.stream.done_writing()
        assert await to.code() is grpc.StatusCode.OK

    assert talk(story).calls[0].said[-1] == "Ended"


def test_a_stream_is_ended_and_goes_on_where_nothing_is_asked() -> None:
    async def story(to: Talking) -> None:
        await to.say(REQUEST, ANSWER, CHUNK)
        to.news()
        await to.say(CHUNK)
        to.news()
        to.news(Release(b"data: over\n\n", end=True))
        assert streamed(await to.hear()).end_of_stream

    assert talk(story).calls[0].said[:4] == ["RequestHeaders", "ResponseHeaders", "ResponseChunk", "ResponseChunk"]


def test_time_is_kept_by_whoever_stands_in() -> None:
    """A rule that joined reads the clock: it ticks although the provider is silent, and goes on when it speaks."""

    def script(event: Event) -> Sequence[Step]:
        if isinstance(event, Tick):
            ticks.append(event.now)
            return [Release(b"tick"), WakeAt(event.now + 0.01 if len(ticks) < 3 else None)]
        return passing(event)

    ticks: list[float] = []

    async def story(to: Talking) -> None:
        await to.say(REQUEST, ANSWER, CHUNK)
        to.news(WakeAt(0.0))
        for _ in range(3):
            assert streamed(await to.hear()).body == b"tick"
        await to.say(CHUNK)
        to.news(WakeAt(0.0))
        assert streamed(await to.hear()).body == b"tick"

    talk(story, script)
    assert len(ticks) == 4


def test_an_answer_that_is_held_can_be_broken_off() -> None:
    async def story(to: Talking) -> None:
        await to.say(REQUEST, ANSWER)
        to.news(Break("stopped", refused=True))
        assert (await to.hear()).immediate_response.status.code == 503

    talk(story, HELD)


def test_trailers_of_an_answer_that_is_held_go_on() -> None:
    async def story(to: Talking) -> None:
        await to.say(REQUEST, ANSWER)
        await to.stream.write(TRAILERS)
        assert (await to.hear()).WhichOneof("response") == "response_trailers"

    talk(story, HELD)


def test_an_answer_that_is_held_is_let_go_when_the_process_ends() -> None:
    async def story(to: Talking) -> None:
        await to.say(REQUEST, ANSWER)
        to.calls.leaving = True
        to.call.wake()
        assert await to.hear() is grpc.aio.EOF
        assert await to.code() is grpc.StatusCode.OK

    assert talk(story, HELD).calls[0].said == ["RequestHeaders", "ResponseHeaders", "Ended"]


def test_one_that_comes_while_the_process_ends_is_not_held() -> None:
    async def story(to: Talking) -> None:
        to.calls.leaving = True
        await to.say(REQUEST, ANSWER)
        assert await to.hear() is grpc.aio.EOF

    talk(story, HELD)


@pytest.mark.parametrize("messages", [(REQUEST,), (REQUEST, ANSWER, CHUNK)], ids=len)
def test_a_call_that_is_broken_meanwhile_breaks_its_stream(messages: Sequence[pb.ProcessingRequest]) -> None:
    async def story(to: Talking) -> None:
        await to.say(*messages)
        to.news(Break("internal"))
        with pytest.raises(grpc.aio.AioRpcError):
            await to.hear()
        assert await to.code() is grpc.StatusCode.ABORTED

    assert talk(story).calls[0].said.count("Ended") == 1


@dataclass
class SlowCall(ScriptedCall):
    """One that takes its time over a chunk."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    order: list[str] = field(default_factory=list)

    async def handle(self, event: Event) -> Sequence[Step]:
        self.order.append(f"{type(event).__name__} begins")
        if type(event).__name__ == "ResponseChunk":
            self.begun.set()
            await self.gate.wait()
        self.order.append(f"{type(event).__name__} ends")
        return await super().handle(event)

    def join(self) -> Sequence[Step]:
        self.order.append("join")
        return super().join()


class SlowCalls(ScriptedCalls):
    def open(self) -> ScriptedCall:
        self.calls.append(SlowCall(self.script))
        return self.calls[-1]


def test_nothing_is_taken_up_while_a_message_is_handled() -> None:
    calls = SlowCalls()

    async def run() -> None:
        async with served(calls) as method:
            to = Talking(method(), calls)
            await to.say(REQUEST, ANSWER)
            await to.stream.write(CHUNK)
            call = to.call
            assert isinstance(call, SlowCall)
            await call.begun.wait()
            to.news(REFUSED)
            call.gate.set()
            assert streamed(await to.hear()).body == b"data: 1\n\n"
            assert (await to.hear()).immediate_response.status.code == 429
            assert call.order[-3:] == ["ResponseChunk begins", "ResponseChunk ends", "join"]

    asyncio.run(run())


def test_who_goes_away_meanwhile_is_missed_once() -> None:
    async def story(to: Talking) -> None:
        await to.say(REQUEST, ANSWER, CHUNK)
        to.news(WakeAt(1e12))
        to.stream.cancel()

    assert talk(story).calls[0].said.count("Ended") == 1


def test_the_mode_of_an_answer_that_is_held_asks_for_its_trailers() -> None:
    """What keeps the stream open, and brings nothing where there are none."""
    modes: list[pb.ProcessingResponse] = []

    async def story(to: Talking) -> None:
        await to.say(REQUEST)
        await to.stream.write(ANSWER)
        modes.append(await to.hear())

    talk(story, HELD)
    override = modes[0].mode_override
    assert override.response_trailer_mode == pb.ProcessingMode.SEND
    assert override.response_body_mode == pb.ProcessingMode.NONE


def test_what_waits_for_its_pace_leaves_with_an_ending_that_is_in_a_hurry() -> None:
    seen: list[Event] = []
    both = asyncio.Event()

    def script(event: Event) -> Sequence[Step]:
        if not isinstance(event, ResponseChunk):
            return passing(event)
        seen.append(event)
        if len(seen) == 2:
            both.set()
        return [Release(event.data, at=1e12)]

    async def story(to: Talking) -> None:
        await to.say(REQUEST, ANSWER)
        await to.stream.write(CHUNK)
        await to.stream.write(CHUNK)
        await asyncio.wait_for(both.wait(), 10)
        to.news(Release(b"data: over\n\n", end=True, hurry=True))
        last = streamed(await to.hear())
        assert (last.body, last.end_of_stream) == (b"data: 1\n\n" * 2 + b"data: over\n\n", True)

    talk(story, script)


@pytest.mark.parametrize("steps", range(6))
def test_a_message_that_comes_meanwhile_waits_for_what_was_begun_and_for_nothing_more(steps: int) -> None:
    """However far what stands in has come: not begun, in the middle, resting."""
    done: list[str] = []

    async def work() -> None:
        between.heard()
        done.append("begun")
        for _ in range(2):
            await asyncio.sleep(0)
        done.append("done")

    async def run() -> None:
        between.parked = True
        between.ring()
        for _ in range(steps):
            await asyncio.sleep(0)
        between.parked = False
        standing_in = between.standing_in
        assert standing_in is not None
        await asyncio.wait_for(between.come_back(standing_in), 5)
        assert standing_in.done()

    between = Between(work, lambda: None, lambda: 0.0)
    asyncio.run(run())
    assert done in ([], ["begun", "done"])
    assert between.rung is (done == [])
