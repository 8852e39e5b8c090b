"""Limits as callers meet them: what is counted, when to come back, and the headers that say so."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from tests.driving import Bed, Outcome, answer_of, chat, policy, stream_of
from tests.fakes import EPOCH

SESSION = ("x-session-id", "s")
WINDOWS = ("lifetime: 10m", "idle: 10m", "sliding: 10m", "calendar: Day, timeZone: Europe/Paris")


def counter(name: str, charge: str, window: str, limit: str, more: str = "") -> str:
    return f"- {{name: {name}, key: session.id, charge: {charge}, window: {{{window}}}, limit: {limit}{more}}}"


def counting(*counters: str, mode: str = "Full", rules: str = "") -> Bed:
    return Bed(policy("counters:\n" + "\n".join(counters) + "\n" + rules, mode=mode))


def ask(bed: Bed, **how: object) -> Outcome:
    return bed.call(**{"body": chat(), "chunks": [answer_of("x")], "headers": [SESSION], **how})


def headers(out: Outcome) -> dict[str, str]:
    assert out.rejected is not None
    return dict(out.rejected.headers)


# ---- what is counted ------------------------------------------------------------------------------------------------

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 20},
}


@pytest.mark.parametrize(
    ("charge", "counted"),
    [
        ("Requests", 1),
        ("TotalTokens", 150),
        ("InputTokens", 100),  # cached included
        ("OutputTokens", 50),  # reasoning included
        ("CachedInputTokens", 40),
        ("ReasoningTokens", 20),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_each_class_of_tokens_counts_as_the_provider_bills_it(charge: str, counted: int, streams: bool) -> None:
    unit = "requests" if charge == "Requests" else "tokens"
    bed = counting(counter("c", charge, WINDOWS[0], f"1000 {unit}"))
    if streams:
        end = b"data: " + json.dumps({"id": "c1", "choices": [], "usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n"
        *events, last = stream_of("a", "b")
        ask(bed, body=chat(stream=True), chunks=[*events, last.replace(b"data: [DONE]\n\n", end)])
    else:
        ask(bed, chunks=[json.dumps({**json.loads(answer_of("ab")), "usage": USAGE}).encode()])
    assert list(bed.memory.snapshot().values()) == [counted]


# ---- when to come back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("charge", "limit"), [("Requests", "3 requests"), ("TotalTokens", "40 tokens")])
def test_retry_after_is_the_time_until_the_refused_call_fits(window: str, charge: str, limit: str) -> None:
    bed = counting(counter("c", charge, window, limit))
    for _ in range(3):
        assert ask(bed).rejected is None
        bed.clock.advance(70)
    after = int(headers(ask(bed))["retry-after"])
    bed.clock.advance(after - 1.5)
    assert ask(bed).rejected is not None, "not before"
    bed.clock.advance(1.5)
    assert ask(bed).rejected is None, "and then it fits"


def test_who_is_refused_by_two_limits_is_told_to_wait_for_both() -> None:
    bed = counting(
        counter("few", "Requests", "lifetime: 10s", "1 requests"),
        counter("many", "Requests", "lifetime: 50s", "1 requests"),
    )
    ask(bed)
    out = ask(bed)
    assert out.record.reason == "few_exceeded"
    assert headers(out)["retry-after"] == "50"


def test_what_a_rule_answers_in_another_way_need_not_be_waited_for() -> None:
    moves = "rules: [{name: move, when: counters.many.exceeded, reroute: {model: mini}}]"
    bed = counting(
        counter("few", "Requests", "lifetime: 10s", "1 requests"),
        counter("many", "Requests", "lifetime: 50s", "1 requests"),
        rules=moves,
    )
    ask(bed)
    assert headers(ask(bed))["retry-after"] == "10"


def test_waiting_does_not_help_where_one_of_the_limits_never_has_room() -> None:
    bed = counting(
        counter("few", "Requests", "lifetime: 10s", "1 requests"),
        counter("small", "TotalTokens", "lifetime: 50s", "1 tokens"),
    )
    out = ask(bed)
    assert "retry-after" not in headers(out)
    assert headers(out)["x-should-retry"] == "false"


# ---- headers --------------------------------------------------------------------------------------------------------


def limits_in(found: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in found.items() if "ratelimit" in name}


def both(**more: object) -> Bed:
    return counting(
        counter("calls", "Requests", "lifetime: 2h", "2 requests"),
        counter("wide", "Requests", "lifetime: 3h", "100 requests"),
        counter("tokens", "TotalTokens", "lifetime: 90s", "1000 tokens"),
        counter("input", "InputTokens", "lifetime: 90s", "500 tokens"),
        counter("money", "OutputTokens", "lifetime: 90s", "600 tokens", ", onExceeded: Continue"),
        **more,  # type: ignore[arg-type]
    )


def test_a_refusal_carries_openais_headers_with_true_numbers() -> None:
    bed = both()
    ask(bed)
    ask(bed)
    bed.clock.advance(30)
    assert limits_in(headers(ask(bed))) == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1h59m30s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "970",
        "x-ratelimit-reset-tokens": "1m0s",
    }


def test_a_refusal_carries_anthropics_headers_with_true_numbers() -> None:
    bed = both()
    asked = b'{"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}'
    said = (
        b'{"id": "m", "type": "message", "role": "assistant", "model": "claude-x", "content": [{"type": "text", '
        b'"text": "hi"}], "stop_reason": "end_turn", "usage": {"input_tokens": 10, "output_tokens": 5}}'
    )
    outs = [ask(bed, body=asked, path="/v1/messages", chunks=[said]) for _ in range(3)]
    found = limits_in(headers(outs[-1]))
    assert {name: value for name, value in found.items() if "reset" not in name} == {
        "anthropic-ratelimit-requests-limit": "2",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-tokens-limit": "1000",
        "anthropic-ratelimit-tokens-remaining": "970",
        "anthropic-ratelimit-input-tokens-limit": "500",
        "anthropic-ratelimit-input-tokens-remaining": "480",
    }
    reset = datetime.fromisoformat(found["anthropic-ratelimit-requests-reset"].replace("Z", "+00:00")).timestamp()
    assert 7200 <= reset - EPOCH <= 7201


def test_other_dialects_and_other_refusals_carry_none() -> None:
    bed = counting(counter("c", "Requests", WINDOWS[0], "1 requests"))
    asked = b'{"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}'
    path = "/v1beta/models/gemini-pro:generateContent"
    outs = [ask(bed, body=asked, path=path, chunks=[b"{}"]) for _ in range(2)]
    assert "retry-after" in headers(outs[-1]) and not limits_in(headers(outs[-1]))

    ruled = counting(
        counter("c", "Requests", WINDOWS[0], "9 requests"), rules="rules: [{name: no, terminate: {status: 403}}]"
    )
    assert not limits_in(headers(ask(ruled)))


@pytest.mark.parametrize("mode", ["Monitor", "Full"])
def test_an_answer_that_passes_keeps_the_providers_own(mode: str) -> None:
    theirs = [("content-type", "application/json"), ("x-ratelimit-remaining-requests", "59")]
    out = ask(both(mode=mode), response_headers=theirs)
    assert not limits_in(out.response_headers)
