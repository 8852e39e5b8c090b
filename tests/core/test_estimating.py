"""What is held for a charge that is known only afterwards: enough that calls side by side cannot pass a limit."""

from __future__ import annotations

import asyncio

import pytest

from policyd.core.model.steps import Ended, PassRequestHeaders, Reject, RequestBody, RequestHeaders
from policyd.enforcer import Call
from tests.driving import Bed, answer_of, chat, policy, stream_of
from tests.fakes import EPOCH

SESSION = ("x-session-id", "s")
HEAD = ((":method", "POST"), (":path", "/v1/chat/completions"), SESSION)


def bed_of(charge: str, limit: str, **options: object) -> Bed:
    spec = f"counters:\n- {{name: c, key: session.id, charge: {charge}, window: {{lifetime: 1h}}, limit: {limit}}}"
    return Bed(policy(spec), **options)


def expression(text: str) -> str:
    return f"{{expression: '{text}'}}"


def begun(bed: Bed, count: int, body: bytes = chat()) -> list[bool]:
    """So many calls side by side, none of which ends before all have begun: which of them may leave."""

    async def story() -> list[bool]:
        calls: list[Call] = [bed.enforcer.open() for _ in range(count)]
        left = []
        for call in calls:
            steps = await call.handle(RequestHeaders(HEAD, False, 0.0, EPOCH))
            if any(isinstance(step, PassRequestHeaders) and step.want_body for step in steps):
                steps = await call.handle(RequestBody(body, 0.0))
            left.append(not any(isinstance(step, Reject) for step in steps))
        for call in calls:
            await call.handle(Ended(0.0))
        await bed.enforcer.drain()
        return left

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("charge", "body", "holds"),
    [
        ("4.0", chat(), 2),  # a weight
        ('request.model == "gpt-4o" ? 5.0 : 1.0', chat(), 2),
        ("double(request.max_tokens) / 10.0", chat(max_tokens=30), 3),
        ("double(response.output_tokens) / 10.0", chat(max_tokens=30), 3),  # as many as it may have
        ("double(response.output_tokens) / 10.0", chat(stream=True, max_tokens=30), 3),
        ('response.text.contains("x") ? 4.0 : 0.0', chat(), 12),  # nobody knows: next to nothing is held
    ],
)
def test_calls_side_by_side_cannot_pass_a_limit_by_expression(charge: str, body: bytes, holds: int) -> None:
    left = begun(bed_of(expression(charge), "10 units"), 12, body)
    assert left == [at < holds for at in range(12)] if holds != 3 else sum(left) in (3, 4)


def test_a_stream_is_cut_where_its_charge_by_expression_passes_the_limit() -> None:
    bed = bed_of(expression("double(response.output_tokens) * 2.0"), "50 units", slice_tokens=8)
    out = bed.call(body=chat(stream=True), headers=[SESSION], chunks=stream_of(*["w "] * 40))
    assert (out.text.count("w "), out.record.ended, out.record.reason) == (25, "cut", "c_exceeded")


def test_a_stream_asks_for_more_of_a_charge_by_expression_and_ends_within_its_limit() -> None:
    bed = bed_of(expression("double(response.output_tokens) * 2.0"), "80 units", slice_tokens=8)
    out = bed.call(body=chat(stream=True), headers=[SESSION], chunks=stream_of(*["w "] * 40))
    assert (out.text.count("w "), out.record.ended) == (40, "complete")
    assert list(bed.memory.snapshot().values()) == [80_000_000]


@pytest.mark.parametrize("fail", ["Fail", "Ignore"])
def test_a_charge_that_fails_over_the_request_cannot_be_judged(fail: str) -> None:
    charge = expression('double(request.headers["x-weight"].size())')
    counter = f"{{name: c, key: session.id, charge: {charge}, window: {{lifetime: 1h}}, limit: 10 units}}"
    spec = f"failurePolicy: {fail}\ncounters: [{counter}]"
    out = Bed(policy(spec)).call(body=chat(), headers=[SESSION], chunks=[answer_of("x")])
    assert (out.rejected is not None) == (fail == "Fail")
    assert out.record.degraded == (fail == "Ignore")


@pytest.mark.parametrize(
    ("charge", "body"), [("CachedInputTokens", chat("x" * 400)), ("ReasoningTokens", chat(max_tokens=100))]
)
def test_tokens_that_only_the_provider_knows_are_held_as_far_as_they_can_come(charge: str, body: bytes) -> None:
    assert sum(begun(bed_of(charge, "300 tokens"), 12, body)) in (3, 4)
    assert begun(bed_of(charge, "1 tokens"), 2, body) == [True, False], "one that may need more than there is may leave"


def test_nothing_is_left_behind_by_supposing() -> None:
    """The record and the charge are those of the answer, whatever was supposed before."""
    bed = bed_of(expression("double(response.output_tokens) + response.cost_usd"), "1000000 units")
    out = bed.call(body=chat(max_tokens=900), headers=[SESSION], chunks=[answer_of("x", completion=7)])
    assert out.record.usage["output_tokens"] == 7
    assert list(bed.memory.snapshot().values()) == [7_000_000]
