"""Corners of the policy language: what two of its sentences say together."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import pytest

from policyd.core.model.counters import Readings
from policyd.core.model.decision import Outcome, Verdict
from policyd.core.model.steps import (
    Extend,
    PassTrailers,
    Read,
    Release,
    RequestBody,
    RequestHeaders,
    Reserve,
    ResponseChunk,
    ResponseHeaders,
    ResponseTrailers,
    Settle,
    Step,
)
from policyd.enforcer import CounterStore, Deadlines
from tests.driving import Bed, FlatPrices, answer_of, chat, delta, policy, sse, stream_of
from tests.fakes import EPOCH, Fault, FaultyCounters

HOUR = "window: {lifetime: 1h}"


def counter(name: str, charge: str = "Requests", limit: str = "10 requests", *, more: str = "") -> str:
    """One counter a session, as a line of YAML."""
    return f"- {{name: {name}, key: session.id, charge: {charge}, {HOUR}, limit: {limit}{more}}}"


class Dear(FlatPrices):
    """One model costs a tenth of a cent a token; every other a nano-dollar."""

    def price(self, provider: str, model: str, at: float):  # type: ignore[no-untyped-def]
        rate = 1_000_000 if model == "gpt-4o" else 1
        return FlatPrices(model, input=rate, output=rate).price(provider, model, at)


# ---- reroutes -------------------------------------------------------------------------------------------------------


def test_the_rule_that_reroutes_is_enforced_though_it_matches_its_target_too() -> None:
    out = Bed(policy("rules: [{name: move, reroute: {model: gpt-4o-mini}}]")).call(body=chat(), chunks=[answer_of("x")])

    assert (out.rule("move").outcome, out.rule("move").enforced) == (Outcome.MATCHED, True)


def test_the_reservation_is_for_the_call_as_a_nearly_spent_budget_reroutes_it() -> None:
    spec = f"""counters:
{counter("spend", "Cost", "0.02 USD")}
rules:
- {{name: almost, when: 'counters.spend.used >= 0.8 && request.model == "gpt-4o"', reroute: {{model: gpt-4o-mini}}}}"""
    bed = Bed(policy(spec), prices=Dear())
    bed.call(body=chat(), chunks=[answer_of("x", prompt=10, completion=8)])

    out = bed.call(body=chat("longer than what is left"), chunks=[answer_of("x")])

    assert (out.record.verdict, out.record.served_model) == (Verdict.REROUTE, "gpt-4o-mini")


@pytest.mark.parametrize("answer", [[answer_of("ab")], stream_of("a", "b")])
def test_what_could_not_be_told_of_the_model_asked_for_can_be_told_of_its_target(answer: list[bytes]) -> None:
    picky = """failurePolicy: Ignore
matchConditions: [{name: known, expression: '{"gpt-4o-mini": "small"}[request.model] == "small"'}]
counters:
- {name: c, key: session.id, charge: OutputTokens, window: {lifetime: 1h}, limit: 100 tokens}"""
    move = policy("rules: [{name: move, reroute: {model: gpt-4o-mini}}]", "mover")
    body = chat(stream=len(answer) > 1)

    out = Bed(policy(picky), move).call(body=body, chunks=answer)

    assert out.rule("c.exceeded").outcome is Outcome.NOT_MATCHED


@pytest.mark.parametrize("when", ["counters.c.value > 500", "counters.c.value > 500 && response.events > 0"])
@pytest.mark.parametrize("answer", [[answer_of("ab")], stream_of("a", "b")])
def test_a_policy_for_the_model_asked_for_does_not_count_a_call_that_goes_elsewhere(
    when: str, answer: list[bytes]
) -> None:
    dear = f"""match: {{models: [gpt-4o]}}
