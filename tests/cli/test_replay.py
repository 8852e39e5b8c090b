"""A dry run says what the policies would have done, on the recording's own clock, whatever the cuts."""

from __future__ import annotations

import gc
import json
import tracemalloc
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from policyd.cli import main as root
from tests.cli.desk import LIMITED, POLICY, WORDS, Desk, exchange, stream
from tests.cli.desk import desk as desk

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "recorded"


def test_every_call_is_observed_even_when_no_rule_reads_it(desk: Desk) -> None:
    (one,) = desk.json()["exchanges"]
    text = "".join(WORDS)
    assert one["source"] == f"{desk.recorded}#0"
    assert (one["dialect"], one["operation"], one["provider"]) == ("openai.chat", "chat", "openai")
    assert (one["model"], one["stream"], one["inspection"]) == ("gpt-4o", True, "full")
    assert one["usage"] == {
        "input_tokens": 9,
        "output_tokens": 12,
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "source": "provider",
    }
    assert one["cost"]["source"] == "provider"
    assert one["cost"]["usd"].startswith("0.000")
    assert one["finish_reasons"] == ["stop"]
    assert one["tool_calls"] == []
    assert one["text"] == {"chars": len(text), "sha256": sha256(text.encode()).hexdigest()}
    decision = one["decision"]
    assert (decision["verdict"], decision["enforced"], decision["event"]) == ("allow", False, None)
    assert decision["output_sha256"] == sha256(b"".join(stream())).hexdigest()
    (rule,) = decision["rules"]
    assert rule | {"policy": "p", "rule": "never", "action": "terminate"} == rule
    assert (rule["outcome"], rule["enforced"]) == ("not_matched", False)


@pytest.mark.parametrize(("ms", "event"), [(10, 1), (20, 2), (70, 7), (80, 8), (81, None)])
def test_a_chunk_that_comes_on_the_millisecond_is_late_by_that_millisecond(desk: Desk, ms: int, event: int) -> None:
    rule = f"{{name: slow, when: response.elapsed_ms >= {ms}, terminate: {{}}}}"
    desk.policies.write_text(POLICY.replace("RULE", rule).replace("COUNTERS", ""))
    desk.record(*(exchange(time=f"2026-11-20T10:00:0{second}.137Z") for second in range(4)))

    assert {one["decision"]["event"] for one in desk.json()["exchanges"]} == {event}


def test_the_summary_adds_up(desk: Desk) -> None:
    desk.record(exchange(), exchange(), exchange(response=None))
    document = desk.json(files=[desk.recorded, desk.recorded])
    summary = document["summary"]
    assert summary["calls"] == len(document["exchanges"]) == 6
    assert (summary["verdicts"], summary["enforced"]) == ({"allow": 6}, 0)
    assert summary["tokens"]["output_tokens"] == sum(one["usage"]["output_tokens"] for one in document["exchanges"])
    assert summary["skipped"] == 0


def test_a_cut_is_at_its_event(desk: Desk) -> None:
    desk.policy("cut")
    (one,) = desk.json()["exchanges"]
    assert (one["decision"]["verdict"], one["decision"]["event"]) == ("terminate", 2)
    assert one["decision"]["enforced"] is True
    assert one["decision"]["output_sha256"] != sha256(b"".join(stream())).hexdigest()


@pytest.mark.parametrize("rule", ["nothing", "cut"])
@pytest.mark.parametrize("cuts", [("1",), ("7",), ("50", "--seed", "1"), ("20", "--seed", "2")])
def test_law_4_the_cuts_change_nothing(desk: Desk, rule: str, cuts: tuple[str, ...]) -> None:
    desk.policy(rule)
    assert desk.json("--rechunk", *cuts) == desk.json()


@pytest.mark.parametrize("rule", ["nothing", "cut"])
def test_law_4_many_events_in_one_chunk_change_nothing(desk: Desk, rule: str) -> None:
    desk.policy(rule)
    apart = desk.json()
    desk.record(exchange([(0.0, b"".join(stream()))]))
    assert desk.json() == apart


def test_a_silent_stream_is_cut_by_its_timer(desk: Desk) -> None:
    desk.policy("slow")
    early, late = stream()[:3], stream()[3:]
    desk.record(exchange([*((5.0, data) for data in early), (60_000.0, b"".join(late))]))
    (one,) = desk.json()["exchanges"]
    assert one["decision"]["verdict"] == "terminate"
    assert one["text"]["chars"] == len("".join(WORDS[:2]))
    desk.record(exchange())
    assert desk.json()["summary"]["verdicts"] == {"allow": 1}


def test_an_answer_that_broke_is_not_taken_for_a_whole_one(desk: Desk) -> None:
    desk.record(exchange([(0.0, b"".join(stream()[:3])), (500.0, b"")]), exchange([(0.0, b"".join(stream()[:3]))]))
    broken, ended = desk.json()["exchanges"]
    assert (broken["decision"]["ended"], broken["inspection"]) == ("cancelled", "full")
    assert (ended["decision"]["ended"], ended["inspection"]) == ("complete", "partial")
    assert broken["text"] == ended["text"]


