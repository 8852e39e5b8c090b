"""The reach of a pattern, by tables; what RE2 itself finds is the judge in the property below."""

from __future__ import annotations

import re

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.core.model.prefix import beginnings
from policyd.core.model.reach import bound_hint, compiled, compiled_unlimited, reach
from tests.sizes import size

FINITE = [
    ("", 0),
    ("foo", 3),
    (r"foo\b", 4),
    (r"\bfoo", 4),  # `\b` looks both ways: one more is the price
    ("^foo", 3),
    ("foo$", 4),
    (r"(?m)^a$", 2),
    ("a?b", 2),
    ("a{2,5}?", 5),
    ("(?:ab|cde){3}", 9),
    (r"(?P<n>a)(?<m>b)", 2),
    (r"[[:alpha:]\]]{3}x?", 4),
    ("[^]a]{2}", 2),
    ("[]a]{2}", 2),
    (r"\Qa.b*\E{2}", 5),
    (r"\Qab", 2),
    (r"a\Q\E{2}", 2),
    (r"\x{1F600}\x41\101\pL\p{Greek}\PN", 6),
    ("(?i)straße", 6),
    ("(?i:k){3}", 3),
    ("a{01}", 5),  # not a repetition: RE2 reads it as text
    ("a{,3}", 5),
    ("a{x}", 4),
    ("a{", 2),
    ("()*x", 1),
    ("(?:a*){0}b", 1),
    (".{1000}", 1000),
    ("héllo 🎉", 7),
]

ENDLESS = [
    (r"\d+", r"write `\d{1,32}` instead of `\d+`"),
    ("a*", "write `a{0,32}` instead of `a*`"),
    ("x(?:ab){2,}y", "write `(?:ab){2,32}` instead of `(?:ab){2,}`"),
    ("x(a|b+)?y", "write `b{1,32}` instead of `b+`"),
    ("a{40,}", "write `a{40,40}` instead of `a{40,}`"),
    ("(?U)a+?", "write `a{1,32}` instead of `a+`"),
]

REFUSED = [
    ("(", "missing )"),
    ("a**", "bad repetition"),
    ("a{1001}", "invalid repetition size"),
    ("(?=a)", "look-around is not part of RE2"),
    ("(?<!a)b", "look-around is not part of RE2"),
    (r"(a)\1", "invalid escape sequence"),
    (r"\C", "half a character"),
    ("a" * 2001, "2001 characters long"),
    ("(" * 101 + ")" * 101, "nest deeper"),
    ("\ud800", "surrogate"),
]


@pytest.mark.parametrize(("pattern", "expected"), FINITE)
def test_a_finite_reach(pattern: str, expected: int) -> None:
    assert reach(pattern) == expected
    assert bound_hint(pattern) == ""


@pytest.mark.parametrize(("pattern", "hint"), ENDLESS)
def test_an_endless_pattern_is_told_how_to_end(pattern: str, hint: str) -> None:
    assert reach(pattern) is None
    assert bound_hint(pattern) == hint


@pytest.mark.parametrize("pattern", ["a+", "x(?:ab){2,}y", r"\w*@\w+"])
def test_following_the_hints_makes_the_reach_finite(pattern: str) -> None:
    while hint := bound_hint(pattern):
        better, worse = hint.removeprefix("write `").removesuffix("`").split("` instead of `")
        pattern = pattern.replace(worse, better, 1)
    assert reach(pattern) is not None


@pytest.mark.parametrize(("pattern", "reason"), REFUSED)
def test_a_refused_pattern_says_why(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        reach(pattern)


LITERALS = ["a", "b", " ", "1", "é", "K", r"\x61", r"\Qa1\E"]
CLASSES = [".", r"\d", r"\w", r"\s", r"\W", "[ab]", "[^a]", "[[:alpha:]]", r"\pL"]
LEAVES = st.sampled_from(LITERALS + CLASSES)
EDGES = st.sampled_from([r"\b", r"\B", "^", "$", r"\A", r"\z", "(?i)", "(?s)", "(?m)"])
COUNTS = st.sampled_from(["?", "{2}", "{0,3}", "{1,2}", "??", "{0}", "{1,3}?"])


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = inner.map(lambda pattern: f"(?:{pattern})")
    return st.one_of(
        st.lists(st.one_of(inner, EDGES), min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.builds(str.__add__, group, COUNTS),
        inner.map(lambda pattern: f"((?i){pattern})"),
        inner.map(lambda pattern: f"(?P<n>{pattern})" if "<n>" not in pattern else pattern),
    )


PATTERNS = st.recursive(LEAVES, _larger, max_leaves=8)
TEXTS = st.text(alphabet="aab1 éKk\n", max_size=30)


@settings(max_examples=size(700), deadline=None)
@given(PATTERNS, TEXTS)
def test_no_match_is_longer_than_the_reach(pattern: str, text: str) -> None:
    far = reach(pattern)
    assert far is not None
    longest = re2.Options()  # the longest match, then the preferred one
    longest.longest_match, longest.log_errors = True, False
    for form in (re2.compile(pattern, longest), compiled(pattern)):
        assert all(match.end() - match.start() <= far for match in form.finditer(text))


@settings(max_examples=size(700), deadline=None)
@given(PATTERNS, TEXTS)
def test_every_beginning_of_a_match_is_known_as_one(pattern: str, text: str) -> None:
    derived = beginnings(pattern)
    assert derived is not None
    waits = compiled_unlimited(f"(?:{derived})\\z")
    for start in range(len(text)):
        found = compiled(pattern).match(text, start)
        if found is None:
            continue
        for cut in range(start, found.end() + 1):
            held = waits.search(text[:cut])
            assert held is not None and held.start() <= start
