"""Whole calls in the other dialects: cut, redacted, refused, in every cut of the network and in Monitor."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.core.model.decision import Mode
from tests.core.test_endings_others import CASES, FALLBACK, HEAR, Case
from tests.driving import Bed, policy
from tests.streams import cuts

PATHS = {
    "ollama chat": "/api/chat",
    "ollama generate": "/api/generate",
    "cohere": "/v2/chat",
    "cohere 1": "/v1/chat",
    "gemini": "/v1beta/models/gemini-x:streamGenerateContent?alt=sse",
    "gemini array": "/v1beta/models/gemini-x:streamGenerateContent",
    "converse": "/model/m%3A0/converse-stream",
    "invoke claude": "/model/anthropic.m/invoke-with-response-stream",
    "invoke nova": "/model/amazon.nova/invoke-with-response-stream",
    "invoke titan": "/model/amazon.titan/invoke-with-response-stream",
    "invoke llama": "/model/meta.llama/invoke-with-response-stream",
    "mcp": "/mcp",
}
BODIES: dict[str, Any] = {
    "ollama chat": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "ollama generate": {"model": "m", "prompt": "hi"},
    "cohere": {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True},
    "cohere 1": {"model": "m", "message": "hi", "stream": True},
    "gemini": {"contents": [{"parts": [{"text": "hi"}]}]},
    "gemini array": {"contents": [{"parts": [{"text": "hi"}]}]},
    "converse": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
    "invoke claude": {"anthropic_version": "b", "max_tokens": 5, "messages": []},
    "invoke nova": {"schemaVersion": "messages-v1", "messages": []},
    "invoke titan": {"inputText": "hi"},
    "invoke llama": {"prompt": "hi", "max_gen_len": 5},
    "mcp": {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "f", "arguments": {}}},
}
CUT = f"""match: {{operations: ["*"]}}
rules:
- name: cut
  severity: Critical
  when: response.text.contains("b")
  terminate: {{status: 403, reason: no_b, message: no, fallback: {json.dumps(FALLBACK)}}}"""
REDACT = """match: {operations: ["*"]}
rules:
- name: hide
  constrain: {redact: {patterns: ["zzz"], in: [response]}}"""
REFUSE = """match: {operations: ["*"]}
rules:
- name: refuse
  when: request.model == "" || request.model != ""
  terminate: {status: 429, reason: enough, message: "no more"}"""


def called(name: str, spec: str, chunks: list[bytes], mode: Mode = Mode.FULL, body: Any = None) -> Any:
    bed = Bed(policy(spec), mode=mode)
    sent = json.dumps(body or BODIES[name]).encode()
    headers = [("content-type", CASES[name][2])]
    return bed.call(body=sent, path=PATHS[name], response_headers=headers, chunks=chunks)


@pytest.mark.parametrize("name", PATHS)
def test_a_cut_is_the_same_however_the_network_cut(name: str) -> None:
    case: Case = CASES[name]
    outs = [called(name, CUT, chunks) for chunks in cuts(case[3], 3)]
    bodies = {out.body for out in outs}
    assert len(bodies) == 1
    assert {out.record.event for out in outs} == {outs[0].record.event}
    record = outs[0].record
    assert (record.ended, record.inspection, record.reason) == ("cut", "full", "no_b")
    assert record.dialect == case[0].name
    assert HEAR[name](outs[0].body, case[2]).endswith(FALLBACK)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("mode", [Mode.FULL, Mode.MONITOR])
def test_what_changes_nothing_changes_no_byte(name: str, mode: Mode) -> None:
    out = called(name, REDACT, [CASES[name][3]], mode)
    assert out.body == CASES[name][3]
    assert out.sent == json.dumps(BODIES[name]).encode()


@pytest.mark.parametrize("name", PATHS)
def test_a_refusal_is_the_providers_own_error(name: str) -> None:
    out = called(name, REFUSE, [])
    assert out.rejected is not None and out.rejected.status == 429
    assert "no more" in json.dumps(json.loads(out.rejected.body))
    if name.startswith(("converse", "invoke")):
        assert ("x-amzn-errortype", "ThrottlingException") in out.rejected.headers


@pytest.mark.parametrize("name", [name for name in PATHS if name != "mcp"])
def test_an_answer_of_our_own_is_a_stream(name: str) -> None:
    spec = REFUSE.replace("429", "200").replace("no more", "Stopped.")
    out = called(name, spec, [])
    assert out.rejected is not None and out.rejected.status == 200
    kind = dict(out.rejected.headers)["content-type"]
    assert HEAR[name](out.rejected.body, kind) == "Stopped."


def test_a_model_in_the_path_is_a_fact_and_is_rerouted_in_the_path() -> None:
    spec = "rules:\n- {name: other, when: 'request.model == \"m:0\"', reroute: {model: n}}"
    out = called("converse", spec, [])
    assert out.rejected is None
    assert out.request_headers[":path"].startswith("/model/n/converse")
    assert (out.record.model, out.record.served_model) == ("m:0", "n")


def test_usage_of_a_binary_stream_is_the_providers() -> None:
    out = called("invoke titan", REDACT, [CASES["invoke titan"][3]])
    assert {key: out.record.usage[key] for key in ("input_tokens", "output_tokens", "source")} == {
        "input_tokens": 5, "output_tokens": 3, "source": "provider",
    }  # fmt: skip


def test_a_flipped_bit_is_partial_and_closes_where_a_rule_reads_the_text() -> None:
    data = bytearray(CASES["converse"][3])
    data[-20] ^= 1
    out = called("converse", CUT.replace('"b"', '"zzz"'), [bytes(data)])
    assert (out.record.inspection, out.record.inspection_reason) == ("partial", "the checksum of an event is wrong")
    assert out.record.ended == "cut"  # failurePolicy: Fail


def test_a_tool_that_is_denied_is_not_called() -> None:
    spec = "match: {operations: [tool_call]}\nrules:\n- {name: no, constrain: {tools: {deny: [f]}}}"
    assert called("mcp", spec, []).rejected is not None
    other = {**BODIES["mcp"], "params": {"name": "g", "arguments": {}}}
    out = called("mcp", spec, [CASES["mcp"][3]], body=other)
    assert out.rejected is None and out.record.operation == "tool_call"


def test_what_is_no_tool_call_is_other() -> None:
    when = 'request.tools.exists(t, t.name == "f")'
    spec = f"match: {{operations: [tool_call]}}\nrules:\n- {{name: no, when: '{when}', terminate: {{}}}}"
    out = called("mcp", spec, [], body={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert out.rejected is None and out.record.operation == "other"
    assert called("mcp", spec, []).rejected is not None
