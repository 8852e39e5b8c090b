"""Recorded traffic of the providers that speak their own language: read as it came, and read damaged.

What is expected is found in the raw bodies, without policyd.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from policyd.adapters.recordings import Recording, read_recordings
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Dialect, Reading, Segment, registry
from policyd.core.stream.framing import framing_of
from policyd.core.stream.json_text import loads
from tests.streams import Read, cuts, read_stream

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "recorded"
FAMILIES = ("ollama", "cohere", "gemini", "bedrock", "mcp", "anthropic.complete", "huggingface")

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason="the recorded traffic in ../shared/corpus is not here"),
]


@cache
def calls(family: str) -> tuple[tuple[Recording, Dialect], ...]:
    """The recorded calls that a dialect of this family understands."""
    found = []
    for path in sorted(CORPUS.rglob("*.yaml")):
        for one in read_recordings(path):
            headers = {":authority": one.host, **dict(one.headers)}
            dialect, _, _ = registry.choose(one.method, one.path, one.host, headers)
            if dialect is not None and f"{dialect.name}.".startswith(f"{family}."):
                found.append((one, dialect))
    return tuple(found)


def body_of(one: Recording) -> bytes:
    return b"".join(data for _, data in one.chunks)


def kind_of(one: Recording) -> str:
    return dict(one.response_headers).get("content-type", "")


def streams(one: Recording) -> bool:
    return framing_of(kind_of(one), "", asked=False) is not None


def request_of(one: Recording, dialect: Dialect) -> RequestFacts:
    facts = RequestFacts(path=one.path.partition("?")[0])
    dialect.read_request(loads(one.body), facts)
    return facts


def read(one: Recording, dialect: Dialect) -> Read:
    request = request_of(one, dialect)
    if streams(one):
        return read_stream(dialect, [body_of(one)], request, kind_of(one))
    response = ResponseFacts(status=one.status, headers=dict(one.response_headers))
    reader = dialect.reader(request, response)
    return Read(response, reader, readings=[reader.read_json(loads(body_of(one)))])


# ---- what the bodies say, found without policyd ---------------------------------------------------------------------


def documents(one: Recording) -> list[Any]:
    body = body_of(one)
    if "amazon.eventstream" in kind_of(one):
        buffer = EventStreamBuffer()
        buffer.add_data(body)
        return [_message(event.headers[":event-type"], json.loads(event.payload)) for event in buffer]
    if "event-stream" in kind_of(one):
        lines = [line[5:].strip() for line in body.decode().splitlines() if line.startswith("data:")]
        return [json.loads(line) for line in lines if line != "[DONE]"]
    if streams(one):
        return [json.loads(line) for line in body.splitlines() if line.strip()]
    whole = json.loads(body)
    return whole if isinstance(whole, list) else [whole]


def _message(name: str, payload: Any) -> Any:
    return json.loads(base64.b64decode(payload["bytes"])) if name == "chunk" else {name: payload}


def found(value: Any, *keys: str) -> list[Any]:
    """Every value under one of these keys, in order; guardrails tell the text again, so not within a trace."""
    out: list[Any] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        if key in keys:
            out.append(below)
        elif key not in ("trace", "amazon-bedrock-trace", "chat_history", "prompt"):
            out += found(below, *keys)
    return out


TEXTS = ("text", "content", "generated_text", "response", "outputText", "completion", "generation")
REASONS = ("done_reason", "finish_reason", "finishReason", "stopReason", "stop_reason", "completionReason")


def expected_text(one: Recording) -> str:
    pieces: list[str] = []
    for document in documents(one):
        if document.get("event_type") == "stream-end" or "citation" in str(document.get("type")):
            continue
        document = {key: value for key, value in document.items() if key not in ("citations", "details")}
        if isinstance(document.get("message"), dict):
            document["message"] = {key: value for key, value in document["message"].items() if key != "citations"}
        pieces += _texts(document)
    return "".join(pieces)


def _texts(document: Any) -> list[str]:
    said = []
    for value in found(document, *TEXTS):
        said += [value] if isinstance(value, str) else _texts(value)
    return said


def expected_reasons(one: Recording) -> list[str]:
    reasons = []
    for document in documents(one):
        if document.get("event_type") == "stream-end":
            document = document["response"]
        for value in found(document, *REASONS):
            reasons.append(value["reason"] if isinstance(value, dict) else value)
    return [reason for reason in reasons if reason]


def expected_calls(one: Recording) -> list[str]:
    names = []
    for document in documents(one):
        for value in found(document, "tool_calls", "toolUse", "functionCall", "tool_use"):
            names += [name for name in found(value if isinstance(value, list) else [value], "name") if name]
    return names


HEADERS = (
    "x-amzn-bedrock-input-token-count",
    "x-amzn-bedrock-cache-read-input-token-count",
    "x-amzn-bedrock-cache-write-input-token-count",
    "x-amzn-bedrock-output-token-count",
)


def expected_usage(one: Recording) -> tuple[int, int] | None:
    """(input, output) as the bill has them: billed units, AWS' own metrics, else what the body names."""
    headers = dict(one.response_headers)
    if HEADERS[0] in headers:
        return sum(int(headers.get(name, 0)) for name in HEADERS[:3]), int(headers[HEADERS[3]])
    given: int | None = None
    made = 0
    for document in documents(one):
        for usage in found(document, "billed_units", "amazon-bedrock-invocationMetrics", "usage", "usageMetadata"):
            usage = usage.get("billed_units", usage)
            names = ("input_tokens", "inputTokens", "inputTokenCount", "promptTokenCount")
            names += ("cacheReadInputTokens", "cacheWriteInputTokens")
            given = sum(int(usage.get(name, 0)) for name in names) or given
            outs = ("output_tokens", "outputTokens", "outputTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
            made = sum(int(usage.get(name, 0)) for name in outs) or made
        if "eval_count" in document:  # a prompt that Ollama had in its cache is left out
            given, made = document.get("prompt_eval_count", 0), document["eval_count"]
        if "inputTextTokenCount" in document and given is None:
            given, made = int(document["inputTextTokenCount"]), int(document.get("totalOutputTextTokenCount", 0))
    return None if given is None else (given, made)


# ---- the checks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_recorded_answers_are_understood_whole(family: str) -> None:
    for one, dialect in calls(family):
        got = read(one, dialect).response
        assert (got.inspection, got.partial_reason) == ("full", ""), one.source
        assert got.is_error == (one.status >= 400), one.source
        if got.is_error:
            continue
        usage = expected_usage(one)
        assert (got.usage_source == "provider") == (usage is not None), one.source
        if usage is not None:
            assert (got.input_tokens, got.output_tokens) == usage, one.source
        if dialect.name.endswith(".embed"):
            assert got.all_text() == ""
            continue
        assert got.all_text() == expected_text(one), one.source
        assert got.finish_reasons == expected_reasons(one), one.source
        assert [call.name for call in got.tool_calls] == expected_calls(one), one.source


def recorded_streams() -> Iterator[tuple[Recording, Dialect]]:
    for family in FAMILIES:
        yield from ((one, dialect) for one, dialect in calls(family) if streams(one))


def test_recorded_streams_read_the_same_however_they_are_cut() -> None:
    for one, dialect in recorded_streams():
        request, data = request_of(one, dialect), body_of(one)
        whole = read_stream(dialect, [data], request, kind_of(one))
        for chunks in cuts(data, 3):
            again = read_stream(dialect, chunks, request, kind_of(one))
            assert again.response == whole.response, one.source
            assert again.readings == whole.readings, one.source
            assert again.marks == whole.marks, one.source


def editable(reading: Reading) -> list[Segment]:
    return [one for one in reading.segments if one.text and one.channel[0] not in ("veil", "veiled") and not one.name]


def test_every_editable_text_stands_where_its_segment_says() -> None:
    """An edit that puts another text in every place changes those texts and nothing else."""
    for one, dialect in recorded_streams():
        framing = framing_of(kind_of(one), dialect.name, asked=True)
        assert framing is not None
        got = read_stream(dialect, [body_of(one)], request_of(one, dialect), kind_of(one))
        for event, reading in zip(got.events, got.readings, strict=True):
            same = [(segment.path, segment.text) for segment in editable(reading)]
            assert len(dict(same)) == len(same), one.source
            other = framing.edit(event.raw, [(path, f"{text}!") for path, text in same])
            changed = read_stream(dialect, [other], request_of(one, dialect), kind_of(one))
            said = [segment.text for segment in editable(changed.readings[0])] if same else []
            if not changed.readings[0].malformed:
                assert said == [f"{text}!" for _, text in same], one.source


def damages(one: Recording, got: Read, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """The same stream damaged in ways that a reader must notice."""
    raws = [event.raw for event in got.events if event.data != "[DONE]"]
    place = chance.randrange(len(raws))
    before, raw, after = b"".join(raws[:place]), raws[place], b"".join(raws[place + 1 :])
    yield "cut off", b"".join(raws[: len(raws) // 2])
    yield "an event cut short", before + raw[: len(raw) - chance.randrange(2, 9)]
    if "amazon.eventstream" in kind_of(one):
        at = chance.randrange(len(raw))
        yield "a flipped bit", before + raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :] + after
        return
    yield "broken json", before + raw.replace(b"{", b"{,", 1) + after
    odd = b'event: invented\ndata: {"type":"invented","event_type":"invented","x":"y"}\n\n'
    yield "an invented event", before + (odd if "event-stream" in kind_of(one) else odd[22:-1]) + raw + after


def test_damaged_streams_are_partial() -> None:
    chance = random.Random(1)
    for one, dialect in recorded_streams():
        request = request_of(one, dialect)
        whole = read_stream(dialect, [body_of(one)], request, kind_of(one))
        for what, data in damages(one, whole, chance):
            got = judged(dialect, data, request, kind_of(one))
            assert got.inspection == "partial", f"{what}: {one.source}"


def judged(dialect: Dialect, data: bytes, request: RequestFacts, kind: str) -> ResponseFacts:
    """As the exchange reads it: what the framing finds wrong counts too."""
    from policyd.core.errors import Malformed
    from policyd.core.stream.dialects.shared import mark_partial

    response = ResponseFacts(status=200, headers={"content-type": kind})
    reader = dialect.reader(request, response)
    framing = framing_of(kind, dialect.name, asked=True)
    assert framing is not None
    try:
        events = framing.feed(data)
        left = framing.finish()
        events += [left] if left is not None else []
    except Malformed as failure:
        mark_partial(response, failure.reason)
        return response
    for event in events:
        if not event.complete or event.malformed:
            mark_partial(response, "damaged")
        elif event.data is not None:
            reader.read_event(event.name, event.data)
    reader.finish()
    return response
