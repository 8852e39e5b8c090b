"""Documents that were changed at random: a dialect says `Malformed` or `partial`, and nothing else ever leaves it."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Dialect, Ending, RequestChange, registry
from policyd.core.stream.json_text import dumps, loads, splice
from policyd.core.stream.sse import SseEvent
from tests.core.test_endings_others import CASES, HEAR
from tests.core.test_requests_others import FACTS
from tests.sizes import size
from tests.streams import read_stream

ODD: list[Any] = [None, True, 0, -1, 1.5, 2**60, "", "x", [], ["x"], [None], {}, {"x": "y"}, [[]], {"": []}]
ALL = RequestChange(
    caps=(("max_tokens", 4), ("temperature", 0)),
    tools_allow=(frozenset({"g"}),),
    tools_deny=frozenset({"f"}),
    inject_system=("s",),
    include_usage=True,
)


def mutated(value: Any, chance: random.Random, odds: float = 0.08) -> Any:
    """The same, with some of its values changed for odd ones, left out, or doubled."""
    if chance.random() < odds:
        return chance.choice(ODD)
    if isinstance(value, dict):
        return {key: mutated(below, chance) for key, below in value.items() if chance.random() > odds / 2}
    if isinstance(value, list):
        out = [mutated(below, chance) for below in value if chance.random() > odds / 2]
        return out + out[:1] if chance.random() < odds else out
    return value


@pytest.mark.parametrize("name", FACTS)
def test_a_changed_request_is_read_or_malformed(name: str) -> None:
    chance = random.Random(name)
    outcomes = {_asked(name, chance) for _ in range(300)}
    assert outcomes == {"read", "malformed"}


def _asked(name: str, chance: random.Random) -> str:
    dialect, path, body, _ = FACTS[name]
    document = mutated(body, chance)
    facts = RequestFacts(path=path)
    try:
        dialect.read_request(document, facts)
    except Malformed:
        return "malformed"
    data = dumps(document).encode()
    found = dialect.request_segments(document)
    assert all(isinstance(segment.text, str) for segment in found)
    for change in (RequestChange(), ALL):
        try:
            after = splice(data, dialect.edits(document, change))
        except Malformed:
            continue
        loads(after)
    return "read"


@pytest.mark.parametrize("name", CASES)
def test_a_changed_stream_is_read_and_can_be_ended(name: str) -> None:
    dialect, request, kind, data = CASES[name]
    events = read_stream(dialect, [data], request, kind).events
    chance = random.Random(name)
    outcomes = {_heard(dialect, request, kind, events, chance) for _ in range(300)}
    assert outcomes == {"full", "partial"}


def _heard(dialect: Dialect, request: RequestFacts, kind: str, events: list[SseEvent], chance: random.Random) -> str:
    response = ResponseFacts(status=200, headers={"content-type": kind})
    reader = dialect.reader(request, response)
    for event in events:
        reading = reader.read_event(event.name, _changed(event.data or "", chance))
        assert not reading.malformed or response.inspection == "partial"
        reader.mark()
    reader.finish()
    reader.ending(Ending("Stopped.", "stop"))
    assert response.output_tokens >= response.reasoning_tokens >= 0
    return response.inspection


def _changed(data: str, chance: random.Random) -> str:
    try:
        document = json.loads(data)
    except ValueError:
        return data
    if isinstance(document, dict) and set(document) == {"bytes", "p"}:
        inner = mutated(json.loads(base64.b64decode(document["bytes"])), chance)
        return dumps({"bytes": base64.b64encode(dumps(inner).encode()).decode(), "p": "x"})
    return dumps(mutated(document, chance))


@pytest.mark.parametrize("dialect", registry.DIALECTS, ids=lambda dialect: dialect.name)
@settings(max_examples=size(100), deadline=None)
@given(document=st.recursive(st.sampled_from(ODD), lambda below: st.dictionaries(
    st.sampled_from(["choices", "message", "content", "usage", "error", "candidates", "parts", "text", "output",
                     "data", "results", "completions", "generations", "response", "embedding", "result", "id"]),
    st.one_of(below, st.lists(below, max_size=3)), max_size=4), max_leaves=12))  # fmt: skip
def test_an_odd_answer_is_read_or_malformed(dialect: Any, document: Any) -> None:
    for status in (200, 500):
        for shape in (
            ("", "claude", "chat", "nova", "cohere", "embedding") if dialect.name == "bedrock.invoke" else ("",)
        ):
            reader = dialect.reader(RequestFacts(shape=shape), ResponseFacts(status=status))
            try:
                reader.read_json(document)
            except Malformed:
                continue


def test_the_cases_cover_the_dialects() -> None:
    assert {case[0].name for case in CASES.values()} >= {
        "ollama.chat", "cohere.chat", "gemini.generate", "bedrock.converse", "bedrock.invoke", "mcp",
    }  # fmt: skip
    assert HEAR.keys() <= CASES.keys()
