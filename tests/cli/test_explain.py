"""`policyd explain`: the values are the engine's, the verdict is replay's, and no credential is shown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from policyd.adapters.prices import load_prices
from policyd.cli.explain import judge, place_of
from policyd.cli.main import main
from policyd.core.compile.compiler import compile_documents
from policyd.core.model.options import Options
from tests.driving import chat, cluster_policy, policy, stream_of
from tests.properties.test_review import conditions

SECRET = "sk-proj-" + "a1B2" * 8
COOKIE = "sid=0123456789abcdef"


def line(text: str = "hello", *texts: str, **headers: str) -> str:
    chunks = [{"ms": at * 10, "data": data.decode()} for at, data in enumerate(stream_of(*(texts or ("a ", "b"))))]
    known = {"host": "api.openai.com", "authorization": f"Bearer {SECRET}", "cookie": COOKIE, "x-tag-feature": "x"}
    request = {"method": "POST", "path": "/v1/chat/completions", "headers": {**known, **headers}}
    answer = {"status": 200, "headers": {"content-type": "text/event-stream"}, "chunks": chunks}
    return json.dumps({"request": {**request, "body": chat(text, stream=True).decode()}, "response": answer}) + "\n"


class Desk:
    """A folder with policies and a recording, and what explain says of it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def write(self, recording: str, *texts: str) -> None:
        (self.folder / "calls.jsonl").write_text(recording)
        (self.folder / "policies.yaml").write_text("---\n".join(texts))

    def explain(self, number: int = 0, *more: str) -> tuple[int, str, str]:
        call = f"{self.folder / 'calls.jsonl'}#{number}"
        with pytest.raises(SystemExit) as left:
            main(["explain", "--policies", str(self.folder / "policies.yaml"), call, *more])
        said = self._capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    def document(self, number: int = 0, *more: str) -> dict[str, Any]:
        code, out, _ = self.explain(number, "--format", "json", *more)
        assert code == 0
        found: dict[str, Any] = json.loads(out)
        return found

    def replayed(self) -> list[dict[str, Any]]:
        args = ["replay", "--policies", str(self.folder / "policies.yaml"), str(self.folder / "calls.jsonl")]
        with pytest.raises(SystemExit):
            main([*args, "--format", "json"])
        found: list[dict[str, Any]] = json.loads(self._capsys.readouterr().out)["exchanges"]
        return found


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def rule(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in document["rules"] if one["rule"] == name]
    return dict(found)


def values(found: dict[str, Any]) -> dict[str, Any]:
    return {one["expression"]: one.get("value", one.get("error")) for one in found["values"]}


BUDGET = policy(
    """
variables: [{name: many, expression: "counters.calls.used > 0.5"}]
counters: [{name: calls, key: session.id, charge: Requests, window: {idle: 1h}, limit: 4 requests}]
rules:
  - name: word
    when: variables.many && response.text.contains("bad")
    terminate: {}
  - name: tagged
    when: request.tags["feature"] == "x"
    constrain: {set: {temperature: 0}}
""",
    "budget",
)


def test_values_are_those_of_the_moment_and_counters_those_of_the_calls_before(desk: Desk) -> None:
    desk.write(line("hi", "a ", "bad", " c", **{"x-session-id": "s"}) * 4, BUDGET)

    first, third = desk.document(0), desk.document(2)

    assert (first["verdict"], third["verdict"], third["event"]) == ("constrain", "terminate", 1)
    assert values(rule(first, "word"))["counters.calls.used"] == 0.25
    told = values(rule(third, "word"))
    assert told["counters.calls.used"] == 0.75
    assert told['response.text.contains("bad")'] is True
    assert told['(counters.calls.used > 0.5) && response.text.contains("bad")'] is True
    assert [(one["before"], one["after"], one["limit"]) for one in third["counters"]] == [("2", "3", "4")]
    assert values(rule(third, "tagged"))["request.tags"] == {"feature": "x"}
    assert desk.document(2, "--alone")["verdict"] == "constrain"


def test_the_verdict_is_that_of_replay(desk: Desk) -> None:
    desk.write("".join(line("hi", *texts) for texts in (("a",), ("x", "bad"), ("bad",), ("b",), ("bad",))), BUDGET)

    for number, replayed in enumerate(desk.replayed()):
        told, decision = desk.document(number), replayed["decision"]
        assert told["source"] == replayed["source"]
        for name in ("verdict", "would", "mode", "enforced", "event", "status", "reason"):
            assert told[name] == decision[name], name
        assert [one["outcome"] for one in told["rules"]] == [one["outcome"] for one in decision["rules"]]


