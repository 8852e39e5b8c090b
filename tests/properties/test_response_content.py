"""Every string of a response is content: wherever a marker is planted in a stream or a body, a rule on response.content
finds it, and a redaction takes it out of the bytes that are forwarded.

Rule 1: the streams are those of tests/spoken.py, one of each dialect and provider; the bodies stand here.
Rule 2: a marker holds a space and an @: no structural field may hold one, so it is content at every place.
Rule 3: POLICYD_CONTENT_EXAMPLES says how many examples are run; without it, a few for each stream and body.
"""

from __future__ import annotations

import json
import os
import random
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyd.core.stream import eventstream
from policyd.core.stream.dialects import registry
from policyd.core.stream.eventstream import EventStream, unwrap
from policyd.core.stream.framing import framing_of
from policyd.core.stream.json_text import dumps
from tests.driving import Outcome
from tests.recorded import Lab, Stream, pieces
from tests.sizes import size
from tests.spoken import VOICES

EXAMPLES = int(os.environ.get("POLICYD_CONTENT_EXAMPLES", "0"))
MARK = "zq4 m@rk"
GONE = "[gone]"
REDACT = f"""match: {{operations: ["*"]}}
rules:
- {{name: r, constrain: {{redact: {{patterns: ["zq4 m@rk"], in: [response], replacement: "{GONE}"}}}}}}"""
FORBID = """match: {operations: ["*"]}
rules:
- {name: r, when: 'response.content.contains("zq4 m@rk")', terminate: {fallback: stopped}}"""
WHOLE = """match: {operations: ["*"]}
rules:
- {name: r, when: 'response.content.lowerAscii().contains("zq4 m@rk")', terminate: {fallback: stopped}}"""
TEXT = ["The quick", " brown", " fox is ", "said to", " jump."]
ARGUMENTS = ['{"q": "the qu', 'ick", "more": ["br', 'own", {"n": 3}]}']

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "".join(ARGUMENTS)}}
CONVERSED = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
BODIES: dict[str, tuple[str, Any, Any, int]] = {  # path, request, response, status
    "chat": ("/v1/chat/completions", CHAT, {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {
            "role": "assistant", "content": "the text", "refusal": None, "reasoning_content": "thinking",
            "annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.test", "title": "a title"}}],
            "tool_calls": [CALL]}}]}, 200),
    "completions": ("/v1/completions", {"model": "m", "prompt": "hi"}, {
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "usage": USAGE,
        "choices": [{"index": 0, "finish_reason": "stop", "text": "the text", "logprobs": None}]}, 200),
    "responses": ("/v1/responses", {"model": "m", "input": "hi"}, {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "completed",
        "instructions": "be kind", "metadata": {"who": "me"},
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "so I think"}]},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "the text", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "".join(ARGUMENTS)},
            {"type": "local_shell_call", "id": "ls_1", "call_id": "call_2", "status": "completed",
             "action": {"type": "exec", "command": ["ls", "-l"]}},
            {"type": "web_search_call", "id": "ws_1", "status": "completed",
             "action": {"type": "search", "query": "the quick"}}]}, 200),
    "anthropic": ("/v1/messages", {**CHAT, "max_tokens": 9}, {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 4},
        "content": [{"type": "thinking", "thinking": "hm", "signature": "s" * 80}, {"type": "text", "text": "the text"},
                    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"q": "the quick"}},
                    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1",
                     "content": [{"type": "web_search_result", "title": "a title", "url": "https://a.test"}]}]}, 200),
    "gemini": ("/v1beta/models/g:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]}, {
        "candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [
            {"text": "thinking", "thought": True}, {"text": "the text"},
            {"functionCall": {"name": "f", "args": {"q": "the quick"}}},
            {"executableCode": {"language": "PYTHON", "code": "print(1)"}}]}}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7},
        "modelVersion": "g-1"}, 200),
    "converse": ("/model/m%3A0/converse", CONVERSED, {
        "output": {"message": {"role": "assistant", "content": [
            {"text": "the text"}, {"toolUse": {"toolUseId": "t_1", "name": "f", "input": {"q": "the quick"}}},
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s" * 80}}}]}},
        "stopReason": "end_turn", "usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7},
        "metrics": {"latencyMs": 1}}, 200),
    "cohere": ("/v2/chat", CHAT, {
        "id": "c_1", "finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 3, "output_tokens": 4}},
        "message": {"role": "assistant", "content": [{"type": "text", "text": "the text"}], "tool_plan": "I will",
                    "tool_calls": [CALL], "citations": [{"start": 0, "end": 3, "text": "the", "sources": []}]}}, 200),
    "ollama": ("/api/chat", {"model": "m", "messages": CHAT["messages"], "stream": False}, {
        "model": "m", "created_at": "2025-01-01T00:00:00Z", "done": True, "done_reason": "stop",
        "message": {"role": "assistant", "content": "the text", "thinking": "hm",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"q": "the quick"}}}]}}, 200),
    "huggingface": ("/generate", {"inputs": "hi"}, [{"generated_text": "the text"}], 200),
    "mcp": ("/mcp", {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "f"}}, {
        "jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "the text"}],
                                              "structuredContent": {"a": "the text"}, "isError": False}}, 200),
    "invoke titan": ("/model/amazon.titan/invoke", {"inputText": "hi"}, {
        "inputTextTokenCount": 3,
        "results": [{"tokenCount": 4, "outputText": "the text", "completionReason": "FINISH"}]}, 200),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": "hi"}, {
        "object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3}}, 200),
    "chat error": ("/v1/chat/completions", CHAT, {
        "error": {"message": "no such key: sk-1", "type": "invalid_request_error", "param": None, "code": "x"}}, 401),
    "anthropic error": ("/v1/messages", {**CHAT, "max_tokens": 9}, {
        "type": "error", "error": {"type": "api_error", "message": "it broke"}, "request_id": "req_1"}, 500),
    "gemini error": ("/v1beta/models/g:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]}, [
        {"error": {"code": 400, "message": "it broke", "status": "INVALID_ARGUMENT"}}], 400),
}  # fmt: skip


