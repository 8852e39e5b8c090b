"""Between Envoy's messages and policyd's events and steps. Pure functions; the order of things is service.py's.

Rule 1: every message has one answer, of its own kind; in a streamed body the bytes are ours and answered as they leave.
Rule 2: header values are bytes. What is not UTF-8 in them becomes surrogate escapes, and the same bytes again.
Rule 3: a body that changes its length takes its content-length with it: Envoy checks neither for us.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from google.protobuf.struct_pb2 import Struct, Value

from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.config import MAX_REQUEST, NAMESPACE, STREAM_CHUNK
from policyd.core.model.decision import DecisionRecord
from policyd.core.model.deployment import UNDECLARED, Deployment, Deployments
from policyd.core.model.route import Route
from policyd.core.model.steps import (
    BodyMode,
    HeaderEdit,
    Headers,
    PassRequestBody,
    PassRequestHeaders,
    PassResponseBody,
    PassResponseHeaders,
    Reject,
    Release,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
    ResponseTrailers,
)

DETAILS = "policyd"  # %RESPONSE_CODE_DETAILS% of an answer of ours

_Mode = pb.ProcessingMode
_OVERWRITE = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_APPEND = pb.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
# What no header value may hold; Envoy makes us: it fails the whole answer over one.
_FORBIDDEN = str.maketrans({"\r": " ", "\n": " ", "\0": " "})

BUFFERED_REQUEST = _Mode(request_body_mode=_Mode.BUFFERED)
# Envoy makes us: told to buffer, it answers 413 by itself once a body is larger than its buffer. One that says how long
# it is was looked at before; of one that does not we ask for the beginning, and say ourselves what becomes of it.
PARTIAL_REQUEST = _Mode(request_body_mode=_Mode.BUFFERED_PARTIAL)
PARTIAL_RESPONSE = _Mode(response_body_mode=_Mode.BUFFERED_PARTIAL)  # told to buffer, it would wait for ever
_RESPONSE_MODES = {
    BodyMode.STREAM: _Mode(response_body_mode=_Mode.FULL_DUPLEX_STREAMED, response_trailer_mode=_Mode.SEND),
    BodyMode.WHOLE: _Mode(response_body_mode=_Mode.BUFFERED),
}
# Envoy makes us: it ends a stream that will be asked nothing more (from 1.37 on). Asked for trailers it keeps it, and
# sends no more than those that there are.
HELD_RESPONSE = _Mode(response_trailer_mode=_Mode.SEND)


class Kind(StrEnum):
    """What a message of Envoy's is about; the names are those of the oneof. NOTHING: none that we know."""

    REQUEST_HEADERS = "request_headers"
    REQUEST_BODY = "request_body"
    REQUEST_TRAILERS = "request_trailers"
    RESPONSE_HEADERS = "response_headers"
    RESPONSE_BODY = "response_body"
    RESPONSE_TRAILERS = "response_trailers"
    NOTHING = ""


_KINDS: dict[str | None, Kind] = {**{kind.value: kind for kind in Kind}, None: Kind.NOTHING}


def kind_of(message: pb.ProcessingRequest) -> Kind:
    """What this message is about."""
    return _KINDS[message.WhichOneof("request")]


# ---- events -------------------------------------------------------------------------------------------------------


def request_headers(
    message: pb.ProcessingRequest,
    now: float,
    wall: float,
    route: Route | None = None,
    deployment: Deployment = UNDECLARED,
    upstreams: Deployments | None = None,
) -> RequestHeaders:
    """The call begins; `metadata` holds Envoy's dynamic metadata and attributes by namespace."""
    part = message.request_headers
    known = upstreams or {}
    told = metadata(message)
    return RequestHeaders(headers(part.headers), part.end_of_stream, now, wall, told, route, deployment, known)


def request_body(message: pb.ProcessingRequest, now: float, most: int) -> RequestBody:
    """The whole request body; more than `most` bytes of it are not handed on."""
    data = message.request_body.body
    return RequestBody(data[:most], now, truncated=True) if len(data) > most else RequestBody(data, now)


def response_headers(message: pb.ProcessingRequest, now: float) -> ResponseHeaders:
    """The answer begins."""
    part = message.response_headers
    return ResponseHeaders(headers(part.headers), part.end_of_stream, now)


def is_refusal(message: pb.ProcessingRequest) -> bool:
    """Whether these response headers are an error, or have no body: nothing that a model has said."""
    part = message.response_headers
    return part.end_of_stream or any(name == ":status" and value >= "400" for name, value in headers(part.headers))


