"""A program can tell a call that a policy ended from one that ended by itself, and which rule did it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Ending
from tests.driving import Bed, chat, policy, stream_of
from tests.spoken import VOICES

ORIGIN = {"decision": "d", "policy": "p", "rule": "r", "reason": "why"}
WORDS = {  # dialect -> what `refusal`, `length` and `stop` are in its own words
    "openai.chat": ("content_filter", "length", "stop"),
    "openai.completions": ("content_filter", "length", "stop"),
    "openai.responses": ("content_filter", "max_output_tokens", "completed"),
    "anthropic.messages": ("refusal", "max_tokens", "end_turn"),
    "anthropic.complete": ("refusal", "max_tokens", "stop_sequence"),
    "gemini.generate": ("SAFETY", "MAX_TOKENS", "STOP"),
    "bedrock.converse": ("content_filtered", "max_tokens", "end_turn"),
    "cohere.chat": ("ERROR", "MAX_TOKENS", "COMPLETE"),
    "cohere.generate": ("ERROR_TOXIC", "MAX_TOKENS", "COMPLETE"),
    "ollama.chat": ("content_filter", "length", "stop"),
    "ollama.generate": ("content_filter", "length", "stop"),
    "huggingface.text": ("content_filter", "length", "eos_token"),
}
ONE_VOICE = {voice.dialect.name: voice for voice in reversed(VOICES.values())}


@pytest.mark.parametrize("dialect", sorted(WORDS))
@pytest.mark.parametrize(("at", "finish"), list(enumerate(("refusal", "length", "stop"))))
def test_each_dialect_has_its_own_words(dialect: str, at: int, finish: str) -> None:
    voice = ONE_VOICE[dialect]
    request = RequestFacts(path=voice.path.partition("?")[0], model="m", stream=True)
    reader = voice.dialect.reader(request, ResponseFacts(status=200, headers={"content-type": voice.kind}))
    data = reader.ending(Ending("no", finish, ORIGIN)).decode("utf-8", "replace")
    assert f'"{WORDS[dialect][at]}"' in data
    assert '"policyd":{"decision":"d","policy":"p","rule":"r","reason":"why"}' in data.replace(" ", "")
    whole = voice.dialect.completion(RequestFacts(path=request.path, stream=False), Ending("no", finish, ORIGIN), "i")
    assert b'"policyd"' in whole.data
    assert b'"policyd"' in voice.dialect.error(403, "why", "no", Ending(origin=ORIGIN)).data


def cut(terminate: str, *texts: str) -> list[dict[str, Any]]:
    """The events of a chat stream that a rule cuts at the word `stop`."""
    rule = f"rules: [{{name: r, when: 'response.text.contains(\"stop\")', terminate: {{{terminate}}}}}]"
    out = Bed(policy(rule)).call(body=chat(stream=True), chunks=stream_of(*texts))
    blocks = out.body.decode().split("\n\n")
    return [json.loads(block[6:]) for block in blocks if block.startswith("data: {")]


@pytest.mark.parametrize(
    ("terminate", "finish"),
    [
        ("", "content_filter"),
        ("finish: length", "length"),
        ("finish: stop", "stop"),
        ("finish: refusal", "content_filter"),
    ],
)
def test_a_cut_stream_says_how_and_why_it_ends(terminate: str, finish: str) -> None:
    events = cut(terminate, "one ", "two ", "stop", " three")
    assert events[-1]["choices"][0]["finish_reason"] == finish
    assert events[-1]["policyd"].keys() == {"decision", "policy", "rule", "reason"}
    assert (events[-1]["policyd"]["policy"], events[-1]["policyd"]["rule"]) == ("p", "r")
    assert events[-1]["policyd"]["reason"] == "r"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("one ", "stop"), "one \n\nEnough."),  # a blank line after text that was shown
        (("stop",), "Enough."),  # none where nothing was
    ],
)
def test_the_fallback_stands_behind_a_blank_line(texts: tuple[str, ...], said: str) -> None:
    events = cut('fallback: "Enough."', *texts)
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == said


def test_a_rejected_call_names_its_rule_in_a_sentence() -> None:
    out = Bed(policy("rules: [{name: r, terminate: {}}]")).call(body=chat())
    error = json.loads(out.body)["error"]
    assert error["message"] == "The call was stopped by rule r of policy default/p."
    assert (error["code"], error["policyd"]["rule"], error["policyd"]["policy"]) == ("r", "r", "p")


def test_a_limit_that_is_reached_names_itself_in_a_sentence() -> None:
    spec = "counters: [{name: n, key: caller.team, charge: Requests, window: {lifetime: 1h}, limit: 0 requests}]"
    out = Bed(policy(spec + "\nrules: [{name: never, when: 'false', terminate: {}}]")).call(
        body=chat(), headers=[("x-team-id", "a")]
    )
    error = json.loads(out.body)["error"]
    assert error["message"] == "The limit of 0 requests of counter n in policy default/p has been reached."
    assert error["policyd"]["rule"] == "n.exceeded"
