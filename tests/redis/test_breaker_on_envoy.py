"""The session circuit breaker that ships, whole, on a real Envoy, counting in a real Redis.

A session that has spent $2.00, or whose last three answers were more than 90 % alike, is stopped: its stream is ended,
its caller gets the fallback.
"""

from __future__ import annotations

import json
from pathlib import Path

import openai
import pytest

from tests.envoy.stack import ask_openai, stack, upstream_calls, wait_for_end
from tests.redis.servers import RedisServer

pytestmark = pytest.mark.envoy

LIBRARY = Path(__file__).parents[2] / "policies"
TEXT = (LIBRARY / "session-circuit-breaker" / "policy.yaml").read_text()
# Without the clamp, which would have the provider end the answer by itself where the budget ends.
POLICIES = {"breaker.yaml": TEXT.replace("mode: Monitor", "mode: Full").replace("      clamp: MaxTokens\n", "")}
SPENT = "This session has used its budget."
STEP = "I could not open the file, so I will try to open the same file once more and tell you what is in it. Step %d"


def test_the_breaker_stops_what_loops_and_what_has_spent_its_budget(redis_server: RedisServer, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    dear = {"model": "gpt-4o*", "input_per_mtok": 0, "output_per_mtok": 10_000}  # a cent a token
    prices.write_text(json.dumps({"models": [dear]}))
    serve = ("--redis", redis_server.url, "--prices", str(prices))
    with redis_server.client() as client:
        client.flushall()
    with stack(POLICIES, serve=serve) as first:
        ask_openai(first, "loops", text=STEP % 1, max_tokens=40)
        ask_openai(first, "loops", text=STEP % 2, max_tokens=40, stream=True)

        spent = ask_openai(first, "spends", stream=True, events="300", interval_ms="5")
        call = wait_for_end(first, upstream_calls(first)[-1])
        first.wait_for_records(3)

    assert spent.text.endswith(SPENT)
    # Two dollars are 200 tokens, by the estimate that holds until the provider counts: some 160 of these words.
    assert 120 <= len(spent.text.removesuffix(SPENT).split()) <= 220
    assert call.closed_early, "the provider must stop too"
    assert spent.stop is not None

    with stack(POLICIES, serve=serve) as second:  # another replica: what the first one counted and compared is in Redis
        with pytest.raises(openai.RateLimitError, match="rule spent of policy agents/session-circuit-breaker"):
            ask_openai(second, "spends")
        ask_openai(second, "works", text="Something that nobody has said before.", max_tokens=40)
        ask_openai(second, "loops", text=STEP % 3, max_tokens=40)
        second.wait_for_records(3)
        with pytest.raises(openai.RateLimitError, match="The last responses of this session were almost the same"):
            ask_openai(second, "loops", text=STEP % 4, stream=True)
        ask_openai(second, "works", text="And once more something else.", max_tokens=40)
        rules = second.wait_for_records(5)[-2]

    assert rules["reason"] == "session_repeats_itself"
