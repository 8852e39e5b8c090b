"""Redaction in running streams, text and arguments, a character an event: Ollama, Cohere, Gemini, Bedrock, MCP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.core.model.decision import Redaction
from policyd.core.stream.framing import framing_of
from policyd.core.stream.outbox import Outbox
from policyd.core.stream.redactor import redactors
from tests.core.test_endings_others import (
    CASES,
    CONVERSED,
    HEAR,
    METRICS,
    TOLD,
    Case,
    array,
    block,
    candidate,
    chunked,
    first,
    generated,
    lines,
    messages,
    said,
    tool,
    typed,
)
from tests.streams import cuts, read_stream, sse

KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\n-----END PRIVATE KEY-----"
TEXT = f"Here: {KEY} done."
BILL = {"meta": {"billed_units": {"input_tokens": 5, "output_tokens": 3}}}
HISTORY = [{"role": "USER", "message": "hi"}, {"role": "CHATBOT", "message": TEXT}]
RESULT = {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": TEXT}],
                                                "structuredContent": {"key": TEXT}}}  # fmt: skip


def spoken(case: str) -> bytes:
    """A stream that says TEXT, a character an event."""
    match case:
        case "ollama chat":
            return lines(*map(said, TEXT), said(done=True))
        case "ollama generate":
            return lines(*map(generated, TEXT), generated("", done=True))
        case "cohere":
            deltas = [typed("content-delta", 0, content={"text": one}) for one in TEXT]
            start, end = typed("content-start", 0, content={"type": "text", "text": ""}), typed("content-end", 0)
            last = {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}
            return sse({"id": "c", **typed("message-start", role="assistant")}, start, *deltas, end, last, names=True)
        case "cohere 1":
            whole = {**TOLD, "text": TEXT, "chat_history": HISTORY, **BILL}
            end = first("stream-end", over=True, finish_reason="COMPLETE", response=whole)
            deltas = [first("text-generation", text=one) for one in TEXT]
            return lines(first("stream-start", generation_id="g"), *deltas, end)
        case "gemini" | "gemini array":
            events = [*(candidate({"text": one}) for one in TEXT), candidate(reason="STOP")]
            return sse(*events, done=False) if case == "gemini" else array(*events)
        case "converse":
            return messages(*conversed())
        case "invoke nova":
            # Every character in a block of its own: so Nova streams behind a guardrail.
            blocks = [event for at, one in enumerate(TEXT) for event in (block("Delta", at, delta={"text": one}),
                                                                         block("Stop", at))]  # fmt: skip
            return chunked(CONVERSED[0], *blocks, *CONVERSED[-2:])
        case "invoke titan":
            return chunked(*({"outputText": one, "index": 0} for one in TEXT), _traced())
        case "mcp":
            return sse(RESULT, done=False)
    raise AssertionError(case)


def conversed() -> list[Any]:
    deltas = [block("Delta", 0, delta={"text": one}) for one in TEXT]
    return [CONVERSED[0], *deltas, block("Stop", 0), *CONVERSED[-2:]]


def _traced() -> dict[str, Any]:
    trace = {"guardrail": {"modelOutput": [TEXT]}}
    return {"outputText": "", "completionReason": "FINISH", "amazon-bedrock-trace": trace, **METRICS}


def argued(case: str) -> bytes:
    """A stream that calls a tool with TEXT in its arguments, a character an event where arguments come in pieces."""
    arguments = json.dumps({"a": TEXT})
    match case:
        case "ollama chat":
            return lines(said(tool_calls=[{"function": {"name": "f", "arguments": {"a": TEXT}}}]), said(done=True))
        case "cohere":
            deltas = [tool("delta", arguments=one) for one in arguments]
            last = {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}}
            start = {"id": "c", **typed("message-start", role="assistant")}
            return sse(
                start, tool("start", name="f", arguments=""), *deltas, typed("tool-call-end", 0), last, names=True
            )
        case "gemini":
            return sse(candidate({"functionCall": {"name": "f", "args": {"a": TEXT}}}, reason="STOP"), done=False)
        case "converse":
            deltas = [block("Delta", 1, delta={"toolUse": {"input": one}}) for one in arguments]
            return messages(CONVERSED[0], CONVERSED[4], *deltas, block("Stop", 1), *CONVERSED[-2:])
    raise AssertionError(case)


SPOKEN = ["ollama chat", "ollama generate", "cohere", "cohere 1", "gemini", "gemini array", "converse", "invoke nova",
          "invoke titan", "mcp"]  # fmt: skip


def redacted(case: Case, chunks: list[bytes]) -> bytes:
    dialect, request, kind, _ = case
    whole = read_stream(dialect, [b"".join(chunks)], request, kind)
    framing = framing_of(kind, dialect.name, asked=True)
    assert framing is not None
    from policyd.core.model.facts import ResponseFacts

    reader = dialect.reader(request, ResponseFacts(status=200, headers=whole.response.headers))
    outbox = Outbox(
        redactors=redactors([Redaction(detectors=("private_key",))]),
        repeats=getattr(reader, "repeats", False),
        edit=framing.edit,
    )
    out = b""
    for chunk in [*chunks, None]:
        left = framing.finish() if chunk is None else None
        for event in ([left] if left else []) if chunk is None else framing.feed(chunk):
            reading = reader.read_event(event.name, event.data) if event.data is not None else None
            outbox.add(event.raw, reading.segments if reading else (), reading.closes if reading else ())
        out += outbox.release()
    outbox.close()
    return out + outbox.release()


@pytest.mark.parametrize("name", SPOKEN)
def test_a_private_key_does_not_leave_in_text(name: str) -> None:
    case = CASES[name]
    data = spoken(name)
    assert read_stream(case[0], [data], case[1], case[2]).response.text() == TEXT
    outs = {redacted(case, chunks) for chunks in cuts(data, 2)}
    assert len(outs) == 1
    body = outs.pop()
    got = read_stream(case[0], [body], case[1], case[2]).response
    assert (got.inspection, got.text()) == ("full", "Here: [redacted] done.")
    assert all(word not in visible(case, body) for word in ("MIIE", "PRIVATE", "KEY"))
    if name in HEAR:
        assert HEAR[name](body, case[2]) == "Here: [redacted] done." or name == "cohere"


def visible(case: Case, body: bytes) -> str:
    """Everything that leaves, decoded and put together: no piece of the key may be in it."""
    got = read_stream(case[0], [body], case[1], case[2])
    return "".join(segment.text for reading in got.readings for segment in reading.segments)


@pytest.mark.parametrize("name", ["ollama chat", "cohere", "gemini", "converse"])
def test_a_private_key_does_not_leave_in_arguments(name: str) -> None:
    case = CASES[name]
    data = argued(name)
    outs = {redacted(case, chunks) for chunks in cuts(data, 2)}
    assert len(outs) == 1
    body = outs.pop()
    got = read_stream(case[0], [body], case[1], case[2]).response
    assert [json.loads(call.arguments) for call in got.tool_calls] == [{"a": "Here: [redacted] done."}]
    assert got.inspection == "full"
    assert b"MIIE" not in body


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_found_leaves_as_it_came(name: str) -> None:
    case = CASES[name]
    for chunks in cuts(case[3], 2):
        assert redacted(case, chunks) == case[3]
