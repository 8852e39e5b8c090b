"""Answers that are damaged, in every dialect: read as `partial`, never as understood, and never let go under Fail.

A body that a reader of JSON could read otherwise is damage, and so is an event of a stream that is cut, changed or not
known. What is `none` is an answer in no dialect.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest

from policyd.core.model.facts import RequestFacts
from policyd.core.stream.json_text import dumps
from tests.core.test_endings_others import CASES, Case
from tests.driving import Bed, Outcome, policy, stream_of
from tests.properties.test_json_meaning import ANSWERS
from tests.responses import Script
from tests.streams import read_stream

READS = 'match: {operations: ["*", unknown]}\n'
READS += "rules: [{name: r, severity: Critical, when: 'response.text.contains(\"zzz\")', terminate: {}}]"
JSON = (("content-type", "application/json"),)


def hear(name: str, body: bytes, failure: str = "Fail", mode: str = "Full", **headers: str) -> Outcome:
    """The answer to a call of this dialect."""
    path, asked, _ = ANSWERS[name]
    bed = Bed(policy(f"failurePolicy: {failure}\n{READS}", mode=mode))
    given = (*JSON, *((key.replace("_", "-"), value) for key, value in headers.items()))
    return bed.call(body=dumps(asked).encode(), path=path, chunks=[body], response_headers=given)


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_whole_is_read_full(name: str) -> None:
    out = hear(name, dumps(ANSWERS[name][2]).encode())
    assert (out.rejected, out.record.inspection) == (None, "full"), out.record.inspection_reason


def _first_key_again(body: bytes) -> bytes:
    key = next(iter(json.loads(body)))
    return body[:-1] + f',"{key}":1}}'.encode()


def _first_key_escaped(body: bytes) -> bytes:
    key = next(iter(json.loads(body)))
    return body[:-1] + f',"\\u{ord(key[0]):04x}{key[1:]}":1}}'.encode()


def _with(value: bytes) -> Callable[[bytes], bytes]:
    return lambda body: body[:-1] + b',"x":' + value + b"}"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "29 a byte order mark": lambda body: b"\xef\xbb\xbf" + body,
    "29 utf-16": lambda body: body.decode().encode("utf-16"),
    "35 not utf-8": _with(b'"\xff"'),
    "35 overlong": _with(b'"\xc0\xaf"'),
    "35 a surrogate in utf-8": _with(b'"\xed\xa0\x80"'),
    "37 a key twice": _first_key_again,
    "38 a key twice, escaped": _first_key_escaped,
    "39 a key twice, nested": _with(b'{"a":1,"a":2}'),
    "40 NaN": _with(b"NaN"),
    "40 Infinity": _with(b"-Infinity"),
    "40 1e999": _with(b"1e999"),
    "41 400 digits": _with(b"9" * 400),
    "41 5000 digits": _with(b"9" * 5000),
    "43 1k deep": _with(b"[" * 1000 + b"]" * 1000),
    "43 100k deep": _with(b"[" * 100_000 + b"]" * 100_000),
    "45 a lone surrogate": _with(b'"\\ud800"'),
    "46 data behind": lambda body: body + b"x",
    "46 a comment": lambda body: b"/* x */" + body,
    "46 a trailing comma": lambda body: body[:-1] + b",}",
    "46 single quotes": lambda body: body.replace(b'"', b"'"),
    "46 two documents": lambda body: body + body,
    "47 blank": lambda _: b" ",
    "47 null": lambda _: b"null",
    "47 a number": lambda _: b"5",
    "47 a list": lambda _: b"[5]",
    "54 cut short": lambda body: body[:-1],
    "57 a page": lambda _: b"<html>bad gateway</html>",
    "57 a stream": lambda _: b"".join(stream_of("a")),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ANSWERS)
def test_a_damaged_answer_is_partial_and_refused(name: str, damage: str) -> None:
    body = DAMAGES[damage](dumps(ANSWERS[name][2]).encode())
    out = hear(name, body)
    assert (out.record.inspection, out.rejected is not None) == ("partial", True)
    passed = hear(name, body, "Ignore")
    assert (passed.body, passed.record.inspection, passed.record.degraded) == (body, "partial", True)
    watched = hear(name, body, mode="Monitor")
    assert (watched.body, watched.record.inspection, watched.record.enforced) == (body, "partial", False)


ENCODED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "32 a bomb": ("gzip", lambda body: gzip.compress(body + b" " * (4 << 20))),
    "32 a bomb in a bomb": ("gzip, gzip", lambda body: gzip.compress(gzip.compress(body + b" " * (8 << 20)))),
    "33 unknown": ("compress", lambda body: body),
    "33 too many": ("gzip, gzip, gzip, gzip", gzip.compress),
    "33 cut short": ("gzip", lambda body: gzip.compress(body)[:-9]),
    "33 garbage behind": ("deflate", lambda body: zlib.compress(body) + b"x"),
    "33 another order": ("br, gzip", lambda body: brotli.compress(gzip.compress(body))),
    "33 not encoded": ("br", lambda body: body),
}


@pytest.mark.parametrize("damage", ENCODED)
@pytest.mark.parametrize("name", ["chat", "claude", "gemini", "converse", "ollama", "cohere"])
def test_an_answer_that_cannot_be_decoded_is_partial_and_refused(name: str, damage: str) -> None:
    coding, encode = ENCODED[damage]
    body = encode(dumps(ANSWERS[name][2]).encode())
    out = hear(name, body, content_encoding=coding)
    assert (out.record.inspection, out.rejected is not None) == ("partial", True)
    passed = hear(name, body, "Ignore", content_encoding=coding)
    assert (passed.body, passed.record.inspection, passed.record.degraded) == (body, "partial", True)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, br"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_encoded_answer_is_read_full(name: str, coding: str) -> None:
    plain = dumps(ANSWERS[name][2]).encode()
    body = zlib.compress(plain) if coding == "deflate" else gzip.compress(plain)
    out = hear(name, brotli.compress(body) if "br" in coding else body, content_encoding=coding)
    assert (out.body, out.record.inspection) == (plain, "full")


# ---- streams ---------------------------------------------------------------------------------------------------------

EVENTS = "text/event-stream"
CLAUDE = b"".join(
    f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode()
    for one in (
        {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "c",
                                              "content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ab"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    )
)  # fmt: skip


def _all() -> dict[str, Case]:
    from policyd.core.stream.dialects.anthropic import AnthropicMessages
    from policyd.core.stream.dialects.openai_chat import OpenAIChat
    from policyd.core.stream.dialects.openai_responses import OpenAIResponses

    told = RequestFacts(stream=True)
    script = b"".join(
        f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in Script().say("a", "b").end()
    )
    return {
        "chat": (OpenAIChat(), told, EVENTS, b"".join(stream_of("a", "b"))),
        "claude": (AnthropicMessages(), told, EVENTS, CLAUDE),
        "responses": (OpenAIResponses(), told, EVENTS, script),
        **CASES,
    }


STREAMS = _all()


def pieces(case: Case) -> list[bytes]:
    """The events of a stream, each in its own bytes."""
    dialect, request, kind, data = case
    return [one.raw for one in read_stream(dialect, [data], request, kind).events]


def changed(raw: bytes, kind: str) -> bytes:
    """One event whose JSON is broken, or whose checksum is wrong."""
    return raw[:-1] + bytes([raw[-1] ^ 1]) if "eventstream" in kind else raw.replace(b'":', b'"', 1)


def not_text(raw: bytes, kind: str) -> bytes:
    """One event with a byte that is no text."""
    return raw[:-1] + bytes([raw[-1] ^ 1]) if "eventstream" in kind else raw.replace(b'":', b'\xff":', 1)


STREAM_DAMAGES: dict[str, Callable[[list[bytes], str], bytes]] = {
    "an event cut short": lambda raws, _: b"".join(raws[:1]) + raws[1][: len(raws[1]) * 2 // 3],
    "an event that is no json": lambda raws, kind: b"".join([raws[0], changed(raws[1], kind), *raws[2:]]),
    "an event that is no text": lambda raws, kind: b"".join([raws[0], not_text(raws[1], kind), *raws[2:]]),
    "a page in its place": lambda *_: b"<html>bad gateway</html>",
}


@pytest.mark.parametrize("damage", STREAM_DAMAGES)
@pytest.mark.parametrize("name", STREAMS)
def test_a_damaged_stream_is_partial_however_it_is_cut(name: str, damage: str) -> None:
    case = STREAMS[name]
    dialect, request, kind, _ = case
    data = STREAM_DAMAGES[damage](pieces(case), kind)
    for size in (len(data), 1, 7):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert inspected(dialect.name, request, kind, chunks) == "partial"


PATHS: dict[str, str] = {
    "openai.chat": "/v1/chat/completions",
    "openai.responses": "/v1/responses",
    "anthropic.messages": "/v1/messages",
    "ollama.chat": "/api/chat",
    "ollama.generate": "/api/generate",
    "cohere.generate": "/v1/generate",
    "gemini.generate": "/v1beta/models/g:streamGenerateContent",
    "bedrock.converse": "/model/m/converse-stream",
    "mcp": "/mcp",
}
INVOKED = {
    "claude": "anthropic.claude-v3", "nova": "amazon.nova-lite",
    "outputText": "amazon.titan-text", "generation": "meta.llama",
}  # fmt: skip
BODIES: dict[str, Any] = {
    "openai.responses": {"model": "m", "input": "hi", "stream": True},
    "bedrock.converse": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
    "gemini.generate": {"contents": [{"parts": [{"text": "hi"}]}]},
    "ollama.generate": {"model": "llama", "prompt": "hi"},
    "cohere.generate": {"prompt": "hi", "stream": True},
    "mcp": {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "f", "arguments": {}}},
    "claude": {"anthropic_version": "b", "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]},
    "nova": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
    "outputText": {"inputText": "hi"},
    "generation": {"prompt": "hi"},
}
CHAT = {"model": "m", "max_tokens": 5, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
COHERE_1 = {"model": "m", "stream": True, "message": "hi"}


def inspected(dialect: str, request: RequestFacts, kind: str, chunks: list[bytes]) -> str:
    """What the record of such a call says."""
    path = PATHS.get(dialect) or request.path or f"/model/{INVOKED[request.shape]}/invoke-with-response-stream"
    path += f"?{request.query}" if request.query else ""
    body = COHERE_1 if path == "/v1/chat" else BODIES.get(request.shape or dialect, CHAT)
    bed = Bed(policy(f"failurePolicy: Ignore\n{READS}"))
    out = bed.call(body=dumps(body).encode(), path=path, chunks=chunks, response_headers=(("content-type", kind),))
    assert (out.record.dialect, out.rejected, out.broken) == (dialect, None, False)
    return out.record.inspection


@pytest.mark.parametrize("name", STREAMS)
def test_a_whole_stream_is_read_full(name: str) -> None:
    dialect, request, kind, data = STREAMS[name]
    assert inspected(dialect.name, request, kind, [data]) == "full"


def test_what_is_in_no_dialect_is_partial_and_what_is_not_read_is_none() -> None:
    bed = Bed(policy(READS))
    out = bed.call(body=b"{}", path="/v1/some/new/call", chunks=[b"{}"], response_headers=JSON)
    assert out.record.inspection == "partial"
    bed = Bed(policy(READS.replace("unknown]", "unknown, other]")))
    out = bed.call(path="/v1/models", method="GET", chunks=[b"{}"], response_headers=JSON)
    assert out.record.inspection == "none"
