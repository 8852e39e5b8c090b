"""Typed access to documents of unknown shape: every complaint names the place and the field."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from urllib.parse import urlsplit

from policyd.adapters.errors import Place, UnreadableInput
from policyd.core.errors import Malformed
from policyd.core.stream.encodings import codings_of, decode

Headers = tuple[tuple[str, str], ...]

_MAX_DECODED = 256 * 1024 * 1024  # bytes; a recording that unpacks to more is a bomb or not ours to hold


def mapping(place: Place, value: object, field: str) -> dict[str, object]:
    """`value` as an object. Raises UnreadableInput."""
    if isinstance(value, dict):
        return value
    raise UnreadableInput(place, f"{field}: expected an object, not {kind_of(value)}")


def listing(place: Place, value: object, field: str) -> list[object]:
    """`value` as a list. Raises UnreadableInput."""
    if isinstance(value, list):
        return value
    raise UnreadableInput(place, f"{field}: expected a list, not {kind_of(value)}")


def text(place: Place, value: object, field: str) -> str:
    """`value` as a string. Raises UnreadableInput."""
    if isinstance(value, str):
        return value
    raise UnreadableInput(place, f"{field}: expected a string, not {kind_of(value)}")


def number(place: Place, value: object, field: str) -> float:
    """`value` as a finite number, not below 0. Raises UnreadableInput."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53:
        return float(value)
    raise UnreadableInput(place, f"{field}: expected a number from 0, not {kind_of(value)}")


def status_code(place: Place, value: object, field: str) -> int:
    """`value` as an HTTP status; text of digits counts. Raises UnreadableInput."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 999:
        return value
    raise UnreadableInput(place, f"{field}: expected an HTTP status, not {kind_of(value)}")


def kind_of(value: object) -> str:
    """What a value is, in JSON's words; never its content."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int() | float():
            return "this number"
        case str():
            return "a string"
        case bytes():
            return "bytes"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return "this value"


def moment(place: Place, value: object, field: str) -> float:
    """RFC 3339 as seconds since 1970, UTC. Raises UnreadableInput."""
    try:
        at = datetime.fromisoformat(text(place, value, field).strip())
    except ValueError:
        raise UnreadableInput(place, f"{field}: expected an RFC 3339 time") from None
    if at.tzinfo is None:
        raise UnreadableInput(place, f"{field}: expected an RFC 3339 time with its offset, such as Z")
    return at.timestamp()


def from_base64(place: Place, value: object, field: str) -> bytes:
    """The bytes that `value` stands for. Raises UnreadableInput."""
    try:
        return base64.b64decode("".join(text(place, value, field).split()), validate=True)
    except (binascii.Error, ValueError):
        raise UnreadableInput(place, f"{field}: broken base64") from None


def to_bytes(value: str) -> bytes:
    """UTF-8, lone surrogates (which JSON can say and UTF-8 cannot) kept as the bytes they would be."""
    return value.encode("utf-8", "surrogatepass")


def header_pairs(place: Place, value: object, field: str) -> Headers:
    """An object of name to value or values, or a list of pairs; names in lower case, pseudo-headers left out."""
    if value is None:
        return ()
    pairs: list[tuple[str, object]] = []
    if isinstance(value, dict) and value.keys() == {"_store"} and isinstance(value["_store"], dict):
        value = list(value["_store"].values())  # requests' own headers: by the lower-case name, the pair
    if isinstance(value, list):
        pairs = [_pair(place, item, field) for item in value]
    else:
        for name, given in mapping(place, value, field).items():
            values = given if isinstance(given, list) else [given]
            pairs += [(str(name), one) for one in values]
    return tuple((name.lower(), header_value(place, one, field)) for name, one in pairs if name[:1] != ":")


def _pair(place: Place, item: object, field: str) -> tuple[str, object]:
    match item:
        case [str(name), value]:
            return name, value
        case {"name": str(name), "value": value}:
            return name, value
        case _:
            raise UnreadableInput(place, f"{field}: expected an object, or a list of name and value")


def header_value(place: Place, value: object, field: str) -> str:
    """A header's value as text; bytes as HTTP means them. Raises UnreadableInput."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("latin-1")
    # INVARIANT: nothing that can hold others becomes a text: in YAML a few lines stand for a list without end.
    if isinstance(value, list | tuple | dict | set) or (isinstance(value, int) and abs(value) >= 2**63):
        raise UnreadableInput(place, f"{field}: expected a header's value, not {kind_of(value)}")
    return "" if value is None else str(value)


def first(headers: Headers, name: str) -> str:
    """The first value of a header, or nothing."""
    return next((value for key, value in headers if key == name), "")


def without(headers: Headers, *names: str) -> Headers:
    """The headers, these left out."""
    return tuple(pair for pair in headers if pair[0] not in names)


def split_url(place: Place, url: object, field: str) -> tuple[str, str, str]:
    """(scheme, host with its port, path with its query) of an absolute URL. Raises UnreadableInput."""
    try:
        parts = urlsplit(text(place, url, field))
    except ValueError:
        raise UnreadableInput(place, f"{field}: broken URL") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme or "https", parts.netloc.rpartition("@")[2], path


def encoding_of(headers: Headers) -> str:
    """The content encodings that these headers name."""
    return ",".join(value for name, value in headers if name == "content-encoding").strip().lower()


def decoded(headers: Headers, body: bytes) -> tuple[Headers, bytes, str]:
    """The headers and the body as they were before their content encoding, and the encoding that is left, if any.

    Recorders often undo an encoding and keep its header, so the bytes decide.
    """
    encoding = encoding_of(headers)
    if encoding in ("", "identity"):
        return headers, body, ""
    plain = _undo(encoding, body)
    if plain is None:
        return headers, body, encoding
    return without(headers, "content-encoding", "content-length"), plain, ""


def _undo(encoding: str, body: bytes) -> bytes | None:
    if encoding in ("gzip", "x-gzip") and not body.startswith(b"\x1f\x8b"):
        return body
    try:
        return decode(body, codings_of(encoding), _MAX_DECODED)
    except Malformed:
        return body if _is_text(body) else None


def _is_text(body: bytes) -> bool:
    """A recorder has undone the encoding already: compressed bytes are as good as never valid UTF-8."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
