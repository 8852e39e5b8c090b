"""OpenAI Responses: requests, edits, answers whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import Changed, Ending, RequestChange
from policyd.core.stream.dialects.openai_responses import OpenAIResponses
from policyd.core.stream.json_text import dumps, loads, splice
from tests.responses import USAGE, Script, response
from tests.streams import Read, answering, cuts, read_json, read_stream, sse

DIALECT = OpenAIResponses()


def asked(document: Any) -> RequestFacts:
    facts = RequestFacts(path="/v1/responses")
    DIALECT.read_request(loads(dumps(document)), facts)
    return facts


def streamed(documents: list[Any]) -> Read:
    """Read whole, and every other way must say the same."""
    data = sse(*documents, names=True)
    whole = read_stream(DIALECT, [data])
    for chunks in cuts(data, 3):
        again = read_stream(DIALECT, chunks)
        assert again.response == whole.response
        assert again.readings == whole.readings
        assert again.marks == whole.marks
    return whole


# ---- requests -------------------------------------------------------------------------------------------------------


def test_the_facts_of_a_request() -> None:
    facts = asked(
        {
            "model": "gpt-5",
            "stream": True,
            "temperature": 0.5,
            "max_output_tokens": 10,
            "instructions": "be kind",
            "input": [
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image"}]},
                {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hidden"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "42"},
                {"type": "function_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "43"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "so"}]},
                {"type": "item_reference", "id": "msg_1"},
            ],
            "tools": [
                {"type": "function", "name": "get_weather"},
                {"type": "custom", "name": "sql"},
                {"type": "web_search"},
                {"type": "mcp", "server_label": "wiki", "server_url": "https://wiki"},
                {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "find"}]},
            ],
        }
    )  # fmt: skip
    assert (facts.model, facts.stream, facts.temperature, facts.max_tokens) == ("gpt-5", True, 0.5, 10)
    assert (facts.wants_usage, facts.choices) == (True, 1)
    assert [(one.role, one.text) for one in facts.messages] == [
        ("developer", "be brief"), ("user", "hi"), ("tool", "42"), ("tool", "43"), ("assistant", "so"),
    ]  # fmt: skip
    assert facts.system == "be kind\nbe brief"
    assert facts.text == "be kind\nbe brief\nhi\nhidden\n{}\n42\n43\nso"
    assert [tool.name for tool in facts.tools] == ["get_weather", "sql", "web_search", "wiki", "find"]
    assert facts.input_tokens > 1000  # the image


def test_a_plain_input_is_a_users() -> None:
    facts = asked({"model": "m", "input": "hello"})
    assert [(one.role, one.text) for one in facts.messages] == [("user", "hello")]
    assert (facts.text, facts.system, facts.stream, facts.max_tokens) == ("hello", None, None, None)


@pytest.mark.parametrize(
    "body",
    [
        [], None, "x", {"model": 5}, {"stream": "true"}, {"temperature": True}, {"input": 5}, {"input": ["x"]},
        {"instructions": ["x"]}, {"max_output_tokens": "5"}, {"max_output_tokens": 5.0}, {"max_output_tokens": -1},
        {"max_output_tokens": True}, {"tools": {}}, {"tools": ["x"]}, {"tools": [{"name": 5}]}, {"Model": "m"},
        {"input": [{"role": 5}]}, {"input": [{"role": "user", "content": 5}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": 5}]}]},
    ],
    ids=dumps,
)  # fmt: skip
def test_what_cannot_be_read_is_malformed(body: Any) -> None:
    with pytest.raises(Malformed):
        asked(body)


def changed(document: dict[str, Any], **how: Any) -> Any:
    data = dumps(document).encode()
    edited = splice(data, DIALECT.edits(loads(data), RequestChange(**how)))
    return json.loads(edited)


def test_edits_are_in_the_dialects_own_fields() -> None:
    body = {"model": "a", "input": "hi", "max_output_tokens": 100}
    assert changed(body, caps=(("max_tokens", 10),))["max_output_tokens"] == 10
    assert changed(body, caps=(("max_output_tokens", 1000),)) == body
    assert changed({"input": "hi"}, caps=(("max_completion_tokens", 10),)) == {"input": "hi", "max_output_tokens": 10}
    assert changed(body, model="b")["model"] == "b"
    assert changed(body, inject_system=("x", "y"))["instructions"] == "x\n\ny"
    assert changed({**body, "instructions": "be"}, inject_system=("x",))["instructions"] == "be\n\nx"
    assert changed(body, sets=((("reasoning", "effort"), "low"),))["reasoning"] == {"effort": "low"}
    assert changed({**body, "stream": True}, include_usage=True) == {**body, "stream": True}


F, G, WEB = {"type": "function", "name": "f"}, {"type": "function", "name": "g"}, {"type": "web_search"}
BOX = {"type": "namespace", "name": "box", "tools": [F, G]}


@pytest.mark.parametrize(
    ("tools", "how", "left"),
    [
        ([F, G, WEB], {"tools_deny": frozenset({"g"})}, [F, WEB]),
        ([F, G, WEB], {"tools_deny": frozenset({"web_search"})}, [F, G]),
        ([F, G, WEB], {"tools_allow": (frozenset({"f"}),)}, [F]),
        ([F], {"tools_allow": (frozenset(),)}, None),
        ([BOX], {"tools_deny": frozenset({"g"})}, [{**BOX, "tools": [F]}]),
        ([BOX, WEB], {"tools_deny": frozenset({"box"})}, [WEB]),
        ([BOX, WEB], {"tools_deny": frozenset({"f", "g"})}, [WEB]),
        ([BOX, WEB], {"tools_allow": (frozenset({"g"}),)}, [{**BOX, "tools": [G]}]),
        ([BOX, WEB], {"tools_allow": (frozenset({"box"}),)}, None),  # its tools are called, not the box
        ([{"type": "mcp", "server_label": "wiki"}, F], {"tools_deny": frozenset({"wiki"})}, [F]),
    ],
)
def test_tools_are_taken_away(tools: Any, how: Any, left: Any) -> None:
    body = {"input": "hi", "tools": tools, "tool_choice": "auto", "parallel_tool_calls": False}
    got = changed(body, **how)
    assert got.get("tools") == left
    assert ("tool_choice" in got) == (left is not None)
    assert ("parallel_tool_calls" in got) == (left is not None)


def test_a_choice_of_what_is_gone_goes_too() -> None:
    for choice in ({"type": "function", "name": "g"}, {"type": "allowed_tools", "mode": "auto", "tools": [F, G]}):
        assert "tool_choice" not in changed({"tools": [F, G], "tool_choice": choice}, tools_deny=frozenset({"g"}))
    kept = {"tools": [F, G], "tool_choice": {"type": "function", "name": "f"}}
    assert changed(kept, tools_deny=frozenset({"g"}))["tool_choice"] == kept["tool_choice"]


def test_tools_that_the_input_brings_are_taken_away_too() -> None:
    body = {"input": [{"type": "additional_tools", "role": "developer", "tools": [F, G]}]}
    assert [tool.name for tool in asked(body).tools] == ["f", "g"]
    assert changed(body, tools_deny=frozenset({"g"}))["input"][0]["tools"] == [F]


def test_every_text_of_a_request_can_be_edited() -> None:
    body = {
        "instructions": "a",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "b"}]},
            {"type": "function_call", "name": "f", "arguments": "c"},
            {"type": "custom_tool_call", "name": "f", "input": "d"},
            {"type": "function_call_output", "output": "e"},
            {
                "type": "code_interpreter_call",
                "id": "x",
                "status": "completed",
                "code": "f",
                "outputs": [{"logs": "g"}],
            },
            {"type": "reasoning", "id": "x", "summary": [{"type": "summary_text", "text": "i"}]},
        ],
        "prompt": {"id": "p", "variables": {"name": "h"}},
    }
    found = DIALECT.request_segments(body)
    assert [one.text for one in found] == list("abcdefgih")
    assert len({one.channel for one in found}) == len(found)


# ---- answers --------------------------------------------------------------------------------------------------------


def full() -> Script:
    return (
        Script(instructions="the caller's")
        .think("I ", "think")
        .search("weather")
        .code("print", "(1)")
        .call("get_weather", '{"city":', '"Paris"}')
        .call("sql", "select", " 1", custom=True)
        .say("It is ", "sunny.")
        .say(" Really.")
        .say("I can", "not", refusal=True)
    )


def test_a_stream_is_understood_whole() -> None:
    read = streamed(full().end())
    got = read.response
    assert (got.inspection, got.partial_reason) == ("full", "")
    assert (got.text(), got.refusal, got.model) == ("It is sunny. Really.", "I cannot", "gpt-4.1-nano")
    assert [(call.name, call.arguments) for call in got.tool_calls] == [
        ("get_weather", '{"city":"Paris"}'), ("sql", "select 1"),
    ]  # fmt: skip
    assert (got.input_tokens, got.output_tokens, got.cached_input_tokens, got.reasoning_tokens) == (11, 7, 4, 3)
    assert (got.finish_reasons, got.usage_source) == (["completed"], "provider")
    assert read.readings[-1].last


def test_the_same_answer_in_one_piece() -> None:
    read = read_json(DIALECT, response("completed", full().output, instructions="the caller's"))
    stream = streamed(full().end())
    got, other = read.response, stream.response
    assert (got.text(), got.refusal, got.tool_calls) == (other.text(), other.refusal, other.tool_calls)
    assert (got.inspection, got.usage_source, got.finish_reasons) == ("full", "provider", ["completed"])
    segments = read.readings[0].segments
    assert len({segment.path for segment in segments if segment.text}) == len([s for s in segments if s.text])
    texts = [segment.text for segment in segments if segment.text]
    for said in ("the caller's", "I think", "weather", "print(1)", '{"city":"Paris"}', "It is sunny.", "I cannot"):
        assert said in texts


def test_every_text_of_every_event_is_editable() -> None:
    """Nothing that is told anywhere escapes redaction: each string of the answer's own has its segment."""
    read = streamed(Script(instructions="SECRET").think("SECRET").search("SECRET").code("SECRET").call("f", "SECRET")
                    .say("SECRET").say("SECRET", refusal=True).end())  # fmt: skip
    for event, reading in zip(read.events, read.readings, strict=True):
        assert (event.data or "").count("SECRET") == sum("SECRET" in segment.text for segment in reading.segments)


