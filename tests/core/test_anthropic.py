"""Anthropic Messages: requests, edits, answers whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ToolResult
from policyd.core.stream.dialects import ALONE, SCATTERED, Changed, Edit, Ending, RequestChange
from policyd.core.stream.dialects.anthropic import AnthropicMessages
from policyd.core.stream.json_text import dumps, loads, splice
from tests.streams import Read, cuts, read_json, read_stream, sse

DIALECT = AnthropicMessages()


def asked(document: Any) -> RequestFacts:
    facts = RequestFacts()
    DIALECT.read_request(loads(dumps(document)), facts)
    return facts


def start(**usage: Any) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
    return {"type": "message_start", "message": {**message, "usage": {"input_tokens": 10, "output_tokens": 1, **usage}}}


def begin(index: int = 0, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block or {"type": "text", "text": ""}}


def delta(index: int = 0, **said: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": said}


def words(text: str, index: int = 0) -> dict[str, Any]:
    return delta(index, type="text_delta", text=text)


def stop(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def over(reason: str | None = "end_turn", **usage: Any) -> dict[str, Any]:
    said = {"stop_reason": reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": said, "usage": {"output_tokens": 15, **usage}}


END = {"type": "message_stop"}


def streamed(*documents: Any, request: RequestFacts | None = None) -> Read:
    """Read whole, and every other way must say the same."""
    data = sse(*documents, names=True)
    whole = read_stream(DIALECT, [data], request)
    for chunks in cuts(data, 3):
        again = read_stream(DIALECT, chunks, request)
        assert again.response == whole.response
        assert again.readings == whole.readings
    return whole


# ---- requests -------------------------------------------------------------------------------------------------------

TOOL_USE = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "in", "b": ["deep", 1]}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "out"}, {"type": "image"}]}
ASKED = {
    "model": "claude-x",
    "max_tokens": 100,
    "stream": True,
    "temperature": 1,
    "system": [{"type": "text", "text": "be"}, {"type": "text", "text": "kind"}],
    "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, TOOL_USE]},
        {"role": "user", "content": [RESULT, {"type": "text", "text": "so?"}]},
        {"role": "user", "content": [{"type": "document", "title": "T", "source": {"type": "text", "data": "doc"}}]},
    ],
    "tools": [{"name": "f"}, {"type": "web_search_20250305", "name": "web_search"}, {"type": "mcp_toolset"}],
    "mcp_servers": [{"type": "url", "name": "files", "url": "u"}],
}


def test_the_facts_of_a_request() -> None:
    facts = asked(ASKED)
    assert (facts.model, facts.stream, facts.max_tokens, facts.temperature) == ("claude-x", True, 100, 1.0)
    assert facts.system == "be\nkind"
    assert [(m.role, m.text) for m in facts.messages] == [
        ("user", "hi"),
        ("assistant", ""),
        ("tool", "out"),
        ("user", "so?"),
        ("user", ""),
    ]
    assert facts.text == "be\nkind\nhi\nhm\nin\ndeep\nout\nso?\nT\ndoc\nbekind"
    assert facts.tool_results == [ToolResult("f", "t", "out")]
    assert [tool.name for tool in facts.tools] == ["f", "web_search", "mcp_toolset", "files"]
    assert 2000 < facts.input_tokens < 2100  # an image and a document
    assert asked({"system": "s", "messages": []}).system == "s"
    assert asked({"messages": []}).system is None


def test_every_text_is_editable_where_it_stands() -> None:
    found = DIALECT.request_segments(ASKED)
    assert [segment.text for segment in found] == ["be", "kind", "hi", "hm", "in", "deep", "out", "so?", "T", "doc"]
    for segment in found:
        at: Any = ASKED
        for key in segment.path:
            at = at[key]
        assert at == segment.text
    assert len({segment.channel for segment in found}) == len(found)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"max_tokens": "5"},
        {"max_tokens": 5.5},
        {"max_tokens": -1},
        {"max_tokens": True},
        {"model": []},
        {"stream": 1},
        {"system": 5},
        {"system": [5]},
        {"messages": "hi"},
        {"messages": [{"role": "user", "content": {"type": "text"}}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": None, "content": [5]}]}]},
        {"tools": {}},
        {"tools": [{"name": 5}]},
        {"System": "x"},
    ],
    ids=repr,
)
def test_a_field_that_cannot_be_is_refused(body: object) -> None:
    with pytest.raises(Malformed):
        asked(body)


# ---- edits ----------------------------------------------------------------------------------------------------------


def named(*names: str) -> list[dict[str, str]]:
    return [{"name": name} for name in names]


def block(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


CHANGES = [
    ("model", {"model": "a"}, {"model": "b"}, {"model": "b"}),
    ("cap lowers", {"max_tokens": 9}, {"caps": (("max_tokens", 5),)}, {"max_tokens": 5}),
    ("cap never raises", {"max_tokens": 3}, {"caps": (("max_tokens", 5),)}, {"max_tokens": 3}),
    ("cap sets", {}, {"caps": (("max_tokens", 5),)}, {"max_tokens": 5}),
    ("set", {"a": 1}, {"sets": ((("b", "c"), 2),)}, {"a": 1, "b": {"c": 2}}),
    ("system, none", {}, {"inject_system": ("x", "y")}, {"system": "x\n\ny"}),
    ("system, text", {"system": "s"}, {"inject_system": ("x",)}, {"system": "s\n\nx"}),
    ("system, blocks", {"system": [block("s")]}, {"inject_system": ("x",)}, {"system": [block("s"), block("x")]}),
    ("system, no blocks", {"system": []}, {"inject_system": ("x",)}, {"system": [block("x")]}),
    ("deny", {"tools": named("a", "b", "c")}, {"tools_deny": frozenset({"a", "c"})}, {"tools": named("b")}),
    (
        "the choice of what is gone",
        {"tools": named("a", "b"), "tool_choice": {"type": "tool", "name": "a"}},
        {"tools_deny": frozenset({"a"})},
        {"tools": named("b")},
    ),
    (
        "another choice stays",
        {"tools": named("a", "b"), "tool_choice": {"type": "any"}},
        {"tools_deny": frozenset({"a"})},
        {"tools": named("b"), "tool_choice": {"type": "any"}},
    ),
    (
        "no tool left",
        {"tools": named("a"), "mcp_servers": named("m"), "tool_choice": {"type": "any"}},
        {"tools_allow": (frozenset(),)},
        {},
    ),
    ("nothing", {"tools": named("a")}, {"tools_allow": (frozenset({"a"}),)}, {"tools": named("a")}),
]


@pytest.mark.parametrize(
    ("document", "change", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_a_change_in_the_dialects_own_fields(document: Any, change: Any, expected: Any) -> None:
    edits = DIALECT.edits(document, RequestChange(**change))
    assert loads(splice(dumps(document).encode(), edits)) == expected


# ---- answers --------------------------------------------------------------------------------------------------------


def test_a_streamed_answer() -> None:
    read = streamed(start(), begin(), {"type": "ping"}, words("Hel"), words("lo"), stop(), over(), END)
    got = read.response
    assert (got.text(), got.model, got.finish_reasons, got.inspection) == ("Hello", "claude-x", ["end_turn"], "full")
    assert (got.input_tokens, got.output_tokens, got.usage_source) == (10, 15, "provider")
    assert [reading.changed for reading in read.readings] == [
        Changed.MODEL | Changed.USAGE,
        Changed.NOTHING,
        Changed.NOTHING,
        Changed.TEXT,
        Changed.TEXT,
        Changed.NOTHING,
        Changed.FINISH | Changed.USAGE,
        Changed.NOTHING,
    ]
    assert [segment.channel for reading in read.readings for segment in reading.segments] == [("text", 0, 0)] * 2
    assert read.readings[3].segments[0].path == ("delta", "text")
    assert [reading.closes for reading in read.readings[5:]] == [[], [("text", 0, 0)], []]
    assert read.readings[-1].last


def test_tool_calls_are_put_together() -> None:
    read = streamed(
        start(),
        begin(0, type="tool_use", id="a", name="get_weather", input={}),
        delta(0, type="input_json_delta", partial_json=""),
        delta(0, type="input_json_delta", partial_json='{"city":'),
        delta(0, type="input_json_delta", partial_json='"Ulm"}'),
        stop(0),
        begin(1, type="server_tool_use", id="b", name="web_search", input={"query": "q"}),
        stop(1),
        begin(2, type="web_search_tool_result", tool_use_id="b", content=[{"type": "web_search_result", "url": "u"}]),
        stop(2),
        begin(3, type="mcp_tool_use", id="c", name="read", server_name="files", input={}),
        delta(3, type="input_json_delta", partial_json="{}"),
        stop(3),
        over("tool_use"),
        END,
    )
    assert [(call.name, call.arguments) for call in read.response.tool_calls] == [
        ("get_weather", '{"city":"Ulm"}'),
        ("web_search", '{"query":"q"}'),
        ("read", "{}"),
    ]
    assert read.response.inspection == "full"
    assert read.readings[3].segments[0].channel == ("args", 0, 0)
    assert read.readings[3].segments[0].path == ("delta", "partial_json")
    content = [one for one in read.readings[6].segments if one.channel[0] in (ALONE[0], SCATTERED)]
    names = {(one.path, one.name) for one in content}
    assert (("content_block", "input", "query"), False) in names
    assert read.readings[5].closes == [("args", 0, 0)]


def test_deltas_replace_the_arguments_that_a_block_began_with() -> None:
    read = streamed(
        start(),
        begin(0, type="tool_use", id="a", name="f", input={"x": 1}),
        delta(0, type="input_json_delta", partial_json='{"y":'),
        delta(0, type="input_json_delta", partial_json="2}"),
        stop(0),
        over("tool_use"),
        END,
    )
    assert read.response.tool_calls[0].arguments == '{"y":2}'


def test_thinking_is_output_but_not_visible() -> None:
    got = streamed(
        start(),
        begin(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="abcd" * 8),
        delta(0, type="signature_delta", signature="s" * 99),
        stop(0),
        begin(1, type="redacted_thinking", data="x" * 99),
        stop(1),
        begin(2),
        words("x", 2),
        delta(2, type="citations_delta", citation={"type": "char_location", "cited_text": "c"}),
    ).response
    assert (got.text(), got.reasoning_tokens, got.output_tokens, got.usage_source) == ("x", 8, 9, "estimate")
    assert got.partial_reason == "the stream ends without its end"


def test_what_the_provider_does_on_its_side_is_understood() -> None:
    got = streamed(
        start(),
        begin(0, type="compaction", content=None),
        delta(0, type="compaction_delta", content="a summary"),
        stop(0),
        begin(1, type="fallback", **{"from": {"model": "a"}, "to": {"model": "b"}}),
        stop(1),
        begin(2, type="container_upload", file_id="f"),
        stop(2),
        over("pause_turn"),
        END,
    ).response
    assert (got.inspection, got.text(), got.finish_reasons) == ("full", "", ["pause_turn"])


def test_a_refusal() -> None:
    said = {"stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "no"}}
    assert streamed(start(), {**over(), "delta": said}, END).response.refusal == "no"
    assert streamed(start(), over("refusal"), END).response.refusal == "refusal"


def test_an_error_event() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}
    read = streamed(start(), begin(), words("x"), error)
    assert read.response.is_error
    assert read.response.inspection == "full"
    assert read.readings[-1].changed & Changed.ERROR
    assert read.reader.ending(Ending("text", "stop")) == b""


BODY = [start(), begin(), words("x"), stop()]
PARTIAL = [
    ("broken json", sse(*BODY, "{", over(), END, names=True), "json"),
    ("an invented event", sse(*BODY, {"type": "surprise"}, over(), END, names=True), "unknown event type"),
    ("a name that is not its type", b"event: ping\n" + sse(*BODY, over(), END, done=False), "not its type"),
    (
        "an unknown block",
        sse(start(), begin(type="surprise"), stop(), over(), END, names=True),
        "unknown content block",
    ),
    ("an unknown delta", sse(*BODY[:2], delta(type="surprise"), stop(), over(), END, names=True), "unknown delta"),
    ("a delta without its block", sse(start(), words("x"), over(), END, names=True), "outside of its block"),
    ("text in a tool call", sse(start(), begin(type="tool_use", name="f"), words("x"), END, names=True), "outside"),
    ("arguments in text", sse(*BODY[:2], delta(type="input_json_delta", partial_json="{"), END, names=True), "outside"),
    ("a stop without a start", sse(*BODY, stop(), over(), END, names=True), "not open"),
    ("no index", sse(start(), {**begin(), "index": "0"}, END, names=True), "no index"),
    ("no end", sse(*BODY, over(), names=True), "without its end"),
    ("no reason", sse(*BODY, END, names=True), "without a stop_reason"),
    ("after the end", sse(*BODY, over(), END, {"type": "ping"}, names=True), "after the end"),
    ("cut short", sse(*BODY, over(), names=True)[:-9], "too early"),
    ("nothing", b"", "without its end"),
]


@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in PARTIAL], ids=[row[0] for row in PARTIAL])
def test_what_is_not_understood_is_partial(data: bytes, reason: str) -> None:
    for chunks in cuts(data, 3):
        got = read_stream(DIALECT, chunks).response
        assert got.inspection == "partial"
        assert reason in got.partial_reason


def test_events_without_names_are_read_by_their_type() -> None:
    got = read_stream(DIALECT, [sse(*BODY, over(), END, done=False)]).response
    assert (got.inspection, got.text()) == ("full", "x")


# ---- usage ----------------------------------------------------------------------------------------------------------

CACHE = {"cache_read_input_tokens": 100, "cache_creation_input_tokens": 7}
ROUNDS = [
    {"type": "compaction", "input_tokens": 180, "output_tokens": 35},
    {"type": "message", "input_tokens": 10, "output_tokens": 15, "cache_read_input_tokens": 2},
]
BILLS = [
    ("plain", start(), over(), (10, 15, 0, 0, 0)),
    ("the cache is input too", start(**CACHE), over(), (117, 15, 100, 7, 0)),
    ("null keeps what was said", start(**CACHE), over(cache_read_input_tokens=None), (117, 15, 100, 7, 0)),
    ("later input counts", start(), over(input_tokens=400), (400, 15, 0, 0, 0)),
    ("thinking", start(), over(output_tokens_details={"thinking_tokens": 9}), (10, 15, 0, 0, 9)),
    ("every sampling is billed", start(), over(iterations=ROUNDS), (192, 50, 2, 0, 0)),
    ("no iterations", start(), over(iterations=None), (10, 15, 0, 0, 0)),
    ("empty iterations", start(), over(iterations=[]), (10, 15, 0, 0, 0)),
]


@pytest.mark.parametrize(("first", "last", "expected"), [row[1:] for row in BILLS], ids=[row[0] for row in BILLS])
def test_usage_is_what_the_bill_says(first: Any, last: Any, expected: tuple[int, ...]) -> None:
    got = streamed(first, *BODY[1:], last, END).response
    assert expected == (
        got.input_tokens,
        got.output_tokens,
        got.cached_input_tokens,
        got.cache_write_tokens,
        got.reasoning_tokens,
    )
    assert (got.usage_source, got.inspection) == ("provider", "full")


def test_the_first_numbers_are_not_final() -> None:
    read = streamed(start(**CACHE), begin(), words("word " * 8))
    got = read.response
    assert (got.input_tokens, got.output_tokens, got.usage_source) == (117, 10, "estimate")


def test_a_running_count_is_not_final_either() -> None:
    got = streamed(start(), begin(), over(None), words("word " * 8), stop(), over("end_turn", output_tokens=40), END)
    assert got.readings[2].changed == Changed.USAGE
    assert (got.response.output_tokens, got.response.usage_source) == (40, "provider")


@pytest.mark.parametrize("bad", [-1, 1.5, "7", True, 2**60, [1]], ids=repr)
def test_numbers_that_are_no_counts_are_not_believed(bad: object) -> None:
    got = streamed(*BODY, over(output_tokens=bad), END).response
    assert (got.output_tokens, got.usage_source, got.inspection) == (1, "estimate", "partial")
    assert streamed(start(input_tokens=bad), *BODY[1:], over(), END).response.inspection == "partial"


# ---- whole answers --------------------------------------------------------------------------------------------------


def whole(**more: Any) -> dict[str, Any]:
    content = [{"type": "thinking", "thinking": "hm", "signature": "s"}, block("Hi"), TOOL_USE, block("!")]
    usage = {"input_tokens": 3, "output_tokens": 4, **CACHE}
    head = {"id": "m", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "tool_use"}
    return {**head, "content": content, "usage": usage, **more}


def test_a_whole_answer() -> None:
    read = read_json(DIALECT, whole())
    got = read.response
    assert (got.text(), got.delta, got.finish_reasons, got.inspection) == ("Hi!", "Hi!", ["tool_use"], "full")
    assert (got.input_tokens, got.output_tokens, got.cached_input_tokens, got.usage_source) == (110, 4, 100, "provider")
    assert [(call.name, call.arguments) for call in got.tool_calls] == [("f", '{"a":"in","b":["deep",1]}')]
    segments = [segment for segment in read.readings[0].segments if segment.text and not segment.name]
    assert [segment.text for segment in segments] == ["hm", "s", "Hi", "f", "in", "deep", "!"]
    for segment in segments:
        at: Any = whole()
        for key in segment.path:
            at = at[key]
        assert at == segment.text


def test_a_whole_answer_bills_every_sampling() -> None:
    got = read_json(DIALECT, whole(usage={"input_tokens": 10, "output_tokens": 15, "iterations": ROUNDS})).response
    assert (got.input_tokens, got.output_tokens) == (192, 50)


@pytest.mark.parametrize(
    ("document", "status"),
    [({"type": "error", "error": {"message": "m"}}, 529), ({"type": "error", "error": {}}, 200), ([], 500), ({}, 404)],
)
def test_an_error_answer(document: object, status: int) -> None:
    got = read_json(DIALECT, document, status).response
    assert got.is_error
    assert (got.input_tokens, got.output_tokens, got.inspection) == (0, 0, "full")


@pytest.mark.parametrize("document", [{}, [], {"content": "x"}], ids=repr)
def test_what_is_no_answer_is_refused(document: object) -> None:
    with pytest.raises(Malformed):
        read_json(DIALECT, document)


VERTEX = "/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-sonnet-4-5@20250929:"


@pytest.mark.parametrize(
    ("verb", "more", "streams"),
    [("rawPredict", {}, False), ("streamRawPredict", {"stream": True}, True), ("streamRawPredict", {}, True)],
)
def test_on_vertex_the_model_stands_in_the_path(verb: str, more: dict[str, object], streams: bool) -> None:
    body = {"anthropic_version": "vertex-2023-10-16", "max_tokens": 9, "messages": [], **more}
    facts = RequestFacts(method="POST", path=VERTEX + verb)

    AnthropicMessages().read_request(body, facts)

    assert (facts.model, facts.stream, facts.max_tokens) == ("claude-sonnet-4-5@20250929", streams, 9)
    with pytest.raises(Malformed, match="stands in its path"):
        AnthropicMessages().edits(body, RequestChange(model="claude-haiku-4-5"))
    assert AnthropicMessages().edits(body, RequestChange(caps=(("max_tokens", 5),))) == [Edit(("max_tokens",), 5)]
