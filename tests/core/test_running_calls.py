"""Policies for calls in flight (`runningCalls`): what becomes of a call when they come into force, in every phase.

POLICYD_RUNNING_CALLS_TIMES: at how many places each language is cut; by default at one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import pytest

from policyd.core.model.decision import DecisionRecord, Mode
from policyd.core.model.steps import (
    BodyMode,
    Break,
    Ended,
    PassResponseHeaders,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
    Tick,
)
from policyd.core.stream.framing import framing_of
from policyd.enforcer import Call
from tests.driving import Bed, Outcome, answer_of, chat, cluster_policy, policy, stream_of
from tests.fakes import EPOCH
from tests.recorded import Stream, made, pieces

READS = policy("rules: [{name: r, when: response.events > 100000, terminate: {}}]", "reads")
WATCHES = policy("rules: [{name: r, when: response.events > 100000, terminate: {}}]", "reads", mode="Monitor")
READS_NOTHING = policy("rules: [{name: r, when: 'request.path == \"/no\"', terminate: {}}]", "reads")
STANDBY = cluster_policy(
    'runningCalls: true\nrules: [{name: stop, when: caller.team == "nobody", terminate: {}}]', "standby"
)
STOP = "rules: [{name: stop, terminate: {status: 503, reason: stopped, message: M, fallback: no more}}]"
TIMES = int(os.environ.get("POLICYD_RUNNING_CALLS_TIMES", "1"))
TEXTS = [f"w{number} " for number in range(12)]
CHAT = Stream("chat", None, "/v1/chat/completions", "api.openai.com", chat(stream=True), "text/event-stream", b"")  # type: ignore[arg-type]


def kill(
    rules: str = STOP,
    name: str = "kill",
    *,
    mode: str = "Full",
    more: str = "",
) -> str:
    return cluster_policy(f"runningCalls: true\n{more}{rules}", name, mode=mode)


@dataclass
class Flight:
    """One call, played event by event, and what became of it."""

    bed: Bed
    asked: Stream = CHAT
    out: Outcome = field(default_factory=Outcome)
    began: int = 0
    call: Call = field(init=False)

    def __post_init__(self) -> None:
        self.call, self.began = self.bed.enforcer.open(), len(self.bed.sink.records)

    @property
    def over(self) -> bool:
        return self.out.ended or self.out.broken

    @property
    def now(self) -> float:
        return self.bed.clock.monotonic()

    async def do(self, event: object) -> None:
        await self.bed._do(self.call, self.out, event)

    async def ask(self, *headers: tuple[str, str]) -> Flight:
        """The request's headers come."""
        head = ((":method", "POST"), (":path", self.asked.path), (":authority", self.asked.host), *headers)
        await self.do(RequestHeaders(head, False, self.now, EPOCH + self.now))
        return self

    async def leave(self, *headers: tuple[str, str]) -> Flight:
        """The request leaves, where it may."""
        if not self.out.steps:
            await self.ask(*headers)
        return await self.send()

    async def send(self) -> Flight:
        if self.out.sent is None and self.out.rejected is None:
            await self.do(RequestBody(self.asked.body, self.now))
        return self

    async def answer(self, *headers: tuple[str, str], kind: str = "", status: int = 200) -> Flight:
        """The answer's headers come."""
        await self.leave()
        head = ((":status", str(status)), ("content-type", kind or self.asked.kind), *headers)
        await self.do(ResponseHeaders(head, False, self.now))
        return self

    async def hear(self, *chunks: bytes, end: bool = False) -> Flight:
        """More of the answer comes, where anybody reads it."""
        for number, chunk in enumerate(chunks):
            if self.over or self.out.mode is BodyMode.NONE:
                return self
            self.bed.clock.advance(0.01)
            await self.do(ResponseChunk(chunk, end and number == len(chunks) - 1, self.now))
        return self

    def put(self, *documents: str) -> Flight:
        """Another set comes into force, and what it asks of this call is done."""
        self.bed.put(*documents)
        for step in self.call.join():
            self.bed._see(self.out, step, None)
            self.out.steps.append(step)
        return self

    async def end(self) -> Outcome:
        await self.do(Ended(self.now))
        await self.bed.enforcer.drain()
        self.out.records = self.bed.sink.records[self.began :]
        return self.out

    @property
    def record(self) -> DecisionRecord:
        return self.out.record


def digests(bed: Bed, *sets: Sequence[str]) -> list[str]:
    return [bed._compiled(documents).digest for documents in sets]


# ---- phase by phase --------------------------------------------------------------------------------------------------


