"""Bounds of one call: each is counted before the work that it bounds, decided by failurePolicy, named by the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policyd.core.errors import Malformed
from policyd.core.model.bounds import BadBound, Bounds, bounds_of, parse_bound, table
from policyd.core.stream.json_bounds import check_size
from policyd.core.stream.json_strict import loads
from tests.driving import Bed, chat, policy

LIMITS = Path(__file__).parents[2] / "docs" / "LIMITS.md"


def test_the_documentation_has_every_bound() -> None:
    rows = "\n".join(f"| `{name}` | {default:,} | {counts} |" for name, default, counts in table())
    assert f"| bound | default | what it counts |\n|---|---|---|\n{rows}\n" in LIMITS.read_text()


@pytest.mark.parametrize(
    "text",
    ["json_nodes", "json_nodes=", "json_nodes=0", "json_nodes=-1", "json_nodes=1e3", "x=1", "json_depth=201", "="],
)
def test_a_bound_that_cannot_be(text: str) -> None:
    with pytest.raises(BadBound):
        parse_bound(text)


def test_bounds_are_set_by_name() -> None:
    assert bounds_of(["messages=5", " tools = 7 "]) == Bounds(messages=5, tools=7)


# ---- requests -------------------------------------------------------------------------------------------------------

READS = "rules: [{name: r, when: 'request.text.contains(\"zzz\")', terminate: {}}]"
READS_ANY = 'match: {operations: ["*"]}\n' + READS


def messages(count: int, **more: Any) -> bytes:
    return chat(messages=[{"role": "user", "content": "hi"}] * count, **more)


def gemini(parts: int) -> bytes:
    return json.dumps({"contents": [{"role": "user", "parts": [{"text": "x"}] * parts}]}).encode()


FEW = Bounds(json_nodes=400, json_numbers=300, json_depth=9, messages=10, parts=20, tools=5)
TOOL = {"type": "function", "function": {"name": "f"}}
GEMINI = "/v1beta/models/gemini-2.5-pro:generateContent"
DECLARED = [{"functionDeclarations": [{"name": f"f{n}"} for n in range(6)]}]
OVER: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "empty objects": ("json_nodes", chat(metadata=[{}] * 401), {}),
    "empty lists": ("json_nodes", chat(metadata=[[]] * 401), {}),
    "strings": ("json_nodes", chat(metadata=["ab"] * 401), {}),
    "names": ("json_nodes", chat(metadata={f"n{n}": 0 for n in range(401)}), {}),
    "numbers": ("json_numbers", chat(logit_bias=[1] * 400), {}),
    "constants": ("json_numbers", chat(logit_bias=[None] * 400), {}),
    "deep lists": ("json_depth", chat(metadata=[[[[[[[[[[]]]]]]]]]]), {}),
    "messages": ("messages", messages(11), {}),
    "inputs of embeddings": (
        "messages",
        json.dumps({"model": "e", "input": ["x"] * 11}).encode(),
        {"path": "/v1/embeddings"},
    ),
    "items of Responses": (
        "messages",
        json.dumps({"model": "m", "input": [{"role": "user", "content": "x"}] * 11}).encode(),
        {"path": "/v1/responses"},
    ),
    "calls of JSON-RPC": (
        "messages",
        json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}}] * 11).encode(),
        {"path": "/mcp"},
    ),
    "parts": ("parts", chat(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}] * 7}] * 3), {}),
    "tool calls of a message": (
        "parts",
        chat(messages=[{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}] * 21}]),
        {},
    ),
    "parts of Gemini": ("parts", gemini(21), {"path": GEMINI}),
    "tools": ("tools", chat(tools=[TOOL] * 6), {}),
    "declarations of Gemini": (
        "tools",
        json.dumps({**json.loads(gemini(1)), "tools": DECLARED}).encode(),
        {"path": GEMINI},
    ),
}


@pytest.mark.parametrize(("bound", "body", "how"), OVER.values(), ids=OVER)
@pytest.mark.parametrize("fails", ["Fail", "Ignore"])
def test_a_request_over_a_bound_cannot_be_judged(bound: str, body: bytes, how: dict[str, Any], fails: str) -> None:
    out = Bed(policy(f"failurePolicy: {fails}\n" + READS_ANY), bounds=FEW).call(body=body, **how)

    assert f"(bound {bound})" in str(out.record)
    if fails == "Fail":
        assert out.rejected is not None
        assert (out.rejected.status, out.record.reason) == (503, "policy_error")
        assert f"bound {bound}".encode() in out.rejected.body
    else:
        assert out.rejected is None
        assert out.record.degraded


@pytest.mark.parametrize(
    "body",
    [
        chat("{[,]}" * 300 + '\\" {' * 300),  # text is not counted, whatever it looks like
        messages(10),
        chat(tools=[TOOL] * 5),
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}] * 20}]),
        chat(input_numbers=[0.123456789] * 300),
    ],
)
def test_a_request_within_the_bounds_is_judged(body: bytes) -> None:
    assert Bed(policy(READS_ANY), bounds=FEW).call(body=body).rejected is None


@pytest.mark.parametrize("data", [b'["a\\', b'["' + b'\\"' * 50_000, b'{"' * 60_000, b"[" * 200_000, b'"' * 300_001])
def test_what_is_no_json_is_counted_too(data: bytes) -> None:
    with pytest.raises(Malformed):
        check_size(data, Bounds(json_nodes=10))
        loads(data)


def test_json_text_in_a_string_is_bounded() -> None:
    inner = json.dumps([{}] * 101_000 + ["\\\n"])
    spec = "rules: [{name: r, when: 'request.content.contains(\"zzz\")', terminate: {}}]"

    out = Bed(policy(spec)).call(body=chat(inner))

    assert out.rejected is not None
    assert "(bound json_nodes)" in str(out.record)


# ---- responses ------------------------------------------------------------------------------------------------------


def event(delta: dict[str, Any]) -> bytes:
    document = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    return f"data: {json.dumps(document)}\n\n".encode()


def call(arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": arguments}}]}


END = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
FEW_OUT = Bounds(event_bytes=2000, blank_lines=50, argument_chars=100, json_nodes=200)
OVER_OUT = {
    "blank lines": ("blank_lines", [event({"content": "a"}), b"\n" * 60, event({"content": "b"}), END]),
    "comments": ("blank_lines", [b": x\n\n" * 40, event({"content": "b"}), END]),
    "blank lines with CRLF": ("blank_lines", [b"\r\n" * 60, event({"content": "b"}), END]),
    "one event": ("event_bytes", [event({"content": "a" * 3000}), END]),
    "arguments": ("argument_chars", [event(call('{"a": "')), *([event(call("x" * 20))] * 9), event(call('"}')), END]),
    "values of an event": ("json_nodes", [event({"content": "a", "x": [{}] * 250}), END]),
}
READS_RESPONSE = """rules:
- {name: r, when: 'response.tool_calls.exists(t, t.name == "x") || response.text.contains("zz")', terminate: {}}"""


def sliced(data: bytes) -> list[bytes]:
    return [data[at : at + 7] for at in range(0, len(data), 7)]


@pytest.mark.parametrize(("bound", "chunks"), OVER_OUT.values(), ids=OVER_OUT)
@pytest.mark.parametrize("fails", ["Fail", "Ignore"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_response_over_a_bound_cannot_be_judged(bound: str, chunks: list[bytes], fails: str, whole: bool) -> None:
    data = b"".join(chunks)
    bed = Bed(policy(f"failurePolicy: {fails}\n" + READS_RESPONSE), bounds=FEW_OUT)

    out = bed.call(body=chat(stream=True), chunks=[data] if whole else sliced(data))

    assert f"(bound {bound})" in str(out.record)
    if fails == "Fail":
        assert (out.record.verdict, out.record.reason) == ("terminate", "policy_error")
    else:
        assert out.body == data.replace(b": x\n", b":\n")
        assert out.record.degraded


def test_arguments_of_a_response_in_one_piece_are_bounded() -> None:
    message = {
        "role": "assistant",
        "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": '"' + "x" * 200 + '"'}}],
    }
    document = {"id": "c", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    out = Bed(policy(READS_RESPONSE), bounds=FEW_OUT).call(body=chat(), chunks=[json.dumps(document).encode()])

    assert out.record.reason == "policy_error"
    assert "(bound argument_chars)" in str(out.record)


# ---- expressions ----------------------------------------------------------------------------------------------------

COSTLY = [
    ("request.messages.exists(a, request.messages.exists(b, a.text == b.role))", 400),
    ("request.messages.exists(m, !m.text.matches('zz'))", 1100),
    ("request.text.split('').exists(t, t.matches('zz'))", 3000),
    ("request.messages.map(m, m.text).exists(t, t.matches('zz') && t.matches('yy'))", 1100),
]


@pytest.mark.parametrize(("when", "count"), COSTLY)
@pytest.mark.parametrize("fails", ["Fail", "Ignore"])
def test_an_expression_that_costs_too_much_is_not_begun(when: str, count: int, fails: str) -> None:
    spec = f'failurePolicy: {fails}\nrules: [{{name: r, when: "{when}", terminate: {{}}}}]'
    bed = Bed(policy(spec))

    few, many = bed.call(body=messages(2)), bed.call(body=messages(count))

    assert "(bound cel_cost)" not in str(few.record)
    assert "(bound cel_cost)" in str(many.record)
    assert (many.rejected is not None) == (fails == "Fail")
    assert (
        Bed(policy(spec), bounds=Bounds(cel_cost=1 << 40)).call(body=messages(2)).record.verdict == few.record.verdict
    )


def test_a_rule_that_costs_too_much_leaves_the_others_alone() -> None:
    costly, cheap = COSTLY[0][0], "request.messages.size() > 300"
    watched = f'{{name: a, when: "{costly}", mode: Monitor, terminate: {{}}}}'
    rules = f'[{watched}, {{name: b, when: "{cheap}", terminate: {{}}}}]'

    out = Bed(policy(f"rules: {rules}")).call(body=messages(400))

    assert out.rejected is not None
    assert out.rejected.status == 403
