"""A policy for an upstream that the running Envoy has not: refused with its place, until an Envoy comes that has it."""

from __future__ import annotations

import httpx
import pytest

from policyd.cli.stage import Stage, staged
from tests.envoy.harness import binary
from tests.envoy.stack import NEWEST, policy, stack

pytestmark = pytest.mark.envoy

CALL = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


def away(upstream: str) -> str:
    return policy("away", f"rules: [{{name: go, when: caller.team == 'away', reroute: {{upstream: {upstream}}}}}]")


def without_it(config: str) -> str:
    """The configuration of an Envoy that came back with another upstream."""
    return config.replace("elsewhere", "otherwise")


def ready(stage: Stage) -> str:
    return httpx.get(f"http://127.0.0.1:{stage.admin}/readyz").text


def call(stage: Stage) -> int:
    return httpx.post(f"{stage.url}/v1/chat/completions", json=CALL, headers={"x-team-id": "away"}).status_code


def test_a_policy_that_envoy_cannot_carry_is_refused() -> None:
    with stack({"first.yaml": policy("first", "rules: [{name: no, when: request.stream, terminate: {}}]")}) as stage:
        assert call(stage) == 200  # with its first call Envoy tells its upstreams
        before = stage.digest()
        (stage.policies / "away.yaml").write_text(away("elsewhere"))
        stage.wait_until(lambda: "has no upstream `elsewhere`" in ready(stage), "the refusal on /readyz")
        assert "away.yaml:" in ready(stage)
        assert stage.digest() == before
        assert call(stage) == 200
        stage.put_policy("away.yaml", away("backup"))
        assert "refused" not in ready(stage)
        assert call(stage) == 200


def test_a_policy_that_was_there_before_envoy_stays_and_is_spoken_of() -> None:
    more = ("--upstream", "elsewhere=http://127.0.0.1:9")
    policies = {"away.yaml": away("elsewhere")}
    with staged(policies, envoy=binary(NEWEST), bootstrap=more, configured=without_it) as stage:
        assert call(stage) == 503
        assert "has no upstream `elsewhere`" in ready(stage)
        assert "in force all the same" in ready(stage)
        stage.put_policy("other.yaml", policy("other", "rules: [{name: no, when: request.stream, terminate: {}}]"))
        assert call(stage) == 503
