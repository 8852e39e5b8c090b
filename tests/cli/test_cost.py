"""`policyd cost` adds up what recorded conversations cost, and says where that is more than it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd.cli import main as root
from tests.cli.desk import Desk, exchange
from tests.cli.desk import desk as desk

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "recorded"


def call(output: int = 100, model: str = "gpt-4o", **headers: str) -> dict[str, Any]:
    """One exchange whose answer says how many tokens it took."""
    made: Any = copy.deepcopy(exchange())
    usage = {"prompt_tokens": 10, "completion_tokens": output, "total_tokens": 10 + output}
    message = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": [message]}
    made["request"]["headers"] = {"host": "api.openai.com", "content-type": "application/json", **headers}
    made["request"]["body"] = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
    body = json.dumps({**answer, "usage": usage})
    made["response"] = {"status": 200, "headers": {"content-type": "application/json"}, "chunks": [{"data": body}]}
    return made


def cassette(path: Path, *outputs: int, feature: str = "") -> Path:
    """A VCR cassette with a call for each of these numbers of output tokens."""
    interactions = []
    for output in outputs:
        made = call(output, **({"x-tag-feature": feature} if feature else {}))
        request, answer = made["request"], made["response"]
        interactions.append(
            {
                "request": {
                    "method": "POST",
                    "uri": "https://api.openai.com/v1/chat/completions",
                    "headers": {name: [value] for name, value in request["headers"].items()},
                    "body": request["body"],
                },
                "response": {
                    "status": {"code": 200, "message": "OK"},
                    "headers": {"content-type": ["application/json"]},
                    "body": {"string": answer["chunks"][0]["data"]},
                },
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"version": 1, "interactions": interactions}))
    return path


def costs(desk: Desk, *args: object) -> tuple[object, dict[str, Any], str]:
    code, out, err = desk.command("cost", "--format", "json", *args)
    return code, json.loads(out), err


def test_a_conversation_is_its_session_or_its_file(desk: Desk) -> None:
    desk.record(call(10, **{"x-session-id": "s1"}), call(20), call(30, **{"x-session-id": "s1"}))
    folder = desk.folder / "cassettes"
    cassette(folder / "a.yaml", 1, 2)
    cassette(folder / "deep" / "b.yml", 3)
    code, found, err = costs(desk, desk.recorded, folder)
    assert (code, err) == (root.OK, "")
    outputs = {one["name"]: (one["calls"], one["output_tokens"]) for one in found["conversations"]}
    assert outputs == {"s1": (2, 40), "recorded.jsonl": (1, 20), "a.yaml": (2, 3), "deep/b.yml": (1, 3)}
    total = found["summary"]
    assert (total["calls"], total["input_tokens"], total["output_tokens"]) == (6, 60, 66)
    assert float(total["cost_usd"]) == pytest.approx(sum(float(one["cost_usd"]) for one in found["conversations"]))


def test_features_are_told_apart_by_their_tag(desk: Desk) -> None:
    desk.record(call(10, **{"x-tag-feature": "search"}), call(20), call(30, **{"x-tag-app": "mail"}))
    _, found, _ = costs(desk, desk.recorded)
    assert {one["name"]: one["output_tokens"] for one in found["features"]} == {"search": 10, "": 50}
    _, found, _ = costs(desk, "--tag", "App", desk.recorded)
    assert {one["name"]: one["output_tokens"] for one in found["features"]} == {"mail": 30, "": 30}


def test_what_is_billed_beside_the_tokens_is_in_the_money_alone(desk: Desk) -> None:
    usage = {"input_tokens": 10, "output_tokens": 2, "server_tool_use": {"web_search_requests": 3}}
    usage |= {"cache_creation_input_tokens": 8, "cache_creation": {"ephemeral_1h_input_tokens": 8}}
    answer = {"type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": [], "usage": usage}
    one = exchange(chunks=[(0, json.dumps(answer | {"stop_reason": "end_turn"}).encode())])
    one["request"] |= {"path": "/v1/messages", "body": json.dumps({"model": "claude-sonnet-4-5", "messages": []})}
    one["request"]["headers"]["host"] = "api.anthropic.com"
    one["response"]["headers"] = {"content-type": "application/json"}
    desk.record(one)
    code, found, err = costs(desk, desk.recorded)
    total = found["summary"]
    assert (code, err, total["input_tokens"], total["cache_write_tokens"]) == (root.OK, "", 18, 8)
    assert float(total["cost_usd"]) == pytest.approx((10 * 3 + 8 * 6 + 2 * 15) / 1e6 + 3 * 0.01)


def test_what_is_not_known_is_counted_apart(desk: Desk) -> None:
    other = call()
    other["request"]["path"] = "/v7/whatever"
    desk.record(call(model="nobody-knows-it"), other, exchange(response=None))
    _, found, _ = costs(desk, desk.recorded)
    total = found["summary"]
    assert (total["calls"], total["unread"], total["unpriced"], total["estimated"]) == (2, 1, 1, 1)


@pytest.mark.parametrize("how", ["json", "file", "folder"])
@pytest.mark.parametrize(
    ("outputs", "most", "code"),
    [
        ((1000, 1000), "10%", 0),
        ((1000, 1090), "10%", 0),
        ((1000, 1300), "10%", 1),
        ((1000, 1300), "$0.01", 0),
        ((1000, 1300), "0.001", 1),
        ((100, 100), "0", 0),
    ],
)
def test_an_increase_past_the_threshold_leaves_with_1(
    desk: Desk, how: str, outputs: tuple[int, ...], most: str, code: int
) -> None:
    before = cassette(desk.folder / "before" / "a.yaml", 1000, 1000)
    after = cassette(desk.folder / "after" / "a.yaml", *outputs)
    baseline = desk.folder / "baseline.json"
    baseline.write_text(desk.command("cost", "--format", "json", before)[1])
    against = {"json": baseline, "file": before, "folder": before.parent}[how]
    left, found, err = costs(desk, after, "--against", against, "--max-increase", most)
    assert left == code
    assert found["summary"]["failures"] == [line.removeprefix("policyd: ") for line in err.splitlines()]
    if code:
        assert "everything: $0.020050 -> $" in err
        assert f"conversation 'a.yaml': $0.020050 -> $0.023050, more than {most} above the baseline" in err


def test_one_feature_may_not_hide_behind_another(desk: Desk) -> None:
    before = (cassette(desk.folder / "1" / "a.yaml", 1000, feature="x"), cassette(desk.folder / "1" / "b.yaml", 9000))
    after = (cassette(desk.folder / "2" / "a.yaml", 1500, feature="x"), cassette(desk.folder / "2" / "b.yaml", 8000))
    code, found, err = costs(desk, *after, "--against", before[0].parent)
    assert code == root.FINDINGS
    assert [line.partition(":$")[0].split(": $")[0] for line in err.splitlines()] == [
        "policyd: feature 'x'",
        "policyd: conversation 'a.yaml'",
    ]
    assert found["conversations"][0]["baseline"]["output_tokens"] == 1000


def test_new_and_gone_conversations_count_in_the_whole(desk: Desk) -> None:
    cassette(desk.folder / "1" / "gone.yaml", 100)
    cassette(desk.folder / "2" / "new.yaml", 105)
    code, found, err = costs(desk, desk.folder / "2", "--against", desk.folder / "1")
    assert (code, err, found["gone"]) == (root.OK, "", ["gone.yaml"])
    assert "baseline" not in found["conversations"][0]
    assert costs(desk, desk.folder / "2", "--against", desk.folder / "1", "--max-increase", "1%")[0] == root.FINDINGS


def test_without_a_price_tokens_are_compared(desk: Desk) -> None:
    before, after = desk.folder / "before.jsonl", desk.folder / "after.jsonl"
    before.write_text(json.dumps(call(100, "nobody-knows-it")))
    after.write_text(json.dumps(call(200, "nobody-knows-it")))
    code, _, err = costs(desk, after, "--against", before)
    assert code == root.FINDINGS
    assert "everything: 110 -> 210 tokens, some without a price, more than 10% above the baseline" in err


def test_people_get_tables(desk: Desk) -> None:
    before = cassette(desk.folder / "1" / "a.yaml", 100)
    after = cassette(desk.folder / "2" / "a.yaml", 105, feature="search")
    code, out, err = desk.command("cost", after, "--against", before)
    assert (code, err) == (root.OK, "")
    assert " a.yaml             1          10   105   0.001075   0.001025   +0.000050 (+4.9%)" in out
    assert " search" in out
    assert "1 calls in 1 conversations, 10 input and 105 output tokens, $0.001075" in out
    assert "the baseline cost $0.001025: +0.000050 (+4.9%)" in out


def test_other_prices_are_pointed_out(desk: Desk) -> None:
    file = cassette(desk.folder / "a.yaml", 100)
    printed = json.loads(desk.command("cost", "--format", "json", file)[1])
    printed["summary"]["prices"] = "sha256:other"
    baseline = desk.folder / "baseline.json"
    baseline.write_text(json.dumps(printed))
    assert "made with other prices" in desk.command("cost", file, "--against", baseline)[1]
    assert costs(desk, file, "--against", baseline)[1]["summary"]["baseline_prices"] == "other"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("{}", "neither `log`"),
        ('{"conversations": [', ":1:20: broken JSON"),
        ('{"conversations": []}', "summary: expected an object"),
        ('{"conversations": [], "summary": {"prices": "x"}}', "summary.calls: expected a number"),
        ('{"conversations": [1]', "broken JSON"),
    ],
)
def test_a_broken_baseline_is_refused(desk: Desk, text: str, said: str) -> None:
    file, baseline = cassette(desk.folder / "a.yaml", 100), desk.folder / "baseline.json"
    baseline.write_text(text)
    code, out, err = desk.command("cost", file, "--against", baseline)
    assert (code, out) == (root.USAGE, "")
    assert said in err
    assert "Traceback" not in err


def test_a_wrong_amount_in_a_baseline_is_refused(desk: Desk) -> None:
    file, baseline = cassette(desk.folder / "a.yaml", 100), desk.folder / "baseline.json"
    for amount in ('"much"', "1", '"1e999999"', '"NaN"', '"-1"', '"1.0000000001"'):
        printed = desk.command("cost", "--format", "json", file)[1]
        baseline.write_text(printed.replace('"cost_usd": "0.001025"', f'"cost_usd": {amount}', 1))
        assert desk.command("cost", file, "--against", baseline)[:2] == (root.USAGE, ""), amount


def test_mistakes_have_their_exit_codes(desk: Desk) -> None:
    one, other = cassette(desk.folder / "1" / "a.yaml", 1), cassette(desk.folder / "2" / "a.yaml", 1)
    code, out, err = desk.command("cost", one, other)
    assert (code, out) == (root.USAGE, "")
    assert "has the same name" in err
    (desk.folder / "none").mkdir()
    assert desk.command("cost", desk.folder / "none")[:2] == (root.USAGE, "")
    assert desk.command("cost", desk.folder / "missing")[:2] == (root.USAGE, "")
    assert desk.command("cost", one, "--against", desk.folder / "missing")[:2] == (root.USAGE, "")
    assert desk.command("cost", one, "--max-increase", "lots")[:2] == (root.USAGE, "")


@pytest.mark.corpus
def test_cassettes_of_others_are_billed(desk: Desk) -> None:
    if not CORPUS.is_dir():
        pytest.skip("no recorded corpus: ../shared is not there")
    code, found, _ = costs(desk, CORPUS / "anthropic", "--against", CORPUS / "anthropic", "--max-increase", "0")
    assert code == root.OK
    assert found["summary"]["calls"] > 30
    assert float(found["summary"]["cost_usd"]) > 0