def test_text_is_counted_once_however_often_it_is_told() -> None:
    read = streamed(Script().say("abcd", "efgh").end())
    assert read.response.text_chars == 8
    assert sum(int(Changed.TEXT) & int(one.changed) for one in read.readings) == 2
    fresh = [one for reading in read.readings for one in reading.segments if not one.again]
    assert [one.text for one in fresh if one.channel[0] == "text"] == ["abcd", "efgh"]


@pytest.mark.parametrize(
    ("status", "more", "reason", "error"),
    [
        ("incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens", False),
        ("incomplete", {"incomplete_details": {"reason": "content_filter"}}, "content_filter", False),
        ("failed", {"error": {"code": "server_error", "message": "no"}}, "failed", True),
        ("completed", {}, "completed", False),
    ],
)
def test_how_a_response_ends(status: str, more: dict[str, Any], reason: str, error: bool) -> None:
    for got in (streamed(Script().say("x").end(status, **more)), read_json(DIALECT, response(status, **more))):
        assert got.response.finish_reasons == [reason]
        assert (got.response.is_error, got.response.inspection) == (error, "full")
        assert got.response.output_tokens == 7


def test_a_response_in_the_background_is_not_over() -> None:
    got = read_json(DIALECT, response("queued")).response
    assert (got.finish_reasons, got.usage_source, got.inspection) == ([], "estimate", "full")


