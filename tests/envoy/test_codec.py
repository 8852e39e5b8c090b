"""Envoy's messages as events, and steps as Envoy's messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.adapters.envoy import codec
from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.codec import Kind
from policyd.adapters.envoy.config import STREAM_CHUNK
from policyd.core.model.steps import (
    BodyMode,
    HeaderEdit,
    PassRequestBody,
    PassRequestHeaders,
    PassResponseBody,
    PassResponseHeaders,
    Reject,
    Release,
    RequestBody,
    ResponseChunk,
)

Mode = pb.ProcessingMode


def header_map(*pairs: tuple[str, bytes]) -> pb.HeaderMap:
    return pb.HeaderMap(headers=[pb.HeaderValue(key=key, raw_value=value) for key, value in pairs])


def sets(mutation: pb.HeaderMutation) -> list[tuple[str, bytes, int]]:
    return [(one.header.key, one.header.raw_value, one.append_action) for one in mutation.set_headers]


OVERWRITE, APPEND = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD, pb.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD

# ---- header values ---------------------------------------------------------------------------------------------------


@given(st.binary().filter(lambda value: not set(value) & {0, 10, 13}))
def test_a_headers_bytes_come_back(value: bytes) -> None:
    assert codec.raw(codec.text(value)) == value


@given(st.text())
def test_no_text_breaks_a_header(value: str) -> None:
    assert not set(codec.raw(value)) & {0, 10, 13}


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a\r\nx-evil: 1", b"a  x-evil: 1"), ("nul\0", b"nul "), ("é", "é".encode()), ("\ud800", b"?")],
)
def test_what_a_header_cannot_hold(value: str, expected: bytes) -> None:
    assert codec.raw(value) == expected


def test_headers_keep_their_order_and_their_twins() -> None:
    found = codec.headers(header_map((":path", b"/"), ("x-a", b"1"), ("x-a", b"2"), ("x-b", b"\xff")))
    assert found == ((":path", "/"), ("x-a", "1"), ("x-a", "2"), ("x-b", "\udcff"))


def test_a_peer_that_fills_value_is_understood() -> None:
    assert codec.headers(pb.HeaderMap(headers=[pb.HeaderValue(key="a", value="b")])) == (("a", "b"),)


# ---- events ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind])
def test_every_message_has_its_kind(kind: Kind) -> None:
    message = pb.ProcessingRequest()
    getattr(message, kind).SetInParent()
    assert codec.kind_of(message) is kind


def test_an_unknown_message_is_nothing() -> None:
    assert codec.kind_of(pb.ProcessingRequest()) is Kind.NOTHING
    assert codec.kind_of(pb.ProcessingRequest.FromString(b"\xfa\x01\x02hi")) is Kind.NOTHING


def test_a_call_begins_with_its_headers_and_what_envoy_knows() -> None:
    message = pb.ProcessingRequest()
    message.request_headers.headers.CopyFrom(header_map((":method", b"POST")))
    message.request_headers.end_of_stream = True
    message.metadata_context.filter_metadata["jwt"].update(
        {"sub": "ann", "roles": ["a", {"b": None}], "n": 2, "ok": True}
    )
    message.attributes["envoy.filters.http.ext_proc"].update({"source.address": "10.0.0.1:5"})
    event = codec.request_headers(message, 1.0, 2.0)
    assert (event.headers, event.end, event.now, event.wall) == (((":method", "POST"),), True, 1.0, 2.0)
    assert event.metadata == {
        "jwt": {"sub": "ann", "roles": ["a", {"b": None}], "n": 2.0, "ok": True},
        "envoy.filters.http.ext_proc": {"source.address": "10.0.0.1:5"},
    }


@pytest.mark.parametrize(("size", "truncated"), [(0, False), (10, False), (11, True)])
def test_no_more_of_a_body_is_handed_on_than_may_be_read(size: int, truncated: bool) -> None:
    message = pb.ProcessingRequest(request_body=pb.HttpBody(body=b"x" * size))
    assert codec.request_body(message, 1.0, 10) == RequestBody(b"x" * min(size, 10), 1.0, truncated)


@pytest.mark.parametrize(
    ("end", "whole", "expected"), [(False, False, False), (True, False, True), (False, True, True)]
)
def test_a_whole_body_is_its_own_end(end: bool, whole: bool, expected: bool) -> None:
    message = pb.ProcessingRequest(response_body=pb.HttpBody(body=b"x", end_of_stream=end))
    assert codec.response_chunk(message, 1.0, whole=whole) == ResponseChunk(b"x", expected, 1.0)


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_headers_that_go_on_say_no_more_than_that() -> None:
    answer = codec.pass_request_headers(PassRequestHeaders())
    assert not answer.HasField("mode_override")
    assert answer.request_headers.response == pb.CommonResponse()


def test_a_body_that_is_wanted_is_asked_for() -> None:
    answer = codec.pass_request_headers(PassRequestHeaders(HeaderEdit(remove=("x-policyd-a",)), want_body=True))
    assert answer.mode_override == Mode(request_body_mode=Mode.BUFFERED)
    assert list(answer.request_headers.response.header_mutation.remove_headers) == ["x-policyd-a"]


def test_a_new_route_comes_with_a_header_mutation() -> None:
    for common in (
        codec.pass_request_headers(PassRequestHeaders(reroute=True)).request_headers.response,
        codec.pass_request_body(PassRequestBody(reroute=True)).request_body.response,
    ):
        assert common.clear_route_cache
        assert common.HasField("header_mutation")


def test_a_changed_body_brings_its_length() -> None:
    edit = HeaderEdit((("content-length", "1"), ("x-a", "b")), ("content-length", "authorization"))
    common = codec.pass_request_body(PassRequestBody(b"hello", edit)).request_body.response
    assert common.body_mutation.body == b"hello"
    assert sets(common.header_mutation) == [("x-a", b"b", OVERWRITE), ("content-length", b"5", OVERWRITE)]
    assert list(common.header_mutation.remove_headers) == ["authorization"]


def test_a_body_that_became_empty_is_still_a_change() -> None:
    common = codec.pass_response_body(PassResponseBody(b"")).response_body.response
    assert common.body_mutation.WhichOneof("mutation") == "body"
    assert sets(common.header_mutation) == [("content-length", b"0", OVERWRITE)]


def test_an_unchanged_body_is_not_touched() -> None:
    assert codec.pass_request_body(PassRequestBody()).request_body.response == pb.CommonResponse()
    assert codec.pass_response_body(PassResponseBody()).response_body.response == pb.CommonResponse()


FDS = Mode(response_body_mode=Mode.FULL_DUPLEX_STREAMED, response_trailer_mode=Mode.SEND)


@pytest.mark.parametrize(
    ("mode", "override", "removed"),
    [
        (BodyMode.NONE, None, []),
        (BodyMode.WHOLE, Mode(response_body_mode=Mode.BUFFERED), []),
        (BodyMode.STREAM, FDS, ["content-length"]),
    ],
)
def test_how_much_of_an_answer_is_asked_for(mode: BodyMode, override: Mode | None, removed: list[str]) -> None:
    answer = codec.pass_response_headers(PassResponseHeaders(mode=mode))
    assert (answer.mode_override if answer.HasField("mode_override") else None) == override
    assert list(answer.response_headers.response.header_mutation.remove_headers) == removed


def test_a_refusal_is_an_answer_of_our_own() -> None:
    step = Reject(429, (("content-type", "application/json"), ("set-cookie", "a"), ("set-cookie", "b")), b"{}")
    answer = codec.reject(step).immediate_response
    assert (answer.status.code, answer.body, answer.details) == (429, b"{}", "policyd")
    assert sets(answer.headers) == [
        ("content-type", b"application/json", OVERWRITE),
        ("set-cookie", b"a", OVERWRITE),
        ("set-cookie", b"b", APPEND),
    ]


@given(st.integers(0, 4 * STREAM_CHUNK), st.booleans())
def test_released_bytes_leave_in_pieces_and_the_end_on_the_last(size: int, end: bool) -> None:
    data = (b"0123456789" * (size // 10 + 1))[:size]
    answers = [one.response_body.response.body_mutation.streamed_response for one in codec.release(data, end=end)]
    assert b"".join(one.body for one in answers) == data
    assert all(len(one.body) <= STREAM_CHUNK for one in answers)
    assert [one.end_of_stream for one in answers] == [False] * (len(answers) - 1) + [end] * bool(answers)
    assert all(one.body for one in answers) or not data
    assert bool(answers) == bool(data or end)


@given(st.lists(st.binary(max_size=5)), st.integers(0, 6))
def test_nothing_follows_an_end(pieces: list[bytes], at: int) -> None:
    steps = [Release(piece, end=number == at) for number, piece in enumerate(pieces)]
    expected = b"".join(pieces[: at + 1])
    assert codec.joined(steps) == Release(expected, end=at < len(pieces))


# ---- metadata and configuration --------------------------------------------------------------------------------------


def test_what_was_decided_is_put_where_the_access_log_finds_it() -> None:
    answer = pb.ProcessingResponse()
    codec.attach(answer, {"decision": "d1", "cost_usd": codec.dollars(1_500_000)})
    assert answer.dynamic_metadata["policyd"]["decision"] == "d1"
    assert answer.dynamic_metadata["policyd"]["cost_usd"] == "0.001500000"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, 0),
        ({"request_body_mode": Mode.BUFFERED}, 1),
        ({"request_body_mode": Mode.STREAMED}, 1),
        ({"response_body_mode": Mode.FULL_DUPLEX_STREAMED}, 1),
        ({"request_body_mode": 77}, 1),
        ({"send_body_without_waiting_for_header_response": True, "request_body_mode": Mode.STREAMED}, 2),
    ],
)
def test_a_filter_that_does_not_fit_is_complained_about(config: dict[str, int], told: int) -> None:
    message = pb.ProcessingRequest(protocol_config=pb.ProtocolConfiguration(**config))
    assert len(codec.complaints(message)) == told


def test_an_observing_filter_is_complained_about() -> None:
    assert codec.complaints(pb.ProcessingRequest(observability_mode=True))
