"""A real Envoy, policyd as a process, counters in a real Redis: the official SDK spends a session's budget."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.envoy.stack import ask_openai, policy, stack, upstream_calls
from tests.redis.servers import RedisServer

pytestmark = pytest.mark.envoy

POLICIES = {
    "budget.yaml": policy(
        "budget",
        """\
        counters:
          - {name: calls, key: session.id, charge: Requests, window: {lifetime: 1h}, limit: 3 requests}
        """,
    )
}


def test_a_session_has_its_calls_and_no_more_whichever_process_counts(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.flushall()
        with stack(POLICIES, serve=("--redis", redis_server.url)) as first:
            for _ in range(2):
                ask_openai(first, "a")
        keys: Any = client.keys("pd:{default}:*")
        assert any(b":c:" in key for key in keys)
        with stack(POLICIES, serve=("--redis", redis_server.url)) as second:
            ask_openai(second, "a")
            with pytest.raises(openai.RateLimitError):
                ask_openai(second, "a")
            assert len(upstream_calls(second)) == 1
            ask_openai(second, "another")
