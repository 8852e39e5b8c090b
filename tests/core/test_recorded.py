"""Recorded traffic of real providers, read as it came, and read damaged."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from policyd.adapters.recordings import Recording, read_recordings
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Dialect, Ending, registry
from policyd.core.stream.dialects.generic import is_generic
from policyd.core.stream.json_text import loads
from tests.streams import Read, answering, cuts, read_stream

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "recorded"
FOLDERS = sorted(path.name for path in CORPUS.glob("*")) if CORPUS.is_dir() else []

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not FOLDERS, reason="the recorded traffic in ../shared/corpus is not here"),
]


@cache
def calls(folder: str) -> tuple[tuple[Recording, Dialect], ...]:
    """The recorded calls of this folder in OpenAI's and Anthropic's words; the others stand in test_recorded_others."""
    found = []
    for path in sorted((CORPUS / folder).rglob("*.yaml")):
        for one in read_recordings(path):
            dialect, _, _ = registry.choose(one.method, one.path, one.host, dict(one.headers))
            if dialect is None or is_generic(dialect):  # runs are read by their strings: test_runs_read.py
                continue
            if dialect.name.startswith(("openai.", "anthropic.messages")):
                found.append((one, dialect))
    return tuple(found)


def body_of(one: Recording) -> bytes:
    return b"".join(data for _, data in one.chunks)


def streams(one: Recording) -> bool:
    return "event-stream" in dict(one.response_headers).get("content-type", "")


def request_of(one: Recording, dialect: Dialect) -> RequestFacts:
    facts = RequestFacts(path=one.path.partition("?")[0])
    dialect.read_request(loads(one.body), facts)
    return facts


def read(one: Recording, dialect: Dialect) -> Read:
    request = request_of(one, dialect)
    if streams(one):
        return read_stream(dialect, [body_of(one)], request)
    response = ResponseFacts(status=one.status)
    reader = dialect.reader(request, response)
    return Read(response, reader, readings=[reader.read_json(loads(body_of(one)))])


def documents(one: Recording) -> list[Any]:
    """The JSON documents of an answer, found without policyd."""
    body = body_of(one).decode()
    if not streams(one):
        return [json.loads(body)]
    lines = [line[5:].strip() for line in body.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def expected_usage(one: Recording) -> tuple[int, int] | None:
    """(input, output) as the provider names them, found without policyd."""
    found: dict[str, int] = {}
    for document in documents(one):
        usage = (
            document.get("usage")
            or (document.get("message") or {}).get("usage")
            or (document.get("x_groq") or {}).get("usage")
            or (document.get("response") or {}).get("usage")
        )
        found.update({key: value for key, value in (usage or {}).items() if isinstance(value, int)})
    if "prompt_tokens" in found:
        return found["prompt_tokens"], found.get("completion_tokens", 0)
    if "input_tokens" not in found:
        return None
    parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(found.get(part, 0) for part in parts), found["output_tokens"]


def expected_text(one: Recording) -> str:
    pieces = []
    for document in documents(one):
        for choice in document.get("choices", []):
            if choice.get("index", 0) == 0:
                pieces.append((choice.get("delta") or choice.get("message") or {}).get("content") or "")
                pieces.append(choice.get("text") or "")
        if document.get("type") == "content_block_delta":
            pieces.append(document["delta"].get("text", ""))
        if document.get("type") == "message":
            pieces += [block.get("text", "") for block in document["content"]]
        if document.get("type") == "response.output_text.delta":
            pieces.append(document["delta"])
        if document.get("object") == "response":
            said = [part for item in document["output"] if item["type"] == "message" for part in item["content"]]
            pieces += [part["text"] for part in said if part["type"] == "output_text"]
    return "".join(pieces)


def expected_reasons(one: Recording) -> list[str]:
    reasons = {}
    for document in documents(one):
        for choice in document.get("choices", []):
            if choice.get("finish_reason"):
                reasons[choice.get("index", 0)] = choice["finish_reason"]
        delta = document.get("delta")
        if said := document.get("stop_reason") or (isinstance(delta, dict) and delta.get("stop_reason")):
            reasons[0] = said
        response = document if document.get("object") == "response" else document.get("response") or {}
        if response.get("status") not in (None, "in_progress", "queued"):
            reasons[0] = (response.get("incomplete_details") or {}).get("reason") or response["status"]
    return [reasons[index] for index in sorted(reasons)]


def expected_calls(one: Recording) -> list[str]:
    names = []
    for document in documents(one):
        for choice in document.get("choices", []):
            said = choice.get("delta") or choice.get("message") or {}
            names += [call["function"].get("name") for call in said.get("tool_calls") or []]
            names.append((said.get("function_call") or {}).get("name"))
        blocks = [document.get("content_block") or {}, *(document.get("content") or [])]
        names += [block.get("name") for block in blocks if block.get("type") == "tool_use"]
        items = document["output"] if document.get("object") == "response" else [document.get("item") or {}]
        calls = [item for item in items if item.get("type") in ("function_call", "custom_tool_call")]
        names += [item["name"] for item in calls if not document.get("type", "").endswith("done")]
    return [name for name in names if name]


@pytest.mark.parametrize("folder", FOLDERS)
def test_recorded_answers_are_understood_whole(folder: str) -> None:
    for one, dialect in calls(folder):
        got = read(one, dialect).response
        assert (got.inspection, got.partial_reason) == ("full", ""), one.source
        assert got.is_error == (one.status >= 400), one.source
        if got.is_error:
            continue
        assert got.text() == expected_text(one), one.source
        assert got.finish_reasons == expected_reasons(one), one.source
        assert [call.name for call in got.tool_calls] == expected_calls(one), one.source
        usage = expected_usage(one)
        assert (got.usage_source == "provider") == (usage is not None), one.source
        if usage is not None:
            assert (got.input_tokens, got.output_tokens) == usage, one.source


def test_the_recordings_are_many() -> None:
    understood = [one for folder in FOLDERS for one, _ in calls(folder)]
    assert len(understood) >= 330
    assert sum(map(streams, understood)) >= 68


def recorded_streams() -> Iterator[tuple[Recording, Dialect]]:
    for folder in FOLDERS:
        yield from ((one, dialect) for one, dialect in calls(folder) if streams(one))


def test_recorded_streams_read_the_same_however_they_are_cut() -> None:
    for one, dialect in recorded_streams():
        request, data = request_of(one, dialect), body_of(one)
        whole = read_stream(dialect, [data], request)
        for chunks in cuts(data, 3):
            again = read_stream(dialect, chunks, request)
            assert again.response == whole.response, one.source
            assert again.readings == whole.readings, one.source
            assert again.marks == whole.marks, one.source


def damages(data: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """The same stream damaged in ways that a reader must notice."""
    events = [event + b"\n\n" for event in data.replace(b"\r\n", b"\n").split(b"\n\n") if event.strip()]
    kept = [index for index, event in enumerate(events) if b"[DONE]" not in event and b'"ping"' not in event]
    place = chance.choice(kept)
    event = events[place].rstrip()
    yield (
        "json cut short",
        b"".join([*events[:place], event[: -chance.randrange(1, 9)] + b"\n\n", *events[place + 1 :]]),
    )
    yield "broken json", b"".join([*events[:place], event.replace(b"{", b"{,", 1) + b"\n\n", *events[place + 1 :]])
    odd = b'event: invented\ndata: {"type":"invented","object":"invented.thing"}\n\n'
    yield "an invented event", b"".join([*events[:place], odd, *events[place:]])
    yield "cut off", b"".join(events[: len(events) // 2])


def test_damaged_streams_are_partial() -> None:
    chance = random.Random(1)
    for one, dialect in recorded_streams():
        for what, data in damages(body_of(one), chance):
            got = read_stream(dialect, [data], request_of(one, dialect)).response
            assert got.inspection == "partial", f"{what}: {one.source}"


def test_recorded_streams_can_be_ended_at_every_event() -> None:
    """Through the official SDKs: a few cuts of every recording, every cut over all of them together."""
    chance = random.Random(2)
    for one, dialect in recorded_streams():
        request = request_of(one, dialect)
        whole = read_stream(dialect, [body_of(one)], request)
        for event in {0, 1, len(whole.events) - 2, *(chance.randrange(len(whole.events)) for _ in range(4))}:
            whole.reader.rewind(whole.marks[event])
            body = b"".join(part.raw for part in whole.events[:event]) + whole.reader.ending(Ending("Stopped.", "stop"))
            assert heard(dialect, body).endswith("Stopped."), f"{one.source}, event {event}"


def heard(dialect: Dialect, body: bytes) -> str:
    user: Any = [{"role": "user", "content": "hi"}]
    if dialect.name == "anthropic.messages":
        client = anthropic.Anthropic(api_key="k", http_client=answering(body), max_retries=0)
        with client.messages.stream(model="m", max_tokens=1, messages=user) as stream:
            assert stream.get_final_message().stop_reason
            last = stream.get_final_message().content[-1]
            return last.text if last.type == "text" else ""
    talk = openai.OpenAI(api_key="k", http_client=answering(body), max_retries=0)
    if dialect.name == "openai.responses":
        with talk.responses.stream(model="m", input="hi") as events:
            return str(events.get_final_response().output_text)
    if dialect.name == "openai.completions":
        pieces = list(talk.completions.create(model="m", prompt="hi", stream=True))
        assert any(choice.finish_reason for piece in pieces for choice in piece.choices)
        return "".join(choice.text for piece in pieces for choice in piece.choices)
    chunks = list(talk.chat.completions.create(model="m", messages=user, stream=True))
    assert any(choice.finish_reason for chunk in chunks for choice in chunk.choices)
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.delta)
