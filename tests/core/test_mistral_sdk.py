"""Mistral's own SDK parses what is left of Mistral's streams: redacted, cut by a rule, and those that were recorded."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from mistralai.client import Mistral
from mistralai.client.models import TextChunk

from tests.core.test_endings import chunk
from tests.core.test_private_keys import ARGUMENTS, LEFT, REDACT, TEXT, stream_of
from tests.recorded import CORPUS, MISSING, Lab, Stream, recorded
from tests.spoken import VOICES, Voice
from tests.streams import answering, sse

MISTRAL, PLAIN = VOICES["mistral"], VOICES["openai"]
CUT = """match: {{operations: ["*"]}}
rules: [{{name: r, when: response.events >= {at}, terminate: {{fallback: Stopped.}}}}]"""
USER: Any = [{"role": "user", "content": "hi"}]


def hear(body: bytes) -> dict[str, str]:
    """Texts and arguments by where they stand; the finish reason of each choice."""
    heard: dict[str, str] = defaultdict(str)
    client = Mistral(api_key="k", client=answering(body))
    with client.chat.stream(model="m", messages=USER) as events:
        for event in events:
            for choice in event.data.choices:
                _take(heard, choice)
    return heard


def _take(heard: dict[str, str], choice: Any) -> None:
    said = choice.delta.content
    parts = said if isinstance(said, list) else [TextChunk(text=said or "")]
    heard[f"text {choice.index}"] += "".join(part.text for part in parts if isinstance(part, TextChunk))
    for call in choice.delta.tool_calls or ():
        arguments = call.function.arguments
        heard[f"args {call.index}"] += arguments if isinstance(arguments, str) else json.dumps(arguments)
    if choice.finish_reason:
        heard[f"reason {choice.index}"] = choice.finish_reason


def says(voice: Voice) -> Stream:
    return stream_of("mistral", voice, voice.say(list(TEXT)))


@pytest.mark.parametrize("voice", [MISTRAL, PLAIN], ids=["parts", "strings"])
def test_a_redacted_stream_is_parsed(voice: Voice) -> None:
    stream = says(voice)
    assert hear(stream.data)["text 0"] == TEXT
    assert hear(Lab(REDACT).run(stream, [stream.data]).body) == {"text 0": LEFT, "reason 0": "stop"}


def calls() -> Stream:
    """As Mistral streams them: each call whole, in one event."""
    said = [chunk({"content": one}) for one in ("Let me ", "look.")]
    asked = [chunk({"tool_calls": [_call(index)]}) for index in (0, 1)]
    data = sse(*said, *asked, chunk({"content": ""}, "tool_calls"))
    return stream_of("mistral", MISTRAL, data)


def _call(index: int) -> dict[str, Any]:
    return {"id": f"call{index}", "index": index, "function": {"name": "f", "arguments": ARGUMENTS}}


def test_redacted_arguments_are_parsed() -> None:
    stream = calls()
    heard = hear(Lab(REDACT).run(stream, [stream.data]).body)
    assert [json.loads(heard[f"args {index}"]) for index in (0, 1)] == [{"k": LEFT, "n": 1}] * 2
    assert heard["text 0"] == "Let me look." and heard["reason 0"] == "tool_calls"


@pytest.mark.parametrize("voice", [MISTRAL, PLAIN], ids=["parts", "strings"])
@pytest.mark.parametrize("at", [1, 2, 5, 12])
def test_a_cut_stream_is_a_whole_answer(voice: Voice, at: int) -> None:
    stream = says(voice)
    out = Lab(CUT.format(at=at)).run(stream, [stream.data])
    heard = hear(out.body)
    assert out.record.ended == "cut" and heard["reason 0"]
    assert heard["text 0"].endswith("Stopped.") and TEXT.startswith(
        heard["text 0"].removesuffix("Stopped.").removesuffix("\n\n")
    )


@pytest.mark.parametrize("at", [3, 4, 5])
def test_a_cut_among_calls_is_a_whole_answer(at: int) -> None:
    stream = calls()
    heard = hear(Lab(CUT.format(at=at)).run(stream, [stream.data]).body)
    assert heard["text 0"] == "Let me look.\n\nStopped." and heard["reason 0"]
    assert [heard.get(f"args {index}") for index in (0, 1)] == [ARGUMENTS] * (at - 3) + [None] * (5 - at)


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.exists(), reason=MISSING)
def test_recorded_streams_are_parsed_redacted_and_cut() -> None:
    streams = [one for one in recorded() if one.host.endswith("mistral.ai")]
    assert streams
    vowels = Lab("rules: [{name: r, constrain: {redact: {patterns: ['[aeiou]'], in: [response]}}}]")
    for stream in streams:
        before, after = hear(stream.data), hear(vowels.run(stream, [stream.data]).body)
        assert after["text 0"] == "".join(map(_redacted, before["text 0"])) != before["text 0"]
        assert hear(Lab(CUT.format(at=3)).run(stream, [stream.data]).body)["text 0"].endswith("Stopped.")


def _redacted(char: str) -> str:
    return "[redacted]" if char in "aeiou" else char