# ---- planting -------------------------------------------------------------------------------------------------------


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    yield path, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield from places(below, (*path, key))


def planted(document: Any, rng: random.Random) -> tuple[Any, str]:
    """The document with the marker at a random place, and how it stands there."""
    document = json.loads(json.dumps(document))
    holders = [value for _, value in places(document) if isinstance(value, dict) and value]
    holder = rng.choice(holders)
    match rng.randrange(7):
        case 0:
            holder[f"new_{rng.randrange(99)}"] = f"a {MARK} b"
            how = "a new field"
        case 1:
            holder[f"x {MARK}"] = rng.choice([1, None, "a", {"b": "c"}])
            how = "a new name"
        case 2:
            holder["extra"] = {"deep": [1, {"type": "text", "text": MARK}]}
            how = "a new object"
        case 3:
            holder["extra"] = json.dumps({"to": MARK}).replace("@", "\\u0040")
            how = "JSON text"
        case 4:
            keys = [key for key, value in holder.items() if isinstance(value, list)]
            (holder[rng.choice(keys)] if keys else holder.setdefault("list", [])).append({"type": "new", "text": MARK})
            how = "a new element"
        case 5:
            holder["extra"] = b64encode(f"some text with {MARK} in it".encode()).decode()
            how = "base64"
        case _:
            keys = [key for key, value in holder.items() if isinstance(value, str) and value and key != "text"]
            if keys:
                key = rng.choice(keys)
                holder[key] = f"{holder[key]} {MARK}"
            else:
                holder["name"] = MARK
            how = "a known field"
    return document, how


def framed(stream: Stream, rng: random.Random) -> tuple[bytes, str]:
    """The stream with a marker in one of its events, or in the text of two."""
    framing = framing_of(stream.kind, stream.dialect.name, asked=True)
    assert framing is not None
    events = framing.feed(stream.data)
    if (left := framing.finish()) is not None:
        events.append(left)
    chosen = [at for at, event in enumerate(events) if event.data and event.data.strip()[:1] == "{"]
    at = rng.choice(chosen)
    event = events[at]
    document, how = json.loads(event.data or ""), ""
    if set(document) <= {"bytes", "p"} and "bytes" in document:
        inner, how = planted(json.loads(unwrap(document)), rng)
        document["bytes"] = b64encode(dumps(inner).encode()).decode()
    else:
        document, how = planted(document, rng)
    if isinstance(framing, EventStream):
        raw = eventstream.render(dumps(document), event.name)
    else:
        raw = event.raw.replace((event.data or "").encode(), json.dumps(document).encode())
    raws = [one.raw for one in events]
    raws[at] = raw
    return b"".join(raws), how


@cache
def streams() -> list[Stream]:
    """One stream of each voice that says a text, and one that calls a tool; the marker is split over some."""
    found = []
    for name, voice in VOICES.items():
        body = json.dumps(voice.body).encode()
        says = {"says": voice.say(TEXT)} | ({"calls": voice.call(ARGUMENTS)} if voice.call else {})
        found += [
            Stream(f"{name} {verb}", voice.dialect, voice.path, voice.host, body, voice.kind, data)
            for verb, data in says.items()
        ]
    return found


