"""What a call is charged whose caller hangs up before its output is seen."""

from __future__ import annotations

import asyncio

import pytest

from policyd.core.model.steps import Ended, Event, RequestBody, RequestHeaders, ResponseChunk, ResponseHeaders
from tests.driving import Bed, FlatPrices, answer_of, chat, policy, sse, stream_of

HEAD = RequestHeaders(((":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "x")), False, 0.0, 0.0)
JSON = ResponseHeaders(((":status", "200"), ("content-type", "application/json")), False, 0.0)
STREAM = ResponseHeaders(((":status", "200"), ("content-type", "text/event-stream")), False, 0.0)
GONE = Ended(0.0, cancelled=True)


def bed(charge: str, limit: str, mode: str = "Full") -> Bed:
    counter = f"counters:\n- {{name: c, key: session.id, charge: {charge}, window: {{lifetime: 1h}}, limit: {limit}}}"
    return Bed(policy(counter, mode=mode), prices=FlatPrices("gpt-4o", input=1_000, output=10_000))


def play(one: Bed, *events: Event) -> int:
    """Play one call; gives what its counter stands at."""

    async def run() -> None:
        call = one.enforcer.open()
        for event in events:
            await call.handle(event)
        await one.enforcer.drain()

    asyncio.run(run())
    return sum(one.memory.snapshot().values())


BODY = RequestBody(chat(max_tokens=100), 0.0)
STREAMED = RequestBody(chat(stream=True), 0.0)
PIECE = answer_of("hello")[:40]


@pytest.mark.parametrize("mode", ["Full", "Monitor"])
@pytest.mark.parametrize(
    ("events", "output"),
    [
        ((BODY, GONE), 100),
        ((BODY, JSON, GONE), 100),
        ((BODY, JSON, ResponseChunk(PIECE, False, 0.0), GONE), 100),
        ((BODY, JSON, ResponseChunk(answer_of("hello"), True, 0.0), GONE), 5),  # the provider's own number
        ((RequestBody(chat(max_tokens=100, n=3), 0.0), GONE), 300),
        ((RequestBody(chat(), 0.0), GONE), 4096),  # the default of a request that names no limit
        ((STREAMED, GONE), 0),  # a stream sends its headers when its output begins
        ((STREAMED, STREAM, GONE), 0),  # nothing was produced: it would have been seen
        ((STREAMED, STREAM, ResponseChunk(stream_of("one two three")[0], False, 0.0), GONE), 3),
    ],
)
def test_a_caller_who_hangs_up_pays_what_was_held_or_what_was_seen(
    events: tuple[Event, ...], output: int, mode: str
) -> None:
    if mode == "Monitor" and ResponseChunk(PIECE, False, 0.0) in events:
        pytest.skip("a watched response in one piece is not brought whole")
    assert play(bed("OutputTokens", "10000 tokens", mode), HEAD, *events) == pytest.approx(output, abs=1)


def test_a_request_that_did_not_leave_is_not_charged() -> None:
    """Envoy gave the call up before it heard that the request may go."""
    one = bed("OutputTokens", "10000 tokens")

    assert play(one, HEAD, BODY, Ended(0.0, cancelled=True, unsent=True)) == 0
    assert [(record.ended, record.cost_nano) for record in one.sink.records] == [("cancelled", 0)]


def test_calls_that_hang_up_fill_a_budget_as_others_do() -> None:
    one = bed("Cost", "0.0035 USD")

    for _ in range(12):
        play(one, HEAD, BODY, GONE)

    assert play(one, HEAD, BODY, GONE) > 3 * 100 * 10_000
    assert {record.reason for record in one.sink.records[4:]} == {"c_exceeded"}


def test_no_more_is_charged_than_was_granted() -> None:
    assert play(bed("OutputTokens", "30 tokens"), HEAD, BODY, GONE) == 30


def test_a_charge_by_expression_is_charged_as_it_was_held() -> None:
    counted = play(bed("{expression: double(response.output_tokens) * 2.0}", "'1000'"), HEAD, BODY, GONE)

    assert counted == 200_000_000  # millionths


@pytest.mark.parametrize("status", ["503", "504", "429"])
def test_a_call_that_no_upstream_served_is_not_charged(status: str) -> None:
    head = ResponseHeaders(((":status", status), ("content-type", "text/plain")), False, 0.0)

    assert play(bed("OutputTokens", "10000 tokens"), HEAD, BODY, head, GONE) == 0


def test_a_response_that_could_not_be_read_is_charged_what_was_held() -> None:
    counter = "counters:\n- {name: c, key: session.id, charge: OutputTokens, window: {lifetime: 1h}, limit: 500 tokens}"
    one = Bed(policy("failurePolicy: Ignore\n" + counter))

    assert play(one, HEAD, BODY, JSON, ResponseChunk(b"no json", True, 0.0), GONE) == 100


def test_the_record_says_what_was_charged() -> None:
    one = bed("Cost", "1 USD")
    charged = play(one, HEAD, BODY, GONE)
    record = one.sink.records[-1]

    assert (record.ended, record.cost_nano, record.usage["output_tokens"]) == ("cancelled", charged, 100)
    assert record.cost_confidence < 1.0


def test_an_event_stream_that_said_it_is_over_is_charged_its_own_numbers() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 7, "total_tokens": 11}}
    chunks = [ResponseChunk(sse(usage), False, 0.0)]

    assert play(bed("OutputTokens", "10000 tokens"), HEAD, STREAMED, STREAM, *chunks, GONE) == 7
