"""A dry run's records are those of `serve`, whole or not there; Monitor's are told as Full would have acted."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path

import pytest

from policyd.adapters.decisions import read_decisions
from policyd.cli import main as root
from policyd.core.compile.compiler import compile_documents
from policyd.core.model.decision import Mode
from tests.cli.desk import LIMITED, Desk, exchange
from tests.cli.desk import desk as desk
from tests.driving import policy


def test_the_records_of_a_run_are_what_promote_reads(desk: Desk) -> None:
    desk.policy("cut")
    desk.policies.write_text(desk.policies.read_text().replace("mode: Full", "mode: Monitor"))
    desk.record(*[exchange()] * 3)
    for _ in range(2):  # the second run's take the place of the first one's
        code, _, err = desk.run("--records", desk.folder / "new" / "records")
        assert code == root.OK, err
    told = list(read_decisions(desk.folder / "new" / "records"))
    assert [[fate.rule for fate in one.shadow] for one in told] == [["cut"]] * 3
    where = ["--policies", desk.policies, "--records", desk.folder / "new" / "records"]
    code, out, _ = desk.command("promote", "p", *where, "--min-calls", "3")
    assert (code, "3 calls seen in Monitor, 3 would have been stopped" in out) == (root.OK, True)


def test_a_file_that_breaks_off_leaves_the_records_of_what_was_read(desk: Desk) -> None:
    folder = desk.folder / "records"
    desk.run("--records", folder)
    desk.recorded.write_text(json.dumps(exchange()) + "\nbroken\n")
    code, out, err = desk.run("--records", folder)
    assert (code, "recorded.jsonl:2" in err) == (root.USAGE, True)
    assert "files that could not be read to their end: 1" in out
    assert [file.name for file in folder.iterdir()] == ["replay.jsonl"]
    assert len((folder / "replay.jsonl").read_bytes().splitlines()) == 1


def test_a_run_that_fails_leaves_the_records_of_the_one_before(desk: Desk) -> None:
    folder = desk.folder / "records"
    desk.run("--records", folder)
    before = (folder / "replay.jsonl").read_bytes()
    desk.policies.write_text("broken")
    code, out, _ = desk.run("--records", folder)
    assert (code != root.OK, out) == (True, "")
    assert [file.name for file in folder.iterdir()] == ["replay.jsonl"]
    assert (folder / "replay.jsonl").read_bytes() == before


def test_records_that_cannot_be_written_are_told(desk: Desk) -> None:
    code, out, err = desk.run("--records", desk.recorded)
    assert (code, out) == (root.USAGE, "")
    assert "records cannot be written" in err


def test_monitor_tells_the_stops_of_full(desk: Desk) -> None:
    desk.policy("nothing", LIMITED)
    desk.record(*[exchange()] * 4)
    enforced = desk.json()["summary"]["cut_points"]
    assert [(one["refused"], one["cut"]) for one in enforced] == [(2, 0)]
    desk.policies.write_text(desk.policies.read_text().replace("mode: Full", "mode: Monitor"))
    assert desk.json()["summary"]["cut_points"] == enforced


def test_what_is_tried_is_tried_for_every_call() -> None:
    share = "rollout: {percent: 1, by: session.id}\n"
    text = policy(f"{share}rules: [{{name: no, rollout: {{percent: 1}}, terminate: {{}}}}]")
    for mode in (Mode.FULL, Mode.MONITOR):
        tried = compile_documents([("p.yaml", text)], mode=mode).policy_set
        assert tried is not None
        (one,) = tried.policies
        assert (one.rollout, one.rules[0].rollout, one.mode) == (None, None, mode)


@pytest.mark.parametrize("mode", ["Full", "Monitor"])
def test_explain_says_what_the_call_cost_and_who_speaks_for_a_limit(desk: Desk, mode: str) -> None:
    counter = "{name: calls, key: session.id, charge: Requests, window: {lifetime: 1h}, limit: 1 requests}"
    rule = "{name: over, when: counters.calls.exceeded, terminate: {status: 429}}"
    head = desk.policies.read_text().partition("  counters:")[0].partition("  rules:")[0].replace("Full", mode)
    desk.policies.write_text(f"{head}  counters: [{counter}]\n  rules: [{rule}]\n")
    desk.record(exchange(), exchange())
    place = Path(f"{desk.recorded}#0")
    told = json.loads(desk.command("explain", "--policies", desk.policies, place, "--format", "json")[1])
    assert float(told["facts"]["response.cost_usd"]) == float(told["cost"]["usd"]) > 0
    told = json.loads(
        desk.command("explain", "--policies", desk.policies, f"{place}"[:-1] + "1", "--format", "json")[1]
    )
    implied = next(one["why"] for one in told["rules"] if one["rule"] == "calls.exceeded")
    assert "within its limit" not in implied


# ---- how recordings come ---------------------------------------------------------------------------------------------


def test_a_recording_may_be_compressed_or_come_out_of_a_pipe(desk: Desk) -> None:
    desk.record(*[exchange()] * 3)
    plain, data = desk.json()["summary"], desk.recorded.read_bytes()
    packed = desk.folder / "day.jsonl.gz"
    packed.write_bytes(gzip.compress(data))
    assert desk.json(files=[packed])["summary"] == plain
    pipe = desk.folder / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    assert desk.json(files=[pipe])["summary"] == plain
    writer.join()


@pytest.mark.parametrize("size", [-20, 40])
def test_broken_gzip_is_told(desk: Desk, size: int) -> None:
    desk.recorded.write_bytes(gzip.compress(desk.recorded.read_bytes())[:size])
    code, out, err = desk.run()
    assert (code, out, "broken gzip" in err) == (root.USAGE, "", True), err