def verdicts(document: dict[str, Any]) -> list[str]:
    return [one["decision"]["verdict"] for one in document["exchanges"]]


def test_counters_live_on_the_recordings_clock(desk: Desk) -> None:
    desk.policy("nothing", LIMITED)
    times = ["2026-03-01T10:00:00Z", "2026-03-01T10:30:00Z", "2026-03-01T10:59:00Z", "2026-03-01T11:00:01Z"]
    desk.record(*(exchange(time=time) for time in times))
    assert verdicts(desk.json()) == ["allow", "allow", "terminate", "allow"]


def test_calls_without_a_time_follow_one_another(desk: Desk) -> None:
    desk.policy("nothing", LIMITED)
    desk.record(exchange(time="2026-03-01T10:00:00Z"), exchange(), exchange())
    assert verdicts(desk.json()) == ["allow", "allow", "terminate"]


def test_under_monitor_nothing_is_enforced_and_no_byte_changes(desk: Desk) -> None:
    desk.policy("model")
    (one,) = desk.json("--mode", "monitor")["exchanges"]
    decision = one["decision"]
    assert (decision["verdict"], decision["enforced"], decision["mode"]) == ("terminate", False, "Monitor")
    assert decision["output_sha256"] == sha256(b"".join(stream())).hexdigest()
    (one,) = desk.json("--mode", "Full")["exchanges"]
    assert (one["decision"]["verdict"], one["decision"]["status"]) == ("terminate", 403)


def test_the_same_run_gives_the_same_document(desk: Desk) -> None:
    desk.policy("cut")
    desk.record(*[exchange()] * 3)
    assert desk.json() == desk.json()


def test_people_get_a_table(desk: Desk) -> None:
    desk.policy("cut")
    desk.record(exchange(), exchange(response=None))
    code, out, _ = desk.run()
    assert code == 0
    assert "recorded.jsonl#0" in out
    assert "p/cut" in out
    assert "2 calls: 1 terminate, 1 allow; 1 enforced" in out
    _, out, _ = desk.run("--mode", "Monitor")
    assert "terminate (not enforced)" in out
    assert "2 calls: 1 terminate, 1 allow; 0 enforced" in out


def test_a_long_table_is_cut_and_says_so(desk: Desk) -> None:
    desk.record(*[exchange(response=None)] * 203)
    _, out, _ = desk.run()
    assert "… and 3 more calls" in out
    assert "203 calls: 203 allow; 0 enforced" in out


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_file_that_breaks_half_way_is_an_issue_and_the_others_are_played(desk: Desk, format: str) -> None:
    broken = desk.folder / "broken.jsonl"
    broken.write_text(json.dumps(exchange()) + "\n{\n")
    code, out, err = desk.run("--format", format, files=[broken, desk.recorded])
    assert code == root.USAGE
    assert "broken.jsonl:2:2: broken JSON" in err
    assert "Traceback" not in err
    if format == "json":
        document = json.loads(out)
        assert len(document["exchanges"]) == 2
        assert [(issue["file"], issue["line"]) for issue in document["issues"]] == [(str(broken), 2)]
    else:
        assert "2 calls: 2 allow" in out
        assert "files that could not be read to their end: 1" in out


def test_mistakes_have_their_exit_codes(desk: Desk) -> None:
    assert desk.run(files=[])[0] == root.USAGE
    assert desk.run(files=[desk.folder / "none"])[0] == root.USAGE
    assert desk.run("--seed", 1)[0] == root.USAGE
    assert desk.run("--rechunk", 0)[0] == root.USAGE
    desk.policies.write_text(desk.policies.read_text().replace("request.model", "requst.model"))
    code, out, err = desk.run()
    assert (code, out) == (root.FINDINGS, "")
    assert "requst" in err
    desk.policies.unlink()
    assert desk.run()[0] == root.USAGE


def test_memory_does_not_grow_with_the_calls(desk: Desk) -> None:
    def kept_after(calls: int) -> int:
        desk.record(*[exchange()] * calls)
        code, _, _ = desk.run("--format", "json")
        gc.collect()
        assert code == 0
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        kept_after(50)  # what is imported and cached once
        assert kept_after(400) - kept_after(100) < 100 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.corpus
def test_the_corpus_is_played_whole_and_its_cuts_change_nothing(desk: Desk) -> None:
    if not CORPUS.is_dir():
        pytest.skip("no recorded corpus: ../shared is not there")
    files = [*sorted((CORPUS / "openai").glob("*chat*.yaml")), *sorted((CORPUS / "anthropic").glob("*.yaml"))]
    whole = desk.json(files=files)
    assert whole["summary"]["calls"] > 100
    assert desk.json("--rechunk", 50, "--seed", 1, files=files) == whole
