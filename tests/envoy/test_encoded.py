"""Encoded bodies through a real Envoy: both sides see what was judged, plain and said to be; under Monitor nothing.
And a body with two lengths, which reaches nobody."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import brotli
import httpx
import pytest

from policyd.cli.emulator import RawAnswer
from policyd.cli.stage import Stage
from policyd.core.stream.encodings import zstd
from tests.driving import answer_of, chat, stream_of
from tests.envoy.asking import caller
from tests.envoy.stack import policy, stack

pytestmark = pytest.mark.envoy

ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}
each = pytest.mark.parametrize("coding", ENCODERS)
RULES = """\
    rules:
      - {name: mask, constrain: {redact: {detectors: [email], in: [request, response]}}}
      - {name: cap, constrain: {cap: {max_tokens: 7}}}
      - {name: stop, severity: Critical, when: 'response.text.contains("launch")', terminate: {fallback: "No."}}
"""
POLICIES = {
    "full.yaml": policy("full", RULES, team="full"),
    "open.yaml": policy("open", "    failurePolicy: Ignore\n" + RULES, team="open"),
    "monitor.yaml": policy("monitor", RULES, team="monitor", mode="Monitor"),
}
SAID = "write to bob@example.com"
STREAM, WHOLE = b"".join(stream_of("write to ", "bob@exam", "ple.com")), answer_of(SAID)


@pytest.fixture(scope="module")
def up() -> Iterator[Stage]:
    with stack(POLICIES) as stage:
        yield stage


@dataclass(frozen=True, slots=True)
class Got:
    """An answer as its caller saw it, byte for byte."""

    status: int
    headers: httpx.Headers
    body: bytes
    broken: bool = False

    @property
    def encoding(self) -> str:
        return str(self.headers.get("content-encoding", ""))


def play(stage: Stage, team: str, kind: str, data: bytes, coding: str, *, chunked: bool = True) -> Got:
    """One call whose answer is these bytes, in pieces of 50."""
    headers = (("content-type", kind), ("content-encoding", coding))
    pieces = tuple(data[at : at + 50] for at in range(0, len(data), 50))
    stage.providers[0].raw["encoded"] = RawAnswer(200, headers, pieces, stream=chunked)
    asked = {"x-team-id": team, "x-emulate-raw": "encoded", "content-type": "application/json"}
    with caller(stage) as client:
        request = client.build_request(
            "POST", "/v1/chat/completions", headers=asked, content=chat(stream="event" in kind)
        )
        answer = client.send(request, stream=True)
        body, broken = bytearray(), False
        try:
            for piece in answer.iter_raw():
                body += piece
        except httpx.HTTPError:
            broken = True
        return Got(answer.status_code, answer.headers, bytes(body), broken)


@each
def test_an_encoded_stream_arrives_plain(up: Stage, coding: str) -> None:
    got = play(up, "full", "text/event-stream", ENCODERS[coding](STREAM), coding)
    assert (got.encoding, b"bob@" in got.body, got.body.count(b"[redacted]")) == ("", False, 1)
    assert got.body.endswith(b"data: [DONE]\n\n")


@each
def test_an_encoded_stream_is_cut(up: Stage, coding: str) -> None:
    data = ENCODERS[coding](b"".join(stream_of("the ", "launch", " code ", "is")))
    got = play(up, "full", "text/event-stream", data, coding)
    assert (got.encoding, b"No." in got.body, b"launch" in got.body, got.broken) == ("", True, False, False)


@each
@pytest.mark.parametrize("chunked", [True, False])
def test_an_encoded_answer_in_one_piece_arrives_plain(up: Stage, coding: str, chunked: bool) -> None:
    got = play(up, "full", "application/json", ENCODERS[coding](WHOLE), coding, chunked=chunked)
    expected = answer_of("write to [redacted]")
    assert (got.status, got.encoding, got.body) == (200, "", expected)
    assert got.headers.get("content-length", str(len(expected))) == str(len(expected))
    assert play(up, "full", "application/json", ENCODERS[coding](answer_of("launch")), coding).status == 403


@each
def test_under_monitor_both_sides_see_the_encoded_bytes(up: Stage, coding: str) -> None:
    encode = ENCODERS[coding]
    for kind, data in (("text/event-stream", STREAM), ("application/json", WHOLE)):
        got = play(up, "monitor", kind, encode(data), coding)
        assert (got.encoding, got.body) == (coding, encode(data))
    sent = send(up, "monitor", encode(chat()), coding)
    assert (sent.body, sent.header("content-encoding")) == (encode(chat()), coding)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as its upstream saw it."""

    body: bytes
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


