"""Real clients, unmodified: the openai and anthropic SDKs, streaming and not, against a real Envoy.

They must parse every answer that policyd shapes, raise their own exceptions with its message, and not retry what
waiting cannot cure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from policyd.cli.emulator_answers import Wish, spoken
from policyd.cli.stage import Stage
from tests.envoy.stack import (
    SDKS,
    Sdk,
    policy,
    requests_seen,
    sent_body,
    stack,
    upstream_calls,
    wait_for_end,
)

pytestmark = pytest.mark.envoy

FALLBACK = "That is enough for today."
REFUSAL = "This team may not ask that."
CUT_AT = 8  # events that the rule sees before it matches

POLICIES = {
    "capped.yaml": policy("capped", "rules: [{name: short, constrain: {cap: {max_tokens: 5}}}]", team="capped"),
    "cut.yaml": policy(
        "cut",
        f"""\
        rules:
          - name: enough
            when: response.events >= {CUT_AT}
            terminate: {{reason: enough, fallback: "{FALLBACK}"}}
        """,
        team="cut",
    ),
    "denied.yaml": policy(
        "denied",
        f'rules: [{{name: no, terminate: {{status: 403, reason: denied, message: "{REFUSAL}"}}}}]',
        team="denied",
    ),
    "limited.yaml": policy(
        "limited",
        f'rules: [{{name: no, terminate: {{status: 429, reason: limited, message: "{REFUSAL}"}}}}]',
        team="limited",
    ),
    "away.yaml": policy(
        "away", f'rules: [{{name: no, terminate: {{status: 503, reason: away, message: "{REFUSAL}"}}}}]', team="away"
    ),
    "answered.yaml": policy(
        "answered",
        f'rules: [{{name: instead, terminate: {{status: 200, fallback: "{FALLBACK}"}}}}]',
        team="answered",
    ),
    "elsewhere.yaml": policy(
        "elsewhere", "rules: [{name: go, reroute: {model: small-model, upstream: backup}}]", team="elsewhere"
    ),
    "waiting.yaml": policy(
        "waiting",
        "counters: [{name: calls, key: request.dialect, charge: Requests, window: {lifetime: 2s}, limit: 1 requests}]",
        team="waiting",
    ),
    "quota.yaml": policy(
        "quota",
        "counters: [{name: tokens, key: session.id, charge: TotalTokens, window: {lifetime: 1h}, limit: 1 tokens}]",
        team="quota",
    ),
    "redacted.yaml": policy(
        "redacted",
        "rules: [{name: mask, constrain: {redact: {patterns: ['sec[a-z]{3}'], in: [response]}}}]",
        team="redacted",
    ),
}

each_sdk = pytest.mark.parametrize("sdk", SDKS, ids=str)
each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def up() -> Iterator[Stage]:
    with stack(POLICIES) as stage:
        yield stage


def words(count: int) -> str:
    """The first tokens of what the emulator says."""
    return "".join(spoken(Wish(events=count)))


@each_way
@each_sdk
def test_allowed(up: Stage, sdk: Sdk, stream: bool) -> None:
    answered = sdk.ask(up, "anybody", stream=stream, events="12")
    assert (answered.text, answered.stop, answered.model) == (words(12), sdk.end, sdk.model)
    assert upstream_calls(up)[-1].credentials, "a call that nobody reroutes keeps its credentials"


@each_way
@each_sdk
def test_tool_call(up: Stage, sdk: Sdk, stream: bool) -> None:
    assert sdk.ask(up, "redacted", stream=stream, events="1", tool="look", arguments="{}").tool == "look"


@each_way
@each_sdk
def test_constrained(up: Stage, sdk: Sdk, stream: bool) -> None:
    answered = sdk.ask(up, "capped", stream=stream, events="12")
    assert answered.text == words(5)
    assert sent_body(upstream_calls(up)[-1])["max_tokens"] == 5


@each_sdk
def test_cut_stream_ends_cleanly(up: Stage, sdk: Sdk) -> None:
    answered = sdk.ask(up, "cut", stream=True, events="60", interval_ms="20")
    heard = words(CUT_AT - 1 - sdk.before_text)
    assert answered.text.startswith(heard)
    assert answered.text.removeprefix(heard).strip() == FALLBACK
    call = wait_for_end(up, upstream_calls(up)[-1])
    assert call.closed_early
    assert call.events < CUT_AT + 3


@each_way
@each_sdk
@pytest.mark.parametrize(("team", "kind"), [("denied", "denied"), ("limited", "limited"), ("away", "broken")])
def test_rejected(up: Stage, sdk: Sdk, stream: bool, team: str, kind: str) -> None:
    reached, seen = len(upstream_calls(up)), requests_seen(up)
    with pytest.raises(getattr(sdk, kind)) as caught:
        sdk.ask(up, team, stream=stream)
    problem: Any = caught.value
    assert REFUSAL in problem.message
    assert problem.response.headers["x-should-retry"] == "false"
    assert problem.response.headers["x-policyd-decision"]
    assert requests_seen(up) == seen + 1, "the SDK has tried again what waiting cannot cure"
    assert len(upstream_calls(up)) == reached


@each_way
@each_sdk
def test_a_call_that_never_fits_is_not_retried(up: Stage, sdk: Sdk, stream: bool) -> None:
    seen = requests_seen(up)
    with pytest.raises(sdk.limited) as caught:
        sdk.ask(up, "quota", stream=stream)
    problem: Any = caught.value
    assert "retry-after" not in problem.response.headers
    assert requests_seen(up) == seen + 1


@each_way
@each_sdk
def test_a_refusal_that_waiting_cures_is_retried_in_time(up: Stage, sdk: Sdk, stream: bool) -> None:
    """The SDK waits as long as Retry-After says, and is then served."""
    sdk.ask(up, "waiting", stream=stream, events="3")
    seen = requests_seen(up)
    assert sdk.ask(up, "waiting", stream=stream, events="3").text == words(3)
    assert requests_seen(up) == seen + 2


@each_way
@each_sdk
def test_fallback_as_an_answer(up: Stage, sdk: Sdk, stream: bool) -> None:
    reached = len(upstream_calls(up))
    answered = sdk.ask(up, "answered", stream=stream)
    assert (answered.text, answered.stop) == (FALLBACK, sdk.refused)
    assert len(upstream_calls(up)) == reached


@each_way
@each_sdk
def test_rerouted(up: Stage, sdk: Sdk, stream: bool) -> None:
    answered = sdk.ask(up, "elsewhere", stream=stream, events="4")
    assert (answered.text, answered.model) == (words(4), "small-model")
    call = upstream_calls(up, "backup")[-1]
    assert call.credentials == []
    assert sent_body(call)["model"] == "small-model"


@each_way
@each_sdk
@pytest.mark.parametrize("chars", ["1", "4", "9"])
def test_redacted(up: Stage, sdk: Sdk, stream: bool, chars: str) -> None:
    """What is to be masked arrives in pieces; not one of its characters leaves."""
    answered = sdk.ask(up, "redacted", stream=stream, text="no%20secret%20here", token_chars=chars)
    assert (answered.text, answered.stop) == ("no [redacted] here", sdk.end)


@each_way
@each_sdk
def test_the_upstreams_own_error_passes(up: Stage, sdk: Sdk, stream: bool) -> None:
    with pytest.raises(sdk.denied, match="emulated status 403"):
        sdk.ask(up, "anybody", stream=stream, status="403")