def test_a_call_that_waits_for_its_body_is_judged_with_the_rest() -> None:
    async def story() -> Outcome:
        flight = await Flight(bed).ask()
        assert flight.out.sent is None
        flight.put(READS, kill())
        return await (await flight.send()).end()

    bed = Bed(READS)
    out = asyncio.run(story())
    assert out.rejected is not None
    assert out.rejected.status == 503
    assert (out.record.digest, out.record.joined_digest) == tuple(digests(bed, (READS,), (READS, kill())))
    assert (out.record.ended, out.record.reason) == ("rejected", "stopped")


@pytest.mark.parametrize(
    ("action", "seen"),
    [
        ("constrain: {cap: {max_tokens: 7}}", b'"max_tokens": 7'),
        ("reroute: {model: gpt-4o-mini}", b'"gpt-4o-mini"'),
        ('constrain: {inject: {system: "be brief"}}', b"be brief"),
    ],
)
def test_one_that_waits_for_its_body_can_still_be_changed(action: str, seen: bytes) -> None:
    async def story() -> Outcome:
        flight = (await Flight(Bed(READS)).ask()).put(READS, kill(f"rules: [{{name: r, {action}}}]"))
        return await (await flight.send()).end()

    out = asyncio.run(story())
    assert out.sent is not None
    assert seen in out.sent.replace(b'":7', b'": 7').replace(b'":"', b'": "')
    assert out.rule("r").enforced


@pytest.mark.parametrize("base", [READS, READS_NOTHING])
def test_a_call_that_waits_for_its_answer_is_refused(base: str) -> None:
    async def story() -> Outcome:
        return await (await Flight(bed).leave()).put(base, kill()).end()

    bed = Bed(base)
    out = asyncio.run(story())
    assert out.rejected is not None
    assert out.rejected.status == 503
    assert b'"M"' in out.rejected.body
    assert (out.record.digest, out.record.joined_digest) == tuple(digests(bed, (base,), (base, kill())))
    assert (out.record.ended, out.record.phase, out.record.enforced) == ("rejected", "request", True)


def test_from_there_on_its_answer_is_read_for_those_who_joined() -> None:
    """The pinned set reads nothing of it: the policy that joined does."""
    late = kill("rules: [{name: stop, when: response.events > 3, terminate: {fallback: over}}]")

    async def story() -> Outcome:
        flight = (await Flight(Bed(READS_NOTHING)).leave()).put(READS_NOTHING, late)
        return await (await (await flight.answer()).hear(*stream_of(*TEXTS), end=True)).end()

    # Its stream was not asked for in a body that anybody read, but its answer says what it is.
    out = asyncio.run(story())
    assert out.mode is BodyMode.STREAM
    assert (out.record.event, out.record.ended) == (3, "cut")
    assert out.text == "w0 w1 w2 \n\nover"


@pytest.mark.parametrize("base", [READS, WATCHES])
def test_an_answer_that_streams_is_cut_properly(base: str) -> None:
    async def story() -> Outcome:
        flight = await (await Flight(bed).answer()).hear(*stream_of(*TEXTS)[:4])
        return await flight.put(base, kill()).end()

    bed = Bed(base)
    out = asyncio.run(story())
    assert out.text == "w0 w1 w2 w3 \n\nno more"
    assert out.data[-1] == "[DONE]"
    assert (out.record.event, out.record.ended, out.record.reason) == (4, "cut", "stopped")
    assert (out.record.digest, out.record.joined_digest) == tuple(digests(bed, (base,), (base, kill())))


def test_an_answer_in_one_piece_that_waits_is_refused() -> None:
    async def story() -> Outcome:
        flight = await Flight(Bed(READS)).answer(kind="application/json")
        assert flight.out.mode is BodyMode.WHOLE
        return await flight.put(READS, kill()).end()

    out = asyncio.run(story())
    assert out.rejected is not None
    assert out.rejected.status == 503
    assert out.record.ended == "rejected"


def test_an_answer_in_one_piece_that_is_only_read_along_is_broken_off() -> None:
    async def story() -> Outcome:
        flight = await (await Flight(Bed(WATCHES)).answer(kind="application/json")).hear(answer_of("hello")[:20])
        assert flight.out.mode is BodyMode.STREAM
        return await flight.put(WATCHES, kill()).end()

    out = asyncio.run(story())
    assert broke(out)
    assert out.record.ended == "broken"


def broke(out: Outcome) -> bool:
    """Whether it is broken off by a policy: also where what fails is to pass."""
    return [step.refused for step in out.steps if isinstance(step, Break)] == [True]


def held(out: Outcome) -> bool:
    return next(step.held for step in out.steps if isinstance(step, PassResponseHeaders))


def test_an_answer_that_passes_by_is_held_in_reach_while_a_kill_switch_stands_by() -> None:
    async def story() -> Outcome:
        flight = await Flight(bed).answer()
        assert (flight.out.mode, held(flight.out)) == (BodyMode.NONE, True)
        return await flight.put(*base, kill()).end()

    base = (READS_NOTHING, STANDBY)
    bed = Bed(*base)
    out = asyncio.run(story())
    assert broke(out)
    assert (out.record.digest, out.record.joined_digest) == tuple(digests(bed, base, (*base, kill())))
    assert (out.record.ended, out.record.status, out.record.verdict) == ("broken", 200, "terminate")


