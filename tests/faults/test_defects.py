"""Defects of policyd's own: an engine, a dialect that raises what nobody expects, at every place where it is asked.

Whatever is enforced holds: the call is refused, cut or broken, and not one unjudged byte leaves. Where nothing is, the
call goes on as it came. Always one record, and nothing held.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from policyd.core.compile.policyset import ALL_KNOWN, Batch, Program
from policyd.core.model.decision import Verdict
from policyd.core.stream.dialects import registry
from policyd.core.stream.dialects.openai_chat import OpenAIChat
from tests.driving import Bed, Outcome, answer_of, chat, policy, stream_of
from tests.envoy.test_service import chunk, hear, req, resp, served

SECRET = b"not-judged"
PLAIN = [answer_of("not-judged")]
STREAM = stream_of("not-judged ", "at all")
TOKENS = "counters: [{name: out, key: session.id, charge: OutputTokens, window: {lifetime: 1h}, limit: 900 tokens}]"


class Defect(Exception):  # noqa: N818
    """What nobody expects."""


class BrokenEngine:
    """An engine that works so many times, and then raises: when it is asked for a batch, or for its values."""

    def __init__(self, inner: Any, times: int, *, when_built: bool) -> None:
        self.inner, self.times, self.when_built = inner, times, when_built

    def batch(self, programs: Sequence[Program]) -> Batch:
        if self.when_built:
            self.count()
        return BrokenBatch(self, self.inner.batch(programs))

    def count(self) -> None:
        if self.times <= 0:
            raise Defect
        self.times -= 1


class BrokenBatch:
    def __init__(self, engine: BrokenEngine, inner: Batch) -> None:
        self.engine, self.inner = engine, inner

    def evaluate(self, facts: Any, counters: Mapping[Any, Any], hits: Any, unknown: Any = ALL_KNOWN) -> list[object]:
        if not self.engine.when_built:
            self.engine.count()
        return self.inner.evaluate(facts, counters, hits, unknown)


class Bent:
    """Something that raises where it is asked for one thing, and is itself otherwise."""

    def __init__(self, inner: Any, name: str) -> None:
        self._inner, self._name = inner, name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            return self._raise
        value = getattr(self._inner, name)
        return (lambda *a: Bent(value(*a), self._name)) if name == "reader" else value

    @staticmethod
    def _raise(*_: object) -> Any:
        raise Defect


def bed_of(spec: str, policy_: str = "Fail", mode: str = "Full", **options: Any) -> Bed:
    return Bed(policy(f"failurePolicy: {policy_}\n{spec}", mode=mode), lease_s=1e6, **options)


def break_engine(bed: Bed, times: int, *, when_built: bool = False) -> None:
    inner = bed.policy_set

    class Broken:
        digest, policies, select = inner.digest, inner.policies, inner.select
        running, reads = inner.running, inner.reads
        engine = BrokenEngine(inner.engine, times, when_built=when_built)

    bed.policy_set = Broken()


def let_go(bed: Bed) -> bool:
    bed.clock.advance(31 * 24 * 3600)  # ids of withheld responses are kept for 30 days
    return bed.memory.size() == 0 and bed.enforcer.open_calls == 0


def nothing_unjudged(out: Outcome) -> None:
    """Refused, cut or broken, and written down as that."""
    assert SECRET not in out.body
    assert out.rejected is not None or out.broken or out.record.ended == "cut"
    if out.rejected is not None:
        assert out.rejected.status == 503
        assert json.loads(out.body)["error"]["code"] == "policy_error"
    assert (out.record.verdict, out.record.reason, out.record.enforced) == (Verdict.TERMINATE, "policy_error", True)
    assert not out.record.degraded


def as_it_came(out: Outcome, body: bytes, chunks: Sequence[bytes]) -> bool:
    return (out.rejected, out.broken) == (None, False) and out.sent in (body, b"") and out.body == b"".join(chunks)


# ---- the engine ------------------------------------------------------------------------------------------------------

READS = "rules: [{name: r, severity: Critical, when: '%s', terminate: {}}]"
SPECS = {
    "headers": READS % 'request.path == "/x"',
    "body": READS % 'request.model == "nobody"',
    "condition": "matchConditions: [{name: c, expression: 'caller.user == \"\"'}]\n" + READS % "response.events > 999",
    "counter": TOKENS + "\n" + READS % "counters.out.used > 9.0",
    "answer": READS % 'response.text.contains("@")',
    "all": TOKENS + "\n" + READS % 'request.model == "x" || response.text.contains("@") || response.status == 999',
}
CALLS: dict[str, dict[str, Any]] = {
    "whole": {"body": chat(), "chunks": PLAIN},
    "stream": {"body": chat(stream=True), "chunks": STREAM},
}
every_spec = pytest.mark.parametrize("spec", SPECS)
every_call = pytest.mark.parametrize("how", CALLS)
every_time = pytest.mark.parametrize(
    ("times", "when_built"), [(0, False), (1, False), (2, False), (0, True), (1, True)]
)


def broken_call(spec: str, how: str, times: int, when_built: bool, policy_: str, mode: str) -> tuple[Bed, Outcome]:
    bed = bed_of(SPECS[spec], policy_, mode)
    break_engine(bed, times, when_built=when_built)
    return bed, bed.call(**CALLS[how])


def needed(spec: str, how: str, times: int, when_built: bool) -> bool:
    """Whether this call comes to ask so often at all."""
    bed = bed_of(SPECS[spec])
    engine = BrokenEngine(bed.policy_set.engine, 1000, when_built=when_built)
    inner = bed.policy_set

    class Counting:
        digest, policies, select = inner.digest, inner.policies, inner.select
        running, reads = inner.running, inner.reads

    Counting.engine = engine  # type: ignore[attr-defined]
    bed.policy_set = Counting()  # type: ignore[assignment]
    bed.call(**CALLS[how])
    return 1000 - engine.times > times


def as_ever(out: Outcome, spec: str, how: str, policy_: str) -> bool:
    """Whether the call went as it goes with an engine that works."""
    whole = bed_of(SPECS[spec], policy_).call(**CALLS[how])
    return (out.sent, out.body, out.rejected, out.broken) == (whole.sent, whole.body, whole.rejected, whole.broken)


@every_time
@every_call
@every_spec
def test_an_engine_that_raises_lets_nothing_pass_that_fails_closed(
    spec: str, how: str, times: int, when_built: bool
) -> None:
    bed, out = broken_call(spec, how, times, when_built, "Fail", "Full")
    if needed(spec, how, times, when_built):
        nothing_unjudged(out)
    else:
        assert as_ever(out, spec, how, "Fail")
    assert let_go(bed)


@every_time
@every_call
@every_spec
def test_an_engine_that_raises_under_ignore_breaks_or_passes(spec: str, how: str, times: int, when_built: bool) -> None:
    bed, out = broken_call(spec, how, times, when_built, "Ignore", "Full")
    asked = needed(spec, how, times, when_built)
    assert out.record.degraded == asked
    came = as_it_came(out, CALLS[how]["body"], CALLS[how]["chunks"])
    assert out.broken or came or (not asked and as_ever(out, spec, how, "Ignore"))
    assert out.record.ended == ("broken" if out.broken else "complete")
    assert let_go(bed)


@every_time
@every_call
@every_spec
@pytest.mark.parametrize("policy_", ["Fail", "Ignore"])
def test_an_engine_that_raises_under_monitor_changes_nothing(
    spec: str, how: str, times: int, when_built: bool, policy_: str
) -> None:
    bed, out = broken_call(spec, how, times, when_built, policy_, "Monitor")
    assert as_it_came(out, CALLS[how]["body"], CALLS[how]["chunks"])
    assert (out.response_headers, out.record.enforced) == ({}, False)
    assert let_go(bed)


# ---- a dialect -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bend:
    """What raises, the rules that come to it, and the call."""

    name: str
    spec: str
    how: dict[str, Any] = field(default_factory=lambda: CALLS["stream"])
    acts: bool = False  # it is only asked where something is acted on


CUT = READS % "response.events > 1"
BENDS = [
    Bend("operation", SPECS["body"]),
    Bend("read_request", SPECS["body"]),
    Bend("reader", SPECS["answer"]),
    Bend("mark", SPECS["answer"]),
    Bend("read_event", SPECS["answer"]),
    Bend("read_json", SPECS["answer"], CALLS["whole"]),
    Bend("finish", READS % "response.finish_reasons.size() > 9"),
    Bend("edits", "rules: [{name: r, severity: Critical, constrain: {cap: {max_tokens: 1}}}]", acts=True),
    Bend("error", READS % 'request.model != ""', acts=True),
    Bend("completion", (READS % 'request.model != ""').replace("{}", "{status: 200}"), acts=True),
    Bend("ending", CUT, acts=True),
    Bend("rewind", CUT, acts=True),
]
every_bend = pytest.mark.parametrize("bend", BENDS, ids=lambda bend: bend.name)


@pytest.fixture
def bent(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def bend(name: str) -> None:
        monkeypatch.setattr(registry, "DIALECTS", (Bent(OpenAIChat(), name),))

    return bend


@every_bend
@pytest.mark.parametrize("policy_", ["Fail", "Ignore"])
def test_a_dialect_that_raises_lets_nothing_pass_that_is_enforced(
    bend: Bend, policy_: str, bent: Callable[[str], None]
) -> None:
    """What has matched is enforced, whatever the failure policy: that is about what cannot be judged."""
    bent(bend.name)
    bed = bed_of(bend.spec, policy_)
    out = bed.call(**bend.how)
    if policy_ == "Fail" or bend.acts:
        assert b"at all" not in out.body or bend.name == "finish"  # then all of it has been judged
        assert out.rejected is not None or out.broken or out.record.ended == "cut"
        assert (out.record.verdict, out.record.reason) == (Verdict.TERMINATE, "policy_error")
    else:
        assert out.broken or as_it_came(out, bend.how["body"], bend.how["chunks"])
        assert out.record.degraded
    assert let_go(bed)


@every_bend
@pytest.mark.parametrize("policy_", ["Fail", "Ignore"])
def test_a_dialect_that_raises_under_monitor_changes_nothing(
    bend: Bend, policy_: str, bent: Callable[[str], None]
) -> None:
    bent(bend.name)
    bed = bed_of(bend.spec, policy_, "Monitor")
    out = bed.call(**bend.how)
    assert as_it_came(out, bend.how["body"], bend.how["chunks"])
    assert out.record.degraded == (not bend.acts)
    assert let_go(bed)


# ---- as Envoy sees it ------------------------------------------------------------------------------------------------


def spoken(bed: Bed, *messages: Any) -> tuple[list[Any], grpc.StatusCode]:
    """What a server of this bed's calls answers."""

    async def talk() -> tuple[list[Any], grpc.StatusCode]:
        async with served(bed.enforcer) as open_stream:  # type: ignore[arg-type]
            stream = open_stream()
            for message in messages:
                await stream.write(message)
            await stream.done_writing()
            return [answer async for answer in hear(stream)], await stream.code()

    return asyncio.run(talk())


