"""Law 4 for reading: how the network cut a stream changes nothing of what is read from it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.stream.dialects import Dialect, Ending
from policyd.core.stream.dialects.anthropic import AnthropicMessages
from policyd.core.stream.dialects.openai_chat import OpenAIChat
from policyd.core.stream.dialects.openai_completions import OpenAICompletions
from policyd.core.stream.dialects.openai_responses import OpenAIResponses
from policyd.core.stream.json_text import dumps
from tests.streams import Read, read_stream

OPENAI, ANTHROPIC = OpenAIChat(), AnthropicMessages()
COMPLETIONS, RESPONSES = OpenAICompletions(), OpenAIResponses()
text = st.text(max_size=6)
index = st.integers(0, 2)

openai_delta = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": text | st.none(),
        "refusal": text,
        "reasoning": text,
        "unknown": text,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {"index": index},
                optional={
                    "id": st.sampled_from(["a", "b"]),
                    "function": st.fixed_dictionaries({}, optional={"name": text, "arguments": text}),
                },
            ),
            max_size=2,
        ),
    },
)
openai_event = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {"index": index, "delta": openai_delta},
                optional={"finish_reason": st.sampled_from([None, "stop", "length"])},
            ),
            max_size=2,
        )
    },
    optional={"id": st.just("c"), "model": text, "usage": st.sampled_from([None, {"prompt_tokens": 3}, {"x": 1}, 5])},
)
block = st.sampled_from(
    [
        {"type": "text", "text": ""},
        {"type": "thinking", "thinking": "t"},
        {"type": "tool_use", "name": "f", "input": {}},
        {"type": "odd"},
    ]
)
anthropic_delta = st.one_of(
    text.map(lambda said: {"type": "text_delta", "text": said}),
    text.map(lambda said: {"type": "thinking_delta", "thinking": said}),
    text.map(lambda said: {"type": "input_json_delta", "partial_json": said}),
    st.just({"type": "odd_delta"}),
)
anthropic_event = st.one_of(
    st.just({"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}}),
    st.builds(lambda i, b: {"type": "content_block_start", "index": i, "content_block": b}, index, block),
    st.builds(lambda i, d: {"type": "content_block_delta", "index": i, "delta": d}, index, anthropic_delta),
    st.builds(lambda i: {"type": "content_block_stop", "index": i}, index),
    st.just({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}),
    st.sampled_from([{"type": "message_stop"}, {"type": "ping"}, {"type": "error"}, {"type": "surprise"}, 7]),
)
completions_event = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {"index": index},
                optional={"text": text | st.none(), "finish_reason": st.sampled_from([None, "stop"]), "odd": text},
            ),
            max_size=2,
        )
    },
    optional={"id": st.just("c"), "usage": st.sampled_from([None, {"prompt_tokens": 3}, {"x": 1}, 5])},
)
item = st.sampled_from(
    [
        {"id": "m", "type": "message", "content": []},
        {"id": "m", "type": "message", "content": [{"type": "output_text", "text": "ab"}]},
        {"id": "f", "type": "function_call", "name": "f", "call_id": "c", "arguments": ""},
        {"id": "r", "type": "reasoning", "summary": [{"type": "summary_text", "text": "ab"}]},
        {"id": "w", "type": "web_search_call", "action": {"query": "ab"}},
        {"id": "o", "type": "odd"},
    ]
)
told_again = st.sampled_from(["", "a", "ab", "abab"])
bases = ["output_text", "refusal", "function_call_arguments", "reasoning_summary_text", "code_interpreter_call_code"]
responses_event = st.one_of(
    st.builds(
        lambda kind, made: {"type": f"response.{kind}", "response": {"id": "r", "model": "m", "output": made}},
        st.sampled_from(["created", "completed", "incomplete", "failed"]),
        st.lists(item, max_size=2),
    ),
    st.builds(
        lambda i, one, verb: {"type": f"response.output_item.{verb}", "output_index": i, "item": one},
        index, item, st.sampled_from(["added", "done"]),
    ),
    st.builds(
        lambda i, base, said: {"type": f"response.{base}.delta", "output_index": i, "delta": said},
        index, st.sampled_from(bases), told_again,
    ),
    st.builds(
        lambda i, base, said: {"type": f"response.{base}.done", "output_index": i, "text": said, "arguments": said},
        index, st.sampled_from(bases), told_again,
    ),
    st.builds(
        lambda i, said: {"type": "response.content_part.done", "output_index": i,
                         "part": {"type": "output_text", "text": said}},
        index, told_again,
    ),
    st.sampled_from([{"type": "error"}, {"type": "keepalive"}, {"type": "surprise"}, 7]),
)  # fmt: skip
ends = st.sampled_from(["\n", "\r\n", "\r"])
junk = st.sampled_from([b": comment\n\n", b"\n", b"data: {\n\n", b"event: x\n\n", b"data: [DONE]\n\n", b"\xff\n\n"])


def framed(document: Any, end: str) -> bytes:
    name = f"event: {document['type']}{end}" if isinstance(document, dict) and "type" in document else ""
    return f"{name}data: {dumps(document)}{end}{end}".encode()


def stream_of(event: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return st.lists(st.builds(framed, event, ends) | junk, max_size=12).map(b"".join)


def told(read: Read) -> tuple[Any, ...]:
    """Everything that was read, and how it would be ended at each event."""
    endings = []
    for mark in read.marks:
        read.reader.rewind(mark)
        endings.append(read.reader.ending(Ending("x", "stop")))
    return read.response, read.events, read.readings, endings


@pytest.mark.parametrize(
    ("dialect", "event"),
    [
        (OPENAI, openai_event),
        (ANTHROPIC, anthropic_event),
        (COMPLETIONS, completions_event),
        (RESPONSES, responses_event),
    ],
    ids=["openai", "anthropic", "completions", "responses"],
)
def test_any_split_gives_identical_readings(dialect: Dialect, event: st.SearchStrategy[Any]) -> None:
    @given(stream_of(event), st.data())
    def check(data: bytes, draw: st.DataObject) -> None:
        whole = told(read_stream(dialect, [data]))
        places = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6)))
        assert told(read_stream(dialect, [data[a:b] for a, b in pairwise([0, *places, len(data)])])) == whole
        assert told(read_stream(dialect, [data[i : i + 1] for i in range(len(data))])) == whole

    check()