def test_errors_are_errors() -> None:
    for status, document in ((400, {"error": {"message": "no"}}), (200, {"error": {"message": "no"}}), (500, {})):
        got = read_json(DIALECT, document, status).response
        assert got.is_error and got.output_tokens == 0
    error = {"type": "error", "code": "x", "message": "no", "param": None, "sequence_number": 3}
    assert streamed([*Script().events, error]).response.is_error
    assert read_stream(DIALECT, [sse({"error": {"message": "no"}}, done=False)]).response.is_error
    with pytest.raises(Malformed):
        read_json(DIALECT, {"object": "list"})


def without(documents: list[Any], *kinds: str) -> list[Any]:
    return [one for one in documents if one["type"] not in kinds]


def test_text_that_only_its_end_tells_is_judged_there() -> None:
    documents = without(Script().say("a", "b").call("f", "{}").end(), "response.output_text.delta",
                        "response.function_call_arguments.delta")  # fmt: skip
    got = streamed(documents).response
    assert (got.text(), got.tool_calls[0].arguments, got.inspection) == ("ab", "{}", "full")


def test_a_repetition_that_says_something_else_is_judged_too() -> None:
    documents = Script().say("harm", "less").call("f", '{"a":1}').end()
    for one in documents:
        if one["type"] == "response.output_text.done":
            one["text"] = "evil"
        if one["type"] == "response.function_call_arguments.done":
            one["arguments"] = '{"a":2}'
    read = streamed(documents)
    assert read.response.text().startswith("harmlessevil")
    assert read.response.inspection == "partial"
    said = [one for reading in read.readings for one in reading.segments if one.text == "evil" and not one.again]
    assert said and said[0].channel[0] == "text"
    assert '{"a":2}' in [one.text for reading in read.readings for one in reading.segments]


