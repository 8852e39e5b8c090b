"""Shapes of calls that once cost the square of their size, or memory without bound: each is linear now, or refused."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.driving import Bed, chat, policy
from tests.growth import LINEAR, grows, peak

MB = 1 << 20
SPEC = """match: {operations: ["*"]}
rules:
- {name: a, constrain: {redact: {detectors: [card, iban, email, phone], in: [request, response]}}}
- {name: b, when: 'request.tool_results.exists(r, r.text.matches("(?i)ignore .{0,9} instructions"))', terminate: {}}
- {name: c, when: 'request.messages.exists(m, m.role == "x" || m.text.contains("zzzz"))', terminate: {}}
- {name: d, when: 'response.text.contains("zzzz")', terminate: {}}
- {name: e, when: 'response.tool_calls.exists(t, t.strings.exists(s, s.matches("rm -rf")))', terminate: {}}
"""

Shape = Callable[[int], dict[str, Any]]


def message(text: str) -> dict[str, Any]:
    return {"body": chat(text)}


def body(**fields: Any) -> dict[str, Any]:
    return {"body": chat(**fields)}


def stream(data: bytes) -> dict[str, Any]:
    return {"body": chat(stream=True), "chunks": [data, TEXT, b"data: [DONE]\n\n"]}


def event(delta: dict[str, Any], choice: int = 0) -> bytes:
    document = {"id": "c", "model": "m", "choices": [{"index": choice, "delta": delta, "finish_reason": None}]}
    return f"data: {json.dumps(document)}\n\n".encode()


def argument(text: str, **more: str) -> bytes:
    return event({"tool_calls": [{"index": 0, "function": {**more, "arguments": text}}]})


def whole(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"body": chat(), "chunks": [json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()]}


def deep(count: int) -> dict[str, Any]:
    nested = "[" * 150 + '"a@example.org"' + "]" * 150
    return {"body": b'{"model": "m", "messages": [], "x": [%b]}' % ",".join([nested] * count).encode()}


TEXT = event({"content": "x"})
CARD = "4111 1111 1111 1111"
PART = {"type": "text", "text": CARD}
ENCODED = b64encode(f"hello {CARD} and more".encode()).decode()
SHAPES: dict[str, tuple[int, Shape]] = {
    **{
        f"digits and {separator!a}": (60_000, lambda n, s=separator: message(f"4{s}" * n))
        for separator in (" ", "-", "", ".", "\u00a0", "\u2011", "4 ", "  ")
    },
    "cards": (1500, lambda n: message(f"{CARD}, " * n)),
    "addresses without an end": (40_000, lambda n: message("a@b." * n)),
    "IBANs without an end": (40_000, lambda n: message("DE44 " * n)),
    "backslashes": (400_000, lambda n: message("\\" * n)),
    "JSON text with finds": (300, lambda n: message(json.dumps([{"a": f"x\n{CARD}"}] * n))),
    "base64 with finds": (250, lambda n: body(metadata=[ENCODED] * n)),
    "deep lists with finds": (15, deep),
    "tool messages": (1500, lambda n: body(messages=[{"role": "tool", "tool_call_id": "t", "content": "hello"}] * n)),
    "parts with finds": (250, lambda n: body(messages=[{"role": "user", "content": [PART] * n}])),
    "empty objects": (8000, lambda n: body(metadata=[{}] * n)),
    "names": (4000, lambda n: body(metadata={f"n{one}": "" for one in range(n)})),
    "numbers": (40_000, lambda n: body(metadata=[300] * n)),
    "a response in one piece": (100_000, lambda n: whole("4 " * n)),
    "finds in one response": (1500, lambda n: whole(f"{CARD}, " * n)),
    "events": (250, lambda n: stream(event({"content": "ab "}) * n)),
    "events of digits": (150, lambda n: stream(event({"content": "4 4 4 "}) * n)),
    "empty events": (800, lambda n: stream(b"data: {}\n\n" * n)),
    "choices in one event": (
        300,
        lambda n: stream(
            b"data: %b\n\n"
            % json.dumps({"choices": [{"index": 0, "delta": {"content": "ab"}} for _ in range(n)]}).encode()
        ),
    ),
    "choices": (60, lambda n: stream(b"".join(event({"content": "ab"}, one) for one in range(n)))),
    "blank lines": (400_000, lambda n: stream(b"\n" * n)),
    "blank lines with CR": (300_000, lambda n: stream(b"\r\n" * n)),
    "comments": (60_000, lambda n: stream(b": x\n\n" * n)),
    "names of events": (3000, lambda n: stream(b"event: ping\n\n" * n)),
    "lines of one event": (40_000, lambda n: stream(b":x\n" * n + TEXT)),
    "events of arguments": (400, lambda n: stream(argument('"', name="f") + argument("word ") * n + argument('"'))),
}  # fmt: skip


@pytest.mark.parametrize(("size", "shape"), SHAPES.values(), ids=SHAPES)
def test_time_grows_with_the_size(size: int, shape: Shape) -> None:
    bed = Bed(policy(SPEC))
    calls = {count: shape(count) for count in (size, 2 * size)}
    bed.call(**shape(2))  # what is compiled once

    assert grows(lambda count: bed.call(**calls[count]), size) < LINEAR


def listed(item: bytes, count: int) -> dict[str, Any]:
    return {"body": b'{"model": "m", "messages": [], "x": [%b]}' % b",".join([item] * count)}


LARGE: dict[str, dict[str, Any]] = {
    "empty objects": listed(b"{}", MB),
    "empty lists": listed(b"[]", MB),
    "short strings": listed(b'"ab"', MB // 2),
    "objects of one": listed(b'{"a":0}', MB // 4),
    "small numbers": listed(b"300", MB // 2),
    "fractions": listed(b"0.1", MB // 2),
    "long numbers": listed(b"1234567890.12345", 2000),
    "prose": message("hello world " * (MB // 8)),
    "prose that is not ASCII": {"body": chat("hello world " * (MB // 8) + "e").replace(b'e"}', 'é"}'.encode())},
    "digits": message("4 " * (MB // 4)),
    "blank lines": stream(b"\n" * MB),
    "a bomb": {
        "body": gzip.compress(b'{"model": "m", "messages": [], "x": [' + b"{}," * (8 * MB) + b"0]}"),
        "headers": [("content-encoding", "gzip")],
    },
}


@pytest.mark.parametrize("call", LARGE.values(), ids=LARGE)
def test_memory_is_at_most_eight_times_the_body(call: dict[str, Any]) -> None:
    bed = Bed(policy(SPEC))
    bed.call(body=chat("x"))

    size = len(call["body"]) + sum(map(len, call.get("chunks", ())))

    assert peak(partial(bed.call, **call)) < max(8 * size, 4 * MB)
