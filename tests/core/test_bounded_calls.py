"""Tool calls in many events, and many tool calls: memory and time grow with the bytes, not with their square."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import pytest

from policyd.core.model.decision import Outcome
from policyd.core.model.growing import Growing
from policyd.core.stream.dialects.open_calls import OpenCalls
from tests.driving import Bed, chat, policy
from tests.driving import Outcome as Driven
from tests.growth import LINEAR, grows, peak
from tests.spoken import VOICES, Voice

READS_ARGUMENTS = """rules:
- {name: r, when: 'response.tool_calls.exists(t, t.arguments.contains("forbidden"))', terminate: {fallback: no}}"""


def pieces(count: int, last: str = "ab") -> list[str]:
    """The arguments of a tool, as JSON, in so many pieces."""
    return ['{"text": "', *["word"] * (count - 2), f'{last}"}}']


def ask(bed: Bed, voice: Voice, data: bytes) -> Driven:
    kind = (("content-type", voice.kind),)
    body = json.dumps(voice.body).encode()
    return bed.call(body=body, path=voice.path, host=voice.host, chunks=[data], response_headers=kind)


def voices() -> list[object]:
    return [pytest.param(voice, id=name) for name, voice in VOICES.items() if voice.call is not None]


@pytest.mark.parametrize("voice", voices())
def test_memory_of_a_held_call_grows_with_its_length(voice: Voice) -> None:
    assert voice.call is not None
    bed = Bed(policy(READS_ARGUMENTS))
    data = {size: voice.call(pieces(size)) for size in (1000, 2000)}
    ask(bed, voice, data[1000])  # what is loaded once

    once, twice = (peak(partial(ask, bed, voice, data[size])) for size in (1000, 2000))

    assert twice < 2.6 * once
    assert twice < 16 * len(data[2000]) + 2_000_000


def test_time_of_a_held_call_grows_with_its_length() -> None:
    bed, voice = Bed(policy(READS_ARGUMENTS)), VOICES["openai"]
    assert voice.call is not None
    data = {size: voice.call(pieces(size)) for size in (2000, 4000)}

    assert grows(lambda size: ask(bed, voice, data[size]), 2000) < LINEAR


@pytest.mark.parametrize("voice", voices())
def test_a_match_in_the_last_piece_is_found(voice: Voice) -> None:
    assert voice.call is not None

    out = ask(Bed(policy(READS_ARGUMENTS)), voice, voice.call(pieces(50, last="forbidden")))

    assert out.record.verdict == "terminate"
    assert b"word" not in out.body


def call(place: int, **function: str) -> bytes:
    delta = {"tool_calls": [{"index": place, "id": f"t{place}", "type": "function", "function": function}]}
    document = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    return f"data: {json.dumps(document)}\n\n".encode()


FINISH = (
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n'
)


def calls(count: int) -> bytes:
    return b"".join([*(call(place, name="f", arguments='{"a": 1}') for place in range(count)), FINISH])


@pytest.mark.parametrize(("count", "reason"), [(256, ""), (257, "policy_error"), (2000, "policy_error")])
def test_calls_beyond_the_bound_cannot_be_judged(count: int, reason: str) -> None:
    out = Bed(policy(READS_ARGUMENTS)).call(body=chat(stream=True), chunks=[calls(count)])

    assert out.record.reason == reason
    assert ("bound tool_calls" in str(out.record)) == bool(reason)


def test_calls_beyond_the_bound_pass_where_failures_are_ignored() -> None:
    data = calls(300)

    out = Bed(policy("failurePolicy: Ignore\n" + READS_ARGUMENTS)).call(body=chat(stream=True), chunks=[data])

    assert out.body == data
    assert out.record.degraded


def test_a_response_in_one_piece_has_the_same_bound() -> None:
    function = {"name": "f", "arguments": "{}"}
    message = {"role": "assistant", "tool_calls": [{"id": f"t{n}", "function": function} for n in range(257)]}
    document = {"id": "c", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    out = Bed(policy(READS_ARGUMENTS)).call(body=chat(), chunks=[json.dumps(document).encode()])

    assert out.record.reason == "policy_error"


@pytest.mark.parametrize(
    ("when", "event"),
    [
        ('response.tool_calls.exists(t, t.name == "f")', 0),  # a name is judged where it comes
        ('response.tool_calls.exists(t, t.arguments.contains("a"))', 3),  # arguments when the call is complete
        ('response.tool_calls.exists(t, !t.arguments.contains("a"))', 0),
        ("response.tool_calls.size() > 1", 2),
    ],
)
def test_where_a_rule_on_tool_calls_is_judged(when: str, event: int) -> None:
    spec = f"rules:\n- {{name: r, when: '{when}', terminate: {{}}}}"
    data = [call(0, name="f", arguments=""), call(0, arguments='{"a"'), call(1, name="g", arguments=":1}"), FINISH]

    assert Bed(policy(spec)).call(body=chat(stream=True), chunks=data).record.event == event


def test_a_call_that_never_ends_is_judged_at_the_end_of_the_body() -> None:
    data = [call(0, name="f", arguments='{"a": "forbidden')]

    out = Bed(policy(READS_ARGUMENTS)).call(body=chat(stream=True), chunks=data)

    assert out.rule("r").outcome == Outcome.MATCHED
    assert b"forbidden" not in out.body


# ---- the journal ----------------------------------------------------------------------------------------------------


def grown(steps: Sequence[tuple[str, str]]) -> tuple[OpenCalls[str], list[int]]:
    journal: OpenCalls[str] = OpenCalls()
    texts: dict[str, Growing] = {}
    places = [journal.at]
    for key, piece in steps:
        if piece == "close":
            journal.close(key)
            texts.pop(key, None)
        else:
            text = texts.setdefault(key, Growing())
            text.add(piece)
            journal.grew(key, text)
        places.append(journal.at)
    return journal, places


def test_the_journal_knows_every_place_of_the_stream() -> None:
    steps = [("a", ""), ("a", "x"), ("b", "1"), ("a", "y"), ("a", "close"), ("b", "2"), ("a", "new")]
    journal, places = grown(steps)

    assert [journal.half(at) for at in places] == [
        {},
        {"a": ""},
        {"a": "x"},
        {"a": "x", "b": "1"},
        {"a": "xy", "b": "1"},
        {"b": "1"},
        {"b": "12"},
        {"b": "12", "a": "new"},
    ]
