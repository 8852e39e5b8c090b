"""A rule is errored only where its value depends on what cannot be judged, by CEL's own logic."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from policyd.adapters.counters_memory import MemoryCounters
from policyd.core.model.decision import Outcome as Said
from tests.driving import Bed, Outcome, answer_of, chat, policy, sse, stream_of
from tests.fakes import FakeClock, FaultyCounters

TORN = b'{"model": "gpt-4o", "messages": ['
RED = [("x-team-id", "red")]
GZIP = [("content-type", "application/json"), ("content-encoding", "compress")]
BAD_JSON = [b'{"choices": [']
DAMAGED = [sse({"choices": [{"index": 0, "delta": {"content": "bad"}}]}, done=False), b"data: {oops\n\n"]
LEVELS = {True: Said.MATCHED, False: Said.NOT_MATCHED, None: Said.ERRORED}


def spec(when: str, *, action: str = "terminate: {status: 451}", more: str = "") -> str:
    return f"{more}\nrules: [{{name: r, when: {json.dumps(when)}, {action}}}]"


def call(
    when: str,
    *,
    body: bytes = chat(),
    chunks: Sequence[bytes] = (answer_of("fine"),),
    store: bool = True,
    **how: object,
) -> Outcome:
    mode, more, action = (how.pop(name, None) for name in ("mode", "more", "action"))
    text = spec(when, action=str(action or "terminate: {status: 451}"), more=str(more or ""))
    counters = None if store else FaultyCounters.down(MemoryCounters(FakeClock()))
    bed = Bed(policy(text, mode=str(mode or "Full")), counters=counters)
    return bed.call(body=body, chunks=list(chunks), **{"headers": RED, **how})


REQUEST = [  # over a request whose body cannot be read, sent by team red
    ('caller.team == "blue" && request.text.contains("x")', False),
    ('request.text.contains("x") && caller.team == "blue"', False),
    ('caller.team == "red" && request.text.contains("x")', None),
    ('caller.team == "red" || request.text.contains("x")', True),
    ('request.text.contains("x") || caller.team == "red"', True),
    ('caller.team == "blue" || request.text.contains("x")', None),
    ('caller.team == "red" ? true : request.stream', True),
    ('caller.team == "red" ? request.stream : true', None),
    ('!(caller.team == "red") && has(request.max_tokens)', False),
    ("has(request.max_tokens)", None),
    ("request.?max_tokens.orValue(1) == 1", None),
    ('["red", "blue"].exists(t, t == caller.team || t == request.model)', True),
    ('["red", "blue"].all(t, t == caller.team && t == request.model)', False),
    ("request.messages.exists(m, true)", None),
    ("request.messages.size() == 0", None),
    ('dyn(request) == dyn(request) && caller.team == "blue"', False),
    ('caller.team == "red"', True),
]


@pytest.mark.parametrize(("when", "value"), REQUEST)
def test_over_a_request_that_cannot_be_read(when: str, value: bool | None) -> None:
    out = call(when, body=TORN)
    assert out.rule("r").outcome is LEVELS[value]
    assert (out.rejected is None) == (value is False)
    if value is None:
        assert out.rule("r").reason.startswith("request not readable: ")


@pytest.mark.parametrize(("when", "value"), REQUEST)
def test_the_same_of_a_match_condition(when: str, value: bool | None) -> None:
    more = f"matchConditions: [{{name: m, expression: {json.dumps(when)}}}]"
    text = f"{more}\nrules: [{{name: r, terminate: {{status: 451}}}}]"
    out = Bed(policy(text)).call(body=TORN, chunks=[answer_of("fine")], headers=RED)
    assert (out.rejected.status if out.rejected else None) == {True: 451, False: None, None: 503}[value]
    if value is None:
        assert out.rule("r").reason.startswith("matchCondition m: request not readable: ")


RESPONSE = [
    ('caller.team == "blue" && response.text.contains("y")', False),
    ('caller.team == "red" && response.text.contains("y")', None),
    ('caller.team == "red" || response.text.contains("y")', True),
    ('response.text.matches("y+") && request.model == "o3"', False),
    ("response.output_tokens > 100 && request.stream && !request.stream", False),
    ('response.tool_calls.exists(c, c.name == "x") && caller.team == "blue"', False),
    ('response.tool_calls.exists(c, c.name == "x") && caller.team == "red"', None),
    ('response.inspection != "full" && caller.team == "red"', True),
    ('response.inspection != "full" && caller.team == "blue"', False),
    ("response.status == 200 && response.text == ''", None),
    ("response.status == 404 && response.text == ''", False),
]


@pytest.mark.parametrize(("when", "value"), RESPONSE)
@pytest.mark.parametrize("how", [{"response_headers": GZIP}, {"chunks": BAD_JSON}, {"chunks": DAMAGED}])
def test_over_a_response_that_cannot_be_read(when: str, value: bool | None, how: dict[str, object]) -> None:
    out = call(when, **how)  # type: ignore[arg-type]
    assert out.rule("r").outcome is LEVELS[value]
    if value is None:
        assert out.rule("r").reason.startswith("answer not readable: ")
        assert out.record.enforced


def test_text_that_was_seen_before_the_damage_is_seen() -> None:
    assert (
        call('response.text.contains("bad") && response.events > 1', chunks=DAMAGED).rule("r").outcome is Said.ERRORED
    )
    assert call('response.text.contains("bad")', chunks=DAMAGED).rule("r").outcome is Said.MATCHED
    when = 'response.text.contains("bad") && (response.inspection != "full" || request.stream)'
    assert call(when, chunks=DAMAGED).rule("r").outcome is Said.MATCHED
    when = 'response.text.matches("bad$") && response.inspection != "full"'  # more text may follow
    assert call(when, chunks=DAMAGED).rule("r").outcome is Said.ERRORED


COUNTER = "counters: [{name: c, key: caller.team, charge: Requests, window: {lifetime: 1h}, limit: 9 requests, %s}]"
COUNTERS = [
    ('caller.team == "blue" && counters.c.value > 1', False),
    ('caller.team == "red" && counters.c.value > 1', None),
    ('caller.team == "red" || counters.c.value > 1', True),
    ("counters.c.available", False),
    ("counters.c.limit == 9 && !counters.c.available", True),
    ("counters.c.exceeded && counters.c.available", False),
    ("counters.c.exceeded", None),
    ('session.calls > 1 && caller.team == "blue"', False),
    ('session.calls > 1 && caller.team == "red"', None),
]


@pytest.mark.parametrize(("when", "value"), COUNTERS)
def test_over_a_store_that_is_down(when: str, value: bool | None) -> None:
    out = call(when, store=False, more=COUNTER % "onExceeded: Continue")
    assert out.rule("r").outcome is LEVELS[value]
    if value is None:
        assert out.rule("r").reason.split(":")[0] in ("counter c", "session")


def test_a_key_fails_only_where_it_depends_on_the_body() -> None:
    key = "'caller.team == \"red\" ? caller.team : request.model'"
    text = (
        f"counters: [{{name: c, key: {key}, charge: Requests, window: {{lifetime: 1h}}, limit: 9 requests}}]\nrules: []"
    )
    bed = Bed(policy(text))
    assert bed.call(body=TORN, chunks=[answer_of("fine")], headers=RED).rejected is None
    out = bed.call(body=TORN, chunks=[answer_of("fine")])
    assert out.rejected is not None
    assert "request not readable" in out.rule("c.exceeded").reason


def test_a_text_that_depends_on_the_body_is_the_plain_one() -> None:
    said = "terminate: {message: plain, messageExpression: 'caller.team + \" \" + string(request.messages.size())'}"
    out = call('caller.team == "red"', body=TORN, action=said)
    assert out.rejected is not None
    assert b"plain" in out.rejected.body


HOPELESS = [  # whatever the response is, there is no value
    "response.output_tokens > request.max_tokens",
    "request.messages.exists(m, m.text == response.text)",
    'caller.team == "red" && response.output_tokens > request.max_tokens',
    'caller.team == "blue" || response.output_tokens > request.max_tokens',
    'caller.team == "red" ? request.model == response.model : response.text == "x"',
    "!(request.model == response.model)",
]
HOPEFUL = [  # for some responses there is one
    'request.model == "o3" && response.text.contains("y")',
    'request.model == "o3" || response.text.contains("y")',
    'caller.team == "blue" && response.output_tokens > request.max_tokens',
    'caller.team == "blue" ? request.model == response.model : response.text == "x"',
    'response.text == "y" ? request.stream : true',
]


@pytest.mark.parametrize("when", HOPELESS)
def test_a_rule_that_cannot_be_judged_whatever_comes_refuses_before_the_call_leaves(when: str) -> None:
    out = call(when, body=TORN)
    assert (out.sent, out.record.status) == (None, 503)
    assert out.rule("r").outcome is Said.ERRORED


@pytest.mark.parametrize("when", HOPEFUL)
def test_any_other_rule_waits_for_the_response(when: str) -> None:
    assert call(when, body=TORN).sent == TORN


def test_a_rule_that_the_response_decides_is_judged_over_it() -> None:
    when = 'request.model == "o3" && response.text.contains("y")'
    assert call(when, body=TORN, chunks=[answer_of("no")]).rule("r").outcome is Said.NOT_MATCHED
    assert call(when, body=TORN, chunks=stream_of("no", "n")).rule("r").outcome is Said.NOT_MATCHED
    out = call(when, body=TORN, chunks=[answer_of("yes")])
    assert (out.rule("r").outcome, out.record.status) == (Said.ERRORED, 503)


REDACT = "constrain: {redact: {patterns: ['bad'], in: [response]}}"


def test_a_redaction_errs_where_it_would_apply_and_cannot_be_done() -> None:
    for how in ({"response_headers": GZIP}, {"chunks": BAD_JSON}, {"chunks": DAMAGED}):
        assert call('caller.team == "red"', action=REDACT, **how).rule("r").outcome is Said.ERRORED  # type: ignore[arg-type]
        assert call('caller.team == "blue"', action=REDACT, **how).rule("r").outcome is Said.NOT_MATCHED  # type: ignore[arg-type]
        when = 'caller.team == "blue" && response.status == 200'
        assert call(when, action=REDACT, **how).rule("r").outcome is Said.NOT_MATCHED  # type: ignore[arg-type]


def test_a_redaction_that_began_errs_when_the_rest_cannot_be_read() -> None:
    """Its condition was true of an event that is gone: it need not be true again."""
    out = call("response.events == 1", action=REDACT, chunks=DAMAGED)
    assert out.rule("r").outcome is Said.ERRORED
    assert b"bad" not in out.body


BOTH = [  # over a request that says `bad`, and any response
    ('request.content.contains("bad") || response.content.contains("bad")', True),
    ('response.content.contains("bad") || request.content.contains("bad")', True),
    ('request.text.contains("bad") ? true : response.text.contains("bad")', True),
    ('response.status == 500 || caller.team == "red"', True),
    ('response.elapsed_ms > 5.0 || request.model == "gpt-4o"', True),
    ('response.text.contains("x") || counters.c.value >= 0.0', True),
    ('response.text.contains("x") || counters.c.exceeded || caller.team == "red"', True),
    ('["a", "bad"].exists(one, request.text.contains(one) || response.text.contains(one))', True),
    ('variables.either', True),
    ('request.content.contains("bad") && response.content.contains("bad")', False),
    ('request.content.contains("good") || response.content.contains("bad")', False),
    ('caller.team == "blue" || response.status == 200', False),
    ('response.text.contains("x") || counters.c.exceeded', False),
]  # fmt: skip
NAMED = """counters: [{name: c, key: caller.team, charge: Requests, window: {lifetime: 1h}}]
variables: [{name: either, expression: 'request.text.contains("bad") || response.text.contains("bad")'}]
"""


@pytest.mark.parametrize(("when", "foreseen"), BOTH)
def test_what_is_true_of_any_response_rejects_the_request(when: str, foreseen: bool) -> None:
    out = call(when, body=chat("so bad"), more=NAMED)
    assert (out.sent is None) == foreseen
    if foreseen:
        assert out.rejected is not None and out.rejected.status == 451
        assert (out.record.ended, out.record.phase) == ("rejected", "request")


@pytest.mark.parametrize(("when", "foreseen"), BOTH)
def test_under_monitor_it_is_recorded_once(when: str, foreseen: bool) -> None:
    out = call(when, body=chat("so bad"), more=NAMED, mode="Monitor")
    assert out.rejected is None and [one.rule for one in out.record.rules].count("r") == 1
    assert (out.record.would == "terminate") or not foreseen