def test_a_defect_in_a_request_is_a_refusal_to_envoy() -> None:
    bed = bed_of("match: {operations: ['*']}\n" + SPECS["headers"])
    break_engine(bed, 0)
    answers, code = spoken(bed, req(end=True))
    assert [answer.immediate_response.status.code for answer in answers] == [503]
    assert b"policy_error" in answers[0].immediate_response.body
    assert code is grpc.StatusCode.OK
    assert len(bed.sink.records) == 1


def streamed(bed: Bed) -> tuple[bytes, grpc.StatusCode]:
    """What of a stream leaves this server, and how it ends."""
    head, start = req(end=True), resp()
    head.request_headers.headers.headers[0].raw_value = b"/v1/chat/completions"
    head.request_headers.headers.headers.add(key=":method", raw_value=b"POST")
    start.response_headers.headers.headers.add(key="content-type", raw_value=b"text/event-stream")
    answers, code = spoken(bed, head, start, *(chunk(data) for data in STREAM))
    assert len(bed.sink.records) == 1
    return b"".join(one.response_body.response.body_mutation.streamed_response.body for one in answers), code


def test_a_defect_in_a_stream_cuts_it() -> None:
    bed = bed_of("match: {operations: ['*']}\n" + READS % "response.events > 9")
    break_engine(bed, 0)
    body, code = streamed(bed)
    assert SECRET not in body
    assert b"could not be evaluated" in body
    assert (body.endswith(b"data: [DONE]\n\n"), code) == (True, grpc.StatusCode.OK)


def test_a_defect_in_the_ending_breaks_the_stream(bent: Callable[[str], None]) -> None:
    bent("ending")
    body, code = streamed(bed_of("match: {operations: ['*']}\n" + CUT))
    assert body in (b"", STREAM[0])
    assert code is not grpc.StatusCode.OK
