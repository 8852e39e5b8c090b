"""What is captured reads back as the call that came, and holds no credential."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.adapters.capture import Capture, Tap
from policyd.adapters.recordings import read_recordings
from policyd.core.model.credentials import key_id
from policyd.core.model.steps import (
    Ended,
    Event,
    Headers,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
    Tick,
)

SECRET = "sk-very-secret-0123456789"


class Kept:
    def __init__(self) -> None:
        self.lines: list[Callable[[], bytes]] = []
        self.sizes: list[int] = []

    def put(self, line: Callable[[], bytes], size: int) -> None:
        self.lines.append(line)
        self.sizes.append(size)


def begin(kept: Kept, headers: Headers = (), path: str = "/v1/messages?beta=true", **limits: int) -> Tap:
    pseudo = ((":method", "POST"), (":path", path), (":authority", "api.anthropic.com"))
    return Capture(kept, **limits).begin(RequestHeaders((*pseudo, *headers), end=False, now=100.0, wall=1767323045.25))


def events(chunks: list[bytes]) -> list[Event]:
    return [
        RequestBody(b'{"a": 1}', 100.0),
        ResponseHeaders(((":status", "200"), ("content-type", "text/event-stream")), end=False, now=100.1),
        *(ResponseChunk(data, end=False, now=100.2 + 0.01 * index) for index, data in enumerate(chunks)),
        Tick(101.0),
        Ended(102.0),
    ]


def line_of(kept: Kept) -> dict[str, dict[str, object]]:
    (make,) = kept.lines
    read = json.loads(make())
    assert isinstance(read, dict)
    return read


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5), st.binary(max_size=20))
def test_a_capture_reads_back_as_what_came(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], body: bytes
) -> None:
    kept = Kept()
    tap = begin(kept, (("x-team-id", "blue"),))
    for event in events(chunks):
        tap.see(RequestBody(body, 100.0) if isinstance(event, RequestBody) else event)
    file = tmp_path_factory.mktemp("capture") / "a.jsonl"
    file.write_bytes(kept.lines[0]() + b"\n")
    (recording,) = read_recordings(file)
    assert recording.time == 1767323045.25
    assert (recording.method, recording.path, recording.host) == ("POST", "/v1/messages?beta=true", "api.anthropic.com")
    assert recording.headers == (("host", "api.anthropic.com"), ("x-team-id", "blue"))
    assert recording.body == body
    assert recording.status == 200
    assert recording.response_headers == (("content-type", "text/event-stream"),)
    assert recording.chunks == (*((200.0 + 10 * index, data) for index, data in enumerate(chunks)), (2000.0, b""))
    assert kept.sizes == [len(body) + sum(map(len, chunks))]


def test_an_answer_that_came_to_its_end_ends_with_its_last_bytes() -> None:
    kept = Kept()
    tap = begin(kept)
    for event in (*events([b"a"])[:-2], ResponseChunk(b"b", end=True, now=100.5), Ended(103.0)):
        tap.see(event)
    assert line_of(kept)["response"]["chunks"] == [{"ms": 200.0, "data": "a"}, {"ms": 500.0, "data": "b"}]


def test_a_refused_call_has_no_response(tmp_path: Path) -> None:
    kept = Kept()
    tap = begin(kept)
    tap.see(RequestBody(b"{}", 100.0))
    tap.end(100.0)
    tap.end(101.0)
    assert line_of(kept)["response"] is None
    (tmp_path / "a").write_bytes(kept.lines[0]())
    (recording,) = read_recordings(tmp_path / "a")
    assert recording.status == 0


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("authorization", f"Bearer {SECRET}", f"Bearer {key_id(SECRET)}"),
        ("authorization", f"bearer  {SECRET}", f"Bearer {key_id(SECRET)}"),
        ("authorization", f"Basic {SECRET}", key_id(f"Basic {SECRET}")),
        ("x-api-key", SECRET, key_id(SECRET)),
        ("api-key", SECRET, key_id(SECRET)),
        ("x-goog-api-key", SECRET, key_id(SECRET)),
        ("proxy-authorization", SECRET, key_id(SECRET)),
        ("cookie", f"session={SECRET}", "[removed]"),
        ("x-user-id", "someone", "someone"),
    ],
)
def test_credentials_become_the_pseudonym_that_policies_know(name: str, value: str, written: str) -> None:
    kept = Kept()
    begin(kept, ((name, value), ("x-policyd-decision", "forged"))).end(100.0)
    headers = line_of(kept)["request"]["headers"]
    assert isinstance(headers, dict)
    assert headers[name] == written
    assert SECRET.encode() not in kept.lines[0]()
    assert "x-policyd-decision" not in headers


@pytest.mark.parametrize("name", ["key", "api_key", "api-key", "access_token", "token", "KEY"])
def test_a_key_in_the_path_is_replaced(name: str) -> None:
    kept = Kept()
    begin(kept, path=f"/v1beta/models/g:generateContent?alt=sse&{name}={SECRET}&monkey=1").end(100.0)
    path = line_of(kept)["request"]["path"]
    assert path == f"/v1beta/models/g:generateContent?alt=sse&{name}={key_id(SECRET)}&monkey=1"


def test_an_answers_cookies_are_removed_and_repeated_headers_kept() -> None:
    kept = Kept()
    tap = begin(kept, (("x-a", "1"), ("x-a", "2")))
    tap.see(ResponseHeaders(((":status", "200"), ("set-cookie", SECRET), ("set-cookie", SECRET)), end=True, now=100.0))
    tap.end(100.0)
    line = line_of(kept)
    assert line["request"]["headers"] == {"host": "api.anthropic.com", "x-a": ["1", "2"]}
    assert line["response"]["headers"] == {"set-cookie": ["[removed]", "[removed]"]}


def test_a_call_past_its_bound_is_dropped_whole_and_counted() -> None:
    kept, lost = Kept(), []
    tap = Capture(kept, max_call=10, on_dropped=lost.append).begin(RequestHeaders((), False, 0.0, 0.0))
    for _ in range(3):
        tap.see(ResponseChunk(b"12345", end=False, now=0.0))
    assert tap._chunks == []
    tap.end(100.0)
    assert (kept.lines, lost) == ([], [1])
