"""A private key, streamed a character an event, in every language: not one piece of it reaches the client.

Rule 1: looked for in every string that leaves, put together by where it stands, and in the numbers that name tokens.
"""

from __future__ import annotations

import base64
import json
import re
from collections import defaultdict
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from tests.hearing import HEAR
from tests.recorded import Lab, Stream
from tests.sizes import long
from tests.spoken import VOICES, Voice
from tests.streams import cuts

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEvQ+zX9kWvUqJ4bLc7\nhT2pYdGfR6sNaE1oCj8=\n-----END RSA PRIVATE KEY-----"
LABELS = ("EC ", "OPENSSH ", "ENCRYPTED ", "")  # in the place of `RSA `
TEXT = f"Here: {KEY} done."
ARGUMENTS = json.dumps({"k": TEXT, "n": 1})
LEFT = "Here: [redacted] done."
REDACT = """match: {operations: ["*"]}
rules:
- {name: r, constrain: {redact: {detectors: [private_key], in: [response]}}}"""
END = """match: {operations: ["*"]}
rules:
- {name: t, when: 'response.text.matches("-----BEGIN [A-Z ]{0,20}PRIVATE KEY")', terminate: {fallback: Stopped.}}
- {name: a, when: 'response.tool_calls.exists(t, t.arguments.matches("-----BEGIN [A-Z ]{0,20}PRIVATE KEY"))',
   terminate: {fallback: Stopped.}}"""
PIECES = {KEY[at : at + 4] for at in range(len(KEY) - 3)} - {"----", "---\n", "\n---"}


# ---- what leaves, without policyd -----------------------------------------------------------------------------------


def documents(body: bytes, kind: str) -> list[Any]:
    if "amazon" in kind:
        buffer = EventStreamBuffer()
        buffer.add_data(body)
        payloads = [json.loads(event.payload) for event in buffer]
        return [json.loads(base64.b64decode(one["bytes"])) if "bytes" in one else one for one in payloads]
    if "event-stream" in kind:
        return [json.loads(line[5:]) for line in body.decode().split("\n") if re.match(r"data: ?[\[{](?!DONE)", line)]
    if "json" in kind and "ndjson" not in kind and "stream" not in kind:
        return list(json.loads(body))
    return [json.loads(line) for line in body.decode().split("\n") if line.strip()]


def gathered(value: Any, path: str, into: dict[str, list[Any]]) -> None:
    """Strings and numbers by where they stand, places in lists left out."""
    if isinstance(value, dict):
        for key, below in value.items():
            into[f"{path}{{}}"].append(key)
            gathered(below, f"{path}.{key}", into)
    elif isinstance(value, list):
        for below in value:
            gathered(below, path, into)
    elif isinstance(value, (str, int)) and not isinstance(value, bool):
        into[path].append(value)


def leaks(body: bytes, kind: str) -> dict[str, str]:
    """What of the key can be put together from what stands at one place of all events."""
    into: dict[str, list[Any]] = defaultdict(list)
    for document in documents(body, kind):
        gathered(document, "", into)
    found = {}
    for path, values in into.items():
        numbers = all(isinstance(one, int) and (one == 10 or 32 <= one < 127) for one in values) and len(values) > 3
        text = "".join(map(chr, values)) if numbers else "".join(str(one) for one in values)
        if any(piece in text or piece in "".join(text.split("\n")) for piece in PIECES):
            found[path] = text
    return found


def stream_of(name: str, voice: Voice, data: bytes) -> Stream:
    return Stream(name, voice.dialect, voice.path, voice.host, json.dumps(voice.body).encode(), voice.kind, data)


def outs(lab: Lab, stream: Stream) -> bytes:
    """What leaves: the same however it came."""
    bodies = {lab.run(stream, chunks).body for chunks in cuts(stream.data, 2)}
    assert len(bodies) == 1
    return bodies.pop()


@pytest.fixture(scope="module")
def redacting() -> Lab:
    return Lab(REDACT)


@pytest.fixture(scope="module")
def ending() -> Lab:
    return Lab(END)


SPEAKING = list(VOICES)
CALLING = [name for name, voice in VOICES.items() if voice.call is not None]


@pytest.mark.parametrize("name", SPEAKING)
def test_it_is_taken_out_of_text(name: str, redacting: Lab) -> None:
    voice = VOICES[name]
    stream = stream_of(name, voice, voice.say(list(TEXT)))
    assert leaks(stream.data, stream.kind)
    body = outs(redacting, stream)
    assert leaks(body, stream.kind) == {}
    heard = HEAR[voice.dialect.name](body, stream.kind)
    assert {text for place, text in heard.items() if place.startswith("text")} == {LEFT}


@long
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("name", SPEAKING[:3])
def test_every_kind_is_taken_out_of_text(name: str, label: str, redacting: Lab) -> None:
    voice = VOICES[name]
    stream = stream_of(name, voice, voice.say(list(TEXT.replace("RSA ", label))))
    heard = HEAR[voice.dialect.name](outs(redacting, stream), stream.kind)
    assert {text for place, text in heard.items() if place.startswith("text")} == {LEFT}


@pytest.mark.parametrize("name", CALLING)
def test_it_is_taken_out_of_arguments(name: str, redacting: Lab) -> None:
    voice = VOICES[name]
    assert voice.call is not None
    stream = stream_of(name, voice, voice.call(list(ARGUMENTS)))
    assert leaks(stream.data, stream.kind)
    body = outs(redacting, stream)
    assert leaks(body, stream.kind) == {}
    heard = HEAR[voice.dialect.name](body, stream.kind)
    calls = [json.loads(text) for place, text in heard.items() if place.startswith("args")]
    assert calls == [{"k": LEFT, "n": 1}]


@pytest.mark.parametrize("name", SPEAKING)
def test_it_ends_a_text_before_it_begins(name: str, ending: Lab) -> None:
    voice = VOICES[name]
    stream = stream_of(name, voice, voice.say(list(TEXT)))
    body = outs(ending, stream)
    assert leaks(body, stream.kind) == {} and b"-----" not in body
    heard = HEAR[voice.dialect.name](body, stream.kind)
    said = "".join(text for place, text in heard.items() if place.startswith("text"))
    assert said in ("Here: \n\nStopped.", "Here: \n\nStopped.Here: \n\nStopped.")
    assert ending.bed.sink.records[0].ended == "cut"


@pytest.mark.parametrize("name", CALLING)
def test_it_ends_a_call_before_it_begins(name: str, ending: Lab) -> None:
    voice = VOICES[name]
    assert voice.call is not None
    stream = stream_of(name, voice, voice.call(list(ARGUMENTS)))
    body = outs(ending, stream)
    assert leaks(body, stream.kind) == {} and b"-----" not in body and b'"f"' not in body
    heard = HEAR[voice.dialect.name](body, stream.kind)
    assert not any(text for place, text in heard.items() if place.startswith("args"))
    assert "".join(heard.values()).endswith("Stopped.")