counters:
{counter("c", "OutputTokens", "1000 tokens")}
rules:
- {{name: r, when: '{when}', terminate: {{}}}}"""
    move = "rules: [{name: move, when: 'request.model == \"gpt-4o\"', reroute: {model: mini}}]"
    bed = Bed(policy(dear, "a"), policy(move, "b"))

    out = bed.call(body=chat(stream=len(answer) > 1), chunks=answer)

    assert (out.record.verdict, out.body) == (Verdict.REROUTE, b"".join(answer))
    assert not bed.memory.snapshot()


# ---- what a refusal says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("""messageExpression: '"no " + request.model'""", "no gpt-4o"),
        ("""fallback: f, messageExpression: '"no " + request.model'""", "f"),
        ("""message: m, messageExpression: 'request.headers["none"]'""", "m"),
        ("""message: m, fallbackExpression: 'request.headers["none"]'""", "m"),
        ("""messageExpression: '"m"', fallbackExpression: 'request.headers["none"]'""", "m"),
        ("""fallback: f, fallbackExpression: 'request.headers["none"]'""", "f"),
        ("reason: why", "The call was stopped by rule r of policy default/p."),
        ("", "The call was stopped by rule r of policy default/p."),
    ],
)
def test_a_fallback_that_is_not_given_is_the_message(texts: str, said: str) -> None:
    out = Bed(policy(f"rules: [{{name: r, terminate: {{status: 200, {texts}}}}}]")).call(body=chat())

    assert json.loads(out.body)["choices"][0]["message"]["content"] == said


# ---- counters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scope", "second"), [("Tenant", Verdict.ALLOW), ("Global", Verdict.TERMINATE)])
def test_a_global_counter_counts_across_tenants(scope: str, second: Verdict) -> None:
    bed = Bed(policy(f"counters:\n{counter('c', limit='1 requests', more=f', scope: {scope}')}"))

    outs = [
        bed.call(body=chat(), headers=(("x-tenant-id", tenant), ("x-session-id", "s")), chunks=[answer_of("x")])
        for tenant in ("a", "b")
    ]

    assert [out.record.verdict for out in outs] == [Verdict.ALLOW, second]


@pytest.mark.parametrize(
    ("when", "outcome"),
    [
        ("!counters.c.available", Outcome.NOT_MATCHED),
        ("counters.c.available", Outcome.MATCHED),
        ("counters.c.limit > 5", Outcome.MATCHED),
        ("has(counters.c.limit) && counters.c.limit < 5", Outcome.NOT_MATCHED),
    ],
)
def test_a_rule_may_read_of_a_counter_only_what_no_reading_tells(when: str, outcome: Outcome) -> None:
    spec = f"counters:\n{counter('c')}\nrules:\n- {{name: r, when: '{when}', constrain: {{cap: {{max_tokens: 3}}}}}}"

    out = Bed(policy(spec)).call(body=chat(), chunks=[answer_of("x")])

    assert out.rule("r").outcome is outcome
    assert out.rejected is None


@pytest.mark.parametrize(("large", "small"), [("a", "b"), ("b", "a")])
def test_a_cut_names_the_budget_that_is_spent_and_not_one_beside_it(large: str, small: str) -> None:
    limits = {large: "100000 tokens", small: "4 tokens"}
    spec = "counters:\n" + "\n".join(counter(name, "OutputTokens", limits[name]) for name in "ab")

    out = Bed(policy(spec), slice_tokens=4).call(body=chat(stream=True), chunks=stream_of(*["word "] * 20))

    assert out.record.reason == f"{small}_exceeded"
    assert {one.name: one.exceeded for one in out.record.counters} == {large: False, small: True}


CLAMP = counter("c", "OutputTokens", "100 tokens", more=", clamp: MaxTokens")


def test_a_clamp_lowers_what_leaves_also_where_a_set_raised_it() -> None:
    spec = f"counters:\n{CLAMP}\nrules:\n- {{name: r, constrain: {{set: {{max_tokens: 5000}}}}}}"

    out = Bed(policy(spec)).call(body=chat(max_tokens=10), chunks=[answer_of("x")])

    assert json.loads(out.sent or b"")["max_tokens"] == 100


def test_whoever_is_exempt_from_a_limit_is_not_clamped_by_it() -> None:
    free = policy("rules: [{name: free, allow: {rules: [p/c.exceeded]}}]", "q")
    bed = Bed(policy(f"counters:\n{CLAMP}"), free)

    outs = [bed.call(body=chat(max_tokens=200), chunks=[answer_of("x", completion=90)]) for _ in range(2)]

    assert [json.loads(out.sent or b"")["max_tokens"] for out in outs] == [200, 200]


@pytest.mark.parametrize(
    ("expression", "units"),
    [
        ("response.cost_usd * 2.0", 20_000),
        ("response.output_tokens * 3", 15_000_000),
        ("double(session.calls) + 1.0", 1_000_000),
        ("response.output_tokens > 3 ? 2.5 : 1.0", 2_500_000),
        ("1.0 / double(request.max_tokens)", 0),  # no number: it cannot be told
        ("-5", 0),
    ],
)
def test_a_charge_by_expression_is_of_the_finished_call(expression: str, units: int) -> None:
    charge = f"{{expression: '{expression}'}}"
    bed = Bed(policy(f"counters:\n{counter('c', charge, '100 units')}"), prices=Dear())

    out = bed.call(body=chat(), chunks=[answer_of("x", prompt=5, completion=5)])

    assert out.record.verdict is Verdict.ALLOW
    assert sum(bed.memory.snapshot().values()) == units
    assert out.record.counters[0].spent == units


def test_a_charge_may_read_what_the_session_adds_up_to() -> None:
    bed = Bed(policy(f"counters:\n{counter('c', '{expression: double(session.calls) + 1.0}', '100 units')}"))

    for _ in range(3):
        bed.call(body=chat(), chunks=[answer_of("x")])

    assert list(bed.memory.snapshot().values()) == [6_000_000]


def test_a_stream_that_fails_half_way_has_used_what_it_said() -> None:
    bed = Bed(policy(f"counters:\n{counter('c', 'OutputTokens', '1000 tokens')}"))
    error = b'data: {"error": {"message": "overloaded"}}\n\n'

    bed.call(body=chat(stream=True), chunks=[*stream_of("one ", "two ")[:-1], error])
    said = sum(bed.memory.snapshot().values())
    bed.call(body=chat(stream=True), chunks=[error, b""])

    assert (said, sum(bed.memory.snapshot().values())) == (2, 2)


# ---- while an answer runs -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Crowded:
    """A store in which another call has spent 60 units whenever this one asks for more."""

    inner: CounterStore

    async def read(self, need: Read) -> Readings:
        return await self.inner.read(need)

    async def reserve(self, need: Reserve) -> Readings:
        return await self.inner.reserve(need)

    async def extend(self, need: Extend) -> Readings:
        await self.inner.settle(Settle("other:settle", "other", ((need.holds[0].counter, 60),)))
        return await self.inner.extend(need)

    async def settle(self, step: Settle) -> Readings:
        return await self.inner.settle(step)


def test_what_others_have_spent_is_judged_when_it_is_told() -> None:
    rules = "rules: [{name: r, when: counters.c.value >= 50, terminate: {}}]"
    spec = f"counters:\n{counter('c', 'OutputTokens', '100 tokens')}\n{rules}"
    bed = Bed(policy(spec), slice_tokens=4)
    bed.enforcer.counters = Crowded(bed.memory)

    out = bed.call(body=chat(stream=True), chunks=stream_of(*["word "] * 20))

    assert (out.record.event, out.record.reason) == (3, "r")


@pytest.mark.parametrize("when", ['!response.text.contains("ok")', "response.events == 0", 'response.text == ""'])
@pytest.mark.parametrize("status", [200, 204])
def test_an_answer_without_a_body_is_judged_too(when: str, status: int) -> None:
    spec = f"rules:\n- {{name: r, when: '{when}', terminate: {{status: 502}}}}"

    out = Bed(policy(spec)).call(body=chat(), status=status, response_headers=())

    assert out.rejected is not None
    assert (out.rejected.status, out.rule("r").outcome) == (502, Outcome.MATCHED)


def test_what_nobody_reads_is_not_said_to_be_understood() -> None:
    unread = Bed(policy("rules: [{name: r, when: 'request.path == \"/x\"', terminate: {}}]"))
    ignores = "failurePolicy: Ignore\nrules: [{name: r, when: 'request.model == \"x\"', terminate: {}}]"
    damaged = Bed(policy(ignores), observe_all=True)

    assert unread.call(body=chat(), chunks=[answer_of("x")]).record.inspection == "none"
    assert unread.call(body=chat(), status=204).record.inspection == "full"
    assert damaged.call(body=b'{"model"', chunks=[answer_of("x")]).record.inspection == "partial"


def test_trailers_wait_behind_text_that_waits() -> None:
    async def run() -> tuple[list[Step], list[Step]]:
        bed = Bed(policy(f"counters:\n{counter('c', 'OutputTokens', '100 tokens')}"), slice_tokens=2)
        store = bed.enforcer.counters = FaultyCounters(bed.memory, otherwise={"extend": Fault.LATE})
        bed.enforcer.deadlines = Deadlines(store_s=60.0)
        call = bed.enforcer.open()
        head = ((":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "h"))
        await call.handle(RequestHeaders(head, False, 0.0, EPOCH))
        await call.handle(RequestBody(chat(stream=True), 0.0))
        answer = ((":status", "200"), ("content-type", "text/event-stream"))
        await call.handle(ResponseHeaders(answer, False, 0.0))
        first = [*await call.handle(ResponseChunk(b"".join(stream_of("more than two tokens")), False, 0.0))]
        first += await call.handle(ResponseTrailers(0.0))
        store.release()
        return first, [*await call.deliver()]

    first, second = asyncio.run(run())

    assert [step for step in first if isinstance(step, PassTrailers | Release)] == []
    assert [step for step in second if isinstance(step, PassTrailers | Release)] == [
        Release(b"".join(stream_of("more than two tokens"))),
        PassTrailers(),
    ]


@pytest.mark.parametrize("failure", ["Fail", "Ignore"])
def test_what_cannot_be_redacted_for_want_of_a_dialect_is_not_passed_as_if_it_had_been(failure: str) -> None:
    spec = f"""failurePolicy: {failure}
