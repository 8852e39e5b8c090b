"""Strict JSON, and edits that leave every other byte alone."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.errors import Malformed
from policyd.core.stream.dialects import Edit
from policyd.core.stream.json_text import dumps, loads, loads_request, refuse_twins, splice

REFUSED = [
    ("a key twice", b'{"model": 1, "model": 2}', "duplicate key"),
    ("a key twice by escape", rb'{"model": 1, "\u006dodel": 2}', "duplicate key"),
    ("a key twice deep inside", b'{"messages": [{"content": {"a": 1, "a": 2}}]}', "duplicate key"),
    ("NaN", b'{"a": NaN}', "broken json"),
    ("Infinity", b"[Infinity]", "broken json"),
    ("-Infinity", b"[-Infinity]", "broken json"),
    ("a float that overflows", b'{"a": [{"b": 1e999}]}', "number too large"),
    ("a float that overflows below", b"[-1e999]", "number too large"),
    ("5000 digits", b"9" * 5000, "number too long"),
    ("a lone surrogate", rb'"\ud800"', "surrogate"),
    ("a lone low surrogate", rb'"\udc00"', "surrogate"),
    ("two high surrogates", rb'"\ud800\ud800"', "surrogate"),
    ("a surrogate in UTF-8", b'"\xed\xa0\x80"', "not utf-8"),
    ("not UTF-8", b'"\xff"', "not utf-8"),
    ("overlong UTF-8", b'"\xc0\xaf"', "not utf-8"),
    ("a byte order mark", b"\xef\xbb\xbf{}", "byte order mark"),
    ("UTF-16", "{}".encode("utf-16"), "not utf-8"),
    ("UTF-16 without a mark", "{}".encode("utf-16-le"), "not utf-8"),
    ("depth 1k", b"[" * 1000 + b"]" * 1000, "levels of JSON"),
    ("depth 100k", b'{"a":' * 100_000, "levels of JSON"),
    ("trailing data", b"{} x", "after the json document"),
    ("two documents", b"{} {}", "after the json document"),
    ("nothing", b"", "empty body"),
    ("blanks", b" \n", "too early"),
    ("cut short", b'{"a": [1', "too early"),
    ("a comment", b"{} // x", "after the json document"),
    ("single quotes", b"{'a': 1}", "broken json"),
    ("a trailing comma", b'{"a": 1,}', "broken json"),
    ("a leading zero", b"[01]", "broken json"),
    ("a control character", b'"\x01"', "broken json"),
]


@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_parsers_could_read_differently_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        loads(data)


def test_a_reason_quotes_nothing() -> None:
    with pytest.raises(Malformed) as caught:
        loads(b'{"sk-secret": 1, "sk-secret": 2}')
    assert "secret" not in caught.value.reason
    assert "line 1 column" in caught.value.reason


@pytest.mark.parametrize(
    "text", ["null", "[]", "-0", "9007199254740993", "18446744073709551616", '"\\ud83d\\ude00"', "[" * 199 + "]" * 199]
)
def test_what_is_plain_json_is_read(text: str) -> None:
    assert loads(text.encode()) == json.loads(text)
    assert loads(text) == json.loads(text)


def test_a_large_list_is_read_in_time() -> None:
    assert len(loads(b"[" + b"1," * 999_999 + b"1]")) == 1_000_000  # type: ignore[arg-type]
    assert len(loads(dumps({f"k{i}": i for i in range(100_000)}))) == 100_000  # type: ignore[arg-type]


def test_a_twin_by_case_of_a_known_key_is_refused() -> None:
    known = frozenset({"model", "max_tokens"})
    refuse_twins({"model": 1, "Other": 2}, known)
    for twin in ("Model", "MODEL", "Max_Tokens", " model", "model "):
        with pytest.raises(Malformed, match="only in its case"):
            refuse_twins({"model": 1, twin: 2}, known)


def test_keys_that_differ_only_in_case_are_refused_at_every_depth() -> None:
    for text in (
        b'{"a": 1, "A": 2}',
        b'[{"x": [{"content": "a", "Content": "b"}]}]',
        b'{"x": {"arguments": {"k": 1, "\xe2\x84\xaa": 2}}}',  # the Kelvin sign, which Go takes for a k
        b'{"x": {"s": 1, "\xc5\xbf": 2}}',  # the long s
        b'{"x": {"a ": 1, "a": 2}}',
    ):
        with pytest.raises(Malformed, match="only in their case"):
            loads_request(text)
        loads(text)
    names: set[str] = set()
    loads_request(b'{"a": [{"b": {"c": 1}, "B2": 2}]}', names)
    assert names == {"a", "b", "B2", "c"}


# ---- splice ---------------------------------------------------------------------------------------------------------

SPLICED = [
    ("replace", '{ "a" : 1 , "b":2}', [Edit(("a",), 3)], '{ "a" : 3 , "b":2}'),
    ("add", '{"a":1 }', [Edit(("b",), "ü")], '{"a":1,"b":"ü" }'),
    ("add to nothing", "{ }", [Edit(("b",), 1)], '{ "b":1}'),
    ("add below nothing", '{"a":1}', [Edit(("b", "c", "d"), True)], '{"a":1,"b":{"c":{"d":true}}}'),
    ("add below null", '{"b": null}', [Edit(("b", "c"), 1)], '{"b": {"c":1}}'),
    ("two below nothing", "{}", [Edit(("b", "c"), 1), Edit(("b", "d"), 2)], '{"b":{"c":1,"d":2}}'),
    ("remove the first", '{ "a":1, "b":2}', [Edit(("a",), remove=True)], '{ "b":2}'),
    ("remove the last", '{"a":1, "b":2 }', [Edit(("b",), remove=True)], '{"a":1 }'),
    ("remove between", "[1, 2,  3]", [Edit((1,), remove=True)], "[1,  3]"),
    ("remove all", "[ 1, 2 ]", [Edit((1,), remove=True), Edit((0,), remove=True)], "[  ]"),
    ("remove what is not there", '{"a": 1}', [Edit(("x", "y"), remove=True), Edit(("z",), remove=True)], '{"a": 1}'),
    ("remove below null", '{"a": null}', [Edit(("a", "b"), remove=True)], '{"a": null}'),
    ("insert first", "[1, 2]", [Edit((0,), 0, insert=True)], "[0,1, 2]"),
    ("append", "[1, 2 ]", [Edit((2,), 3, insert=True)], "[1, 2,3 ]"),
    ("insert twice", "[9]", [Edit((0,), 1, insert=True), Edit((1,), 2, insert=True)], "[1,2,9]"),
    ("edits see the ones before", "[1, 2]", [Edit((0,), remove=True), Edit((0,), 5)], "[5]"),
    ("an escaped key", r'{"\u0061": 1}', [Edit(("a",), 2)], r'{"\u0061": 2}'),
    ("brackets in text", '{"x": "]}\\"{[", "a": {"b": "}"}}', [Edit(("a", "b"), 1)], '{"x": "]}\\"{[", "a": {"b": 1}}'),
    ("the whole document", " [1] ", [Edit((), {"a": 1})], '{"a":1}'),
    ("numbers keep their spelling", '{"n": 1.0e0, "a": 1}', [Edit(("a",), 2)], '{"n": 1.0e0, "a": 2}'),
]


@pytest.mark.parametrize(("text", "edits", "expected"), [row[1:] for row in SPLICED], ids=[row[0] for row in SPLICED])
def test_an_edit_changes_its_bytes_and_no_other(text: str, edits: list[Edit], expected: str) -> None:
    assert splice(text.encode(), edits).decode() == expected
    assert splice(text.encode(), edits, loads(text)).decode() == expected


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ('{"a": 1}', Edit(("a", "b"), 1)),
        ('{"a": "x"}', Edit(("a", 0), 1)),
        ('{"a": []}', Edit(("a", "b"), 1)),
        ("[1]", Edit((1,), 1)),
        ("[1]", Edit((2,), 1, insert=True)),
        ("{}", Edit(("a", 3), 1)),
    ],
)
def test_an_edit_that_cannot_be_is_refused(text: str, edit: Edit) -> None:
    with pytest.raises(Malformed):
        splice(text.encode(), [edit])


def test_many_edits_of_a_large_document_are_one_pass() -> None:
    document = {"messages": [{"role": "user", "content": "x" * 300} for _ in range(3000)]}
    edits = [Edit(("messages", index, "content"), "y") for index in range(3000)]
    out = splice(dumps(document).encode(), edits)
    assert loads(out) == {"messages": [{"role": "user", "content": "y"}] * 3000}


# ---- against plain Python -------------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c", "ü", 'q"', "\\", "é\n", ""])
scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)


def spell(value: Any, chance: random.Random) -> str:
    """JSON in random formatting."""

    def blank() -> str:
        return "".join(chance.choice(["", "", " ", "\n", "\t", "\r\n"]))

    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=chance.random() < 0.5)

    if isinstance(value, dict):
        inner = ",".join(f"{blank()}{text(k)}{blank()}:{blank()}{spell(v, chance)}{blank()}" for k, v in value.items())
        return "{" + (inner or blank()) + "}"
    if isinstance(value, list):
        return "[" + (",".join(f"{blank()}{spell(v, chance)}{blank()}" for v in value) or blank()) + "]"
    return text(value) if isinstance(value, str) else json.dumps(value)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, below in inner for place in places(below, (*path, key)))]


def plainly(document: Any, edit: Edit) -> Any:
    """The edit in plain Python; the document is changed in place where it can be."""
    if not edit.path:
        return edit.value
    at = document
    for key in edit.path[:-1]:
        if isinstance(at, dict) and at.get(key) is None:
            if edit.remove:
                return document
            at[key] = {}
        at = at[key]
    last = edit.path[-1]
    if edit.remove:
        if isinstance(at, list):
            del at[last]
        else:
            at.pop(last, None)
    elif edit.insert:
        at.insert(last, edit.value)
    else:
        at[last] = edit.value
    return document


def some_edit(document: Any, draw: st.DataObject) -> Edit:
    path = draw.draw(st.sampled_from(places(document)))
    at = document
    for key in path:
        at = at[key]
    value = draw.draw(documents)
    if isinstance(at, list) and draw.draw(st.booleans()):
        return Edit((*path, draw.draw(st.integers(0, len(at)))), value, insert=True)
    if isinstance(at, dict) and draw.draw(st.booleans()):
        return Edit((*path, *draw.draw(st.lists(st.sampled_from(["new", "a", "ü"]), min_size=1, max_size=1))), value)
    if path and draw.draw(st.booleans()):
        return Edit(path, remove=True)
    return Edit(path, value)


@given(documents, st.data(), st.randoms(use_true_random=False))
def test_splice_equals_the_edit_in_plain_python(document: Any, draw: st.DataObject, chance: random.Random) -> None:
    data = spell(document, chance).encode()
    expected, edits = copy.deepcopy(document), []
    for _ in range(draw.draw(st.integers(0, 5))):
        edits.append(some_edit(expected, draw))
        expected = plainly(expected, copy.deepcopy(edits[-1]))
    out = splice(data, edits)
    assert loads(out) == expected
    assert splice(data, edits, document) == out, "what is known of the document changes no byte"
    if not edits:
        assert out == data
