"""A record counts by detector what redactions took out, however the bytes came."""

from __future__ import annotations

import json

import pytest

from tests.driving import Bed, answer_of, chat, delta, policy, sse
from tests.streams import cuts

SPEC = """rules:
- name: hide
  constrain: {redact: {detectors: [card, email], patterns: ['zug[a-z]{5}'], in: [request, response]}}"""
CARD, MAIL = "4111 1111 1111 1111", "joe@example.org"
BOTH = f"pay {CARD} or {MAIL} or {CARD}, zugzwang"
COUNTS = {"card": 2, "email": 1}


def test_a_request() -> None:
    out = Bed(policy(SPEC)).call(body=chat(BOTH, user=MAIL), chunks=[answer_of("fine")])
    assert out.record.detections == {"request": {"card": 2, "email": 2}, "response": {}}
    assert out.sent is not None and b"4111" not in out.sent


def test_a_whole_response() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"to": MAIL})}}
    message = {"role": "assistant", "content": BOTH, "tool_calls": [call], "note": MAIL}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]}).encode()
    out = Bed(policy(SPEC)).call(body=chat("hi"), chunks=[body])
    assert out.record.detections == {"request": {}, "response": {"card": 2, "email": 3}}


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_stream(size: int) -> None:
    pieces = [BOTH[at : at + size] for at in range(0, len(BOTH), size)]
    data = sse(*map(delta, pieces), delta("", "stop"))
    for chunks in cuts(data, 3):
        out = Bed(policy(SPEC)).call(body=chat("hi", stream=True), chunks=chunks)
        assert out.record.detections["response"] == COUNTS
        assert "4111" not in out.text


def test_what_an_expression_reads_is_counted_once() -> None:
    spec = SPEC + "\n- {name: seen, when: 'response.detections[?\"card\"].orValue(0) > 9', terminate: {}}"
    out = Bed(policy(spec)).call(body=chat("hi", stream=True), chunks=[sse(delta(BOTH), delta("", "stop"))])
    assert out.record.detections["response"] == COUNTS


def test_nothing_found_is_nothing_counted() -> None:
    out = Bed(policy(SPEC)).call(body=chat("hi"), chunks=[answer_of("fine")])
    assert out.record.detections == {"request": {}, "response": {}}
    assert out.record.verdict == "allow"
