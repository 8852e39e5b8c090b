"""VCR cassettes, of Python and of Ruby, in YAML or JSON. Nothing in them is ever executed: see plain_yaml.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from policyd.adapters.errors import Place, UnreadableInput
from policyd.adapters.recordings import Recording, shape
from policyd.adapters.recordings.plain_yaml import PlainLoader

_DEEPEST = 200
MOST_VALUES = 2_000_000  # JSON values of a body that is written as a document: aliases can repeat one without end


def read_yaml(name: str, data: bytes) -> Iterator[Recording]:
    """The interactions of a YAML cassette. Raises UnreadableInput."""
    return read_cassette(name, _load(name, data))


def read_cassette(name: str, document: object) -> Iterator[Recording]:
    """The interactions of a parsed cassette. Raises UnreadableInput."""
    if not isinstance(document, dict) or not {"interactions", "http_interactions"} & document.keys():
        raise UnreadableInput(
            Place(name, 1, 1), "not a recording: expected exchange JSONL, a HAR or a VCR cassette with `interactions`"
        )
    place = Place(name)
    field = "interactions" if "interactions" in document else "http_interactions"
    for index, item in enumerate(shape.listing(place, document[field] or [], field)):
        at = Place(f"{name}#{index}")
        yield _recording(at, shape.mapping(at, item, f"{field}[{index}]"))


def _recording(place: Place, interaction: dict[str, object]) -> Recording:
    request = shape.mapping(place, interaction.get("request"), "request")
    answer = shape.mapping(place, interaction.get("response"), "response")
    scheme, host, path = shape.split_url(place, request.get("uri"), "request.uri")
    headers = shape.header_pairs(place, request.get("headers"), "request.headers")
    headers, body, _ = shape.decoded(headers, _of(place, request, "request"))
    response_headers = shape.header_pairs(place, answer.get("headers"), "response.headers")
    response_headers, data, encoded = shape.decoded(response_headers, _of(place, answer, "response"))
    return Recording(
        source=place.file,
        time=None,
        method=shape.text(place, request.get("method"), "request.method").upper(),
        path=path,
        host=host,
        scheme=scheme,
        headers=headers,
        body=body,
        status=_status(place, answer),
        response_headers=response_headers,
        chunks=((0.0, data),) if data else (),
        encoded=encoded,
    )


def _status(place: Place, answer: dict[str, object]) -> int:
    status = answer.get("status", answer.get("status_code"))
    if isinstance(status, dict):
        status = status.get("code")
    return shape.status_code(place, status, "response.status")


def _of(place: Place, message: dict[str, object], field: str) -> bytes:
    """A message's body. Some recorders write JSON as a document, for people to read."""
    if message.get("body") is None and isinstance(message.get("parsed_body"), dict | list):
        return _document(place, message["parsed_body"], f"{field}.parsed_body")
    return _body(place, message.get("body", message.get("content")), f"{field}.body")


def _body(place: Place, body: object, field: str) -> bytes:
    match body:
        case None:
            return b""
        case bytes():
            return body
        case str():
            return shape.to_bytes(body)
        case {"base64_string": encoded} if encoded is not None:
            return shape.from_base64(place, encoded, f"{field}.base64_string")
        case {"string": inner}:
            return _body(place, inner, f"{field}.string")
        case dict() | list():
            return _document(place, body, field)
        case _:
            raise UnreadableInput(place, f"{field}: expected a string or bytes, not {shape.kind_of(body)}")


def _document(place: Place, body: object, field: str) -> bytes:
    """A body that is written as a document, as JSON."""
    waiting, seen = [body], 0
    while waiting:
        value = waiting.pop()
        below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        seen += len(below)
        if seen > MOST_VALUES:
            raise UnreadableInput(place, f"{field}: holds more than {MOST_VALUES} values")
        waiting += below
    try:
        return shape.to_bytes(json.dumps(body, ensure_ascii=False, default=_text))
    except (TypeError, ValueError, RecursionError):
        raise UnreadableInput(place, f"{field}: cannot be written as JSON") from None


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# ---- YAML -----------------------------------------------------------------------------------------------------------


def _load(name: str, data: bytes) -> object:
    try:
        _check_depth(name, data)
        return yaml.load(data, Loader=PlainLoader)
    except yaml.MarkedYAMLError as error:
        raise _broken(name, error.problem_mark, error.problem or error.context) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _broken(name, None, getattr(error, "reason", None)) from None


def _check_depth(name: str, data: bytes) -> None:
    """INVARIANT: looked at before the document is built: libyaml's builder descends on the C stack, and dies there."""
    depth = 0
    for event in yaml.parse(data, Loader=PlainLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise UnreadableInput(_place(name, event.start_mark), f"nested deeper than {_DEEPEST}")


def _place(name: str, mark: Any) -> Place:
    return Place(name, mark.line + 1, mark.column + 1) if mark else Place(name)


def _broken(name: str, mark: Any, problem: object) -> UnreadableInput:
    return UnreadableInput(_place(name, mark), f"broken YAML: {problem}" if problem else "broken YAML")
