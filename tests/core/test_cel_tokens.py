"""Tokens and edits: every character is accounted for, every position leads back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.compile.cel_literals import NoLiteral, literal
from policyd.core.compile.cel_native import Plan, activate
from policyd.core.compile.cel_tokens import Rewritten, offset_of, place, references, tokenize
from tests.expressions import compiled

ROOTS = frozenset({"params", "variables"})


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("a.b > 1", ["name", "mark", "name", "mark", "int"]),
        ("1.5e3 .5 1u 0x1F 0x1fU 2e9", ["double", "double", "uint", "int", "uint", "double"]),
        (r"""'a\'b' "c\"d" r'\' b"x" rb'\d' """, ["string"] * 5),
        ("'''a\n'b''' r\"\"\"x\"y\"\"\"", ["string", "string"]),
        ("a // 'not a string\n b", ["name", "name"]),
        ("'open", ["mark", "name"]),
        ("m.`x-y`", ["name", "mark", "name"]),
        ("é", ["mark"]),
        ("", []),
    ],
)
def test_tokens(source: str, kinds: list[str]) -> None:
    assert [token.kind for token in tokenize(source)] == kinds


@given(st.text())
def test_tokens_stand_in_order_and_hold_their_text(source: str) -> None:
    tokens = tokenize(source)
    assert all(one.end <= next_.start for one, next_ in pairwise(tokens))
    assert all(token.text in source[token.start : token.end] for token in tokens)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("params.a + params . b", [("a", 0, 8), ("b", 11, 21)]),
        ("'params.a' == params.a", [("a", 14, 22)]),
        ("request.params.a", []),
        ("// params.a\nparams.b", [("b", 12, 20)]),
        ("params", [("", 0, 6)]),
        ("params['a']", [("", 0, 6)]),
        ("params.`a-b`", [("a-b", 0, 12)]),
        ("xparams.a params_.a", []),
    ],
)
def test_references(source: str, found: list[tuple[str, int, int]]) -> None:
    assert [(one.name, one.start, one.end) for one in references(tokenize(source), ROOTS)] == found


@given(
    st.text(max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.text(max_size=4)), max_size=5)
)
def test_every_copied_character_leads_back_to_itself(source: str, wanted: list[tuple[int, int, str]]) -> None:
    edits, at = {}, 0
    for start, length, text in sorted(wanted):
        if at <= start and start + length < len(source) and length:
            edits[start, start + length] = text
            at = start + length
    made = Rewritten(source, edits)
    inside = {offset for start, end in edits for offset in range(start, end)}
    copied = [offset for offset in range(len(source)) if offset not in inside]
    kept = [offset for offset in range(len(made.text)) if made.origin(offset) not in inside]
    assert [made.origin(offset) for offset in kept if made.origin(offset) in copied] == sorted(
        made.origin(offset) for offset in kept
    )
    assert "".join(made.text[offset] for offset in kept) == "".join(source[offset] for offset in copied)
    assert made.origin(len(made.text)) <= len(source)


@given(st.text(), st.integers(0, 50))
def test_places_and_offsets_are_each_others_way_back(source: str, offset: int) -> None:
    offset = min(offset, len(source))
    assert offset_of(source, *place(source, offset)) == offset


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_string_parameter_reads_as_itself(text: str) -> None:
    program = compiled(f"{literal(text)} == ''")
    assert Plan(program.tree).truth(activate({})) is (text == "")
    assert literal(text).isprintable()


@pytest.mark.parametrize(
    ("value", "written", "as_doubles"),
    [
        (True, "true", "true"),
        (2, "2", "2.0"),
        (-2, "(-2)", "(-2.0)"),
        (1.5, "1.5", "1.5"),
        (1e300, "1e+300", "1e+300"),
        (["a", 1], '["a", 1]', '["a", 1.0]'),
        ({"a": {"b": [1]}}, '{"a": {"b": [1]}}', '{"a": {"b": [1.0]}}'),
        ('"\\\n\0é', '"\\"\\\\\\n\\U00000000é"', '"\\"\\\\\\n\\U00000000é"'),
    ],
)
def test_literals(value: object, written: str, as_doubles: str) -> None:
    assert (literal(value), literal(value, doubles=True)) == (written, as_doubles)


@pytest.mark.parametrize("value", [None, object(), 2**63, float("nan"), float("inf"), {1: 2}, [None], "\ud800"])
def test_what_has_no_literal(value: object) -> None:
    with pytest.raises(NoLiteral):
        literal(value)
