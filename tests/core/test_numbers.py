"""Long numbers are content as their digits: in requests and responses of every dialect, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.core.model.bounds import Bounds
from policyd.core.stream.dialects.complete import Scan
from policyd.core.stream.dialects.content import ANYTHING, content_of, leaves
from policyd.core.stream.dialects.numbers import LEAST, digits, long_numbers
from policyd.core.stream.dialects.request_fields import REQUESTS, request_structure
from policyd.core.stream.dialects.response_fields import RESPONSES
from policyd.core.stream.json_strict import loads_event
from tests.driving import Bed, delta, policy, sse
from tests.streams import cuts

CARD = 4111111111111111
HIDE = policy("rules: [{name: hide, constrain: {redact: {detectors: [card]}}}]")
COUNTS = policy(
    """rules:
  - {name: asked, when: 'request.detections["card"] == 1', terminate: {}}
"""
)
ANSWERED = policy("rules: [{name: no, when: 'response.detections[\"card\"] == 1', terminate: {}}]")
SAYS = policy("rules: [{name: no, when: 'response.content.contains(\"4111111111111111\")', terminate: {}}]")
ASKS = policy("rules: [{name: no, when: 'request.content.contains(\"4111111111111111\")', terminate: {}}]")

CHAT, ANTHROPIC, GEMINI = "/v1/chat/completions", "/v1/messages", "/v1beta/models/gemini-2.5-pro:generateContent"
CONVERSE, MCP = "/model/amazon.nova-pro-v1%3A0/converse", "/mcp"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("4111111111111111", "4111111111111111"),
        ("-4111111111111111", "-4111111111111111"),
        ("4111111111111111.0", "4111111111111111"),
        ("4.111111111111111e15", "4111111111111111"),
        ("4.111111111111111E+15", "4111111111111111"),
        ("4.0128888888818e18", "4012888888881800000"),
        ("4012888888881881000", "4012888888881881000"),
        ("1000000", "1000000"),
        ("999999", ""),
        ("-999999", ""),
        ("1000000.5", ""),
        ("0.4111111111111111", ""),
        ("1e300", ""),
        ("1e999", ""),
        ("true", ""),
        ("null", ""),
    ],
)
def test_digits(number: str, said: str) -> None:
    value = loads_event(number)
    assert digits(value) == said
    for document in (value, [value], {"a": value}, {"a": [[value], "x"]}, {"a": {"b": [1, value, None, True]}}):
        wanted = [said] if said else []
        assert [leaf.text for leaf in leaves(document) if leaf.number] == wanted
        scan = Scan(ANYTHING)
        scan.walk(document)
        assert [one.text for one in scan.found if not one.name and one.text != "x"] == wanted


def test_lists_of_small_numbers_are_no_content() -> None:
    embedding = [0.25, -0.5] * 500_000
    assert not list(long_numbers(embedding))
    assert list(long_numbers([1, LEAST, None, -LEAST, True, "x"])) == [(1, "1000000"), (3, "-1000000")]


REQUEST: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"metadata": {"card": CARD}}),
    (CHAT, {"novel": [1, 2, CARD]}),
    (CHAT, {"user": CARD}),
    (CHAT, {"documents": [{"data": {"card": float(CARD)}}]}),
    (ANTHROPIC, {"messages": [{"role": "assistant", "content": [
        {"type": "tool_use", "id": "t", "name": "pay", "input": {"card": CARD}}]}]}),
    (ANTHROPIC, {"messages": [{"role": "user", "content": [
        {"type": "text", "text": "hi", "novel": {"deep": CARD}}]}]}),
    (GEMINI, {"contents": [{"parts": [{"functionCall": {"name": "pay", "args": {"seed": CARD}}}]}]}),
    (GEMINI, {"contents": [{"parts": [{"functionResponse": {"name": "pay", "response": {"card": float(CARD)}}}]}]}),
    (CONVERSE, {"messages": [{"role": "user", "content": [
        {"toolResult": {"toolUseId": "t", "content": [{"json": {"card": CARD}}]}}]}]}),
    ("/v2/chat", {"model": "command-r", "documents": [{"data": {"card": CARD}}]}),
    ("/v1/chat", {"model": "command-r", "message": "hi", "tool_results": [
        {"call": {"name": "f", "parameters": {"card": CARD}}, "outputs": [{"x": 1}]}]}),
    ("/api/chat", {"messages": [{"role": "assistant", "content": "", "tool_calls": [
        {"function": {"name": "pay", "arguments": {"card": CARD}}}]}]}),
    (MCP, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "pay", "arguments": {"card": CARD}}}),
]  # fmt: skip


def hosted(path: str) -> str:
    return "api.cohere.com" if path in ("/v2/chat", "/v1/chat") else "llm.test"


def whole(path: str, more: dict[str, Any]) -> bytes:
    base: dict[str, Any] = {}
    if path in (CHAT, ANTHROPIC, "/api/chat", "/v2/chat"):
        base = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    return json.dumps({**base, **more}).encode()


@pytest.mark.parametrize(("path", "more"), REQUEST)
def test_a_number_in_a_request_is_content(path: str, more: dict[str, Any]) -> None:
    body, host = whole(path, more), hosted(path)
    hidden = Bed(HIDE).call(body=body, path=path, host=host)
    assert hidden.sent is not None
    assert b"1111111" not in hidden.sent and b'"[redacted]"' in hidden.sent
    for spec in (ASKS, COUNTS):
        refused = Bed(spec).call(body=body, path=path, host=host).rejected
        assert refused is not None and refused.status == 403


ASK: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    ANTHROPIC: {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
    GEMINI: {"contents": [{"parts": [{"text": "hi"}]}]},
    CONVERSE: {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
    MCP: {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "pay"}},
    "/api/chat": {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False},
}
PARTS = {"parts": [{"functionCall": {"name": "pay", "args": {"card": CARD}}}]}
RESPONSE: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"choices": [{"index": 0, "message": {"content": "hi", "novel": {"card": CARD}}, "finish_reason": "stop"}]}),
    (ANTHROPIC, {"type": "message", "role": "assistant", "stop_reason": "tool_use", "content": [
        {"type": "tool_use", "id": "t", "name": "pay", "input": {"card": CARD}}]}),
    (GEMINI, {"candidates": [{"content": PARTS, "finishReason": "STOP"}]}),
    (CONVERSE, {"stopReason": "tool_use", "output": {"message": {"role": "assistant", "content": [
        {"toolUse": {"toolUseId": "t", "name": "pay", "input": {"card": float(CARD)}}}]}}}),
    (MCP, {"jsonrpc": "2.0", "id": 1, "result": {"content": [], "structuredContent": {"card": CARD}}}),
    ("/api/chat", {"model": "m", "done": True, "done_reason": "stop", "message": {"role": "assistant", "content": "",
        "tool_calls": [{"function": {"name": "pay", "arguments": {"cards": [CARD]}}}]}}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "answer"), RESPONSE)
def test_a_number_in_a_response_is_content(path: str, answer: dict[str, Any]) -> None:
    body = json.dumps(ASK[path]).encode()
    sent = json.dumps(answer).encode()
    hidden = Bed(HIDE).call(body=body, path=path, host="llm.test", chunks=[sent])
    assert b"1111111" not in hidden.body and b'"[redacted]"' in hidden.body
    for spec in (SAYS, ANSWERED):
        refused = Bed(spec).call(body=body, path=path, host="llm.test", chunks=[sent]).rejected
        assert refused is not None and refused.status == 403


@pytest.mark.parametrize("path", ["/v9/unknown", "/v1/images/generations"])
def test_a_number_at_an_endpoint_without_a_dialect_is_content(path: str) -> None:
    sent = json.dumps({"created": 1732224000, "card": CARD}).encode()
    about = "match: {operations: [unknown, image]}\n"
    hide = policy(about + "rules: [{name: hide, constrain: {redact: {detectors: [card]}}}]")
    hidden = Bed(hide).call(body=sent, path=path, host="llm.test", chunks=[sent])
    for body in (hidden.sent, hidden.body):
        assert json.loads(body or b"") == {"created": 1732224000, "card": "[redacted]"}
    for side in ("request", "response"):
        spec = f"rules: [{{name: no, when: '{side}.content.contains(\"{CARD}\")', terminate: {{}}}}]"
        assert Bed(policy(about + spec)).call(body=sent, path=path, host="llm.test", chunks=[sent]).rejected is not None


STREAMS: list[tuple[str, list[dict[str, Any]]]] = [
    (GEMINI.replace("generateContent", "streamGenerateContent") + "?alt=sse", [
        {"candidates": [{"content": {"parts": [{"text": "so "}]}}]},
        {"candidates": [{"content": PARTS, "finishReason": "STOP"}]}]),
    (CHAT, [
        delta("so "),
        {**delta("x"), "created": CARD, "choices": [{"index": 0, "delta": {"content": "x", "novel": CARD}}]},
        delta("", "stop"),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "events"), STREAMS)
def test_a_number_in_a_stream_is_content(path: str, events: list[dict[str, Any]]) -> None:
    body = json.dumps({**(ASK[CHAT] if path == CHAT else ASK[GEMINI]), "stream": True}).encode()
    kind = [("content-type", "text/event-stream")]
    for chunks in cuts(sse(*events, done=path == CHAT), 3):
        hidden = Bed(HIDE).call(body=body, path=path, host="llm.test", chunks=chunks, response_headers=kind)
        assert b'"[redacted]"' in hidden.body
        assert hidden.body.count(b"1111111") == (2 if path == CHAT else 0)  # `created` is structural
        for spec in (SAYS, ANSWERED):
            cut = Bed(spec).call(body=body, path=path, host="llm.test", chunks=chunks, response_headers=kind)
            assert b"so " in cut.body and b"1111111" not in cut.body
            assert cut.record.ended == "cut"


@pytest.mark.parametrize(
    ("structure", "document"),
    [
        (REQUESTS["openai.chat"], {"seed": CARD, "max_tokens": CARD}),
        (REQUESTS["mcp"], {"jsonrpc": "2.0", "id": CARD, "params": {"_meta": {"progressToken": CARD}}}),
        (RESPONSES["openai.chat"], {"created": CARD, "usage": {"total_tokens": CARD}, "choices": [{"index": CARD}]}),
        (RESPONSES["openai.embeddings"], {"data": [{"embedding": [CARD, 1]}]}),
        (RESPONSES["ollama.chat"], {"total_duration": CARD, "eval_duration": float(CARD)}),
        (RESPONSES["bedrock.converse"], {"metrics": {"latencyMs": CARD}}),
        (RESPONSES["huggingface.text"], {"details": {"seed": CARD, "tokens": [{"id": CARD}]}}),
    ],
)
def test_structural_numbers_are_no_content(structure: Any, document: Any) -> None:
    assert not [leaf for leaf in leaves(document, structure) if leaf.number]
    scan = Scan(structure)
    scan.walk(document)
    assert str(CARD) not in [one.text for one in scan.found]


def test_a_caller_cannot_make_a_number_structural_by_its_name() -> None:
    document = {"metadata": {"created": CARD}, "messages": [{"novel": {"id": CARD}}]}
    said = content_of(document, request_structure("openai.chat"), Bounds())
    assert said.split("\n").count(str(CARD)) == 2


@pytest.mark.parametrize("number", ["4111111111111111", "4111111111111111.0", "4.111111111111111e15"])
def test_a_number_becomes_a_string_and_all_else_stays(number: str) -> None:
    body = f'{{"model":"m", "seed": 4111111111111111, "metadata":{{"card" : {number} ,"n":1.50}},"messages":[]}}'
    sent = Bed(HIDE).call(body=body.encode()).sent
    assert sent is not None
    assert sent.decode() == body.replace(f'"card" : {number}', '"card" : "[redacted]"')