match: {{operations: [unknown]}}
rules: [{{name: r, constrain: {{redact: {{detectors: [email], in: [response]}}}}}}]"""

    out = Bed(policy(spec)).call(body=b"{}", path="/v1/some/new/call", chunks=[b"a@b.example"])

    assert out.rule("r").outcome is Outcome.ERRORED
    assert (out.rejected is not None, out.record.degraded) == (failure == "Fail", failure == "Ignore")


def usage_event(prompt: int, completion: int) -> dict[str, object]:
    """The last chunk of a stream whose usage was asked for."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "gpt-4o", "choices": [], "usage": usage}


def test_the_event_of_a_record_is_that_of_the_cut_that_was_made() -> None:
    spec = """rules:
- {name: watched, mode: Monitor, when: response.events > 1, terminate: {}}
- {name: real, when: response.events > 3, terminate: {fallback: '!'}}"""

    out = Bed(policy(spec)).call(body=chat(stream=True), chunks=stream_of("a", "b", "c", "d", "e"))

    assert (out.record.event, out.text) == (3, "abc\n\n!")


@pytest.mark.parametrize(
    ("when", "chunks"),
    [
        ("response.elapsed_ms > 1000", stream_of("a", "b")),  # silent before its last event
        ('response.inspection == "partial"', stream_of("a", "b")[:-1]),  # ends without its end
    ],
)
def test_a_cut_between_events_is_before_the_next(when: str, chunks: list[bytes]) -> None:
    spec = f"rules:\n- {{name: r, when: '{when}', terminate: {{fallback: '!'}}}}"

    out = Bed(policy(spec)).call(body=chat(stream=True), chunks=chunks, silent_s=2.0 if "elapsed" in when else 0.0)

    assert (out.record.event, out.text) == (2, "ab\n\n!")


