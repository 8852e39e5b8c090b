"""`policyd diff` says what a change of policies does to recorded traffic, and blocks where it does too much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policyd.cli import main as root
from tests.cli.desk import LIMITED, POLICY, RULES, Desk, exchange
from tests.cli.desk import desk as desk

MORE = {
    "later": "{name: cut, severity: Critical, when: response.events >= 5, terminate: {fallback: enough}}",
    "named": "{name: other, severity: Critical, when: response.events >= 3, terminate: {fallback: enough}}",
    "said": "{name: cut, severity: Critical, when: response.events >= 3, terminate: {fallback: bye}}",
    "watched": "{name: cut, mode: Monitor, when: response.events >= 3, terminate: {fallback: enough}}",
}


def written(desk: Desk, name: str, counters: str = "") -> Path:
    path = desk.folder / f"{name}.yaml"
    path.write_text(POLICY.replace("RULE", (RULES | MORE)[name]).replace("COUNTERS", counters))
    return path


def compared(desk: Desk, before: Path, after: Path, *args: object) -> tuple[object, dict[str, Any], str]:
    code, out, err = desk.command("diff", "--from", before, "--to", after, "--format", "json", *args, desk.recorded)
    return code, json.loads(out), err


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("nothing", "cut", "newly_stopped"),
        ("cut", "nothing", "no_longer_stopped"),
        ("cut", "later", "moved_cut"),
        ("model", "cut", "moved_cut"),
        ("nothing", "watched", "other_verdict"),
        ("watched", "cut", "newly_stopped"),
        ("cut", "named", "other_rule"),
        ("cut", "said", "other_answer"),
        ("cut", "cut", None),
    ],
)
def test_each_change_has_its_name(desk: Desk, before: str, after: str, change: str | None) -> None:
    code, found, _ = compared(desk, written(desk, before), written(desk, after))
    assert code == root.OK
    assert [one["change"] for one in found["changes"]] == ([change] if change else [])
    kinds = ("newly_stopped", "no_longer_stopped", "moved_cut", "other_verdict", "other_rule", "other_answer")
    assert {kind: found["summary"][kind] for kind in kinds} == {kind: int(kind == change) for kind in kinds}


def test_both_sides_of_a_change_are_told(desk: Desk) -> None:
    _, found, _ = compared(desk, written(desk, "cut"), written(desk, "later"))
    (change,) = found["changes"]
    assert change["source"] == f"{desk.recorded}#0"
    assert (change["from"]["event"], change["to"]["event"]) == (2, 4)
    assert change["to"]["determined_by"] == ["p/cut"]
    difference = float(change["to"]["cost_usd"]) - float(change["from"]["cost_usd"])
    assert difference > 0
    assert float(found["summary"]["cost_difference_usd"]) == pytest.approx(difference)


def test_each_side_has_counters_of_its_own(desk: Desk) -> None:
    desk.record(*[exchange()] * 5)
    _, found, _ = compared(desk, written(desk, "nothing"), written(desk, "cut", LIMITED))
    stops = [one["to"]["determined_by"] for one in found["changes"]]
    assert stops == [["p/cut"]] * 2 + [["p/calls.exceeded"]] * 3


@pytest.mark.parametrize(
    ("option", "most", "code"),
    [
        ("--max-newly-stopped", "0", root.FINDINGS),
        ("--max-newly-stopped", "1", root.FINDINGS),
        ("--max-newly-stopped", "2", root.OK),
        ("--max-newly-stopped", "49%", root.FINDINGS),
        ("--max-newly-stopped", "50%", root.OK),
        ("--max-cost-increase", "0", root.OK),  # it becomes cheaper
    ],
)
def test_too_many_stops_block(desk: Desk, option: str, most: str, code: int) -> None:
    desk.record(*[exchange()] * 4)
    limited = LIMITED.replace("limit: 2 requests", "limit: 2 requests")
    left, found, err = compared(desk, written(desk, "nothing"), written(desk, "model"), option, "100%")
    assert (left, err, found["summary"]["newly_stopped"]) == (root.OK, "", 4)
    after = desk.folder / "limited.yaml"
    after.write_text(POLICY.replace("RULE", RULES["nothing"]).replace("COUNTERS", limited))
    left, found, err = compared(desk, written(desk, "nothing"), after, option, most)
    assert found["summary"]["newly_stopped"] == 2
    assert left == code
    assert found["summary"]["failures"] == [line.removeprefix("policyd: ") for line in err.splitlines()]
    assert ("2 of 4 calls are newly stopped, more than" in err) is (code == root.FINDINGS)


@pytest.mark.parametrize(("most", "code"), [("0", 1), ("0.00001", 1), ("1", 0), ("5%", 1), ("1000%", 0), ("$1", 0)])
def test_too_much_cost_blocks(desk: Desk, most: str, code: int) -> None:
    left, found, err = compared(desk, written(desk, "cut"), written(desk, "nothing"), "--max-cost-increase", most)
    assert left == code
    assert bool(found["summary"]["failures"]) is ("the cost rises by $0.000" in err) is bool(code)


def test_a_pull_request_gets_markdown_and_no_markup_of_a_recording(desk: Desk) -> None:
    odd = desk.folder / "a|b<c>.jsonl"
    odd.write_text(desk.recorded.read_text() * 25)
    asked = ("--format", "markdown", "--max-newly-stopped", "0", odd)
    code, out, _ = desk.command("diff", "--from", written(desk, "nothing"), "--to", written(desk, "cut"), *asked)
    assert code == root.FINDINGS
    assert out.startswith("### policyd diff: 25 calls, 25 newly stopped\n")
    assert "| stopped | 0 | 25 |" in out
    assert "**Past its threshold:** 25 of 25 calls are newly stopped, more than 0" in out
    assert out.count("a\\|b&lt;c>.jsonl#") == 20
    assert "| … and 5 more | | |" in out


def test_people_get_text(desk: Desk) -> None:
    _, out, err = desk.command("diff", "--from", written(desk, "nothing"), "--to", written(desk, "cut"), desk.recorded)
    assert "newly stopped: 1 calls\n" in out
    assert "recorded.jsonl#0: allow -> terminate by p/cut at event 2\n" in out
    assert "1 calls, 1 newly stopped\n" in out
    assert err == ""
    _, out, _ = desk.command("diff", "--from", written(desk, "cut"), "--to", written(desk, "cut"), desk.recorded)
    assert out.startswith("1 calls, nothing changes\n")


@pytest.mark.parametrize("format", ["text", "json", "markdown"])
def test_mistakes_have_their_exit_codes(desk: Desk, format: str) -> None:
    good = written(desk, "cut")
    broken = desk.folder / "broken.jsonl"
    broken.write_text(desk.recorded.read_text() + "{\n")
    asked: tuple[object, ...] = ("diff", "--from", good, "--to", good, "--format", format)
    code, _, err = desk.command(*asked, broken)
    assert (code, "broken.jsonl:2:2: broken JSON" in err) == (root.USAGE, True)
    assert desk.command(*asked, desk.folder / "none")[:2] == (root.USAGE, "")
    assert desk.command(*asked, "--max-newly-stopped", "some", desk.recorded)[:2] == (root.USAGE, "")
    assert desk.command("diff", "--from", good, desk.recorded)[:2] == (root.USAGE, "")
    bad = desk.folder / "bad.yaml"
    bad.write_text(good.read_text().replace("response.events", "response.evnts"))
    assert desk.command("diff", "--from", good, "--to", bad, desk.recorded)[:2] == (root.FINDINGS, "")
