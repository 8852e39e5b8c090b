"""A JSON text that broke off is ended so that it parses, and says that it was cut."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.stream.dialects.half_json import remainder

TABLE = [
    ("", '{"policyd_cut":true}'),
    ("{", '{"policyd_cut":true}'),
    ('{"a', '{"a_policyd_half":null,"policyd_cut":true}'),
    ('{"a"', '{"a":null,"policyd_cut":true}'),
    ('{"a":', '{"a":null,"policyd_cut":true}'),
    ('{"a": "x', '{"a": "x","policyd_cut":true}'),
    ('{"a": "x\\', '{"a": "x\\\\","policyd_cut":true}'),
    ('{"a": "x\\u00', '{"a": "x\\u0000","policyd_cut":true}'),
    ('{"a": "\\ud83d', '{"a": "\\ud83d\\udc00","policyd_cut":true}'),
    ('{"a": "\\ud83d\\ud', '{"a": "\\ud83d\\udc00","policyd_cut":true}'),
    ('{"a": tr', '{"a": true,"policyd_cut":true}'),
    ('{"a": -', '{"a": -0,"policyd_cut":true}'),
    ('{"a": 1.', '{"a": 1.0,"policyd_cut":true}'),
    ('{"a": 1e', '{"a": 1e0,"policyd_cut":true}'),
    ('{"a": 1', '{"a": 1,"policyd_cut":true}'),
    ('{"a": 1,', '{"a": 1,"policyd_cut":true}'),
    ('{"a": [1', '{"a": [1],"policyd_cut":true}'),
    ('{"a": [1,', '{"a": [1,null],"policyd_cut":true}'),
    ('{"a": {"b": [{"c": "d', '{"a": {"b": [{"c": "d"}]},"policyd_cut":true}'),
    ('{"a": {', '{"a": {},"policyd_cut":true}'),
    ("[1, 2", "[1, 2]"),
    ('{"a": 1}', '{"a": 1}'),
    ("not json at all", "not json at all"),
    ('{"a": 1}}', '{"a": 1}}'),
]


@pytest.mark.parametrize(("prefix", "whole"), TABLE)
def test_a_text_that_broke_off_is_ended(prefix: str, whole: str) -> None:
    assert prefix + remainder(prefix) == whole


documents = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(documents, st.booleans(), st.randoms(use_true_random=False))
def test_every_beginning_of_an_object_can_be_ended(document: Any, escaped: bool, chance: random.Random) -> None:
    text = json.dumps(document, ensure_ascii=escaped)
    place = chance.randrange(len(text))
    cut = json.loads(text[:place] + remainder(text[:place]))
    assert cut["policyd_cut"] is True
    assert json.loads(text + remainder(text)) == document
