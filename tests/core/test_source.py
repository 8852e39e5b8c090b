"""YAML with places: what every way to write a value means, where it stands, and what cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.compile import source
from policyd.core.compile.source import read_documents
from policyd.core.errors import Issue, Severity


def read(text: str) -> object:
    documents, issues = read_documents("f.yaml", text)
    assert not [issue for issue in issues if issue.severity is Severity.ERROR]
    return documents[0].value


def issues_of(text: str) -> list[Issue]:
    return read_documents("f.yaml", text)[1]


# ---- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("plain", "plain"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("'true'", "true"),
        ('"1"', "1"),
        ("!!str 1", "1"),
        ("12", 12),
        ("-7", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2.50", 2.5),
        ("1e3", 1000.0),
        ("24h", "24h"),
        ("2.00 USD", "2.00 USD"),
        ("2001-01-01", "2001-01-01"),
        ("null", None),
        ("~", None),
        ("", None),
        ("[]", []),
        ("{}", {}),
        ("[a, 'b', {c: d}]", ["a", "b", {"c": "d"}]),
    ],
)
def test_a_scalar_means_what_the_core_schema_says(written: str, meant: object) -> None:
    value = read(f"key: {written}\n")
    assert value == {"key": meant}
    assert type(value["key"]) is type(meant)  # type: ignore[index]


def test_documents_are_read_one_by_one_and_a_byte_order_mark_is_no_text() -> None:
    documents, issues = read_documents("f.yaml", "\ufeffa: 1\n---\n---\nb: 2\n...\n")
    assert not issues
    assert [document.value for document in documents] == [{"a": 1}, None, {"b": 2}]
    assert str(documents[0].span(("a",))) == "f.yaml:1:4"
    assert str(documents[2].key_span(("b",))) == "f.yaml:4:1"


def test_an_alias_repeats_its_anchor_and_points_at_itself() -> None:
    documents, issues = read_documents("f.yaml", "a: &x {k: [1]}\nb: *x\n")
    assert not issues
    assert documents[0].value == {"a": {"k": [1]}, "b": {"k": [1]}}
    assert str(documents[0].span(("b", "k", 0))) == "f.yaml:2:4"


def test_places_of_keys_and_values() -> None:
    document = read_documents("f.yaml", "a:\n  - b: 1\n    c: {d: 2}\n  - 3\n")[0][0]
    assert str(document.span(("a", 0))) == "f.yaml:2:5"
    assert str(document.key_span(("a", 0, "c", "d"))) == "f.yaml:3:9"
    assert str(document.span(("a", 0, "c", "d"))) == "f.yaml:3:12"
    assert str(document.key_span(("a", 1))) == "f.yaml:4:5"
    assert str(document.span(("a", 0, "nothing", "here"))) == "f.yaml:2:5"


# ---- places inside a text -----------------------------------------------------------------------------------------

INSIDE = [
    ("plain", "k: ab cd\n", 1, 4, "1:7"),
    ("plain, past its end", "k: ab\n", 1, 3, "1:6"),
    ("after a tabless umlaut", "ü: ab\n", 1, 2, "1:5"),
    ("single quoted", "k: 'ab'\n", 1, 2, "1:6"),
    ("single quoted, after a quote", "k: 'a''b'\n", 1, 3, "1:8"),
    ("double quoted", 'k: "ab"\n', 1, 1, "1:5"),
    ("double quoted, after escapes", 'k: "\\"\\u00e9\\x41b"\n', 1, 4, "1:17"),
    ("double quoted over two lines", 'k: "a\n  b"\n', 1, 3, "1:4"),
    ("plain over two lines", "k: a\n  b\n", 1, 3, "1:4"),
    ("literal", "k: |\n  ab\n  cd\n", 2, 2, "3:4"),
    ("literal, stripped", "k: |-\n    ab\n      cd\n", 2, 3, "3:7"),
    ("literal after a comment and an empty line", "k: | # why\n\n  ab\n", 2, 1, "3:3"),
    ("literal with an indentation of its own", "k: |2\n    ab\n", 1, 3, "2:5"),
    ("literal with carriage returns", "k: |\r\n  ab\r\n  cd\r\n", 2, 1, "3:3"),
    ("folded", "k: >\n  ab\n  cd\n", 1, 4, "1:4"),
    ("in a flow", "x: [{k: ab}]\n", 1, 2, "1:10"),
]


@pytest.mark.parametrize(
    ("text", "line", "column", "expected"), [case[1:] for case in INSIDE], ids=[c[0] for c in INSIDE]
)
def test_a_character_of_an_expression_is_found_in_the_file(text: str, line: int, column: int, expected: str) -> None:
    documents, issues = read_documents("f.yaml", text)
    assert not issues
    path = ("x", 0, "k") if text.startswith("x") else (next(iter(documents[0].value)),)  # type: ignore[call-overload]
    assert str(documents[0].inside(path, line, column)) == f"f.yaml:{expected}"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20), st.integers(0, 19))
def test_every_character_of_a_quoted_line_stands_where_it_is_said_to(value: str, index: int) -> None:
    written = "k: '" + value.replace("'", "''") + "'\n"
    documents, issues = read_documents("f.yaml", written)
    if issues or documents[0].value != {"k": value} or index >= len(value):
        return  # a line separator of Unicode's folds: only the beginning is promised
    span = documents[0].inside(("k",), 1, index + 1)
    assert written[span.column - 1] == value[index]


@given(st.lists(st.text("ab ", min_size=1, max_size=6).map(lambda line: line.strip() or "a"), min_size=1, max_size=5))
def test_every_character_of_a_literal_block_stands_where_it_is_said_to(lines: list[str]) -> None:
    written = "k: |\n" + "".join(f"   {line}\n" for line in lines)
    document = read_documents("f.yaml", written)[0][0]
    rows = written.split("\n")
    for number, line in enumerate(lines, 1):
        for column, char in enumerate(line, 1):
            span = document.inside(("k",), number, column)
            assert rows[span.line - 1][span.column - 1] == char


# ---- what cannot be read ------------------------------------------------------------------------------------------

BROKEN = [
    ("tab", "a:\n\tb: 1\n", "YAML001", "2:1", "tab"),
    ("bracket", "a: [1\n", "YAML001", "2:1", "bracket"),
    ("colon", "a: b: c\n", "YAML001", "1:5", "quotes"),
    ("quote", "a: 'x\n", "YAML001", "2:1", "quote"),
    ("at", "a: @x\n", "YAML001", "1:4", "quote"),
    ("control character", "a: 1\nb: \x01\n", "YAML001", "2:4", "remove"),
    ("control character after long ones", "é: é\nb: \x07\n", "YAML001", "2:4", "remove"),
    ("lone surrogate", "a: \ud800\n", "YAML001", "1:4", "remove"),
    ("indentation", "a:\n  b: 1\n c: 2\n", "YAML001", "3:2", "indentation"),
    ("key twice", "a: 1\nb:\n  c: 1\n  c: 2\n", "YAML002", "4:3", "line 3"),
    ("key twice, quoted", "a: 1\n'a': 2\n", "YAML002", "2:1", "line 1"),
    ("merge key", "a: &x {b: 1}\nc:\n  <<: *x\n", "YAML003", "3:3", "write the fields out"),
    ("complex key", "[a]: 1\n", "YAML003", "1:1", "plain text"),
    ("alias as a key", "a: &x 1\n*x : 2\n", "YAML003", "2:1", "plain text"),
    ("alias of nothing", "a: *x\n", "YAML003", "1:4", "needs quotes"),
    ("alias of itself", "a: &x [*x]\n", "YAML003", "1:8", "write the value out"),
    ("tag", "a: !!python/object:os.system ls\n", "YAML003", "1:4", "remove"),
    ("not a number", "a: .nan\n", "YAML004", "1:4", "quotes"),
    ("infinite", "a: 1e999\n", "YAML004", "1:4", "quotes"),
    ("5000 digits", f"a: {'9' * 5000}\n", "YAML004", "1:4", "quotes"),
    ("deep", "[" * 100_000, "YAML005", "1:65", "depth"),
]


@pytest.mark.parametrize(
    ("text", "code", "at", "word"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_what_is_not_understood_is_an_issue_with_a_place_and_a_hint(text: str, code: str, at: str, word: str) -> None:
    found = issues_of(text)
    assert [issue.code for issue in found] == [code]
    assert str(found[0].span) == f"f.yaml:{at}"
    assert word in found[0].hint + found[0].message
    assert found[0].hint


def test_reading_goes_on_behind_a_mistake() -> None:
    documents, issues = read_documents("f.yaml", "a: 1\na: 2\nb: .inf\nc: *x\n---\nd: 1\n---\ne: [")
    assert [issue.code for issue in issues] == ["YAML002", "YAML004", "YAML003", "YAML001"]
    assert [document.value for document in documents] == [{"a": 1, "b": None, "c": None}, {"d": 1}]


def test_aliases_are_counted_as_written_out() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(
        f"{name}: &{name} [{', '.join([f'*{last}'] * 10)}]\n" for last, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    found = issues_of(bomb)
    assert [issue.code for issue in found] == ["YAML005"]
    assert "aliases" in found[0].message


def test_a_file_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_TEXT", 10)
    assert [issue.code for issue in issues_of("a: 1234567\n")] == ["YAML005"]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    for issue in issues_of(text):
        assert issue.span.line >= 1 and issue.span.column >= 1 and issue.hint