@pytest.mark.parametrize("when", ["response.cost_usd > 5.0", "counters.c.value > 5000", "response.input_tokens > 5000"])
def test_the_providers_own_numbers_are_judged_when_they_come(when: str) -> None:
    rules = f"rules: [{{name: r, when: '{when}', terminate: {{}}}}]"
    spec = f"counters:\n- {{name: c, key: session.id, charge: TotalTokens, {HOUR}}}\n{rules}"
    chunks = [*stream_of("a", "b")[:-1], sse(delta("", "stop"), usage_event(10_000, 3))]

    out = Bed(policy(spec), prices=Dear()).call(body=chat(stream=True), chunks=chunks)

    assert (out.record.verdict, out.record.event) == (Verdict.TERMINATE, 3)


@pytest.mark.parametrize("failure_policy", ["Fail", "Ignore"])
@pytest.mark.parametrize(
    ("stream", "chunks", "headers"),
    [
        (True, [*stream_of("a")[:-1], b"data: {broken\n\n", *stream_of("b")], None),
        (False, [b'{"broken'], None),
        (False, [answer_of("a")], (("content-type", "application/json"), ("content-encoding", "rot13"))),
    ],
    ids=["event", "body", "encoding"],
)
def test_that_an_answer_could_not_be_read_is_a_fact_to_act_on(
    failure_policy: str, stream: bool, chunks: list[bytes], headers: tuple[tuple[str, str], ...] | None
) -> None:
    spec = "rules:\n- {name: blind, when: response.inspection != 'full', terminate: {reason: not_understood}}"
    bed = Bed(policy(f"failurePolicy: {failure_policy}\n{spec}"))

    out = bed.call(body=chat(stream=stream), chunks=chunks, response_headers=headers)

    assert (out.record.verdict, out.record.reason, out.record.enforced) == (Verdict.TERMINATE, "not_understood", True)
    assert [rule.outcome for rule in out.record.rules] == [Outcome.MATCHED]


@pytest.mark.parametrize("failure_policy", ["Fail", "Ignore"])
def test_the_time_is_told_of_a_stream_that_has_an_event_nobody_understands(failure_policy: str) -> None:
    spec = "rules:\n- {name: slow, when: response.elapsed_ms > 1000, terminate: {fallback: too slow}}"
    chunks = [*stream_of("a")[:-1], b"data: {broken\n\n", *stream_of("b")[:-1]]

    bed = Bed(policy(f"failurePolicy: {failure_policy}\n{spec}"))
    out, quick = (bed.call(body=chat(stream=True), chunks=chunks, silent_s=silent) for silent in (5.0, 0.0))

    assert (out.record.ended, out.record.reason, out.record.inspection) == ("cut", "slow", "partial")
    assert quick.body == b"".join(chunks)
