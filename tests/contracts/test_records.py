"""A record on disk is what docs/records.md says, and holds nothing that begins a line of its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.adapters.records import RecordFile, Sinks, decimal, encode, fields
from policyd.core.model.decision import CounterResult, DecisionRecord, Mode, Outcome, RuleResult, Verdict

DOCS = Path(__file__).parents[2] / "docs" / "records.md"

RECORD = DecisionRecord(
    id="d-1",
    time=1767323045.1234567,
    digest="sha256:abc",
    verdict=Verdict.TERMINATE,
    would=Verdict.TERMINATE,
    mode=Mode.FULL,
    enforced=True,
    degraded=False,
    reason="spend_exceeded",
    determined_by=("agents/breaker/spend.exceeded",),
    rules=(RuleResult("breaker", "agents", "spent", "terminate", Outcome.MATCHED, True, "Critical"),),
    counters=(
        CounterResult("breaker", "agents", "spend", "s-1", "Cost", 1_999_999_999, 142_000, 2_000_000_000, True, True),
        CounterResult("breaker", "agents", "calls", "s-1", "Requests", 7, 1, None, False, True),
        CounterResult("breaker", "agents", "odd", "s-1", "Expression:1.5", 1_500_000, 1, 2**53 - 1, False, True),
    ),
    event=4,
    phase="response",
    operation="chat",
    dialect="openai.chat",
    provider="openai",
    model="gpt-4o\n\x1b[31m",
    served_model="gpt-4o",
    stream=True,
    inspection="full",
    inspection_reason="",
    status=200,
    usage={"input_tokens": 9, "output_tokens": 12, "source": "provider"},
    cost_nano=142_000,
    cost_source="provider",
    finish_reasons=("stop",),
    tenant="default",
    session="s-1",
    session_source="header",
    caller_key="key-1",
    events=5,
    duration_ms=12.34567,
    ended="cut",
)


class Kept:
    def __init__(self) -> None:
        self.lines: list[Callable[[], bytes]] = []

    def put(self, line: Callable[[], bytes]) -> None:
        self.lines.append(line)


def test_a_record_is_one_ascii_line_that_reads_back() -> None:
    line = encode(RECORD)
    assert line.isascii()
    assert b"\n" not in line
    assert b"\x1b" not in line
    read = json.loads(line)
    assert read == json.loads(json.dumps(fields(RECORD)))
    assert read["kind"] == "decision"
    assert read["cost_usd"] == "0.000142"
    assert read["model"] == RECORD.model
    assert read["rules"][0]["outcome"] == "matched"


def test_amounts_are_exact_and_in_the_units_people_use() -> None:
    spend, calls, odd = json.loads(encode(RECORD))["counters"]
    assert (spend["before"], spend["spent"], spend["limit"]) == ("1.999999999", "0.000142", "2.000000")
    assert (calls["before"], calls["spent"], calls["limit"]) == ("7", "1", None)
    assert (odd["before"], odd["spent"], odd["limit"]) == ("1.500000", "0.000001", "9007199254.740991")


@given(st.integers(-(2**60), 2**60), st.sampled_from([1, 10**6, 10**9]))
def test_decimals_are_exact(amount: int, scale: int) -> None:
    text = decimal(amount, scale)
    whole, _, part = text.lstrip("-").partition(".")
    value = int(whole) * scale + (int(part) * scale // 10 ** len(part) if part else 0)
    assert (-value if text.startswith("-") else value) == amount
    assert scale == 1 or 6 <= len(part) <= 9


def test_every_field_of_a_decision_is_written() -> None:
    renamed = {"digest": "policy_set", "joined_digest": "joined_policy_set", "cost_nano": "cost_usd"}
    names = {renamed.get(field.name, field.name) for field in dataclasses.fields(DecisionRecord)}
    assert names | {"kind"} == set(fields(RECORD))


def test_every_written_field_is_documented() -> None:
    text = DOCS.read_text()
    read = json.loads(encode(RECORD))
    nested = {*read["rules"][0], *read["counters"][0]}
    assert not [name for name in {*read, *nested} if f"`{name}`" not in text]


def test_the_line_is_made_where_it_is_written() -> None:
    first, second = Kept(), Kept()
    Sinks((RecordFile(first), RecordFile(second))).write(RECORD)
    assert [make() for make in first.lines + second.lines] == [encode(RECORD)] * 2


@pytest.mark.parametrize("name", ["prompt", "text", "body", "headers", "arguments", "messages"])
def test_no_field_could_hold_content(name: str) -> None:
    assert name not in fields(RECORD)
