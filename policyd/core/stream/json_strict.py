"""JSON as text: a strict reading, so that what is judged is what every other parser will read.

Rule 1: a document that two parsers could read differently is refused: duplicate keys, NaN, numbers that overflow, lone
        surrogates, nesting deeper than 200, anything but UTF-8, anything after the document.
Rule 2: integers that some parsers round are refused in requests. Providers put them into answers (random seeds), where
        nothing that is judged may be one.
Rule 3: a reason quotes nothing of the document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from math import isinf
from typing import Never, cast

import jiter

from policyd.core.errors import Malformed
from policyd.core.model.bounds import Bounds
from policyd.core.stream.json_bounds import check_depth, check_size

MAX_COUNT = 2**53 - 1  # the largest integer that every JSON parser keeps
MAX_DOUBLE = int((2 - 2.0**-52) * 2.0**1023)  # an integer beyond it is infinite to some
MANY = 64  # numbers
_INTEGERS, _FLOATS = {int}, {float}
_PLACE = re.compile(r" at line (\d+) column (\d+)$")
_REASONS = (
    ("duplicate key", "duplicate key in a json object"),
    ("EOF while parsing a value at line 1 column 0", "empty body"),
    ("EOF", "json ends too early"),
    ("trailing characters", "data after the json document"),
    ("recursion limit", Bounds().over("json_depth")),
    ("number out of range", "json number too long"),
    ("hex escape", "lone surrogate or broken escape in a json string"),
    ("surrogate", "lone surrogate or broken escape in a json string"),
    ("unicode", "json is not utf-8"),
)


def loads(data: bytes | str, bounds: Bounds | None = None) -> object:
    """The document, read strictly. Raises Malformed."""
    document = _bounded(data, bounds) if bounds is not None else loads_event(data)
    _refuse_numbers(document, MAX_DOUBLE)
    return document


def _bounded(data: bytes | str, bounds: Bounds) -> object:
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    check_size(raw, bounds)
    document = loads_event(data)
    check_depth(document, bounds)
    return document


def loads_request(data: bytes, names: set[str] | None = None, bounds: Bounds | None = None) -> object:
    """Like `loads`; every integer is one that all parsers read alike, and no object has two keys that differ only in
    case. `names`: takes every key of the document. Raises Malformed."""
    document = _bounded(data, bounds) if bounds is not None else loads_event(data)
    _refuse_numbers(document, MAX_COUNT, set() if names is None else names)
    return document


def loads_event(data: bytes | str) -> object:
    """Like `loads`, but a number that overflows reads as infinite: for small documents whose numbers are checked where
    they are read. Raises Malformed."""
    try:
        raw = data.encode() if isinstance(data, str) else data
        return jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True)
    except UnicodeEncodeError:
        raise Malformed("lone surrogate or broken escape in a json string") from None
    except ValueError as error:
        _refuse(data[:4], str(error))


def _refuse(start: bytes | str, message: str) -> Never:
    if isinstance(start, bytes):
        if start.startswith(b"\xef\xbb\xbf"):
            raise Malformed("json begins with a byte order mark")
        if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start:
            raise Malformed("json is not utf-8")
    place = _PLACE.search(message)
    where = f" at line {place[1]} column {place[2]}" if place else ""
    known = next((reason for sign, reason in _REASONS if sign in message), "broken json")
    raise Malformed(known + where) from None


def _refuse_numbers(document: object, most: int, names: set[str] | None = None) -> None:
    """1e999 is infinite to one parser and an error to another; so is an integer beyond every double. `names`: refuse
    keys that differ only in case, and collect all keys here."""
    todo: list[Collection[object]] = [(document,)]
    while todo:
        values = todo.pop()
        if len(values) > MANY and (kinds := set(map(type, values))) in (_INTEGERS, _FLOATS):
            # A body may be a million numbers: they are looked at in C.
            numbers, limit = cast("Collection[float]", values), most if kinds == _INTEGERS else MAX_DOUBLE
            if max(numbers) > limit or min(numbers) < -limit:
                raise Malformed("json number too large")
            continue
        for value in values:
            kind = type(value)
            if kind is dict:
                todo.append(value.values())  # type: ignore[attr-defined]
                if names is not None:
                    names.update(value)  # type: ignore[arg-type]
                    refuse_case_twins(value)  # type: ignore[arg-type]
            elif kind is list:
                todo.append(value)  # type: ignore[arg-type]
            elif kind is int:
                if not -most <= value <= most:  # type: ignore[operator]
                    raise Malformed("json number too large")
            elif kind is float and isinf(value):  # type: ignore[arg-type]
                raise Malformed("json number too large")


def refuse_case_twins(keys: Collection[str]) -> None:
    """Servers in Go match keys without their case: of two that differ in nothing else, either may be read. Raises
    Malformed."""
    if len({key.strip().casefold() for key in keys}) < len(keys):
        raise Malformed("two keys of a json object differ only in their case")


def refuse_twins(document: dict[str, object], read: frozenset[str]) -> None:
    """Refuses a key that differs from a key policies read only in its case: some servers match keys without it.
    Raises Malformed."""
    for key in document.keys() - read:
        if key.strip().casefold() in read:
            raise Malformed("a json key differs from a known one only in its case")


def dumps(value: object) -> str:
    """Compact JSON, text as it is."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
