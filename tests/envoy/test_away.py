"""While policyd or a provider cannot be reached, Envoy's own 503 has a body in the provider's shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from policyd.adapters.envoy.local_replies import SHAPES
from policyd.cli.emulator import Emulator
from policyd.cli.stage import Stage, stop
from policyd.core.stream.dialects import registry
from tests.envoy.harness import VERSIONS, free_port
from tests.envoy.stack import policy, stack

pytestmark = pytest.mark.envoy

PATHS = {
    "/v1/chat/completions": "openai.chat",
    "/v1/responses": "openai.chat",
    "/v1/completions": "openai.chat",
    "/v1/embeddings": "openai.chat",
    "/openai/deployments/d/chat/completions?api-version=1": "openai.chat",
    "/v1/messages": "anthropic.messages",
    "/v1/messages?beta=true": "anthropic.messages",
    "/v1/messages/count_tokens": "anthropic.messages",
    "/v1/complete": "anthropic.messages",
    "/v1/projects/p/locations/l/publishers/anthropic/models/c:streamRawPredict": "anthropic.messages",
    "/v1beta/models/g:generateContent": "gemini.generate",
    "/v1beta/models/g:streamGenerateContent?alt=sse": "gemini.generate",
    "/v1beta/models/g:countTokens": "gemini.generate",
    "/model/amazon.nova-pro-v1%3A0/converse-stream": "bedrock.converse",
    "/model/amazon.nova-pro-v1%3A0/invoke": "bedrock.converse",
    "/v2/chat": "openai.chat",
}
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
POLICIES = {
    "own.yaml": policy("own", "rules: [{name: no, terminate: {status: 503, reason: own}}]", team="own"),
    "lost.yaml": policy("lost", "rules: [{name: go, reroute: {upstream: lost}}]", team="lost"),
    "read.yaml": policy("read", "rules: [{name: r, when: 'response.text.contains(\"never\")', terminate: {}}]"),
}


@pytest.fixture(scope="module", params=VERSIONS)
def up(request: pytest.FixtureRequest) -> Iterator[Stage]:
    lost = ("--upstream", f"lost=127.0.0.1:{free_port()}")
    with stack(POLICIES, version=request.param, providers=[Emulator("openai")], bootstrap=lost) as stage:
        yield stage


def shape(answer: httpx.Response) -> str:
    """The dialect whose error this is."""
    said = answer.json()
    if said.get("type") == "error":
        return "anthropic.messages"
    if "x-amzn-errortype" in answer.headers:
        return "bedrock.converse"
    return "gemini.generate" if "details" in said["error"] else "openai.chat"


def test_every_shape_has_a_path() -> None:
    assert {name for name, _ in SHAPES} == set(PATHS.values())
    assert {name for name, _ in SHAPES} <= {dialect.name for dialect in registry.DIALECTS}


def test_bodies_of_envoys_own(up: Stage) -> None:
    """In one test: policyd is stopped in it."""
    own = httpx.post(up.url + "/v1/chat/completions", json=BODY, headers={"x-team-id": "own"})
    assert (own.status_code, own.json()["error"]["code"]) == (503, "own")  # policyd's rejections keep their bodies
    assert "retry-after" not in own.headers
    lost = httpx.post(up.url + "/v1/chat/completions", json=BODY, headers={"x-team-id": "lost"})
    assert lost.status_code == 503 and "policyd_unavailable" not in lost.text  # the upstream is the cause
    assert up.policyd is not None
    stop(up.policyd)
    for path, dialect in PATHS.items():
        answer = httpx.post(up.url + path, json=BODY)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), path
        assert answer.headers["content-type"] == "application/json"
        assert "policyd_unavailable" in answer.text and shape(answer) == dialect, (path, answer.text)
