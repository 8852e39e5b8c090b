"""Text that goes on after the provider said that it was over: clients append it, so it is judged and redacted with it.

Rule 1: each event that follows the text of a stream, and all of them, may stand between two pieces of the text.
Rule 2: what is redacted and what is forbidden is held back as it is without such an event.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.attempts.attempt import holds
from tests.attempts.ends import events_of, interrupted
from tests.driving import Bed, Outcome, policy
from tests.spoken import VOICES, Voice
from tests.streams import cuts, sse

HEAD, TAIL = "zug", "zwang"
REDACT = "rules: [{name: hide, constrain: {redact: {patterns: [zugzwang], in: [response]}}}]"
TERMINATE = "terminate: {fallback: stop}"
RULES = {
    "redacted": REDACT,
    "redacted by whoever can": "failurePolicy: Ignore\n" + REDACT,
    "forbidden content": f"rules: [{{name: no, when: 'response.content.contains(\"zugzwang\")', {TERMINATE}}}]",
    "forbidden text": f"rules: [{{name: no, when: 'response.text.contains(\"zugzwang\")', {TERMINATE}}}]",
}


def call(voice: Voice, spec: str, chunks: list[bytes]) -> Outcome:
    body = json.dumps({"stream": True, **voice.body}).encode()
    kind = (("content-type", voice.kind),)
    return Bed(policy('match: {operations: ["*"]}\n' + spec)).call(
        body=body, path=voice.path, chunks=chunks, response_headers=kind, step_s=0.0, host=voice.host
    )


CASES = [
    pytest.param(voice, data, id=f"{name}, {what}")
    for name, voice in VOICES.items()
    if name not in ("gemini array", "openai choices")  # events that do not stand alone; texts that are both the word
    for what, data in interrupted(voice, HEAD, TAIL)
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("voice", "events"), CASES)
def test_an_end_between_two_pieces_ends_nothing(voice: Voice, events: list[bytes], rule: str) -> None:
    out = call(voice, RULES[rule], events)
    assert not holds(out.body, TAIL)
    assert not holds(out.body, HEAD) or out.record.reason == "policy_error" or says_it_twice(voice, rule)


def says_it_twice(voice: Voice, rule: str) -> bool:
    """Together's text stands in a second field, which response.text does not have."""
    return voice is VOICES["together"] and rule == "forbidden text"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", [name for name in VOICES if name not in ("gemini array", "openai choices")])
def test_an_end_behind_every_character(name: str, rule: str) -> None:
    """However the bytes come, the same is released, and nothing of the word."""
    voice = VOICES[name]
    (out,) = {call(voice, RULES[rule], chunks).body for chunks in cuts(b"".join(with_ends(voice, HEAD + TAIL)), 3)}
    assert not holds(out, TAIL) and not holds(out, "zu")


def with_ends(voice: Voice, word: str) -> list[bytes]:
    """The word, a character in an event, and behind each the events that may follow a text."""
    events, short = events_of(voice, voice.say(list(word))), events_of(voice, voice.say(["~"]))
    head = next(place for place, raw in enumerate(short) if holds(raw, "~"))
    ends = [end for end in short[head + 1 :] if not holds(end, "~")]
    spoken = [one for raw in events[head : head + len(word)] for one in (raw, *ends)]
    return [*events[:head], *spoken, *events[head + len(word) :]]


# ---- chat, as gateways send it --------------------------------------------------------------------------------------


def chunk(text: str, reason: str | None, index: int = 0) -> dict[str, Any]:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def texts_in(body: bytes) -> str:
    documents = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: {")]
    return "".join(one["delta"].get("content") or "" for document in documents for one in document["choices"])


DETECT = "rules: [{name: hide, constrain: {redact: {detectors: [card, email], in: [response]}}}]"
FORBID = """rules:
- {name: no, when: 'response.text.contains("make plutonium now")', terminate: {fallback: stopped}}"""


@pytest.mark.parametrize("reason", ["", "stop", "null", "length", None])
def test_a_finish_reason_with_every_character(reason: str | None) -> None:
    said = "pay 4111 1111 1111 1111 to joe@example.org ok"
    for data in cuts(sse(*(chunk(one, reason) for one in said)), 3):
        assert texts_in(call(VOICES["openai"], DETECT, data).body) == "pay [redacted] to [redacted] ok"
    for data in cuts(sse(*(chunk(one, reason) for one in "please make plutonium now")), 3):
        out = call(VOICES["openai"], FORBID, data)
        assert texts_in(out.body) == "please \n\nstopped" and out.record.verdict == "terminate"


def test_an_empty_finish_reason_is_none() -> None:
    """Some gateways send it with every piece of a text."""
    rule = 'response.inspection != "full" || (response.finish_reasons.size() > 0 && response.text != "hello")'
    spec = f"rules:\n- {{name: no, when: '{rule}', terminate: {{fallback: stopped}}}}"
    data = sse(*(chunk(one, "") for one in "hello"), chunk("", "stop"))
    assert call(VOICES["openai"], spec, [data]).body == data


def test_an_ordinary_end_waits_for_nothing() -> None:
    """A text that nothing could follow up is released with its event, and so is the finish reason."""
    bed = Bed(policy(DETECT))
    events = [sse(one, done=False) for one in (chunk("Hello there. ", None), chunk("", "stop"))]
    body = json.dumps({"stream": True, **VOICES["openai"].body}).encode()
    kind = (("content-type", "text/event-stream"),)
    out = bed.call(body=body, chunks=events, response_headers=kind, finish=False)
    assert out.body == b"".join(events)
