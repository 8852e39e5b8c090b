"""`request.detections["card"]` and `response.detections["card"]`: how often a detector finds something."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.core.compile.policyset import Phase
from policyd.core.model.decision import Outcome as Said
from policyd.core.model.detectors import DETECTOR_NAMES
from policyd.core.stream.detections import Finds, count_finds
from policyd.core.stream.dialects import Segment
from tests.driving import Bed, Outcome, answer_of, chat, delta, policy, sse, stream_of
from tests.expressions import compiled, problems
from tests.sizes import size
from tests.worlds import RUNNER

CARD, MAIL, KEY = "4111 1111 1111 1111", "joe@example.org", "-----BEGIN PRIVATE KEY-----"


def bed(when: str, more: str = "", action: str = "terminate: {status: 451, fallback: STOPPED}") -> Bed:
    return Bed(policy(f"rules: [{{name: r, when: {json.dumps(when)}, {action}}}]{more}"))


def call(when: str, *, prompt: str = "hello", chunks: Sequence[bytes] = (), stream: bool = False) -> Outcome:
    return RUNNER.run(bed(when).acall(chat(prompt, stream=stream), chunks=chunks or (answer_of("fine"),)))


# ---- the language ---------------------------------------------------------------------------------------------------

READS = [
    'request.detections["card"] > 0',
    "request.detections.card > 0",
    'request.detections[?"card"].orValue(7) == 1',
    "request.detections.?card.orValue(7) == 1",
    'has(request.detections.card) && request.detections["card"] == 1',
    'int(request.detections["card"]) * 2 >= 2',
]


@pytest.mark.parametrize("when", READS)
def test_a_count_is_read_by_the_name_of_its_detector(when: str) -> None:
    assert compiled(when).reads == {"request.detections.card"}
    assert call(when, prompt=f"my card is {CARD}").rule("r").outcome is Said.MATCHED
    assert call(when, prompt="my card").rule("r").outcome is Said.NOT_MATCHED


@pytest.mark.parametrize("name", DETECTOR_NAMES)
def test_a_detector_that_found_nothing_reads_0(name: str) -> None:
    both = f'request.detections["{name}"] == 0 && response.detections["{name}"] == 0'
    assert call(both).rule("r").outcome is Said.MATCHED


WRONG = [
    ('request.detections["crad"] > 0', "unknown detector `crad`", "did you mean `card`?"),
    ("response.detections.emial > 0", "unknown detector `emial`", "did you mean `email`?"),
    ('request.detections["nothing like it"] > 0', "unknown detector", "there are `"),
    ("request.detections.size() > 0", "is read with the constant name", 'detections["card"] > 0'),
    ("request.detections.exists(k, k == 'card')", "is read with the constant name", "request.detections"),
    ("'card' in response.detections", "is read with the constant name", "response.detections"),
    ("request.detections[request.model] > 0", "is read with the constant name", "request.detections"),
    ("has(request.detections)", "is read with the constant name", "request.detections"),
    ("request.?detections.?card.orValue(0) > 0", "is read with the constant name", "request.detections"),
    ("request.detections == response.detections", "is read with the constant name", "request.detections"),
]


@pytest.mark.parametrize(("source", "message", "hint"), WRONG)
def test_any_other_use_is_an_issue(source: str, message: str, hint: str) -> None:
    found = problems(source)[0]
    assert message in found.message
    assert hint in found.hint


def test_when_it_can_be_judged() -> None:
    request, response = (compiled(f'{root}.detections["card"] > 0') for root in ("request", "response"))
    assert (request.monotone, response.monotone) == (True, True)
    rules = {one.name: one for one in bed('response.detections["card"] > 0').policy_set.policies[0].rules}
    assert rules["r"].phase is Phase.RESPONSE
    assert rules["r"].hold_back > 15


# ---- the request ----------------------------------------------------------------------------------------------------


def test_every_string_of_the_request_counts() -> None:
    body = json.loads(chat(f"{CARD} and {MAIL}"))
    body["tools"] = [{"type": "function", "function": {"name": "f", "description": f"ask {MAIL}"}}]
    body["metadata"] = {"who": MAIL}
    out = RUNNER.run(bed('request.detections["email"] == 3').acall(json.dumps(body).encode()))
    assert out.rule("r").outcome is Said.MATCHED
    assert dict(out.record.detections["request"]) == {"email": 3}


def test_only_named_detectors_run_and_are_recorded() -> None:
    out = call('request.detections["card"] > 5 || response.detections["email"] > 5', prompt=f"{CARD} {MAIL}")
    assert dict(out.record.detections["request"]) == {"card": 1}
    assert dict(out.record.detections["response"]) == {"email": 0}
    assert not call("request.model == 'o3'", prompt=CARD).record.detections["request"]


def test_a_request_that_cannot_be_read_has_no_counts() -> None:
    out = RUNNER.run(bed('request.detections["card"] > 0').acall(b'{"model": '))
    assert out.rule("r").outcome is Said.ERRORED
    assert not out.record.detections["request"]


# ---- the response ---------------------------------------------------------------------------------------------------

PIECES = ["your card is ", "4111 ", "1111 1111 ", "1111", " and ", "that is all"]


def streamed(when: str, pieces: Sequence[str]) -> Outcome:
    return call(when, chunks=stream_of(*pieces), stream=True)


def test_a_card_is_cut_before_any_of_it_leaves() -> None:
    out = streamed('response.detections["card"] > 0', PIECES)
    assert out.rule("r").outcome is Said.MATCHED
    assert out.record.event == 4  # where no digit can follow any more
    assert out.text == "your card is \n\nSTOPPED"


def test_a_find_at_the_end_is_complete_when_the_text_is() -> None:
    out = streamed('response.detections["card"] > 0', PIECES[:4])
    assert out.record.event == 4  # the finish
    assert out.text == "your card is \n\nSTOPPED"
    unfinished = [*(sse(delta(text), done=False) for text in PIECES[:4])]
    out = call('response.detections["card"] > 0', chunks=unfinished, stream=True)
    assert out.rule("r").outcome is Said.MATCHED
    assert "1111" not in out.text


def test_counts_grow_one_find_at_a_time() -> None:
    pieces = [f"{MAIL} ", "and ", f"also {MAIL}", ", ", "done"]
    assert streamed('response.detections["email"] >= 2', pieces).record.event == 3
    out = streamed('response.detections["email"] >= 3', pieces)
    assert (out.rule("r").outcome, out.record.event) == (Said.NOT_MATCHED, None)
    assert dict(out.record.detections["response"]) == {"email": 2}
    assert out.text == "".join(pieces)


def test_what_looks_like_a_card_and_is_none_leaves() -> None:
    pieces = ["number 4111 ", "1111 1111 1112", " is no card"]
    out = streamed('response.detections["card"] > 0', pieces)
    assert (out.rule("r").outcome, out.text) == (Said.NOT_MATCHED, "".join(pieces))


def test_a_whole_response_counts_the_same() -> None:
    for pieces in (PIECES, PIECES[:4]):
        out = call('response.detections["card"] == 1', chunks=[answer_of("".join(pieces))])
        assert (out.rule("r").outcome, out.record.status) == (Said.MATCHED, 451)


def test_arguments_of_tool_calls_count() -> None:
    def part(arguments: str, **more: object) -> dict[str, object]:
        call = {"index": 0, "function": {"arguments": arguments}, **more}
        return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}

    first = part('{"to": "joe@', id="t1", type="function")
    first["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] = "mail"  # type: ignore[index]
    chunks = [sse(first, done=False), sse(part('example.org"}'), done=False), sse(delta("", "tool_calls"))]
    out = call('response.detections["email"] > 0', chunks=chunks, stream=True)
    assert out.rule("r").outcome is Said.MATCHED
    assert b"example.org" not in out.body


TEXTS = st.lists(
    st.sampled_from((CARD, "4111", " ", "1111 ", MAIL, "@example.org", ".", "joe", KEY, "\n", "é", "x")),
    max_size=10,
)


@settings(max_examples=size(200), deadline=None)
@given(TEXTS, st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_counts_do_not_depend_on_how_a_text_is_cut(words: list[str], sizes: list[int]) -> None:
    text, names = "".join(words), ("card", "email", "private_key")
    whole = count_finds(text, names)
    finds, before = Finds({}), dict.fromkeys(names, 0)
    finds.look_for(names)
    at = 0
    while at < len(text):
        size = sizes[at % len(sizes)]
        finds.take([Segment(("text", 0, 0), (), text[at : at + size])], ())
        at += size
        assert all(finds.counts[name] >= before[name] for name in names)
        before = dict(finds.counts)
    finds.finish()
    assert finds.counts == whole


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_the_event_of_a_cut_does_not_depend_on_the_network(words: list[str], sizes: list[int]) -> None:
    body = b"".join(stream_of(*words))
    when = 'response.detections["card"] + response.detections["email"] > 1'
    whole = call(when, chunks=[body], stream=True)
    chunks, at = [], 0
    while at < len(body):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(body[at : at + size])
        at += size
    cut = call(when, chunks=chunks, stream=True)
    assert (cut.record.event, cut.body, cut.rule("r")) == (whole.record.event, whole.body, whole.rule("r"))
