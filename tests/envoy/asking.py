"""A caller that looks at bytes: one streamed or whole call over HTTP/1.1 or HTTP/2, and a slow, plain reading of its
answer that shares nothing with policyd's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from policyd.cli.stage import Stage

HTTP1 = {"http1": True, "http2": False}
HTTP2 = {"http1": False, "http2": True}  # prior knowledge: the first byte is HTTP/2's
PROTOCOLS = {"http1": HTTP1, "http2": HTTP2}
VERSION_SPOKEN = {"http1": "HTTP/1.1", "http2": "HTTP/2"}

MESSAGES = [{"role": "user", "content": "Tell me about circuit breakers."}]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one provider is asked."""

    name: str
    path: str
    model: str

    def body(self, *, stream: bool = True, **more: object) -> bytes:
        asked = {"model": self.model, "messages": MESSAGES, "max_tokens": 1000, "stream": stream, **more}
        return json.dumps(asked).encode()

    def __str__(self) -> str:
        return self.name


OPENAI = Dialect("openai", "/v1/chat/completions", "gpt-4o")
ANTHROPIC = Dialect("anthropic", "/v1/messages", "claude-sonnet-4-6")
DIALECTS = (OPENAI, ANTHROPIC)


def steering(team: str = "", /, **wishes: object) -> dict[str, str]:
    """Headers that say who asks, and what the emulator is to do."""
    steer = {f"x-emulate-{name.replace('_', '-')}": quote(str(value)) for name, value in wishes.items()}
    return {"content-type": "application/json", **({"x-team-id": team} if team else {}), **steer}


def caller(stage: Stage, protocol: str = "http1") -> httpx.Client:
    """A client of Envoy's that speaks this protocol and no other."""
    # Nothing here is encrypted, and reading the certificates of the system takes longer than a call.
    return httpx.Client(base_url=stage.url, timeout=30, verify=False, **PROTOCOLS[protocol])  # type: ignore[arg-type]


def local_port(answer: httpx.Response) -> int:
    """Which of the client's connections this answer came on."""
    return int(answer.extensions["network_stream"].get_extra_info("client_addr")[1])


# ---- reading an answer -----------------------------------------------------------------------------------------------


def events_of(stream: bytes) -> list[tuple[str, str]]:
    """(event name, data) of every event; an event that is not ended fails the test."""
    blocks = stream.decode().split("\n\n")
    assert blocks.pop() == "", "the last event is not ended"
    found = []
    for block in blocks:
        fields = [line.split(": ", 1) for line in block.split("\n")]
        assert {name for name, _ in fields} <= {"event", "data"}, block
        given = dict(fields)
        found.append((given.get("event", ""), given["data"]))
    return found


def text_of(dialect: Dialect, stream: bytes) -> str:
    """The visible text of a stream."""
    documents = [json.loads(data) for _, data in events_of(stream) if data != "[DONE]"]
    if dialect is OPENAI:
        return "".join(c["delta"].get("content") or "" for document in documents for c in document["choices"])
    return "".join(document["delta"].get("text", "") for document in documents if "delta" in document)


def check_ended(dialect: Dialect, stream: bytes) -> str:
    """The stop reason of a stream, which must be whole and in its dialect's order."""
    return _openai_ended(stream) if dialect is OPENAI else _anthropic_ended(stream)


def _openai_ended(stream: bytes) -> str:
    *events, last = [data for _, data in events_of(stream)]
    assert last == "[DONE]"
    choices = [choice for data in events for choice in json.loads(data)["choices"]]
    assert choices[0]["delta"].get("role") == "assistant"
    reasons = [choice["finish_reason"] for choice in choices]
    assert [reason for reason in reasons if reason] == reasons[-1:], f"finish reasons {reasons}"
    return str(reasons[-1])


def _anthropic_ended(stream: bytes) -> str:
    documents: list[dict[str, Any]] = [json.loads(data) for _, data in events_of(stream)]
    assert [name for name, _ in events_of(stream)] == [document["type"] for document in documents]
    first, *blocks, delta, last = [document for document in documents if document["type"] != "ping"]
    assert [first["type"], delta["type"], last["type"]] == ["message_start", "message_delta", "message_stop"]
    _check_blocks(blocks)
    return str(delta["delta"]["stop_reason"])


def _check_blocks(events: list[dict[str, Any]]) -> None:
    """Blocks follow one another, each opened, filled and closed."""
    is_open, count = False, 0
    for event in events:
        kind = event["type"]
        assert kind in ("content_block_start", "content_block_delta", "content_block_stop"), kind
        assert is_open == (kind != "content_block_start"), f"{kind} out of place"
        assert event["index"] == count
        is_open = kind != "content_block_stop"
        count += not is_open
    assert not is_open


def header_pairs(headers: Mapping[str, str] | httpx.Headers) -> list[tuple[str, str]]:
    """Headers as sorted pairs, repeated ones kept."""
    if isinstance(headers, httpx.Headers):
        return sorted((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers.raw)
    return sorted(headers.items())
