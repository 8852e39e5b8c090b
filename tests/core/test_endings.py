"""What policyd says in a provider's voice, as the official SDKs hear it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import Ending
from policyd.core.stream.dialects.anthropic import AnthropicMessages
from policyd.core.stream.dialects.openai_chat import OpenAIChat
from tests.streams import answering, read_stream, sse

OPENAI, ANTHROPIC = OpenAIChat(), AnthropicMessages()
USER: Any = [{"role": "user", "content": "hi"}]
WEATHER: Any = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object"}}}
FALLBACK = 'Stopped.\n\n"quoted" \u2028 data: [DONE] 漢'


def openai_client(body: bytes, status: int = 200, kind: str = "text/event-stream") -> openai.OpenAI:
    return openai.OpenAI(api_key="k", http_client=answering(body, status, kind), max_retries=0)


def anthropic_client(body: bytes, status: int = 200, kind: str = "text/event-stream") -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="k", http_client=answering(body, status, kind), max_retries=0)


# ---- OpenAI ---------------------------------------------------------------------------------------------------------


def chunk(delta: dict[str, Any] | None, reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": reason}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "gpt-4o"}
    return {**head, "choices": choices, **more}


def call(index: int = 0, **said: str) -> dict[str, Any]:
    head = {"id": f"c{index}", "type": "function"} if "name" in said else {}
    return {"tool_calls": [{"index": index, **head, "function": said}]}


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
ROLE = {"role": "assistant", "content": ""}
OPENAI_STREAMS = {
    "text": [
        chunk(ROLE), chunk({"content": "a"}), chunk({"content": "b"}), chunk({}, "stop"), chunk(None, usage=USAGE),
    ],
    "choices": [
        chunk(ROLE), chunk({"content": "a"}), chunk(ROLE, index=1), chunk({"content": "b"}, index=1),
        chunk({}, "stop"), chunk({"content": "b"}, index=1), chunk({}, "stop", index=1),
    ],
    "tools": [
        chunk({**ROLE, "content": None}), chunk(call(name="f", arguments="")), chunk(call(arguments='{"a": "x')),
        chunk(call(arguments='y"}')), chunk(call(1, name="f", arguments='{"b": [')), chunk(call(1, arguments="1]}")),
        chunk({}, "tool_calls"),
    ],
    "legacy": [
        chunk({"function_call": {"name": "f", "arguments": ""}}), chunk({"function_call": {"arguments": '{"a"'}}),
        chunk({"function_call": {"arguments": ": 1}"}}), chunk({}, "function_call"),
    ],
    "refusal": [chunk(ROLE), chunk({"refusal": "no"}), chunk({"refusal": "pe"}), chunk({}, "stop")],
    "azure": [chunk(None, id="", model="", object="", prompt_filter_results=[]), chunk(ROLE), chunk({}, "stop")],
}  # fmt: skip


def cut(dialect: Any, data: bytes, event: int, request: RequestFacts, text: str = FALLBACK) -> bytes:
    """The stream ended before this event, read to its own end before the cut: later events must not show."""
    read = read_stream(dialect, [data], request)
    read.reader.rewind(read.marks[event])
    return b"".join(one.raw for one in read.events[:event]) + read.reader.ending(Ending(text, "stop"))


def openai_cuts() -> list[Any]:
    return [
        pytest.param(name, event, id=f"{name}-{event}")
        for name, events in OPENAI_STREAMS.items()
        for event in range(len(events) + 1)
    ]


@pytest.mark.parametrize(("name", "event"), openai_cuts())
def test_a_cut_stream_parses_in_the_openai_sdk(name: str, event: int) -> None:
    request = RequestFacts(stream=True, choices=2 if name == "choices" else 1, wants_usage=True, model="gpt-4o")
    body = cut(OPENAI, sse(*OPENAI_STREAMS[name]), event, request)
    chunks = list(openai_client(body).chat.completions.create(model="m", messages=USER, stream=True))
    said: dict[int, str] = {}
    ends: dict[int, str] = {}
    for one in chunks:
        for choice in one.choices:
            said[choice.index] = said.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    assert sorted(ends) == list(range(request.choices))
    assert any(text.endswith(FALLBACK) for text in said.values())
    assert sum(one.usage is not None for one in chunks) == 1
    assert body.endswith(b"data: [DONE]\n\n")
    assert read_stream(OPENAI, [body], request).response.inspection == ("full" if event < _finish(name) else "partial")


def _finish(name: str) -> int:
    """The event after which every choice has its reason: words after it are told, and read as out of place."""
    ends = [i for i, one in enumerate(OPENAI_STREAMS[name]) if one["choices"] and one["choices"][0]["finish_reason"]]
    return ends[-1] + 1


@pytest.mark.parametrize(("name", "event"), openai_cuts())
def test_a_cut_stream_parses_in_the_openai_stream_helper(name: str, event: int) -> None:
    request = RequestFacts(stream=True, choices=2 if name == "choices" else 1)
    body = cut(OPENAI, sse(*OPENAI_STREAMS[name]), event, request)
    with openai_client(body).chat.completions.stream(model="m", messages=USER, tools=[WEATHER]) as stream:
        final = stream.get_final_completion()
    assert (final.choices[0].message.content or "").endswith(FALLBACK) or event >= len(OPENAI_STREAMS[name]) - 3
    assert all(choice.finish_reason for choice in final.choices)


def test_an_ending_continues_what_was_begun() -> None:
    body = cut(OPENAI, sse(*OPENAI_STREAMS["text"]), 2, RequestFacts(stream=True))
    ending = list(openai_client(body).chat.completions.create(model="m", messages=USER, stream=True))[2:]
    assert {(one.id, one.model, one.created) for one in ending} == {("chatcmpl-1", "gpt-4o", 7)}
    assert all(one.choices[0].delta.role is None for one in ending)
    assert all(one.usage is None for one in ending)


def test_a_stream_that_is_over_needs_no_ending() -> None:
    data = sse(*OPENAI_STREAMS["text"])
    assert read_stream(OPENAI, [data]).reader.ending(Ending("x", "stop")) == b""


def test_what_was_cut_is_not_asked_for() -> None:
    body = cut(OPENAI, sse(*OPENAI_STREAMS["tools"]), 3, RequestFacts(stream=True), text="")
    got = read_stream(OPENAI, [body]).response
    assert got.finish_reasons == ["stop"]
    assert got.tool_calls[0].arguments == '{"a": "x","policyd_cut":true}'


ERRORS = [
    (400, openai.BadRequestError, anthropic.BadRequestError),
    (401, openai.AuthenticationError, anthropic.AuthenticationError),
    (403, openai.PermissionDeniedError, anthropic.PermissionDeniedError),
    (404, openai.NotFoundError, anthropic.NotFoundError),
    (413, openai.APIStatusError, anthropic.RequestTooLargeError),
    (429, openai.RateLimitError, anthropic.RateLimitError),
    (500, openai.InternalServerError, anthropic.InternalServerError),
    (503, openai.InternalServerError, anthropic.ServiceUnavailableError),
]


@pytest.mark.parametrize(("status", "one", "other"), ERRORS)
def test_an_error_is_the_sdks_own(status: int, one: type[Exception], other: type[Exception]) -> None:
    told = OPENAI.error(status, "over_budget", FALLBACK)
    with pytest.raises(one) as caught:
        openai_client(told.data, status, told.content_type).chat.completions.create(model="m", messages=USER)
    error: Any = caught.value
    assert FALLBACK in error.body["message"]
    assert error.code == "over_budget"
    told = ANTHROPIC.error(status, "over_budget", FALLBACK)
    with pytest.raises(other) as caught:
        client = anthropic_client(told.data, status, told.content_type)
        client.messages.create(model="m", max_tokens=1, messages=USER)
    error = caught.value
    assert error.body["error"]["message"] == FALLBACK


@pytest.mark.parametrize("choices", [1, 3])
def test_a_completion_of_our_own_in_the_openai_sdk(choices: int) -> None:
    told = OPENAI.completion(RequestFacts(model="gpt-4o", choices=choices), Ending(FALLBACK, "stop"), "d1")
    got = openai_client(told.data, kind=told.content_type).chat.completions.create(model="m", messages=USER)
    assert [choice.message.content for choice in got.choices] == [FALLBACK] * choices
    assert (got.id, got.model) == ("chatcmpl-d1", "gpt-4o")
    assert got.usage is not None and got.usage.total_tokens == 0
    told = OPENAI.completion(
        RequestFacts(stream=True, choices=choices, wants_usage=True), Ending(FALLBACK, "stop"), "d1"
    )
    with openai_client(told.data, kind=told.content_type).chat.completions.stream(model="m", messages=USER) as stream:
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [FALLBACK] * choices
    assert read_stream(OPENAI, [told.data]).response.inspection == "full"


# ---- Anthropic ------------------------------------------------------------------------------------------------------


def begin(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **said: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": said}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


MESSAGE = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "stop_reason": None}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "usage": {"input_tokens": 5, "output_tokens": 1}}},
    begin(0, type="thinking", thinking="", signature=""),
    {"type": "ping"},
    delta(0, type="thinking_delta", thinking="hm"),
    delta(0, type="signature_delta", signature="s"),
    stop(0),
    begin(1, type="text", text=""),
    delta(1, type="text_delta", text="a"),
    delta(1, type="text_delta", text="b"),
    stop(1),
    begin(2, type="tool_use", id="t", name="f", input={}),
    delta(2, type="input_json_delta", partial_json=""),
    delta(2, type="input_json_delta", partial_json='{"a": "x'),
    delta(2, type="input_json_delta", partial_json='y"}'),
    stop(2),
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]


@pytest.mark.parametrize("event", range(len(EVENTS)))
def test_a_cut_stream_parses_in_the_anthropic_sdk(event: int) -> None:
    request = RequestFacts(stream=True, model="c")
    body = cut(ANTHROPIC, sse(*EVENTS, names=True), event, request)
    with anthropic_client(body).messages.stream(model="m", max_tokens=1, messages=USER) as stream:
        seen = [one.type for one in stream]
        final = stream.get_final_message()
    assert final.content[-1].type == "text"
    assert final.content[-1].text == FALLBACK
    assert final.stop_reason == "end_turn"
    assert seen[-1] == "message_stop"
    assert seen.count("content_block_start") == seen.count("content_block_stop")
    got = read_stream(ANTHROPIC, [body], request).response
    assert (got.inspection, got.usage_source) == ("full", "provider")
    assert all(block.input in ({"a": "xy"}, _cut(block.input)) for block in final.content if block.type == "tool_use")


def _cut(given: object) -> object:
    """The same, where it says that it was cut."""
    return given if isinstance(given, dict) and given.get("policyd_cut") is True else None


def test_a_message_that_is_over_needs_no_ending() -> None:
    assert read_stream(ANTHROPIC, [sse(*EVENTS, names=True)]).reader.ending(Ending("x", "stop")) == b""


def test_a_completion_of_our_own_in_the_anthropic_sdk() -> None:
    told = ANTHROPIC.completion(RequestFacts(model="c"), Ending(FALLBACK, "stop"), "d1")
    client = anthropic_client(told.data, kind=told.content_type)
    got = client.messages.create(model="m", max_tokens=1, messages=USER)
    assert (got.id, got.model, got.stop_reason) == ("msg_d1", "c", "end_turn")
    assert got.content[0].type == "text" and got.content[0].text == FALLBACK
    assert (got.usage.input_tokens, got.usage.output_tokens) == (0, 0)
    told = ANTHROPIC.completion(RequestFacts(model="c", stream=True), Ending(FALLBACK, "stop"), "d1")
    with anthropic_client(told.data, kind=told.content_type).messages.stream(
        model="m", max_tokens=1, messages=USER
    ) as stream:
        final = stream.get_final_message()
    assert (final.id, final.content[0].type == "text" and final.content[0].text) == ("msg_d1", FALLBACK)


@pytest.mark.parametrize(
    "make",
    [
        lambda d: d.completion(RequestFacts(), Ending("", "stop"), "x"),
        lambda d: d.completion(RequestFacts(stream=True), Ending("", "stop"), "x"),
    ],
)
@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=lambda dialect: dialect.name)
def test_an_answer_may_say_nothing(dialect: Any, make: Callable[[Any], Any]) -> None:
    assert make(dialect).data