ODD = [
    {"type": "response.invented"},
    {"type": "response.output_text.invented", "output_index": 0},
    {"type": "response.output_item.added", "output_index": 9, "item": {"type": "invented_call", "id": "x"}},
    {"type": "response.output_text.delta", "output_index": 99, "content_index": 0, "delta": "x"},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": 5},
    {
        "type": "response.content_part.added",
        "output_index": 0,
        "content_index": 1,
        "part": {"type": "odd", "text": "x"},
    },
    {"no": "type"},
    [],
    "{",
]


@pytest.mark.parametrize("odd", ODD, ids=dumps)
def test_what_is_unknown_makes_the_answer_partial(odd: Any) -> None:
    documents = Script().say("x").end()
    data = sse(*documents[:4], names=True) + sse(odd, done=False) + sse(*documents[4:], names=True)
    assert read_stream(DIALECT, [data]).response.inspection == "partial"


def test_keepalives_and_a_done_of_chats_are_nothing_new() -> None:
    documents = Script().say("x").end()
    documents.insert(3, {"type": "keepalive", "sequence_number": 3})
    data = sse(*documents, names=True) + b"data: [DONE]\n\n"
    assert read_stream(DIALECT, [data]).response.inspection == "full"


def test_a_stream_without_its_end_is_partial() -> None:
    documents = Script().say("x").end()
    for upto in range(len(documents)):
        assert streamed(documents[:upto]).response.inspection == "partial"
    assert (
        read_stream(DIALECT, [sse(*documents[:-1], names=True) + b"data: [DONE]\n\n"]).response.inspection == "partial"
    )


@pytest.mark.parametrize("usage", [{"input_tokens": -1}, {"input_tokens": 1.5}, {"output_tokens": "7"}, [1]], ids=dumps)
def test_numbers_that_are_no_counts_are_not_believed(usage: Any) -> None:
    documents = Script().say("some words").end(usage=usage)
    got = streamed(documents).response
    assert (got.inspection, got.usage_source) == ("partial", "estimate")
    assert got.output_tokens > 0


# ---- in its own voice -----------------------------------------------------------------------------------------------

FALLBACK = 'Stopped.\n\n"quoted" \u2028 data: [DONE] 漢'
STREAMS: dict[str, list[Any]] = {
    "text": Script().say("a", "b").end(),
    "refusal": Script().say("I can", "not", refusal=True).end(),
    "tools": Script().think("hm").call("f", '{"a": "x', 'y"}').call("f", '{"b": [', "1]}").end(),
    "custom": Script().call("sql", "select", " 1", custom=True).say("so").end(),
    "hosted": Script().search("q").code("print", "(1)").say("a").end(),
    "incomplete": Script().say("a").end("incomplete", incomplete_details={"reason": "max_output_tokens"}),
}


