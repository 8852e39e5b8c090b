"""Finding the policies that match a call: the index against the plain definition, and its cost."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.compile.policyset import Batch, CompiledPolicy, Match, Program
from policyd.core.compile.select import CompiledSet, glob_matches
from policyd.core.model.decision import FailurePolicy, Mode


class NoEngine:
    """Selecting judges nothing."""

    def batch(self, programs: Sequence[Program]) -> Batch:
        raise AssertionError(programs)


def policy(name: str, match: Match) -> CompiledPolicy:
    return CompiledPolicy(name, "", True, Mode.FULL, FailurePolicy.FAIL, match, (), (), ())


def set_of(*matches: Match) -> CompiledSet:
    return CompiledSet("sha256:0", [policy(str(index), match) for index, match in enumerate(matches)], NoEngine())


def names(policies: Sequence[CompiledPolicy]) -> list[int]:
    return [int(policy.name) for policy in policies]


# ---- globs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "text", "fits"),
    [
        ("gpt-4o*", "gpt-4o-mini", True),
        ("gpt-4o*", "gpt-4o", True),
        ("gpt-4o*", "my-gpt-4o", False),
        ("gpt-4o", "gpt-4o-mini", False),
        ("*mini", "gpt-4o-mini", True),
        ("*-4*-*", "gpt-4o-mini", True),
        ("gpt-?o", "gpt-4o", True),
        ("gpt-?o", "gpt-o", False),
        ("GPT*", "gpt-4o", False),
        ("[a-z]*", "a", False),
        ("[a-z]*", "[a-z]1", True),
        ("a.c", "abc", False),
        ("*", "", True),
        ("?", "", False),
        ("**a", "ba", True),
        ("*a*", "line\nbreak\n", True),
        ("*ab", "aab", True),
        ("a*?b", "ab", False),
        ("a?*b", "acb", True),
        ("*a?", "aab", True),
    ],
)
def test_globs_cover_the_whole_string(glob: str, text: str, fits: bool) -> None:
    assert bool(glob_matches(glob)(text)) is fits


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_globs_mean_what_the_plain_regular_expression_means(glob: str, text: str) -> None:
    plain = re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".")
    assert bool(glob_matches(glob)(text)) is bool(re.fullmatch(plain, text))


def test_a_hostile_glob_costs_no_more_than_its_length_times_the_text() -> None:
    began = time.process_time()
    assert not glob_matches("*a" * 100 + "b")("a" * 20_000)
    assert time.process_time() - began < 1


# ---- the index ----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["chat", "unknown", "other", "gpt-4o", "gpt-4o-mini", "o3", "/v1/a", ""])
GLOBS = st.lists(st.sampled_from(["chat", "unknown", "*", "gpt-*", "gpt-4o", "*mini", "o?", "/v1/*", "?"]), max_size=2)
MATCHES = st.builds(Match, *[GLOBS.map(tuple)] * 4)


def plainly(match: Match, operation: str, provider: str, path: str, model: str | None) -> bool:
    def fits(patterns: tuple[str, ...], value: str) -> bool:
        return not patterns or any(glob_matches(pattern)(value) for pattern in patterns)

    if not match.operations and operation in ("unknown", "other"):
        return False
    return (
        fits(match.operations, operation)
        and fits(match.providers, provider)
        and fits(match.paths, path)
        and (model is None or fits(match.models, model))
    )


@given(st.lists(MATCHES, max_size=12), WORDS, WORDS, WORDS, st.none() | WORDS)
def test_the_index_agrees_with_the_definition(
    matches: list[Match], operation: str, provider: str, path: str, model: str | None
) -> None:
    chosen = set_of(*matches)
    expected = [index for index, match in enumerate(matches) if plainly(match, operation, provider, path, model)]
    assert names(chosen.select(operation, provider, path, model)) == expected
    assert names(chosen.select(operation, provider, path, model)) == expected


def test_no_operations_means_all_but_unknown_and_other() -> None:
    chosen = set_of(Match(), Match(operations=("unknown",)), Match(operations=("*",)))
    assert names(chosen.select("chat", "", "", None)) == [0, 2]
    assert names(chosen.select("unknown", "", "", None)) == [1, 2]
    assert names(chosen.select("other", "", "", None)) == [2]


def test_a_model_not_known_yet_may_be_any_and_one_that_was_not_sent_is_empty() -> None:
    chosen = set_of(Match(models=("gpt-4o",)), Match(models=("*",)), Match())
    assert names(chosen.select("chat", "", "", None)) == [0, 1, 2]
    assert names(chosen.select("chat", "", "", "")) == [1, 2]


def test_the_same_answer_is_the_same_object() -> None:
    chosen = set_of(Match(models=("gpt-*",)), Match(paths=("/v1/*",)))
    one = chosen.select("chat", "openai", "/v1/a", "gpt-4o")
    assert chosen.select("chat", "azure", "/v1/b", "gpt-4o-mini") is one
    assert chosen.select("chat", "azure", "/v1/b", "gpt-" + "o" * 2_000) is one
    assert chosen.select("chat", "openai", "/v2", "gpt-4o") is not one


def test_what_a_client_sends_does_not_grow_the_cache_without_end() -> None:
    chosen = set_of(Match(models=("gpt-*",)))
    for index in range(10_000):
        chosen.select("chat", "", f"/{index}", f"gpt-{index}")
    assert chosen.remembered <= 4_096


def test_ten_thousand_policies_cost_a_call_what_the_matching_ones_cost() -> None:
    few = set_of(*[Match(models=(f"team-{index}-*",), paths=(f"/t{index}/*",)) for index in range(10)])
    many = set_of(*[Match(models=(f"team-{index}-*",), paths=(f"/t{index}/*",)) for index in range(10_000)])

    def cost(chosen: CompiledSet) -> float:
        began = time.process_time()
        for index in range(2_000):  # never the same question twice: no cache helps
            assert len(chosen.select("chat", "openai", f"/t7/{index}", "team-7-x")) == 1
        return time.process_time() - began

    assert min(cost(many) for _ in range(3)) < 30 * min(cost(few) for _ in range(3)) + 0.05
    assert len(many.policies) == 10_000
