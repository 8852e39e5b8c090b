"""Framings other than server-sent events: binary messages, lines, one array."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.errors import Malformed
from policyd.core.stream import eventstream, ndjson
from policyd.core.stream.eventstream import EventStream
from policyd.core.stream.framing import Framing, Sse, framing_of
from policyd.core.stream.json_array import JsonArray
from policyd.core.stream.ndjson import Ndjson
from policyd.core.stream.sse import SseEvent
from tests.streams import joined

DOCUMENTS: list[Any] = [{"a": "x"}, {"b": {"c": ['"]}', "\\", {"d": 1}]}}, {}, {"漢": "é\n"}]


def dumped() -> list[str]:
    return [json.dumps(one, ensure_ascii=False) for one in DOCUMENTS]


STREAMS: dict[str, tuple[Callable[[], Framing], bytes]] = {
    "eventstream": (EventStream, b"".join(eventstream.render(one, "chunk") for one in dumped())),
    "ndjson": (Ndjson, b"".join(map(ndjson.render, dumped())) + b"\r\n\n"),
    "array": (JsonArray, ("[" + ",\r\n".join(dumped()) + "\n]\n").encode()),
    "compact array": (JsonArray, ("[" + ",".join(dumped()) + "]").encode()),
    "object": (JsonArray, b' {"error": {}}\n'),
    "empty array": (JsonArray, b" [ ] "),
}
STREAM = pytest.mark.parametrize(("make", "data"), STREAMS.values(), ids=STREAMS.keys())


def read(framing: Framing, chunks: Iterable[bytes]) -> tuple[list[SseEvent], str]:
    """The events, and why nothing more could be read."""
    events: list[SseEvent] = []
    try:
        for chunk in chunks:
            events += framing.feed(chunk)
        left = framing.finish()
    except Malformed as failure:
        return events, failure.reason
    return joined([*events, left] if left is not None else events), framing.failure


def data_of(events: list[SseEvent]) -> list[Any]:
    return [json.loads(event.data) for event in events if event.data]


@STREAM
def test_the_raws_joined_are_the_input(make: Callable[[], Framing], data: bytes) -> None:
    events, failure = read(make(), [data])
    assert b"".join(event.raw for event in events) == data
    assert failure == ""
    assert all(event.complete and not event.malformed for event in events)


@pytest.mark.parametrize("name", ["eventstream", "ndjson", "array", "compact array"])
def test_the_events_are_the_documents(name: str) -> None:
    make, data = STREAMS[name]
    assert data_of(read(make(), [data])[0]) == DOCUMENTS


@STREAM
def test_byte_by_byte_says_the_same(make: Callable[[], Framing], data: bytes) -> None:
    assert read(make(), [data[i : i + 1] for i in range(len(data))]) == read(make(), [data])


@given(name=st.sampled_from(sorted(STREAMS)), at=st.integers(0, 400), byte=st.integers(0, 255), seed=st.randoms())
def test_damaged_or_not_the_cuts_change_nothing(name: str, at: int, byte: int, seed: Any) -> None:
    make, sound = STREAMS[name]
    place = at % len(sound)
    data = sound[:place] + bytes([byte]) + sound[place + 1 :]
    places = sorted(seed.randrange(len(data) + 1) for _ in range(4))
    again = read(make(), [data[a:b] for a, b in pairwise([0, *places, len(data)])])
    assert again == read(make(), [data])


@STREAM
def test_what_is_cut_off_is_told(make: Callable[[], Framing], data: bytes) -> None:
    """Except for lines: there the JSON of the last one tells; and for what is over already."""
    if make is Ndjson:
        return
    over = len(data.rstrip()) if make is JsonArray else len(data)
    for length in range(1, over):
        events, _ = read(make(), [data[:length]])
        boundary = make is EventStream and all(event.complete for event in events)
        assert boundary or not events[-1].complete or not data[:length].strip(), length
        assert b"".join(event.raw for event in events) == data[:length]


# ---- binary messages ------------------------------------------------------------------------------------------------


def test_a_message_of_our_own_is_what_botocore_reads() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(STREAMS["eventstream"][1])
    got = list(buffer)
    assert [json.loads(one.payload) for one in got] == DOCUMENTS
    assert {one.headers[":event-type"] for one in got} == {"chunk"}


def test_every_flipped_bit_is_noticed() -> None:
    data = eventstream.render('{"a":"b"}', "chunk") * 2
    one = len(data) // 2
    for place in range(one):
        broken = bytearray(data)
        broken[place] ^= 1
        events, failure = read(EventStream(), [bytes(broken)])
        if place < 12:
            assert (events, failure) == ([], "the prelude of an event is broken")
            continue
        assert [event.malformed for event in events] == [True, False]
        buffer = EventStreamBuffer()
        buffer.add_data(bytes(broken))
        with pytest.raises(ChecksumMismatch):
            list(buffer)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({":message-type": "event", ":event-type": "chunk"}, "chunk"),
        ({":message-type": "exception", ":exception-type": "throttlingException"}, "throttlingException"),
        ({":message-type": "error", ":error-code": "x", ":error-message": "y"}, "error"),
        ({}, ""),
    ],
)
def test_the_name_of_a_message(headers: dict[str, str], name: str) -> None:
    raw = eventstream._message(b"".join(eventstream._header(key, value) for key, value in headers.items()), b"{}")
    assert [(event.name, event.malformed) for event in read(EventStream(), [raw])[0]] == [(name, False)]


@pytest.mark.parametrize(
    ("header", "sound"),
    [
        (b"\x01a\x00", True),
        (b"\x01a\x01", True),
        (b"\x01a\x02\x01", True),
        (b"\x01a\x04\x00\x00\x00\x01", True),
        (b"\x01a\x06\x00\x02\xff\xff", True),
        (b"\x01a\x08" + bytes(8), True),
        (b"\x01a\x09" + bytes(16), True),
        (b"\x01a\x0a", False),
        (b"\x01a", False),
        (b"\x01a\x07\x00\x05ab", False),
        (b"\x01a\x07\x00\x01\xff", False),
    ],
)
def test_every_type_of_header(header: bytes, sound: bool) -> None:
    events, failure = read(EventStream(), [eventstream._message(header, b"{}") + eventstream.render("{}", "x")])
    assert failure == ""
    assert [event.malformed for event in events] == [not sound, False]


def test_an_edit_makes_lengths_and_checksums_anew() -> None:
    inner = json.dumps({"delta": {"text": "secret"}, "keep": 1.0})
    data = json.dumps({"bytes": base64.b64encode(inner.encode()).decode(), "p": "abc"})
    raw = eventstream.render(data, "chunk")
    framing = EventStream()
    edited = framing.edit(raw, [(("bytes", "delta", "text"), "[redacted, and longer]"), (("p",), "")])
    buffer = EventStreamBuffer()
    buffer.add_data(edited)
    (got,) = buffer
    document = json.loads(got.payload)
    assert document["p"] == ""
    assert base64.b64decode(document["bytes"]).decode() == inner.replace("secret", "[redacted, and longer]")
    assert framing.edit(raw, []) == raw


@pytest.mark.parametrize("payload", ["{}", '{"bytes": 1}', '{"bytes": "*"}', '{"bytes": "e30"}'])
def test_what_is_no_base64_document_cannot_be_edited(payload: str) -> None:
    with pytest.raises(Malformed):
        EventStream().edit(eventstream.render(payload, "chunk"), [(("bytes", "a"), "x")])


# ---- lines and arrays -----------------------------------------------------------------------------------------------


def test_a_line_that_is_edited_keeps_its_end() -> None:
    assert Ndjson().edit(b'{"a": "x", "b": 1}\r\n', [(("a",), "y")]) == b'{"a": "y", "b": 1}\r\n'


def test_an_element_that_is_edited_keeps_what_stands_before_it() -> None:
    assert JsonArray().edit(b'\n,\n{"a": "x"}', [(("a",), "y")]) == b'\n,\n{"a": "y"}'


def test_the_last_line_needs_no_end() -> None:
    assert [event.data for event in read(Ndjson(), [b'{"a":1}\n{"b":2}'])[0]] == ['{"a":1}', '{"b":2}']


@pytest.mark.parametrize(
    "data",
    [b"[{} {}]", b"[,{}]", b"[{},,{}]", b"[1]", b'["a"]', b"{}{}", b"[{}]]", b"[{}]{}", b"null", b"<html>", b"[[{}]]"],
)
def test_what_is_no_array_of_objects_cannot_be_read(data: bytes) -> None:
    assert read(JsonArray(), [data])[1] in ("the answer is no array of objects", "data after the end")


def test_brackets_that_do_not_match_are_left_to_the_reader_of_the_element() -> None:
    assert [event.data for event in read(JsonArray(), [b"[{],{}]"])[0]] == ["{]", "{}", None]


@pytest.mark.parametrize("make", [EventStream, Ndjson, JsonArray])
def test_what_is_too_large_ends_the_stream_after_what_came_before(make: Any) -> None:
    name = {EventStream: "eventstream", Ndjson: "ndjson", JsonArray: "compact array"}[make]
    small = read(make(), [STREAMS[name][1]])[0][0].raw
    text = json.dumps({"a": "x" * 500})
    large = {EventStream: eventstream.render(text, "c"), Ndjson: ndjson.render(text), JsonArray: f",{text}".encode()}
    data = small + large[make] + small
    for chunks in ([data], [data[i : i + 1] for i in range(len(data))], [data[:300], data[300:]]):
        framing = make(limit=256)
        events, failure = read(framing, chunks)
        assert [event.raw for event in events] == [small]
        assert framing.rest and data[len(small) :].startswith(framing.rest)
        assert len(chunks) > 1 or framing.rest == data[len(small) :]
        assert failure == "an event is larger than 256 bytes (bound event_bytes)"


@pytest.mark.parametrize("make", [Ndjson, JsonArray])
def test_what_is_not_utf8_is_malformed(make: Any) -> None:
    data = {Ndjson: b'{"a":"\xff"}\n{}\n', JsonArray: b'[{"a":"\xff"},{}]'}[make]
    assert [event.malformed for event in read(make(), [data])[0]][:2] == [True, False]


@pytest.mark.parametrize(
    ("content_type", "dialect", "asked", "framing"),
    [
        ("text/event-stream; charset=utf-8", "openai.chat", False, Sse),
        ("Application/VND.amazon.eventstream", "bedrock.converse", True, EventStream),
        ("application/x-ndjson", "ollama.chat", True, Ndjson),
        ("application/stream+json", "cohere.chat", True, Ndjson),
        ("application/json; charset=UTF-8", "gemini.generate", True, JsonArray),
        ("application/json", "gemini.generate", False, None),
        ("application/json", "openai.chat", True, None),
        ("", "openai.chat", True, Sse),
        ("", "ollama.chat", True, Ndjson),
        ("", "bedrock.invoke", True, EventStream),
        ("", "", True, None),
        ("", "openai.chat", False, None),
    ],
)
def test_the_framing_follows_the_content_type(content_type: str, dialect: str, asked: bool, framing: Any) -> None:
    found = framing_of(content_type, dialect, asked=asked)
    assert type(found) is (framing or type(None))