def client(body: bytes, kind: str = "text/event-stream", status: int = 200) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", http_client=answering(body, status, kind), max_retries=0)


def ended(documents: list[Any], event: int) -> bytes:
    read = read_stream(DIALECT, [sse(*documents, names=True)])
    read.reader.rewind(read.marks[event])
    return b"".join(one.raw for one in read.events[:event]) + read.reader.ending(Ending(FALLBACK, "stop"))


@pytest.mark.parametrize(
    ("name", "event"),
    [pytest.param(n, e, id=f"{n}-{e}") for n, documents in STREAMS.items() for e in range(len(documents))],
)
def test_a_cut_stream_parses_in_the_openai_sdk(name: str, event: int) -> None:
    body = ended(STREAMS[name], event)
    with client(body).responses.stream(model="m", input="hi") as events:
        seen = list(events)
        final = events.get_final_response()
    assert final.status == "completed"
    assert final.output_text.endswith(FALLBACK)
    assert [one.type for one in final.output] == ["message"] * len(final.output)
    assert [one.sequence_number for one in seen] == list(range(len(seen)))
    opened = [one.output_index for one in seen if one.type == "response.output_item.added"]
    closed = [one.output_index for one in seen if one.type == "response.output_item.done"]
    assert sorted(opened) == sorted(closed)
    for one in seen:
        if one.type == "response.function_call_arguments.done":
            assert isinstance(json.loads(one.arguments), dict)
    got = read_stream(DIALECT, [body]).response
    assert (got.inspection, got.partial_reason) == ("full", "")
    assert got.text().endswith(FALLBACK)


def test_a_call_that_was_cut_says_so() -> None:
    documents = STREAMS["tools"]
    at = next(i for i, one in enumerate(documents) if one["type"] == "response.function_call_arguments.delta") + 1
    said = [json.loads(line[6:]) for line in ended(documents, at).decode().split("\n") if line.startswith("data: ")]
    item = next(one["item"] for one in said if one["type"] == "response.output_item.done" and "call_id" in one["item"])
    assert (item["status"], json.loads(item["arguments"])["policyd_cut"]) == ("incomplete", True)


def test_an_answer_that_is_over_needs_no_ending() -> None:
    documents = STREAMS["text"]
    assert ended(documents, len(documents)) == sse(*documents, names=True)


def test_a_completion_of_our_own_in_the_openai_sdk() -> None:
    told = DIALECT.completion(RequestFacts(model="m"), Ending(FALLBACK, "stop"), "d1")
    got = client(told.data, told.content_type).responses.create(model="m", input="hi")
    assert (got.id, got.model, got.status, got.output_text) == ("resp_d1", "m", "completed", FALLBACK)
    told = DIALECT.completion(RequestFacts(model="m", stream=True), Ending(FALLBACK, "stop"), "d1")
    with client(told.data).responses.stream(model="m", input="hi") as events:
        assert events.get_final_response().output_text == FALLBACK
    assert (
        DIALECT.completion(RequestFacts(), Ending("", "stop"), "x").data
        and DIALECT.completion(RequestFacts(stream=True), Ending("", "stop"), "x").data
    )


def test_an_error_of_our_own_in_the_openai_sdk() -> None:
    told = DIALECT.error(429, "too_much", "Enough.")
    with pytest.raises(openai.RateLimitError, match="Enough") as caught:
        client(told.data, told.content_type, 429).responses.create(model="m", input="hi")
    assert caught.value.code == "too_much"


def test_usage_is_told_in_the_ending() -> None:
    said = ended(STREAMS["text"], 6).decode().split("\n")[-3]
    usage = json.loads(said[6:])["response"]["usage"]
    assert usage.keys() == USAGE.keys()
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
