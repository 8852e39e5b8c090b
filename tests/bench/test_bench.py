"""The benchmark measures what it says: which policies match, what a ratio is, and that the engine reads every event."""

from __future__ import annotations

import pytest

from bench.caller import Window
from bench.direct import Engine
from bench.policies import policies
from bench.report import Round, percentile, table
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.policyset import PolicySet
from policyd.core.decide.plan import needs_usage, reads_response_body


def compiled(count: int, *, held: bool = False) -> PolicySet:
    found = compile_documents([("bench.yaml", policies(count, held=held))]).policy_set
    assert found is not None
    return found


@pytest.mark.parametrize(("count", "matching", "reading"), [(1, 1, 1), (10, 10, 3), (100, 10, 3), (1000, 10, 3)])
def test_ten_match_and_three_of_them_read_the_stream(count: int, matching: int, reading: int) -> None:
    found = compiled(count)
    selected = found.select("chat", "openai", "/v1/chat/completions", "gpt-4o")
    readers = [
        policy
        for policy in selected
        if any(reads_response_body(rule.reads) for rule in policy.rules) or any(map(needs_usage, policy.counters))
    ]
    assert (len(found.policies), len(selected), len(readers)) == (count, matching, reading)


@pytest.mark.parametrize(("held", "most"), [(False, 0), (True, 21)])
def test_text_is_held_only_where_the_table_says_so(held: bool, most: int) -> None:
    assert max(rule.hold_back for policy in compiled(100, held=held).policies for rule in policy.rules) == most


@pytest.mark.parametrize("together", [1, 100])
def test_the_engine_alone_reads_every_event(together: int) -> None:
    assert Engine(policies(10)).micros(together, 200) > 0


def test_a_ratio_is_made_within_its_round_and_the_median_shown() -> None:
    def of(echo: int, ours: int) -> Round:
        windows = {"no ext_proc": Window(1.0, 0, 10), "echo": Window(1.0, echo, 10), "ours": Window(1.0, ours, 10)}
        return Round(quiet=windows, busy=windows, burst=windows, flood=windows, calls=windows)

    lines = table([of(10_000, 20_000), of(40_000, 60_000), of(10_000, 90_000)], ["echo", "ours"], "echo").splitlines()
    place = next(index for index, line in enumerate(lines) if line.startswith("CPU per message, busy"))
    assert lines[place].split()[-2:] == ["1.0", "6.0"]
    assert lines[place + 1].split() == ["x2.00"]


def test_percentiles_are_of_what_there_is() -> None:
    assert percentile([], 0.5) == 0
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([*range(100)], 0.99) == 99
