"""OpenAI Chat Completions: requests, edits, answers whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import Changed, RequestChange
from policyd.core.stream.dialects.openai_chat import OpenAIChat
from policyd.core.stream.json_text import dumps, loads, splice
from tests.streams import Read, cuts, read_json, read_stream, sse

DIALECT = OpenAIChat()


def asked(document: Any, path: str = "/v1/chat/completions") -> RequestFacts:
    facts = RequestFacts(path=path)
    DIALECT.read_request(loads(dumps(document)), facts)
    return facts


def chunk(delta: dict[str, Any] | None, reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": reason}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    return {**head, "choices": choices, **more}


def usage(prompt: int, output: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output, **more}


def streamed(*documents: Any, done: bool = True, request: RequestFacts | None = None) -> Read:
    """Read whole, and every other way must say the same."""
    data = sse(*documents, done=done)
    whole = read_stream(DIALECT, [data], request)
    for chunks in cuts(data, 3):
        again = read_stream(DIALECT, chunks, request)
        assert again.response == whole.response
        assert again.readings == whole.readings
    return whole


# ---- requests ----------------------------------------------------------------------------------------------------


def test_the_facts_of_a_request() -> None:
    facts = asked(
        {
            "model": "gpt-4o",
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
            "max_tokens": 10,
            "n": 2,
            "messages": [
                {"role": "system", "content": "be kind"},
                {"role": "developer", "content": [{"type": "text", "text": "be"}, {"type": "text", "text": "brief"}]},
                {"role": "user", "name": "ann", "content": [{"type": "text", "text": "hi"}, {"type": "image_url"}]},
                {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "content": "42", "tool_call_id": "c"},
            ],
            "tools": [
                {"type": "function", "function": {"name": "get_weather"}},
                {"type": "custom", "custom": {"name": "sql"}},
                {"type": "web_search"},
            ],
            "functions": [{"name": "legacy"}],
        }
    )
    assert (facts.model, facts.stream, facts.wants_usage, facts.temperature) == ("gpt-4o", True, True, 0.5)
    assert (facts.max_tokens, facts.choices) == (10, 2)
    assert [(m.role, m.text, m.name) for m in facts.messages] == [
        ("system", "be kind", None),
        ("developer", "be\nbrief", None),
        ("user", "hi", "ann"),
        ("assistant", "", None),
        ("tool", "42", None),
    ]
    assert facts.system == "be kind\nbe\nbrief"
    assert facts.text == "be kind\nbe\nbrief\nhi\n{}\n42\nbebrief"
    assert [tool.name for tool in facts.tools] == ["get_weather", "sql", "web_search", "legacy"]
    assert facts.input_tokens > 1000  # the image


def test_what_was_not_sent_is_absent() -> None:
    facts = asked({"model": None, "max_tokens": None, "temperature": None, "stream": None, "messages": None})
    absent = (facts.model, facts.max_tokens, facts.temperature, facts.stream, facts.system, facts.messages)
    assert absent == (None, None, None, None, None, [])
    assert facts.choices == 1


def test_azure_names_its_model_in_the_path() -> None:
    assert asked({}, "/openai/deployments/my-gpt/chat/completions").model == "my-gpt"
    assert asked({"model": "m"}, "/openai/deployments/my-gpt/chat/completions").model == "my-gpt"


@pytest.mark.parametrize("value", ["5", 5.5, 5.0, -1, True, 2**53, [], {}], ids=repr)
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_a_wrong_type_is_refused(field: str, value: object) -> None:
    with pytest.raises(Malformed, match=field):
        asked({field: value})


def test_with_both_limits_the_higher_counts() -> None:
    assert asked({"max_tokens": 5, "max_completion_tokens": 500}).max_tokens == 500


@pytest.mark.parametrize(
    "body",
    [
        [],
        None,
        "x",
        {"model": 5},
        {"stream": "true"},
        {"temperature": "hot"},
        {"temperature": True},
        {"messages": {}},
        {"messages": ["hi"]},
        {"messages": [{"role": 1}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [5]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
        {"tools": "all"},
        {"tools": [{"type": "function", "function": {"name": 5}}]},
        {"n": 0},
        {"n": "2"},
        {"n": 10**6},
        {"stream_options": []},
        {"Model": "gpt-4o"},
        {"model": "gpt-4o", "MAX_TOKENS": 5},
    ],
    ids=repr,
)
def test_a_field_that_cannot_be_is_refused(body: object) -> None:
    with pytest.raises(Malformed):
        asked(body)


@pytest.mark.parametrize("model", ["gpt-4\u043e", "gpt-4o ", "gpt\u200b-4o", "\uff47pt-4o", "e\u0301"])
def test_a_model_is_read_as_it_is_written(model: str) -> None:
    assert asked({"model": model}).model == model


def test_an_unknown_part_is_kept() -> None:
    facts = asked({"messages": [{"role": "user", "content": [{"type": "hologram", "data": "x"}, "plain"]}]})
    assert facts.messages[0].text == "plain"
    assert facts.input_tokens > 1000


def test_every_text_is_editable_where_it_stands() -> None:
    document = {
        "messages": [
            {"role": "user", "content": "a", "refusal": "b"},
            {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "image_url"}, "d"]},
            {
                "role": "assistant",
                "tool_calls": [{"function": {"arguments": "e"}}, {"custom": {"input": "f"}}],
                "function_call": {"arguments": "g"},
            },
        ],
        "prediction": {"content": "h"},
    }
    found = DIALECT.request_segments(document)
    assert [segment.text for segment in found] == list("abcdefgh")
    for segment in found:
        at: Any = document
        for key in segment.path:
            at = at[key]
        assert at == segment.text
    assert len({segment.channel for segment in found}) == len(found)


# ---- edits --------------------------------------------------------------------------------------------------------


def changed(document: dict[str, Any], **change: Any) -> Any:
    return loads(splice(dumps(document).encode(), DIALECT.edits(document, RequestChange(**change))))


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


S, U = {"role": "system", "content": "s"}, {"role": "user", "content": "u"}
CHANGES = [
    ("model", {"model": "a"}, {"model": "b"}, {"model": "b"}),
    ("cap lowers", {"max_tokens": 9}, {"caps": (("max_tokens", 5),)}, {"max_tokens": 5}),
    ("cap never raises", {"max_tokens": 3}, {"caps": (("max_tokens", 5),)}, {"max_tokens": 3}),
    ("cap sets", {"model": "gpt-4o"}, {"caps": (("max_tokens", 5),)}, {"model": "gpt-4o", "max_tokens": 5}),
    ("cap sets for null", {"max_tokens": None}, {"caps": (("max_tokens", 5),)}, {"max_tokens": 5}),
    ("cap, newer", {"model": "o3"}, {"caps": (("max_tokens", 5),)}, {"model": "o3", "max_completion_tokens": 5}),
    (
        "cap, gpt-5",
        {"model": "gpt-5-x"},
        {"caps": (("max_tokens", 5),)},
        {"model": "gpt-5-x", "max_completion_tokens": 5},
    ),
    ("cap as it stands", {"max_completion_tokens": 9}, {"caps": (("max_tokens", 5),)}, {"max_completion_tokens": 5}),
    (
        "cap both",
        {"max_completion_tokens": 9, "max_tokens": 4},
        {"caps": (("max_tokens", 5),)},
        {"max_completion_tokens": 5, "max_tokens": 4},
    ),
    (
        "cap after set",
        {"max_tokens": 1},
        {"sets": ((("max_tokens",), 9),), "caps": (("max_tokens", 5),)},
        {"max_tokens": 5},
    ),
    (
        "set deep",
        {"a": [{"b": 1}]},
        {"sets": ((("a", "0", "b"), 2), (("c", "d"), 3))},
        {"a": [{"b": 2}], "c": {"d": 3}},
    ),
    (
        "deny",
        {"tools": [tool("a"), tool("b"), tool("c")], "tool_choice": "auto"},
        {"tools_deny": frozenset({"a", "c"})},
        {"tools": [tool("b")], "tool_choice": "auto"},
    ),
    (
        "allow drops the choice of what is gone",
        {"tools": [tool("a"), tool("b")], "tool_choice": tool("b")},
        {"tools_allow": (frozenset({"a"}),)},
        {"tools": [tool("a")]},
    ),
    (
        "allowed_tools too",
        {
            "tools": [tool("a"), tool("b")],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [tool("b")]}},
        },
        {"tools_deny": frozenset({"b"})},
        {"tools": [tool("a")]},
    ),
    (
        "no tool left",
        {"tools": [tool("a")], "tool_choice": "required", "parallel_tool_calls": False, "x": 1},
        {"tools_allow": (frozenset(),)},
        {"x": 1},
    ),
    (
        "legacy functions",
        {"functions": [{"name": "a"}, {"name": "b"}], "function_call": {"name": "a"}},
        {"tools_deny": frozenset({"a"})},
        {"functions": [{"name": "b"}]},
    ),
    ("allow all that is there", {"tools": [tool("a")]}, {"tools_allow": (frozenset({"a"}),)}, {"tools": [tool("a")]}),
    (
        "inject after the system messages",
        {"messages": [S, U]},
        {"inject_system": ("x", "y")},
        {"messages": [S, {"role": "system", "content": "x"}, {"role": "system", "content": "y"}, U]},
    ),
    (
        "inject in the leading role",
        {"messages": [{"role": "developer", "content": "d"}, U]},
        {"inject_system": ("x",)},
        {"messages": [{"role": "developer", "content": "d"}, {"role": "developer", "content": "x"}, U]},
    ),
    (
        "inject first",
        {"messages": [U]},
        {"inject_system": ("x",)},
        {"messages": [{"role": "system", "content": "x"}, U]},
    ),
    (
        "usage",
        {"stream": True, "stream_options": None},
        {"include_usage": True},
        {"stream": True, "stream_options": {"include_usage": True}},
    ),
    ("no usage without a stream", {"stream": False}, {"include_usage": True}, {"stream": False}),
    ("nothing", {"model": "a"}, {}, {"model": "a"}),
]


@pytest.mark.parametrize(
    ("document", "change", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_a_change_in_the_dialects_own_fields(document: Any, change: Any, expected: Any) -> None:
    assert changed(document, **change) == expected


# ---- answers ------------------------------------------------------------------------------------------------------


def test_a_streamed_answer() -> None:
    read = streamed(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        chunk(None, usage=usage(9, 12, prompt_tokens_details={"cached_tokens": 4})),
    )
    got = read.response
    assert (got.text(), got.model, got.finish_reasons, got.inspection) == ("Hello", "gpt-4o", ["stop"], "full")
    assert (got.input_tokens, got.output_tokens, got.cached_input_tokens, got.usage_source) == (9, 12, 4, "provider")
    assert [reading.changed for reading in read.readings] == [
        Changed.MODEL,
        Changed.TEXT,
        Changed.TEXT,
        Changed.FINISH,
        Changed.USAGE,
        Changed.NOTHING,
    ]
    assert [segment.text for reading in read.readings for segment in reading.segments] == ["Hel", "lo"]
    assert read.readings[1].segments[0].channel == ("text", 0, 0)
    assert read.readings[1].segments[0].path == ("choices", 0, "delta", "content")
    assert read.readings[3].closes == [("text", 0, 0)]
    assert read.readings[-1].last


def test_choices_are_kept_apart() -> None:
    read = streamed(
        chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({"content": "A"}),
        chunk({}, "length", index=1), chunk({}, "stop"),
    )  # fmt: skip
    assert (read.response.text(0), read.response.text(1), read.response.all_text()) == ("aA", "b", "aA\nb")
    assert read.response.finish_reasons == ["stop", "length"]
    assert read.readings[3].closes == [("text", 1, 0)]


def test_tool_calls_are_put_together() -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        head = {"id": f"call_{index}", "type": "function"} if "name" in function else {}
        return {"tool_calls": [{"index": index, **head, "function": function}]}

    read = streamed(
        chunk(call(0, name="get_weather", arguments="")),
        chunk(call(0, arguments='{"city":')),
        chunk(call(0, arguments='"Ulm"}')),
        chunk(call(1, name="get_time", arguments="{}")),
        chunk({}, "tool_calls"),
    )
    assert [(call.name, call.arguments) for call in read.response.tool_calls] == [
        ("get_weather", '{"city":"Ulm"}'),
        ("get_time", "{}"),
    ]
    segments = [
        one for reading in read.readings for one in reading.segments if one.channel[0] not in ("alone", "loose")
    ]
    assert [(segment.channel, segment.text) for segment in segments] == [
        (("args", 0, 0), ""),  # the name: it belongs to the call
        (("args", 0, 0), '{"city":'),
        (("args", 0, 0), '"Ulm"}'),
        (("args", 0, 1), "{}"),
    ]
    assert read.readings[0].changed & Changed.TOOLS
    assert set(read.readings[-2].closes) == {("args", 0, 0), ("args", 0, 1)}
    assert read.response.text() == ""
    assert read.response.output_tokens > 3


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        (
            [{"index": 0, "id": "a", "function": {"name": "f"}}, {"index": 0, "id": "b", "function": {"name": "g"}}],
            ["f", "g"],
        ),
        ([{"index": 0, "id": "a", "function": {"name": "f"}}, {"index": 0, "function": {"name": "f"}}], ["f"]),
        ([{"index": 0, "function": {"name": "get_"}}, {"index": 0, "function": {"name": "time"}}], ["get_time"]),
        ([{"id": "a", "function": {"name": "f", "arguments": "{}"}}], ["f"]),
        ([{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sql", "input": "x"}}], ["sql"]),
    ],
    ids=["all numbered 0", "name repeated", "name in pieces", "no index", "custom"],
)
def test_tool_calls_as_others_number_them(deltas: list[Any], expected: list[str]) -> None:
    read = streamed(*(chunk({"tool_calls": [delta]}) for delta in deltas), chunk({}, "tool_calls"))
    assert [call.name for call in read.response.tool_calls] == expected
    assert read.response.inspection == "full"


def test_a_legacy_function_call() -> None:
    read = streamed(
        chunk({"function_call": {"name": "f", "arguments": ""}}),
        chunk({"function_call": {"arguments": "{}"}}),
        chunk({}, "function_call"),
    )
    assert [(call.name, call.arguments) for call in read.response.tool_calls] == [("f", "{}")]


UNDERSTOOD = [
    ("azure's filter first", chunk(None, id="", model="", object="", prompt_filter_results=[{"prompt_index": 0}])),
    ("azure's filter later", {"id": "", "object": "", "choices": [{"index": 0, "content_filter_offsets": {"a": 1}}]}),
    ("obfuscation", chunk({"content": "x"}, obfuscation="abc")),
    ("logprobs", {**chunk(None), "choices": [{"index": 0, "delta": {}, "logprobs": {"content": [{"token": "x"}]}}]}),
    ("annotations", chunk({"annotations": [{"type": "url_citation", "url_citation": {"url": "u"}}]})),
    ("audio", chunk({"audio": {"id": "a", "data": "AAAA", "transcript": "hi"}})),
    ("refusal", chunk({"refusal": "no"})),
    ("reasoning", chunk({"reasoning_content": "hm"})),
    ("reasoning details", chunk({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]})),
    ("moderation", chunk(None, moderation={"input": {"type": "moderation_results"}})),
    ("parts", chunk({"content": [{"type": "thinking", "thinking": [{"text": "a"}]}, {"type": "text", "text": "b"}]})),
    ("a field without text", chunk({"weight": 1, "flags": [True, None]})),
    ("nothing in it", chunk({})),
    ("usage without choices", {"id": "x", "object": "chat.completion.chunk", "usage": usage(1, 2)}),
]


@pytest.mark.parametrize("event", [row[1] for row in UNDERSTOOD], ids=[row[0] for row in UNDERSTOOD])
def test_what_is_understood_stays_full(event: Any) -> None:
    read = streamed(event, chunk({"content": "x"}), chunk({}, "stop"))
    assert (read.response.inspection, read.response.partial_reason) == ("full", "")


def test_reasoning_is_output_but_not_visible() -> None:
    got = streamed(chunk({"reasoning": "abcdefgh" * 4}), chunk({"content": "x"}), chunk({}, "stop")).response
    assert (got.text(), got.reasoning_tokens, got.output_tokens) == ("x", 8, 9)


def test_a_refusal_and_a_transcript() -> None:
    got = streamed(chunk({"refusal": "I "}), chunk({"refusal": "won't"}), chunk({}, "stop")).response
    assert (got.refusal, got.text()) == ("I won't", "")
    assert streamed(chunk({"audio": {"transcript": "hi"}}), chunk({}, "stop")).response.text() == "hi"


PARTIAL = [
    ("broken json", sse(chunk({"content": "x"}), '{"choices": [', chunk({}, "stop")), "json"),
    ("a key twice", sse('{"choices": [], "choices": []}', chunk({}, "stop")), "duplicate key"),
    ("no object", sse("[1]", chunk({}, "stop")), "not an object"),
    ("an invented type", sse(chunk({}, "stop"), chunk(None, object="chat.completion.surprise")), "unknown event type"),
    ("an invented event name", b"event: surprise\n" + sse(chunk({}, "stop")), "unknown event type"),
    ("no chunk at all", sse({"hello": "world"}, chunk({}, "stop")), "unknown event type"),
    ("a field with text", sse(chunk({"smuggled": {"a": ["x"]}}), chunk({}, "stop")), "unknown field"),
    ("an unknown part", sse(chunk({"content": [{"type": "x", "y": "z"}]}), chunk({}, "stop")), "unknown part"),
    ("no end", sse(chunk({"content": "x"}), done=False), "without its end"),
    ("nothing", b"", "without its end"),
    ("[DONE] before the end", sse(chunk({"content": "x"})), "before its choices"),
    ("[DONE] alone", sse(), "before its choices"),
    ("after [DONE]", sse(chunk({}, "stop")) + sse(chunk({"content": "x"})), "after the end"),
    ("text after its end", sse(chunk({}, "stop"), chunk({"content": "x"})), "after the end of its choice"),
    ("[DONE] and more", sse(chunk({}, "stop"), "[DONE] x", done=False), "after the end"),
    ("choices no list", sse({"choices": {}}, chunk({}, "stop")), "choices"),
    ("a message beside a delta", sse({"choices": [{"index": 0, "delta": {}, "message": {"content": "x"}}]}), "beside"),
]


@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in PARTIAL], ids=[row[0] for row in PARTIAL])
def test_what_is_not_understood_is_partial(data: bytes, reason: str) -> None:
    for chunks in cuts(data, 3):
        got = read_stream(DIALECT, chunks).response
        assert got.inspection == "partial"
        assert reason in got.partial_reason


def test_an_unreadable_event_says_so() -> None:
    read = read_stream(DIALECT, [sse(chunk({"content": "x"}), "{", {"choices": [5]}, "[DONE]", done=False)])
    assert [reading.malformed for reading in read.readings] == [False, True, True, False]
    assert read.readings[1].changed & Changed.INSPECTION


def test_done_may_be_missing_or_stand_twice_or_in_content() -> None:
    assert streamed(chunk({"content": "x"}), chunk({}, "stop"), done=False).response.inspection == "full"
    assert streamed(chunk({}, "stop"), "[DONE]").response.inspection == "full"
    got = streamed(chunk({"content": "[DONE]"}), chunk({"content": "\n\ndata: [DONE]\n\n"}), chunk({}, "stop")).response
    assert (got.inspection, got.text()) == ("full", "[DONE]\n\ndata: [DONE]\n\n")


def test_an_error_event() -> None:
    for data in (
        sse(chunk({"content": "x"}), {"error": {"message": "m"}}, done=False),
        b'event: error\ndata: {"e": 1}\n\n',
    ):
        read = read_stream(DIALECT, [data])
        assert read.response.is_error
        assert read.readings[-1].changed & Changed.ERROR
        assert read.response.inspection == "full"


# ---- usage --------------------------------------------------------------------------------------------------------

END = chunk({}, "stop")
MOONSHOT = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage(5, 7)}]}
INSIDE = {"completion_tokens_details": {"reasoning_tokens": 4}}
BILLS = [
    ("at the end", [END, chunk(None, usage=usage(5, 7))], (5, 7, 0, 0, "provider")),
    ("with the end", [chunk({}, "stop", usage=usage(5, 7))], (5, 7, 0, 0, "provider")),
    ("groq's", [chunk({}, "stop", x_groq={"id": "r", "usage": usage(5, 7)})], (5, 7, 0, 0, "provider")),
    ("moonshot's", [MOONSHOT], (5, 7, 0, 0, "provider")),
    ("null", [chunk({"content": "x"}, usage=None), END], (0, 1, 0, 0, "estimate")),
    (
        "in every chunk",
        [chunk({"content": "x"}, usage=usage(5, 1)), chunk({}, "stop", usage=usage(5, 2))],
        (5, 2, 0, 0, "provider"),
    ),
    ("before the end only", [chunk({"content": "x"}, usage=usage(5, 9)), END], (5, 9, 0, 0, "provider")),
    ("then text came", [chunk({}, usage=usage(5, 9)), chunk({"content": "abcdefgh"}), END], (5, 11, 0, 0, "estimate")),
    (
        "twice, decreasing",
        [END, chunk(None, usage=usage(5, 9)), chunk(None, usage=usage(5, 7))],
        (5, 7, 0, 0, "provider"),
    ),
    ("reasoning inside", [END, chunk(None, usage=usage(5, 9, **INSIDE))], (5, 9, 0, 4, "provider")),
    (
        "reasoning beside",
        [END, chunk(None, usage={**usage(5, 3, **INSIDE), "total_tokens": 12})],
        (5, 7, 0, 4, "provider"),
    ),
    ("reasoning unnamed", [END, chunk(None, usage={**usage(5, 3), "total_tokens": 12})], (5, 7, 0, 4, "provider")),
    ("deepseek's cache", [END, chunk(None, usage=usage(5, 3, prompt_cache_hit_tokens=2))], (5, 3, 2, 0, "provider")),
    ("more cached than input", [END, chunk(None, usage=usage(5, 3, cached_tokens=9))], (5, 3, 5, 0, "provider")),
]


@pytest.mark.parametrize(("events", "expected"), [row[1:] for row in BILLS], ids=[row[0] for row in BILLS])
def test_usage_is_what_the_bill_says(events: list[Any], expected: tuple[Any, ...]) -> None:
    got = streamed(*events).response
    numbers = (got.input_tokens, got.output_tokens, got.cached_input_tokens, got.reasoning_tokens, got.usage_source)
    assert numbers == expected
    assert got.inspection == "full"


@pytest.mark.parametrize("bad", [-1, 1.5, "7", True, 2**60, [1]], ids=repr)
def test_numbers_that_are_no_counts_are_not_believed(bad: object) -> None:
    got = streamed(
        chunk({"content": "abcdefgh"}), END, chunk(None, usage={**usage(5, 1), "completion_tokens": bad})
    ).response
    assert (got.output_tokens, got.usage_source, got.inspection) == (2, "estimate", "partial")


def test_the_estimate_grows_with_the_text() -> None:
    request = RequestFacts(input_tokens=33)
    read = streamed(*(chunk({"content": "word "}) for _ in range(8)), END, request=request)
    assert (read.response.input_tokens, read.response.output_tokens) == (33, 10)
    assert streamed(*(chunk({"content": "x"}) for _ in range(8)), END).response.output_tokens == 8
    assert streamed(chunk({"content": "漢字"}), END).response.output_tokens == 3


# ---- whole answers --------------------------------------------------------------------------------------------------


def whole(**more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    return {"id": "c", "object": "chat.completion", "model": "gpt-4o", "choices": choices, "usage": usage(3, 4), **more}


def test_a_whole_answer() -> None:
    read = read_json(DIALECT, whole())
    got = read.response
    assert (got.text(), got.delta, got.finish_reasons, got.model, got.inspection) == (
        "Hi",
        "Hi",
        ["stop"],
        "gpt-4o",
        "full",
    )
    assert (got.input_tokens, got.output_tokens, got.usage_source) == (3, 4, "provider")
    [segment] = read.readings[0].segments
    assert segment.path == ("choices", 0, "message", "content")
    assert read.readings[0].closes == [("text", 0, 0)]


def test_a_whole_answer_with_calls() -> None:
    calls = [
        {"id": "a", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "function": {"name": "g", "arguments": "1"}},
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    got = read_json(DIALECT, whole(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])).response
    assert [(call.name, call.arguments) for call in got.tool_calls] == [("f", "{}"), ("g", "1")]


@pytest.mark.parametrize(
    ("document", "status"),
    [({"error": {"message": "m"}}, 400), ({"error": "m"}, 200), ({"detail": "x"}, 404), ([], 500)],
)
def test_an_error_answer(document: object, status: int) -> None:
    got = read_json(DIALECT, document, status).response
    assert got.is_error
    assert (got.input_tokens, got.output_tokens, got.inspection) == (0, 0, "full")


@pytest.mark.parametrize("document", [{}, [], {"choices": None}, {"object": "list", "data": []}], ids=repr)
def test_what_is_no_answer_is_refused(document: object) -> None:
    with pytest.raises(Malformed):
        read_json(DIALECT, document)


def test_segments_can_be_left_out() -> None:
    read = read_stream(DIALECT, [sse(chunk({"content": "x"}))])
    reader = DIALECT.reader(RequestFacts(), read.response)
    reader.want_segments = False  # type: ignore[attr-defined]
    reader.want_content(False)
    assert not reader.read_event("", dumps(chunk({"content": "x"}))).segments