WHY = [
    cluster_policy("rules: [{name: first, terminate: {}}]", "all"),
    policy(
        """
matchConditions: [{name: sales, expression: 'caller.team == "sales"'}]
rules: [{name: never, terminate: {}}]
""",
        "conditioned",
    ),
    policy("match: {models: ['o3*']}\nrules: [{name: never, terminate: {}}]", "o3"),
    policy(
        """
rules:
  - {name: weak, severity: Low, terminate: {}}
  - {name: cheap, reroute: {model: mini}}
  - {name: spared, severity: Critical, terminate: {}}
  - {name: spare, allow: {rules: [mine/spared]}}
  - {name: seen, mode: Monitor, severity: Critical, terminate: {}}
  - {name: broken, severity: Info, when: 'request.tags["f"] == "x"', terminate: {}}
  - {name: later, terminate: {}}
""",
        "mine",
    ),
]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("first", "it decides"),
        ("weak", "`all/first` wins: severity Medium comes before Low"),
        ("cheap", "`all/first` wins: terminate is stricter than reroute"),
        ("spared", "exempted by `default/mine/spare`"),
        ("spare", "it exempts the call from mine/spared"),
        ("seen", "not enforced: its mode is Monitor"),
        (
            "broken",
            "it could not be judged (no such key in a map): failurePolicy Fail makes it a refusal; `all/first` wins",
        ),
        ("later", "`all/first` wins: a ClusterLLMPolicy comes first"),
    ],
)
def test_why(desk: Desk, name: str, why: str) -> None:
    desk.write(line(), *WHY)
    assert rule(desk.document(), name)["why"].startswith(why)


def test_policies_that_do_not_apply_say_why(desk: Desk) -> None:
    desk.write(line(), *WHY)
    left_out = {one["policy"]: one for one in desk.document()["not_applied"]}
    assert left_out["default/o3"]["why"] == "`match.models` is o3*, the call's is `gpt-4o`"
    assert left_out["default/conditioned"]["why"] == "its match condition `sales` does not hold"
    assert values(left_out["default/conditioned"]) == {'caller.team == "sales"': False, "caller.team": ""}


def test_no_credential_is_shown(desk: Desk) -> None:
    reads = 'request.headers["authorization"] + request.headers["cookie"] + request.text'
    desk.write(
        line(f"my key is {SECRET}, his AKIAABCDEFGHIJKLMNOP", "yours: ", SECRET[:9], SECRET[9:]),
        policy(f"rules: [{{name: r, when: '({reads}).contains(\"{SECRET}\")', terminate: {{}}}}]"),
    )
    for form in ("text", "json"):
        for mode in ("Full", "Monitor"):
            code, out, _ = desk.explain(0, "--format", form, "--mode", mode)
            assert code == 0
            assert "my key is key-" in out
            assert SECRET not in out and COOKIE not in out and "AKIAABCDEFGHIJKLMNOP" not in out


def test_the_text_names_what_matters(desk: Desk) -> None:
    desk.write(line("\x1b[31mhi", "a", "bad"), BUDGET.replace("variables.many && ", ""))
    code, out, _ = desk.explain()
    assert code == 0
    assert "verdict: terminate by budget/word, enforced" in out
    assert "cut at event 1 of the answer, counted from 0" in out
    assert "default/budget/calls (Requests): 0 before, 1 after, limit 4" in out
    assert "\x1b" not in out


def test_the_place_of_a_call(tmp_path: Path) -> None:
    (tmp_path / "a#b").write_text("")
    assert place_of("calls.jsonl#12") == (Path("calls.jsonl"), 12)
    assert place_of("calls.jsonl") == (Path("calls.jsonl"), 0)
    assert place_of(str(tmp_path / "a#b")) == (tmp_path / "a#b", 0)


@pytest.mark.parametrize(
    ("recording", "number", "code", "words"),
    [
        ("", 0, 2, "is empty; expected exchange JSONL"),
        ("{]\n", 0, 2, "calls.jsonl:1:2: broken JSON"),
        (line() + "{}\n", 1, 2, "calls.jsonl:2: request: expected an object"),
        (line(), 7, 2, "has no call 7: it holds 1 call, counted from 0"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(
    desk: Desk, recording: str, number: int, code: int, words: str
) -> None:
    desk.write(recording, BUDGET)
    assert desk.explain(number)[:2] == (code, "")
    assert words in desk.explain(number)[2]


@settings(max_examples=25, deadline=None)
@given(conditions)
def test_the_value_of_the_whole_is_the_rules_outcome(tmp_path_factory: pytest.TempPathFactory, when: str) -> None:
    recording = tmp_path_factory.getbasetemp() / "random.jsonl"
    recording.write_text(line("a", "a", "b", "c", **{"x-tag-f": "a", "x-team-id": "ab"}))
    counters = "counters: [{name: spend, key: session.id, charge: Requests, window: {idle: 1h}, limit: 5 requests},"
    more = " {name: requests, key: session.id, charge: Requests, window: {idle: 1h}}]"
    paced = "constrain: {pace: {tokens_per_second: 9}}"
    text = policy(f"{counters}{more}\nrules: [{{name: r, when: {json.dumps(when)}, {paced}}}]")
    compiled = compile_documents([("p.yaml", text)])
    assert compiled.policy_set is not None, compiled.issues
    told = asyncio.run(judge(compiled.policy_set, load_prices(None), Options(observe_all=True), (recording, 0)))
    found = rule(told.document(), "r")
    whole = found["values"][0]
    assert {"matched": True, "not_matched": False}.get(found["outcome"]) == whole.get("value"), (when, found)