def send(stage: Stage, team: str, data: bytes, coding: str, **more: str) -> Sent:
    """What the upstream got of one encoded request."""
    stage.providers[0].calls.clear()
    stage.providers[0].raw["plain"] = RawAnswer(200, (("content-type", "application/json"),), (WHOLE,), stream=False)
    headers = {"x-team-id": team, "x-emulate-raw": "plain", "content-encoding": coding, **more}
    with caller(stage) as client:
        client.post("/v1/chat/completions", headers=headers, content=data)
    (call,) = stage.providers[0].calls
    return Sent(call.body, call.headers)


@each
def test_an_encoded_request_reaches_its_upstream_as_it_was_judged(up: Stage, coding: str) -> None:
    sent = send(up, "full", ENCODERS[coding](chat(SAID)), coding)
    assert json.loads(sent.body) == {**json.loads(chat("write to [redacted]")), "max_tokens": 7}
    assert (sent.header("content-encoding"), sent.header("accept-encoding")) == ("", "identity")
    assert sent.header("content-length") == str(len(sent.body))


@pytest.mark.parametrize("chunked", [True, False])
def test_what_cannot_be_decoded_is_refused_or_passes_as_it_came(up: Stage, chunked: bool) -> None:
    data = gzip.compress(WHOLE)[:-4]
    assert play(up, "full", "application/json", data, "gzip", chunked=chunked).status == 503
    got = play(up, "open", "application/json", data, "gzip", chunked=chunked)
    assert (got.status, got.encoding, got.body) == (200, "gzip", data)


def test_a_stream_that_cannot_be_decoded_is_cut_or_breaks_for_its_caller(up: Stage) -> None:
    got = play(up, "full", "text/event-stream", STREAM, "gzip")
    assert (got.status, got.broken, b"bob" in got.body) == (200, False, False)
    assert got.body.endswith(b"data: [DONE]\n\n")
    got = play(up, "open", "text/event-stream", STREAM, "gzip")
    # 503: Envoy had not yet sent its headers on.
    assert (got.body == b"" and got.broken) or (got.status == 503 and b"policyd_unavailable" in got.body)


def said_raw(up: Stage, *framing: str) -> bytes:
    """What Envoy says to a request with these headers about its length, before it closes."""
    body = chat(SAID)
    head = ["POST /v1/chat/completions HTTP/1.1", "host: x", "x-team-id: full", "connection: close", *framing]
    place = httpx.URL(up.url)
    with socket.create_connection((place.host, place.port or 80), timeout=10) as wire:
        wire.sendall("\r\n".join(head).replace("SIZE", str(len(body))).encode() + b"\r\n\r\n" + body)
        return wire.recv(65_536)


@pytest.mark.parametrize("coding", ["chunked", "gzip, chunked", "identity"])
def test_a_request_with_two_lengths_reaches_nobody(up: Stage, coding: str) -> None:
    up.providers[0].calls.clear()
    answer = said_raw(up, "content-length: SIZE", f"transfer-encoding: {coding}")
    assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 501")
    assert up.providers[0].calls == []
    assert said_raw(up, "content-length: SIZE").startswith(b"HTTP/1.1 200")
    assert len(up.providers[0].calls) == 1