def response_chunk(message: pb.ProcessingRequest, now: float, *, whole: bool, most: int = MAX_REQUEST) -> ResponseChunk:
    """Bytes of the answer. A body that is brought whole is its own end, also where trailers follow it; more than `most`
    bytes without an end are only its beginning."""
    part = message.response_body
    truncated = whole and not part.end_of_stream and len(part.body) > most
    return ResponseChunk(part.body, part.end_of_stream or whole, now, truncated)


def response_trailers(now: float) -> ResponseTrailers:
    """The answer ends with trailers."""
    return ResponseTrailers(now)


def headers(found: pb.HeaderMap) -> Headers:
    """Headers in order, as text."""
    return tuple((one.key, text(one.raw_value) if one.raw_value else one.value) for one in found.headers)


def text(raw: bytes) -> str:
    """A header's value as text, without loss."""
    return raw.decode("utf-8", "surrogateescape")


def raw(value: str) -> bytes:
    """A header's value as bytes: the inverse of `text`. A lone surrogate that no byte gave becomes a question mark."""
    value = value.translate(_FORBIDDEN)
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")


def metadata(message: pb.ProcessingRequest) -> dict[str, Mapping[str, object]]:
    """What Envoy says about the call itself: dynamic metadata, and attributes, each by its namespace. What its own
    configuration is made of is routes.py's."""
    found: dict[str, Mapping[str, object]] = {}
    for name, struct in message.attributes.items():
        found[name] = {key: _plain(value) for key, value in struct.fields.items() if not key.startswith("xds.")}
    for name, struct in message.metadata_context.filter_metadata.items():
        found[name] = _plain_struct(struct)
    return found


def _plain_struct(struct: Struct) -> dict[str, object]:
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Value) -> object:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return value.number_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_plain(one) for one in value.list_value.values]
        case "struct_value":
            return _plain_struct(value.struct_value)
        case _:
            return None


# ---- answers ------------------------------------------------------------------------------------------------------


def pass_request_headers(step: PassRequestHeaders) -> pb.ProcessingResponse:
    """Headers may go on; with `want_body` they wait in Envoy for the body."""
    common = _common(step.edit, clear=step.reroute)
    answer = pb.ProcessingResponse(request_headers=pb.HeadersResponse(response=common))
    if step.want_body:
        answer.mode_override.CopyFrom(PARTIAL_REQUEST if step.unsized else BUFFERED_REQUEST)
    return answer


def pass_request_body(step: PassRequestBody) -> pb.ProcessingResponse:
    """The request may go, with this body."""
    common = _common(_with_length(step.edit, step.data), body=step.data, clear=step.reroute)
    return pb.ProcessingResponse(request_body=pb.BodyResponse(response=common))


def pass_response_headers(step: PassResponseHeaders) -> pb.ProcessingResponse:
    """The answer's headers may go on; the mode says how much of its body is to be brought."""
    edit = step.edit
    if step.mode is BodyMode.STREAM:
        # Envoy makes us: overridden to this mode it keeps the upstream's length, and a changed body would not fit it.
        edit = HeaderEdit(edit.set, (*edit.remove, "content-length"))
    answer = pb.ProcessingResponse(response_headers=pb.HeadersResponse(response=_common(edit)))
    override = PARTIAL_RESPONSE if step.mode is BodyMode.WHOLE and step.unsized else _RESPONSE_MODES.get(step.mode)
    if step.held:
        override = HELD_RESPONSE
    if override is not None:
        answer.mode_override.CopyFrom(override)
    return answer


def pass_response_body(step: PassResponseBody) -> pb.ProcessingResponse:
    """The whole answer may go."""
    common = _common(_with_length(step.edit, step.data), body=step.data)
    return pb.ProcessingResponse(response_body=pb.BodyResponse(response=common))


def pass_trailers(kind: Kind) -> pb.ProcessingResponse:
    """Trailers go on as they came."""
    if kind is Kind.REQUEST_TRAILERS:
        return pb.ProcessingResponse(request_trailers=pb.TrailersResponse())
    return pb.ProcessingResponse(response_trailers=pb.TrailersResponse())


def reject(step: Reject) -> pb.ProcessingResponse:
    """An answer of our own in the upstream's place."""
    mutation = pb.HeaderMutation()
    _set_headers(mutation, step.headers)
    answer = pb.ImmediateResponse(headers=mutation, body=step.body, details=DETAILS)
    answer.status.code = step.status
    return pb.ProcessingResponse(immediate_response=answer)


