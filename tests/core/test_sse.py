"""Server-sent events, whole, byte by byte and cut at random."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.errors import Malformed
from policyd.core.stream.sse import SseEvent, SseParser, render
from tests.streams import joined


def parse(*chunks: bytes, limit: int = 1 << 20) -> list[SseEvent]:
    parser = SseParser(limit)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    left = parser.finish()
    return joined(events if left is None else [*events, left])


def cuts(data: bytes, times: int = 20) -> list[list[bytes]]:
    """The same bytes whole, byte by byte and cut at random places."""
    chance = random.Random(len(data))
    ways = [[data], [data[i : i + 1] for i in range(len(data))]]
    for _ in range(times):
        places = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6)))
        edges = [0, *places, len(data)]
        ways.append([data[a:b] for a, b in itertools.pairwise(edges)])
    return ways


def said(events: list[SseEvent]) -> list[tuple[str, str | None]]:
    return [(event.name, event.data) for event in events]


TABLE = [
    ("one event", b"data: x\n\n", [("", "x")]),
    ("no space after the colon", b"data:x\n\n", [("", "x")]),
    ("only the first space goes", b"data:  x\n\n", [("", " x")]),
    ("several lines of data", b"data: a\ndata: b\n\n", [("", "a\nb")]),
    ("a name", b"event: ping\ndata: {}\n\n", [("ping", "{}")]),
    ("the last name counts", b"event: a\nevent: b\ndata:\n\n", [("b", "")]),
    ("id and retry are nothing to us", b"id: 7\nretry: 5\ndata: x\n\n", [("", "x")]),
    ("a field without a colon", b"data\n\n", [("", "")]),
    ("a name alone dispatches nothing", b"event: error\n\n", [("error", None)]),
    ("a comment block", b": keep-alive\n\ndata: x\n\n", [("", None), ("", "x")]),
    ("a comment belongs to its event", b": hello\ndata: x\n\n", [("", "x")]),
    ("blank lines", b"\n\ndata: x\n\n\n\n", [("", None), ("", "x"), ("", None)]),
    ("comments and blank lines", b":\n\n: a\n:\n\n\n: b\ndata: x\n\n:\n\n", [("", None), ("", "x"), ("", None)]),
    ("comments with CRLF", b": a\r\n\r\n\r\n:\r\n\r\ndata: x\r\n\r\n", [("", None), ("", "x")]),
    ("CRLF", b"event: e\r\ndata: x\r\n\r\ndata: y\r\n\r\n", [("e", "x"), ("", "y")]),
    ("CR", b"data: x\r\rdata: y\r\r", [("", "x"), ("", "y")]),
    ("mixed", b"data: a\rdata: b\n\r\ndata: c\r\n\n\n", [("", "a\nb"), ("", "c"), ("", None)]),
    ("LF first, CR later", b"data: a\n\ndata: b\n\rdata: c\n\n", [("", "a"), ("", "b"), ("", "c")]),
    ("CR CR LF is two line ends", b"data: x\r\r\ndata: y\n\n", [("", "x"), ("", "y")]),
    ("BOM", b"\xef\xbb\xbfdata: x\n\n", [("", "x")]),
    ("a BOM later, as some clients strip it", b"data: a\n\n\xef\xbb\xbfdata: x\n\n", [("", "a"), ("", "x")]),
    ("not ended", b"data: x\n\ndata: y\n", [("", "x"), ("", "y")]),
    ("fields in content stay content", b"data: event: x\n\n", [("", "event: x")]),
    ("other Unicode line ends are content", "data: a\u2028b\u0085c\x0bd\n\n".encode(), [("", "a\u2028b\x85c\x0bd")]),
]


@pytest.mark.parametrize(("data", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_events_are_what_the_standard_says(data: bytes, expected: list[tuple[str, str | None]]) -> None:
    whole = parse(data)
    assert said(whole) == expected
    assert b"".join(event.raw for event in whole) == data
    for chunks in cuts(data):
        assert parse(*chunks) == whole


def test_what_no_blank_line_ends_is_incomplete() -> None:
    assert [event.complete for event in parse(b"data: x\n\ndata: y\n")] == [True, False]
    assert [event.complete for event in parse(b"data: x\r\r")] == [True]
    assert [event.complete for event in parse(b"data: x\r")] == [False]


def test_a_code_point_may_be_cut_anywhere() -> None:
    data = "data: é漢😀\n\n".encode()
    for chunks in cuts(data):
        assert said(parse(*chunks)) == [("", "é漢😀")]


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe6\xbc"], ids=repr)
@pytest.mark.parametrize("shape", [b"data: %b\n\n", b"event: e\ndata: %b\n\n", b"data: %b\r\n\r\n"], ids=repr)
def test_what_is_not_utf8_is_malformed_and_keeps_its_bytes(bad: bytes, shape: bytes) -> None:
    data = shape % bad
    for chunks in cuts(data):
        [event] = parse(*chunks)
        assert event.malformed
        assert event.raw == data


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=repr)
def test_an_event_has_a_largest_size(end: bytes) -> None:
    fits = b"data: " + b"x" * (64 - 6 - 2 * len(end)) + end + end
    larger = b"data: x" + fits[6:]
    assert len(parse(fits, fits, limit=64)) == 2
    for chunks in cuts(fits + larger + fits):
        parser, got, failed = SseParser(64), [], False
        for chunk in chunks:
            try:
                got += parser.feed(chunk)
            except Malformed:
                failed = True
        assert [event.raw for event in got] == [fits]
        assert failed or parser.failure
        with pytest.raises(Malformed, match="larger than 64 bytes"):
            parser.finish()


def test_a_line_that_never_ends_fails_at_the_limit() -> None:
    parser = SseParser(1000)
    assert parser.feed(b"x" * 1000) == []
    with pytest.raises(Malformed):
        parser.feed(b"x")


def test_it_is_linear_in_the_bytes() -> None:
    """A large event one byte at a time: quadratic work would not end within the test's time limit."""
    for end in (b"\n\n", b"\r\n\r\n"):
        parser, data = SseParser(), b"data: " + b"x" * 400_000 + end
        for index in range(len(data)):
            parser.feed(data[index : index + 1])
        assert parser.finish() is None


piece = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n",
        b"data: ",
        b"data:",
        b"event: e",
        b": c",
        b"x",
        "é".encode(),
        b"\xff",
        b"\xef\xbb\xbf",
    ]
)


@given(st.lists(piece, max_size=30).map(b"".join), st.data())
def test_any_split_gives_the_same_events(data: bytes, draw: st.DataObject) -> None:
    whole = parse(data)
    assert b"".join(event.raw for event in whole) == data
    edges = [0, *sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8))), len(data)]
    assert parse(*(data[a:b] for a, b in itertools.pairwise(edges))) == whole
    assert parse(*(data[i : i + 1] for i in range(len(data)))) == whole


def test_an_event_of_our_own() -> None:
    assert said(parse(render("a\nb", "n") + render("{}"))) == [("n", "a\nb"), ("", "{}")]
