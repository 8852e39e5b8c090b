"""OpenAI's dialects over documents that were changed at random: `Malformed` or `partial`, nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Dialect, Ending, RequestChange
from policyd.core.stream.dialects.openai_chat import OpenAIChat
from policyd.core.stream.dialects.openai_completions import OpenAICompletions
from policyd.core.stream.dialects.openai_embeddings import OpenAIEmbeddings
from policyd.core.stream.dialects.openai_responses import OpenAIResponses
from policyd.core.stream.json_text import dumps, loads, splice
from policyd.core.stream.sse_edit import edit_event
from tests.responses import Script, response
from tests.sizes import size
from tests.streams import read_stream, sse

ODD: list[Any] = [None, True, 0, -1, 1.5, 2**60, "", "x", [], ["x"], [None], {}, {"x": "y"}, [[]], {"": []}]
ALL = RequestChange(
    model="m", caps=(("max_tokens", 4), ("temperature", 0)), tools_allow=(frozenset({"g", "box"}),),
    tools_deny=frozenset({"f"}), inject_system=("s",), include_usage=True,
)  # fmt: skip
TOOLS = [
    {"type": "function", "name": "f"},
    {"type": "web_search"},
    {"type": "namespace", "name": "box", "tools": [{"type": "function", "name": "g"}]},
]
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 9, "prompt_tokens_details": {"cached_tokens": 1}}
SCRIPT = Script(instructions="i").think("a", "b").search("q").code("x").call("f", "{}").call("s", "y", custom=True)
RESPONSES_EVENTS = SCRIPT.say("a", "b").say("no", refusal=True).end()
CHOICE = {"index": 0, "text": "a", "logprobs": {"tokens": ["a"]}, "finish_reason": None}
DELTA = {"index": 0, "delta": {"content": "a", "reasoning_steps": [{"thought": "b"}]}, "message": {"content": "a"}}

CASES: dict[str, tuple[Dialect, Any, list[Any], Any]] = {
    "responses": (
        OpenAIResponses(),
        {"model": "m", "instructions": "i", "tools": TOOLS, "tool_choice": {"type": "function", "name": "f"},
         "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                   {"type": "function_call", "arguments": "{}"}, {"type": "function_call_output", "output": "o"},
                   {"type": "additional_tools", "tools": TOOLS}], "prompt": {"variables": {"a": "b"}}},
        RESPONSES_EVENTS,
        response("completed", SCRIPT.output),
    ),
    "completions": (
        OpenAICompletions(),
        {"model": "m", "prompt": ["a", [1, 2]], "suffix": "s", "n": 2, "stream": True, "stream_options": {}},
        [{"id": "c", "object": "text_completion", "choices": [CHOICE]}, {"choices": [], "usage": USAGE}],
        {"id": "c", "object": "text_completion", "choices": [CHOICE], "usage": USAGE},
    ),
    "chat": (
        OpenAIChat(),
        {"messages": [{"role": "user", "content": "a"}], "prompt": "b", "tools": TOOLS, "stream": True},
        [{"id": "c", "choices": [DELTA]}, {"choices": [], "usage": USAGE}],
        {"id": "c", "choices": [{"message": {"content": "a", "audio": {"transcript": "b"}}}], "usage": USAGE},
    ),
    "embeddings": (
        OpenAIEmbeddings(),
        {"model": "m", "input": ["a", {"text": "b"}, {"image": "c"}]},
        [{"object": "list", "data": []}],
        {"object": "list", "data": [{"embedding": [0.1]}], "model": "m", "usage": {"prompt_tokens": 1}},
    ),
}  # fmt: skip


def mutated(value: Any, chance: Any, odds: float = 0.06) -> Any:
    """The same, with some of its values changed for odd ones, left out, or doubled."""
    if chance.random() < odds:
        return chance.choice(ODD)
    if isinstance(value, dict):
        return {key: mutated(below, chance) for key, below in value.items() if chance.random() > odds / 2}
    if isinstance(value, list):
        out = [mutated(below, chance) for below in value if chance.random() > odds / 2]
        return out + out[:1] if chance.random() < odds else out
    return value


def at(document: Any, path: Any) -> Any:
    for key in path:
        document = document[key]
    return document


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=size(150), deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_a_changed_request_is_read_or_malformed(name: str, chance: Any) -> None:
    dialect, body, _, _ = CASES[name]
    document = mutated(body, chance)
    facts = RequestFacts(path="/x")
    try:
        dialect.read_request(document, facts)
    except Malformed:
        return
    for segment in dialect.request_segments(document):
        assert at(document, segment.path) == segment.text
    data = dumps(document).encode()
    for change in (RequestChange(), ALL):
        try:
            after = splice(data, dialect.edits(document, change))
        except Malformed:
            continue
        assert change != RequestChange() or after == data
        dialect.read_request(loads(after), RequestFacts(path="/x"))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=size(150), deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_a_changed_answer_is_read_or_malformed(name: str, chance: Any) -> None:
    dialect, _, _, body = CASES[name]
    document = mutated(body, chance)
    reader = dialect.reader(RequestFacts(), ResponseFacts(status=200))
    try:
        reading = reader.read_json(document)
    except Malformed:
        return
    for segment in reading.segments:
        if segment.channel[0] not in ("veil", "veiled") and segment.text and not segment.name:
            said = at(document, segment.path)
            assert segment.text in (said, repr(said))  # a long number is read as it is written


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=size(150), deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_a_changed_stream_is_read_and_can_be_ended(name: str, chance: Any) -> None:
    dialect, _, events, _ = CASES[name]
    read = read_stream(dialect, [sse(*(mutated(event, chance) for event in events))])
    for event, reading in zip(read.events, read.readings, strict=True):
        changes = [(segment.path, "changed") for segment in reading.segments if segment.text]
        if not changes:
            continue
        document = json.loads(event.data or "")
        assert all(at(document, path) is not None for path, _ in changes)
        edit_event(event.raw, changes)
    for mark in read.marks:
        read.reader.rewind(mark)
        for line in read.reader.ending(Ending("x", "stop")).decode().split("\n"):
            if line.startswith("data: {"):
                loads(line[6:])
