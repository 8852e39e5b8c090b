"""What is recognised without being parsed reads as if it had been parsed: for whatever comes after whatever."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Dialect
from policyd.core.stream.dialects.anthropic import AnthropicMessages
from policyd.core.stream.dialects.likeness import TRIES, Likeness
from policyd.core.stream.dialects.openai_chat import OpenAIChat

TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [" hello", "", "\n", "\t", '"', "\\", "é", "日", "🙂", "\x7f", "\u2028", '","x":"', "content", "text"]
    ),
)
PADDINGS = st.one_of(st.none(), st.text(alphabet="abcXYZ", max_size=6), TEXTS)


def openai(text: str, padding: str | None, more: dict[str, object]) -> str:
    choice: dict[str, object] = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    choice.update(more.pop("choice", {}))  # type: ignore[call-overload]
    document = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice], "usage": None, **more}
    return json.dumps({**document, "obfuscation": padding} if padding is not None else document, ensure_ascii=False)


def anthropic(text: str, _padding: str | None, more: dict[str, object]) -> str:
    more.pop("choice", None)
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}, **more}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


BLOCK = '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
DIALECTS: dict[str, tuple[Dialect, Callable[[str, str | None, dict[str, object]], str], tuple[str, ...]]] = {
    "openai": (OpenAIChat(), openai, ("[DONE]",)),
    "anthropic": (AnthropicMessages(), anthropic, (BLOCK, '{"type":"content_block_stop","index":0}')),
}
# What may differ from one event to the next beside its text.
CHANGES = st.sampled_from(
    [
        *[{} for _ in range(12)],
        {"index": 1},
        {"model": "n"},
        {"usage": {"prompt_tokens": 3, "completion_tokens": 2}},
        {"x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}},
        {"error": {"message": "no"}},
        {"content": "elsewhere"},
        {"choice": {"index": 1}},
        {"choice": {"finish_reason": "stop"}},
        {"choice": {"text": "again"}},
        {"choice": {"delta": {"content": "a", "reasoning": "b"}}},
        {"choice": {"delta": {"content": "a", "tool_calls": [{"index": 0, "function": {"name": "f"}}]}}},
        {"choice": {"delta": {"content": [{"type": "text", "text": "part"}]}}},
        {"choice": {"delta": {"other": {"content": "deep"}}}},
    ]
)


@st.composite
def events(draw: st.DrawFn, name: str) -> list[tuple[str, str]]:
    """Events that are mostly alike, each perhaps with one character changed, dropped or put in; and other events."""
    _, build, others = DIALECTS[name]
    padding = draw(st.booleans())
    found = [(draw(st.sampled_from(["", "message"])) if name == "openai" else "", other) for other in others[:-1]]
    for _ in range(draw(st.integers(2, 10))):
        data = build(draw(TEXTS), draw(PADDINGS) if padding else None, dict(draw(CHANGES)))
        if draw(st.integers(0, 4)) == 0:
            place = draw(st.integers(0, len(data)))
            data = data[:place] + draw(st.sampled_from(["", '"', "\\", " ", ",", "}", "x"])) + data[place + 1 :]
        found.append(("" if draw(st.integers(0, 9)) else "message", data))
        if draw(st.integers(0, 9)) == 0:
            found.append(("", draw(st.sampled_from(others))))
    return found


@pytest.mark.parametrize("name", DIALECTS)
@given(data=st.data())
def test_what_is_recognised_reads_as_if_it_were_parsed(name: str, data: st.DataObject) -> None:
    dialect = DIALECTS[name][0]
    wants = data.draw(st.booleans())
    quick_facts, slow_facts = ResponseFacts(status=200), ResponseFacts(status=200)
    quick, slow = dialect.reader(RequestFacts(), quick_facts), dialect.reader(RequestFacts(), slow_facts)
    quick.want_segments = slow.want_segments = wants  # type: ignore[attr-defined]
    quick.want_content(wants)
    slow.want_content(wants)
    for event, text in data.draw(events(name)):
        slow._like = Likeness("nothing")  # type: ignore[attr-defined]
        seen, expected = quick.read_event(event, text), slow.read_event(event, text)
        assert [*seen.segments] == [*expected.segments]
        assert [*seen.closes] == [*expected.closes]
        assert (seen.changed, seen.last, seen.malformed) == (expected.changed, expected.last, expected.malformed)
        assert quick_facts == slow_facts
        assert quick.mark() == slow.mark()
    quick.finish()
    slow.finish()
    assert quick_facts == slow_facts


def test_most_of_a_stream_is_recognised() -> None:
    like = Likeness("content", padding="obfuscation")
    like.learn(openai("a", "xx", {}), "a", "xx")
    assert like.text(openai(" world", "yyyy", {})) == " world"
    assert like.text(openai("ü, 日", "", {})) == "ü, 日"


@pytest.mark.parametrize(
    "other",
    [
        openai('say "no"', "x", {}),
        openai("a", "x", {"choice": {"index": 1}}),
        openai("a", "x", {}) + " ",
        openai("a", "x", {})[:-1],
        openai("a", 'x"y', {}),
        openai("a", "x", {}).replace('"a"', '"a\x01"'),
        openai("a", "x", {}).replace('"x"', '"x\n"'),
        "",
        "[DONE]",
    ],
)
def test_whatever_else_differs_is_parsed(other: str) -> None:
    like = Likeness("content", padding="obfuscation")
    like.learn(openai("b", "zz", {}), "b", "zz")
    assert like.text(other) == ""


@pytest.mark.parametrize(
    "document",
    [
        '{"a":{"content":"x"},"content":"x"}',  # which of the two?
        '{"content":"x","b":"content"}',
        '{"content":"x","b":"\\\\"}',
        '{"content":"y"}',
        '{"a":"x"}',
    ],
)
def test_what_is_not_plain_to_see_is_not_learned(document: str) -> None:
    like = Likeness("content")
    like.learn(document, "x")
    assert like.text(document) == ""


def test_a_stream_that_is_never_alike_is_given_up_on() -> None:
    like = Likeness("content")
    for number in range(TRIES):
        like.learn(f'{{"n":{number},"content":"x"}}', "x")
    assert like.text(f'{{"n":{TRIES - 1},"content":"y"}}') == "y"
    like.learn('{"n":-1,"content":"x"}', "x")
    assert like.text('{"n":-1,"content":"y"}') == ""