@cache
def labs() -> dict[str, Lab]:
    return {"redact": Lab(REDACT), "forbid": Lab(FORBID), "whole": Lab(WHOLE)}


def visible(data: bytes) -> str:
    """What a client can read of these bytes: as they are, JSON escapes undone, and what stands in base64."""
    text = data.decode("utf-8", "replace")
    plain = [text]
    framing = EventStream()
    if data[:1] == b"\0":
        for event in framing.feed(data):
            document = json.loads(event.data or "{}")
            plain.append(json.dumps(document, ensure_ascii=False))
            if isinstance(document, dict) and "bytes" in document:
                plain.append(unwrap(document).decode())
    joined = "\n".join(plain)
    encoded = [b64encode(f"{pad}some text with {MARK} in it".encode()).decode() for pad in ("",)]
    assert not any(one in joined for one in encoded)
    return joined.replace("\\u0040", "@")


def check(out: Outcome, how: str, name: str) -> None:
    assert MARK not in visible(out.body), (name, how, out.body[-2000:])


def ran(out: Outcome) -> Outcome:
    """INVARIANT: a call that could not be read at all is refused or cut, which forwards nothing of it."""
    return out


# ---- the properties -------------------------------------------------------------------------------------------------

COUNT = settings(
    max_examples=max(EXAMPLES // 2, 1) if EXAMPLES else size(150),
    deadline=None,
    derandomize=not EXAMPLES,
    suppress_health_check=list(HealthCheck),
)


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    match rng.randrange(4):
        case 0:
            return [data]
        case 1 if len(data) < 6_000:
            return [data[at : at + 1] for at in range(len(data))]
        case _:
            return pieces(data, rng)


@pytest.mark.timeout(0)
@COUNT
@given(st.integers(0, 2**48))
def test_no_stream_forwards_what_is_redacted_or_forbidden(seed: int) -> None:
    rng = random.Random(seed)
    stream = rng.choice(streams())
    data, how = framed(stream, rng)
    changed = Stream(stream.name, stream.dialect, stream.path, stream.host, stream.body, stream.kind, data)
    out = ran(labs()["redact"].run(changed, cut(data, rng)))
    assert GONE.encode() in out.body or b64encode(GONE.encode())[:6] in out.body or "errored" in verdict(out) or how, (
        how
    )
    check(out, how, stream.name)
    policy = rng.choice(("forbid", "whole"))
    out = labs()[policy].run(changed, cut(data, rng))
    assert out.record.verdict == "terminate", (policy, stream.name, how)
    check(out, how, stream.name)


def verdict(out: Outcome) -> list[str]:
    return [one.outcome.value for one in out.record.rules]


@pytest.mark.timeout(0)
@COUNT
@given(st.integers(0, 2**48))
def test_no_body_forwards_what_is_redacted_or_forbidden(seed: int) -> None:
    rng = random.Random(seed)
    name = rng.choice(sorted(BODIES))
    path, request, response, status = BODIES[name]
    document, how = planted(response, rng)
    dialect, _, _ = registry.choose("POST", path, "llm.test", {})
    data = json.dumps(document, ensure_ascii=rng.random() < 0.5).encode()
    assert dialect is not None
    stream = Stream(name, dialect, path, "llm.test", json.dumps(request).encode(), "application/json", data, status)
    out = labs()["redact"].run(stream, [data])
    assert out.rejected or GONE.encode() in out.body or how == "base64", (name, how, out.body)
    check(out, how, name)
    out = labs()[rng.choice(("forbid", "whole"))].run(stream, [data])
    assert out.record.verdict == "terminate", (name, how)
    check(out, how, name)


SPLIT = [name for name, voice in VOICES.items() if name != "mcp"]


@pytest.mark.parametrize("name", SPLIT)
def test_a_marker_split_over_events_is_found(name: str) -> None:
    voice = VOICES[name]
    body = json.dumps(voice.body).encode()
    said = {"says": voice.say(["a zq4", " m@", "rk b"])}
    if voice.call:
        said["calls"] = voice.call(['{"q": "a zq4', " m\\u00", '40rk b"}'])
    for verb, data in said.items():
        stream = Stream(f"{name} {verb}", voice.dialect, voice.path, voice.host, body, voice.kind, data)
        for chunks in ([data], [data[at : at + 1] for at in range(len(data))]):
            out = labs()["redact"].run(stream, chunks)
            check(out, "split", stream.name)
            assert out.record.verdict == "modified" or GONE in visible(out.body)
            out = labs()["forbid"].run(stream, chunks)
            assert out.record.verdict == "terminate", stream.name
            check(out, "split", stream.name)
