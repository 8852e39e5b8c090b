"""policyd's own exchange file: one JSON object a line, as `serve --capture` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import BinaryIO

import jiter

from policyd.adapters.errors import Place, UnreadableInput
from policyd.adapters.recordings import MAX_LINE, Recording, Seen, parse_json, shape
from policyd.core.model.deployment import UNDECLARED, Deployment
from policyd.core.model.estimate import Rate
from policyd.core.stream.encodings import MOST_STREAMED, Decoding, codings_of

_USUAL = {"ms", "data"}
_BLANK = b"\xef\xbb\xbf \t\r\n"  # a byte order mark too


def read(name: str, file: BinaryIO, seen: Seen) -> Iterator[Recording]:
    """The exchanges of an open file, a line at a time."""
    count = line = position = 0
    while data := file.readline(MAX_LINE + 1):
        line += 1
        position += len(data)
        if len(data) > MAX_LINE:
            raise UnreadableInput(Place(name, line), f"the line is longer than {MAX_LINE} bytes")
        if not data.strip(_BLANK):
            continue
        place = Place(name, line)
        yield recording(place, f"{name}#{count}", _parsed(name, data.rstrip(b"\r\n"), line))
        seen(position)
        count += 1


def _parsed(name: str, data: bytes, line: int) -> object:
    try:
        return jiter.from_json(data)
    except (ValueError, RecursionError):
        return parse_json(name, data, line)  # slower; takes what the other does not, and says where it breaks


def recording(place: Place, source: str, document: object) -> Recording:
    """One exchange from its JSON. Raises UnreadableInput."""
    exchange = shape.mapping(place, document, "exchange")
    request = shape.mapping(place, exchange.get("request"), "request")
    headers = shape.header_pairs(place, request.get("headers"), "request.headers")
    headers, body, _ = shape.decoded(headers, _data(place, request, "body", "request."))
    answer = exchange.get("response")
    status, response_headers, chunks, encoded = _answer(place, answer) if answer is not None else (0, (), (), "")
    return Recording(
        source=source,
        time=shape.moment(place, exchange["time"], "time") if exchange.get("time") is not None else None,
        method=shape.text(place, request.get("method"), "request.method").upper(),
        path=shape.text(place, request.get("path"), "request.path"),
        host=shape.first(headers, "host"),
        scheme="https",
        headers=headers,
        body=body,
        status=status,
        response_headers=response_headers,
        chunks=chunks,
        encoded=encoded,
        rates=_rates(place, exchange.get("estimate")),
        decision=shape.text(place, exchange.get("decision", ""), "decision"),
        deployment=_deployment(place, request.get("deployment")),
    )


def _deployment(place: Place, value: object) -> Deployment:
    if value is None:
        return UNDECLARED
    said = dict(shape.mapping(place, value, "request.deployment"))
    names = tuple(str(name) for name in shape.listing(place, said.pop("dialects", []), "request.deployment.dialects"))
    known = {field.name: shape.text(place, said.get(field.name, ""), field.name) for field in fields(Deployment)[:4]}
    return Deployment(**known, dialects=names)


def _rates(place: Place, value: object) -> dict[str, Rate] | None:
    if value is None:
        return None
    return {model: _rate(place, one) for model, one in shape.mapping(place, value, "estimate").items()}


def _rate(place: Place, value: object) -> Rate:
    said = shape.mapping(place, value, "estimate")
    numbers = {name: shape.number(place, said.get(name, 0), f"estimate.{name}") for name in _RATE}
    tokenizer = shape.text(place, said.get("tokenizer", ""), "estimate.tokenizer")
    return Rate(int(numbers.pop("calls")), **numbers, tokenizer=tokenizer[:64])


_RATE = tuple(field.name for field in fields(Rate) if field.name != "tokenizer")


def _answer(place: Place, answer: object) -> tuple[int, shape.Headers, tuple[tuple[float, bytes], ...], str]:
    response = shape.mapping(place, answer, "response")
    status = shape.status_code(place, response.get("status"), "response.status")
    headers = shape.header_pairs(place, response.get("headers"), "response.headers")
    chunks = _chunks(place, response.get("chunks"))
    headers, chunks, encoded = _decoded(headers, chunks)
    return status, headers, chunks, encoded


def _chunks(place: Place, given: object) -> tuple[tuple[float, bytes], ...]:
    if given is None:
        return ()
    chunks: list[tuple[float, bytes]] = []
    at = 0.0
    for index, item in enumerate(shape.listing(place, given, "response.chunks")):
        if (usual := _usual(item, at)) is not None:
            chunks.append(usual)
            at = usual[0]
            continue
        field = f"response.chunks[{index}]"
        chunk = shape.mapping(place, item, field)
        ms = shape.number(place, chunk.get("ms", at), f"{field}.ms")
        if ms < at:
            raise UnreadableInput(place, f"{field}.ms: is earlier than the chunk before")
        at = ms
        chunks.append((ms, _data(place, chunk, "data", f"{field}.")))
    return tuple(chunks)


def _usual(item: object, at: float) -> tuple[float, bytes] | None:
    """A chunk as nearly all are, without a complaint and without a detour; None for any other."""
    if not isinstance(item, dict) or item.keys() != _USUAL:
        return None
    ms, data = item["ms"], item["data"]
    if type(ms) not in (int, float) or not at <= ms < 2**53 or type(data) is not str:
        return None
    try:
        return float(ms), data.encode()
    except UnicodeEncodeError:
        return None


def _decoded(
    headers: shape.Headers, chunks: tuple[tuple[float, bytes], ...]
) -> tuple[shape.Headers, tuple[tuple[float, bytes], ...], str]:
    """An encoded answer is judged as it was before its encoding, each chunk by what it adds."""
    encoding = shape.encoding_of(headers)
    if not encoding:
        return headers, chunks, ""
    raw = b"".join(data for _, data in chunks)
    headers, body, encoded = shape.decoded(headers, raw)
    if encoded or body == raw:
        return headers, chunks, encoded
    decoding = Decoding(codings_of(encoding), MOST_STREAMED)
    return headers, tuple((ms, decoding.feed(data)) for ms, data in chunks), ""


def _data(place: Place, holder: dict[str, object], field: str, prefix: str) -> bytes:
    encoded = holder.get(f"{field}_base64")
    if encoded is not None:
        return shape.from_base64(place, encoded, f"{prefix}{field}_base64")
    plain = holder.get(field)
    return shape.to_bytes(shape.text(place, plain, f"{prefix}{field}")) if plain is not None else b""
