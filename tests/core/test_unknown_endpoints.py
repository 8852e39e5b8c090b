"""Endpoints that nobody knows: their requests and responses are read, judged and redacted by their strings."""

from __future__ import annotations

import json

import pytest

from tests.driving import Bed, Outcome, policy, sse
from tests.streams import cuts

WORD = "zugzwang"
ABOUT = "match: {operations: [unknown]}\n"
NO = policy(ABOUT + f"rules: [{{name: no, when: 'response.content.contains(\"{WORD}\")', terminate: {{}}}}]")
TEXT = policy(ABOUT + f"rules: [{{name: no, when: 'response.text.contains(\"{WORD}\")', terminate: {{}}}}]")
HIDE = policy(
    ABOUT + f"rules: [{{name: hide, constrain: {{redact: {{patterns: [{WORD}], in: [request, response]}}}}}}]"
)
PATHS = ("/v1/some/call", "/v9/new/endpoint", "/converse-with")


def asked(spec: str, answer: bytes, path: str = PATHS[0], kind: str = "application/json") -> Outcome:
    body = json.dumps({"thread": {"messages": [{"role": "user", "content": f"say {WORD}"}]}}).encode()
    return Bed(spec).call(body=body, path=path, chunks=[answer], response_headers=[("content-type", kind)])


@pytest.mark.parametrize("path", PATHS)
def test_a_response_is_judged(path: str) -> None:
    for spec in (NO, TEXT):
        out = asked(spec, json.dumps({"deep": [{"said": f"a {WORD}"}]}).encode(), path)
        assert out.rejected is not None and out.rejected.status == 403
        out = asked(spec, b'{"said": "nothing of it"}', path)
        assert out.rejected is None
        assert (out.record.operation, out.record.inspection) == ("unknown", "partial")
        assert out.record.inspection_reason == "the endpoint is not known"


@pytest.mark.parametrize("path", PATHS)
def test_both_directions_are_redacted(path: str) -> None:
    out = asked(HIDE, json.dumps({"deep": [{"said": f"a {WORD}"}]}).encode(), path)
    assert out.rejected is None
    assert WORD.encode() not in out.body and b"[redacted]" in out.body
    assert out.sent is not None and WORD.encode() not in out.sent and b"[redacted]" in out.sent


def test_a_stream_is_cut_however_it_comes() -> None:
    data = sse({"say": "so "}, {"say": WORD}, {"say": "it is"}, done=False)
    body = json.dumps({"stream": True}).encode()
    kind = [("content-type", "text/event-stream")]
    for chunks in cuts(data, 4):
        out = Bed(NO).call(body=body, path=PATHS[1], chunks=chunks, response_headers=kind)
        assert WORD.encode() not in out.body and b"so " in out.body
        assert out.record.ended == "cut"


@pytest.mark.parametrize("answer", [b"\x89PNG", b"<html>", b"{", b"plain"])
def test_what_cannot_be_read_is_left_to_the_failure_policy(answer: bytes) -> None:
    assert asked(NO, answer).rejected is not None
    passes = asked(NO.replace("spec:", "spec:\n  failurePolicy: Ignore"), answer)
    assert passes.rejected is None and passes.body == answer