def release(data: bytes, *, end: bool) -> list[pb.ProcessingResponse]:
    """Bytes of a streamed answer, in pieces that Envoy likes. The end rides on the last of them."""
    size = len(data)
    if size <= STREAM_CHUNK:
        return [_streamed(data, end)] if data or end else []
    stops = range(STREAM_CHUNK, size + STREAM_CHUNK, STREAM_CHUNK)
    return [_streamed(data[stop - STREAM_CHUNK : stop], end and stop >= size) for stop in stops]


_PIECE = pb.ProcessingResponse()
_PIECE_BODY = _PIECE.response_body.response.body_mutation.streamed_response


def streamed(data: bytes) -> bytes:
    """A piece of a streamed answer, not its last, serialised: most of what is sent, so the message is made once."""
    _PIECE_BODY.body = data
    return _PIECE.SerializeToString()


def joined(steps: Iterable[Release]) -> Release:
    """Releases that leave together, as one. INVARIANT: nothing follows an end."""
    pieces = []
    for step in steps:
        pieces.append(step.data)
        if step.end:
            return Release(b"".join(pieces), end=True)
    return Release(b"".join(pieces))


def _streamed(data: bytes, end: bool) -> pb.ProcessingResponse:
    answer = pb.ProcessingResponse()
    streamed = answer.response_body.response.body_mutation.streamed_response
    streamed.body = data
    streamed.end_of_stream = end
    return answer


def _common(edit: HeaderEdit, *, body: bytes | None = None, clear: bool = False) -> pb.CommonResponse:
    common = pb.CommonResponse()
    if edit.set or edit.remove:
        _set_headers(common.header_mutation, edit.set)
        common.header_mutation.remove_headers.extend(edit.remove)
    if body is not None:
        common.body_mutation.body = body
    if clear:
        common.header_mutation.SetInParent()  # Envoy makes us: without one it forgets to clear
        common.clear_route_cache = True
    return common


def _with_length(edit: HeaderEdit, body: bytes | None) -> HeaderEdit:
    if body is None:
        return edit
    kept = tuple((name, value) for name, value in edit.set if name != "content-length")
    gone = tuple(name for name in edit.remove if name != "content-length")
    return HeaderEdit((*kept, ("content-length", str(len(body)))), gone)


def _set_headers(mutation: pb.HeaderMutation, pairs: Headers) -> None:
    """The first of a name overwrites, each further one is added."""
    seen = set()
    for name, value in pairs:
        option = mutation.set_headers.add(append_action=_APPEND if name in seen else _OVERWRITE)
        option.header.key = name
        option.header.raw_value = raw(value)
        option.keep_empty_value = not value
        seen.add(name)


# ---- dynamic metadata ---------------------------------------------------------------------------------------------


def attach(answer: pb.ProcessingResponse, facts: Mapping[str, str]) -> None:
    """Put what was decided where Envoy's access log finds it. What a later answer says replaces it key by key."""
    answer.dynamic_metadata[NAMESPACE] = facts


def record_facts(record: DecisionRecord) -> dict[str, str]:
    """What the access log may know of a decision."""
    return {
        "decision": record.id,
        "verdict": record.verdict.value,
        "would": record.would.value,
        "mode": record.mode.value,
        "rule": ", ".join(record.determined_by),
        "reason": record.reason,
        "cost_usd": dollars(record.cost_nano),
    }


def dollars(nano: int) -> str:
    """Nano-dollars as dollars, exactly."""
    return f"{nano // 1_000_000_000}.{nano % 1_000_000_000:09d}"


# ---- how Envoy is configured --------------------------------------------------------------------------------------


def complaints(message: pb.ProcessingRequest) -> Sequence[str]:
    """What in the filter's configuration keeps policyd from working; read off a call's first message."""
    config = message.protocol_config
    found = []
    for name, mode in (("request", config.request_body_mode), ("response", config.response_body_mode)):
        if mode == _Mode.FULL_DUPLEX_STREAMED:
            found.append(f"{name}_body_mode is FULL_DUPLEX_STREAMED, so that mode_override is ignored: make it NONE")
        elif mode != _Mode.NONE:
            found.append(f"{name}_body_mode is {_mode_name(mode)}: make it NONE, and each call asks for what it needs")
    if config.send_body_without_waiting_for_header_response:
        found.append("send_body_without_waiting_for_header_response is on, so that mode_override is ignored")
    if message.observability_mode:
        found.append("observability_mode is on: nothing that policyd decides is carried out")
    return found


def _mode_name(mode: int) -> str:
    known = _Mode.BodySendMode.DESCRIPTOR.values_by_number.get(mode)
    return known.name if known else str(mode)
