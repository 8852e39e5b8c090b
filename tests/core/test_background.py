"""Background responses: what they may cost stays held, and what they used is charged when they are fetched, once."""

from __future__ import annotations

import json

import pytest

from policyd.core.model.counters import NANO
from tests.driving import Bed, FlatPrices, Outcome, policy, sse

COUNTERS = """counters:
- {name: spend, key: caller.key, charge: Cost, window: {lifetime: 24h}, limit: 0.07 USD}
- {name: out, key: caller.key, charge: OutputTokens, window: {lifetime: 24h}, limit: 150000 tokens}
- {name: calls, key: caller.key, charge: Requests, window: {lifetime: 24h}}
"""
KEY = [("authorization", "Bearer sk-1")]
USAGE = {"input_tokens": 20, "output_tokens": 30, "total_tokens": 50}


def bed() -> Bed:
    return Bed(policy(COUNTERS), prices=FlatPrices("o3-pro", output=1_500))  # 50,000 tokens cost 0.075 USD


def response(status: str, *, usage: dict[str, int] | None = None, id: str = "resp_1") -> bytes:
    said = {"id": id, "object": "response", "status": status, "model": "o3-pro", "output": [], "usage": usage}
    return json.dumps({**said, "background": True}).encode()


def begin(
    bed: Bed, id: str = "resp_1", *, status: str = "queued", most: int = 50_000, background: bool = True
) -> Outcome:
    body = {"model": "o3-pro", "input": "x", "background": background, "max_output_tokens": most}
    return bed.call(body=json.dumps(body).encode(), path="/v1/responses", headers=KEY, chunks=[response(status, id=id)])


def fetch(bed: Bed, status: str = "completed", usage: dict[str, int] | None = None, id: str = "resp_1") -> Outcome:
    chunks = [response(status, usage=usage, id=id)]
    return bed.call(path=f"/v1/responses/{id}", method="GET", headers=KEY, chunks=chunks)


def spent(bed: Bed) -> dict[str, int]:
    return {one.name: value for one, value in bed.memory.snapshot().items() if one.policy == "default/p"}


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_what_it_may_cost_stays_held(status: str) -> None:
    rig = bed()
    reasons = [begin(rig, f"resp_{n}", status=status).record.reason for n in range(4)]
    assert reasons == ["", "spend_exceeded", "spend_exceeded", "spend_exceeded"]
    assert spent(rig) == {"calls": 1}


def test_what_was_used_is_charged_when_it_is_fetched_once() -> None:
    rig = bed()
    begun = begin(rig)
    assert (begun.record.cost_nano, begun.record.usage["output_tokens"]) == (0, 0)
    assert fetch(rig, "in_progress").record.cost_nano == 0
    assert spent(rig) == {"calls": 2}
    done = fetch(rig, usage=USAGE)
    assert (done.record.usage["output_tokens"], done.record.usage["source"]) == (30, "provider")
    price = done.record.cost_nano
    assert price > 0
    for _ in range(2):
        again = fetch(rig, usage=USAGE)
        assert again.record.cost_nano == 0
        rig.clock.advance(60)
    assert spent(rig) == {"spend": price, "out": 30, "calls": 5}
    assert price < NANO // 10
    assert begin(rig, "resp_2").record.reason == ""


def test_one_that_nobody_fetches_is_charged_what_was_held() -> None:
    rig = bed()
    begin(rig)
    rig.clock.advance(3601)
    held = spent(rig)
    assert held["out"] == 50_000 and held["spend"] > 0
    fetch(rig, usage=USAGE)
    assert spent(rig)["out"] == 30


def test_a_response_in_the_foreground_is_charged_at_once() -> None:
    rig = bed()
    body = {"model": "o3-pro", "input": "x", "max_output_tokens": 100}
    out = rig.call(
        body=json.dumps(body).encode(), path="/v1/responses", headers=KEY, chunks=[response("completed", usage=USAGE)]
    )
    assert out.record.usage["output_tokens"] == 30
    assert fetch(rig, usage=USAGE).record.cost_nano == 0
    assert spent(rig)["out"] == 30


def test_a_stream_that_ends_before_its_response_is_held() -> None:
    rig = bed()
    body = {"model": "o3-pro", "input": "x", "background": True, "stream": True, "max_output_tokens": 50_000}
    head = {"id": "resp_9", "object": "response", "status": "queued", "model": "o3-pro", "output": []}
    data = sse(
        {"type": "response.created", "response": head}, {"type": "response.queued", "response": head}, done=False
    )
    rig.call(body=json.dumps(body).encode(), path="/v1/responses", headers=KEY, chunks=[data])
    assert begin(rig).record.reason == "spend_exceeded"
    fetch(rig, usage=USAGE, id="resp_9")
    assert begin(rig).record.reason == ""
