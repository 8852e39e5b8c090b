"""HAR 1.2, as browsers and proxies write it. Its bodies are mostly decoded, and an answer came as one piece."""

from __future__ import annotations

from collections.abc import Iterator

from policyd.adapters.errors import Place
from policyd.adapters.recordings import Recording, shape


def read_har(name: str, document: object) -> Iterator[Recording]:
    """The entries of a parsed HAR. Raises UnreadableInput."""
    place = Place(name)
    log = shape.mapping(place, shape.mapping(place, document, "document").get("log"), "log")
    for index, item in enumerate(shape.listing(place, log.get("entries"), "log.entries")):
        at = Place(f"{name}#{index}")
        yield _recording(at, shape.mapping(at, item, f"log.entries[{index}]"))


def _recording(place: Place, entry: dict[str, object]) -> Recording:
    request = shape.mapping(place, entry.get("request"), "request")
    answer = shape.mapping(place, entry.get("response"), "response")
    scheme, host, path = shape.split_url(place, request.get("url"), "request.url")
    content = answer.get("content") or {}
    came = _text(place, shape.mapping(place, content, "response.content"), "response.content")
    asked = _text(place, shape.mapping(place, request.get("postData") or {}, "request.postData"), "request.postData")
    headers, body, _ = shape.decoded(shape.header_pairs(place, request.get("headers"), "request.headers"), asked)
    pairs = shape.header_pairs(place, answer.get("headers"), "response.headers")
    response_headers, data, encoded = shape.decoded(pairs, came)
    return Recording(
        source=place.file,
        time=shape.moment(place, entry["startedDateTime"], "startedDateTime") if "startedDateTime" in entry else None,
        method=shape.text(place, request.get("method"), "request.method").upper(),
        path=path,
        host=host or shape.first(headers, "host"),
        scheme=scheme,
        headers=headers,
        body=body,
        status=shape.status_code(place, answer.get("status"), "response.status"),
        response_headers=shape.without(response_headers, "content-length"),
        chunks=((_elapsed(entry), data),) if data else (),
        encoded=encoded,
    )


def _elapsed(entry: dict[str, object]) -> float:
    """Milliseconds until the answer was there; HAR writes -1 for what was not measured."""
    time = entry.get("time")
    return float(time) if isinstance(time, int | float) and 0 <= time < 2**53 else 0.0


def _text(place: Place, holder: dict[str, object], field: str) -> bytes:
    given = holder.get("text")
    if given is None:
        return b""
    if holder.get("encoding") == "base64":
        return shape.from_base64(place, given, f"{field}.text")
    return shape.to_bytes(shape.text(place, given, f"{field}.text"))