def test_an_answer_that_is_held_and_left_alone_ends_as_ever() -> None:
    async def story() -> Outcome:
        return await (await Flight(Bed(READS_NOTHING, STANDBY)).answer()).end()

    record = asyncio.run(story()).record
    assert (record.ended, record.joined_digest, record.verdict) == ("complete", "", "allow")


@pytest.mark.parametrize(
    ("documents", "mode"),
    [
        ((READS_NOTHING,), Mode.FULL),
        ((READS_NOTHING, STANDBY), Mode.MONITOR),
        ((READS_NOTHING, policy("", "x")), Mode.FULL),
    ],
)
def test_otherwise_it_is_let_go(documents: tuple[str, ...], mode: Mode) -> None:
    async def story() -> Outcome:
        flight = await Flight(Bed(*documents, mode=mode)).answer()
        assert not held(flight.out)
        assert len(flight.bed.sink.records) == 1
        return await flight.put(*documents, kill()).end()

    out = asyncio.run(story())
    assert not out.broken
    assert out.record.joined_digest == ""


def test_a_rule_on_time_reaches_an_answer_that_passes_by() -> None:
    late = kill("rules: [{name: stop, when: response.elapsed_ms > 1000, terminate: {}}]")

    async def story() -> Outcome:
        flight = (await Flight(Bed(READS_NOTHING, STANDBY)).answer()).put(READS_NOTHING, late)
        for _ in range(12):
            assert Bed._wake(flight.out) is not None
            assert not flight.over
            flight.bed.clock.advance(0.1)
            await flight.do(Tick(flight.now))
            if flight.now > 1.0:
                break
        return await flight.end()

    assert broke(asyncio.run(story()))


# ---- every language, every cut ---------------------------------------------------------------------------------------


def cut_at(number: int) -> str:
    return policy(
        f"rules: [{{name: stop, when: response.events > {number}, terminate: {{reason: stopped, fallback: no more}}}}]",
        "kill",
    )


async def killed(stream: Stream, base: str, chunks: Sequence[bytes]) -> Outcome:
    flight = await Flight(Bed(base), stream).answer(kind=stream.kind)
    await flight.hear(*chunks)
    flight.put(base, kill())
    return await (await flight.hear(stream.data[sum(map(len, chunks)) :], end=True)).end()


def reference(stream: Stream, number: int) -> Outcome:
    async def story() -> Outcome:
        flight = await Flight(Bed(cut_at(number)), stream).answer(kind=stream.kind)
        return await (await flight.hear(stream.data, end=True)).end()

    return asyncio.run(story())


@pytest.mark.parametrize("stream", made(), ids=repr)
def test_a_kill_ends_every_language_as_a_rule_that_cuts_there_does(stream: Stream) -> None:
    """However the bytes before it were cut: whole, a byte at a time, at random, in the middle of an event."""
    rng = random.Random(stream.name)
    for _ in range(TIMES):
        part = stream.data[: rng.randrange(1, len(stream.data))]
        ways = [[part], pieces(part, rng)]
        outs = [asyncio.run(killed(stream, READS, way)) for way in ways]
        events = outs[0].record.event
        assert events is not None
        wanted = reference(stream, events)
        assert {out.body for out in outs} == {wanted.body}
        assert [out.record.event for out in outs] == [wanted.record.event] * 2 or wanted.record.event is None


@pytest.mark.parametrize("stream", made(), ids=repr)
def test_where_the_bytes_passed_until_then_the_event_that_has_begun_leaves_whole(stream: Stream) -> None:
    rng = random.Random(stream.name)
    for _ in range(TIMES):
        at = rng.randrange(1, len(stream.data))
        outs = [
            asyncio.run(killed(stream, WATCHES, way)) for way in ([stream.data[:at]], pieces(stream.data[:at], rng))
        ]
        assert outs[0].body == outs[1].body
        assert {out.record.joined_digest != "" for out in outs} == {True}
        if outs[0].broken:
            assert outs[0].body == stream.data[:at]
            assert outs[0].record.ended == "broken"
            continue
        wanted = asyncio.run(killed(stream, READS, [stream.data[: whole(stream, at)]]))
        assert outs[0].body == wanted.body
        assert outs[0].record.ended == wanted.record.ended == "cut"


def whole(stream: Stream, at: int) -> int:
    """Where the event ends that has begun before this place."""
    framing = framing_of(stream.kind, stream.dialect.name, asked=True)
    assert framing is not None
    ends = accumulate(len(event.raw) for event in framing.feed(stream.data))
    return next((end for end in ends if end >= at), len(stream.data))
