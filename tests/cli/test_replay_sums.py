"""What a dry run adds up to, what `--fail-on` finds, and the bar that only a terminal sees."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from policyd.cli import main as root
from policyd.cli.dry_run import Played
from policyd.cli.replay_sums import Summary
from policyd.core.model.decision import Verdict
from tests.cli.desk import LIMITED, Desk, exchange
from tests.cli.desk import desk as desk
from tests.contracts.test_records import RECORD


def test_what_is_stopped_costs_less_and_the_difference_is_told(desk: Desk) -> None:
    whole = float(desk.json()["summary"]["spend_usd"])
    desk.policy("cut")
    desk.record(exchange(), exchange())
    summary = desk.json()["summary"]
    spent, avoided = float(summary["spend_usd"]), float(summary["spend_avoided_usd"])
    assert avoided > 0
    assert spent + avoided == pytest.approx(2 * whole)
    desk.policy("model")
    summary = desk.json()["summary"]
    assert (summary["spend_usd"], float(summary["spend_avoided_usd"])) == ("0.000000", pytest.approx(2 * whole))
    assert desk.json("--mode", "Monitor")["summary"]["spend_avoided_usd"] == "0.000000"


@pytest.mark.parametrize(
    ("verdict", "saved", "sums"),
    [
        (Verdict.REROUTE, -5, (0, 5)),  # to a dearer model
        (Verdict.TERMINATE, -5, (0, 0)),  # the estimate of what was cut was too high
        (Verdict.TERMINATE, 5, (5, 0)),
    ],
)
def test_nothing_avoided_is_ever_negative(verdict: Verdict, saved: int, sums: tuple[int, int]) -> None:
    summary = Summary()
    record = replace(RECORD, verdict=verdict, cost_nano=100)
    summary.add(Played(cast("Any", None), record, cast("Any", None), ""), 100 + saved)
    assert (summary.avoided_nano, summary.added_nano) == sums


def test_rules_and_cut_points_are_summed_up(desk: Desk) -> None:
    desk.policy("cut", LIMITED)
    desk.record(*[exchange()] * 4)
    summary = desk.json()["summary"]
    cut, denied = {"first": 2, "mean": 2.0, "last": 2}, {"calls": 2, "refused": 2, "cut": 0, "events": None}
    assert summary["cut_points"] == [
        {"rule": "p/calls.exceeded", **denied},
        {"rule": "p/cut", "calls": 2, "refused": 0, "cut": 2, "events": cut},
    ]
    rules = {one["rule"]: (one["matched"], one["enforced"], one["errored"]) for one in summary["rules"]}
    assert rules == {"calls.exceeded": (2, 2, 0), "cut": (2, 2, 0)}


def test_every_call_tells_what_its_counters_stood_at(desk: Desk) -> None:
    desk.policy("nothing", LIMITED)
    desk.record(*[exchange()] * 3)
    counters = [one["decision"]["counters"][0] for one in desk.json()["exchanges"]]
    assert [(one["before"], one["spent"], one["exceeded"]) for one in counters] == [
        ("0", "1", False),
        ("1", "1", False),
        ("2", "0", True),
    ]


def test_people_are_told_cut_points_savings_and_slow_rules(desk: Desk) -> None:
    desk.policy("cut", LIMITED)
    desk.record(*[exchange()] * 3)
    _, out, _ = desk.run()
    assert "stopped by p/calls.exceeded: 1 before the answer" in out
    assert "stopped by p/cut: 2 at event 2" in out
    assert "; avoided $0.000" in out
    assert "slowest rules, each judged alone: p/cut " in out


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("cut", 1),
        ("p/cut", 1),
        ("agents/p/cut", 1),
        ("response.output_tokens >= 1", 1),
        ('request.model == "none"', 0),
        ('response.text.contains("quick")', 1),
        ('response.text.contains("fox")', 0),  # it was cut before
        ('response.text.matches("^The q.*$")', 1),
        ("response.cost_usd > 1.0", 0),
        ('request.headers["none"] == ""', 1),  # cannot be judged
        ('session.id == "s" && caller.user == ""', 1),
    ],
)
def test_fail_on_finds_calls_and_leaves_with_1(desk: Desk, condition: str, found: int) -> None:
    desk.policy("cut")
    code, out, err = desk.run("--fail-on", condition)
    assert (code, err) == (root.FINDINGS if found else root.OK, "")
    assert f"--fail-on {condition}: {found} calls" in out


def test_fail_on_finds_what_monitor_would_have_done(desk: Desk) -> None:
    desk.policy("cut")
    assert desk.run("--mode", "Monitor", "--fail-on", "cut")[0] == root.FINDINGS


def test_fail_on_is_told_to_machines(desk: Desk) -> None:
    desk.record(exchange(), exchange())
    code, out, _ = desk.run("--format", "json", "--fail-on", "never", "--fail-on", "response.events > 3")
    assert code == root.FINDINGS
    found = f'{{"condition": "response.events > 3", "calls": 2, "first": "{desk.recorded}#0"}}'
    assert f'"fail_on": [{{"condition": "never", "calls": 0, "first": null}}, {found}]' in out


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("nevr", "no rule is called 'nevr'"),
        ("response.output_tokens", "true or false"),
        ("counters.spend.value > 1.0", "spend"),
        ("session.calls > 1", "known only to a policy"),
        ("", "no rule is called"),
    ],
)
def test_what_is_neither_rule_nor_cel_is_wrong_usage(desk: Desk, condition: str, said: str) -> None:
    code, out, err = desk.run("--fail-on", condition)
    assert (code, out) == (root.USAGE, "")
    assert said in " ".join(err.replace("│", " ").split())


def _on_a_terminal(command: list[str], tmp_path: Path) -> tuple[bytes, bytes]:
    """stdout, and what a terminal on stderr gets."""
    reader, terminal = pty.openpty()
    out = tmp_path / "out"
    with out.open("wb") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=terminal, check=False, timeout=60)
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(reader, 65536):
            shown += piece
    except OSError:  # the terminal is closed and read empty
        pass
    os.close(reader)
    assert done.returncode == 0, shown
    return out.read_bytes(), shown


def test_only_a_terminal_sees_a_bar(desk: Desk, tmp_path: Path) -> None:
    desk.record(*[exchange()] * 5)
    command: list[Any] = [sys.executable, "-m", "policyd", "replay", "--policies", desk.policies, desk.recorded]
    out, shown = _on_a_terminal([str(one) for one in command], tmp_path)
    assert b"replay" in shown
    assert b"5 calls" in shown
    assert b"5 calls: 5 allow" in out
    assert b"\x1b" not in out
    _, _, err = desk.run()
    assert err == ""
