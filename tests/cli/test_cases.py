"""Cases of policies: what they can tell, what they find, and how a mistake in them is met."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from policyd.cli import main as root

ROOT = Path(__file__).parents[2]

POLICY = """
apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {name: p, namespace: agents}
spec:
  params: {dear: [gpt-4o]}
  counters:
    - {name: spend, key: session.id, charge: Cost, window: {lifetime: 24h}, limit: 1.00 USD}
    - {name: calls, key: [caller.team, caller.user], charge: Requests, window: {sliding: 1m}, limit: 2 requests}
    - {name: seen, key: request.model, charge: {expression: response.output_tokens * 2}, window: {calendar: Day}}
  rules:
    - {name: spent, severity: Critical, when: counters.spend.exceeded, terminate: {status: 429, reason: broke}}
    - name: cheaper
      when: request.model in params.dear
      reroute: {model: gpt-4o-mini, headers: {set: {x-why: dear}}}
    - {name: bad-word, when: 'response.text.contains("FORBIDDEN")', terminate: {fallback: "[cut]"}}
    - {name: late, when: response.elapsed_ms > 5000, terminate: {fallback: "[late]"}}
    - {name: cap, constrain: {cap: {max_tokens: 100}}}
"""

HEAD = """apiVersion: policyd.dev/v1alpha1
kind: PolicyTest
prices: {"gpt-4o*": {input: 0, output: 1000}}
request: {model: gpt-4o-mini, session: s, caller: {team: t, user: u}}
cases:
"""


def play(tmp_path: Path, cases: str, *options: str, policy: str = POLICY, head: str = HEAD) -> list[str]:
    """The files of one folder; gives the arguments of `policyd test`."""
    (tmp_path / "p.yaml").write_text(policy)
    (tmp_path / "p.test.yaml").write_text(head + cases)
    return ["test", str(tmp_path), *options]


def leave(args: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        root.main(args)
    assert isinstance(left.value.code, int)
    return left.value.code


def failures(tmp_path: Path, cases: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    leave(play(tmp_path, cases, "--format", "json"))
    return [one for case in json.loads(capsys.readouterr().out)["cases"] for one in case["failures"]]


GOOD = """
  - name: each expectation holds
    calls:
      - request: {prompt: hi, max_tokens: 500}
        response: {text: hello, usage: {output_tokens: 100}}
        expect:
          verdict: constrain
          enforced: true
          rules: [cap]
          by: p/cap
          reason: ""
          status: 200
          ended: complete
          event: null
          degraded: false
          model: gpt-4o-mini
          cost: 0.10 USD
          text: hello
          output: {contains: '"content": "hello"', lacks: [goodbye]}
          headers: {retry-after: null}
          sent: {model: gpt-4o-mini, body: {max_tokens: 100, messages.0.content: hi, n: null}, headers: {x-why: null}}
          counters: {spend: 0.10 USD, calls: 1 requests, seen: {value: "200", exceeded: false, available: true}}
      - expect: {verdict: constrain, counters: {calls: {value: 2 requests, exceeded: false}}}
      - expect:
          {verdict: terminate, by: calls.exceeded, status: 429, counters: {calls: {value: 2 requests, exceeded: true}}}
      - after: 2m
        expect: {verdict: constrain, counters: {calls: 1 requests}}
"""

MORE = """
  - name: a dear model is rerouted
    calls:
      - request: {model: gpt-4o}
        expect: {verdict: reroute, model: gpt-4o-mini, sent: {model: gpt-4o-mini, headers: {x-why: dear}}}
  - name: a stream is cut at its event, in either dialect
    calls:
      - request: {stream: true}
        response: {text: [well, " FORBID", DEN, " more"]}
        expect:
          {verdict: terminate, rules: {bad-word: matched}, event: 2, text: {contains: "[cut]", lacks: [DEN, more]}}
      - request: {stream: true, dialect: anthropic.messages, model: gpt-4o-x}
        response: {text: [well, " FORBID", DEN, " more"]}
        expect: {verdict: terminate, event: 4, text: {contains: "[cut]", lacks: [DEN, more]}}
  - name: silence is ended
    calls:
      - request: {stream: true}
        response: {text: [a, {text: b, after: 1s}], silence: 10s}
        expect: {verdict: terminate, by: late, event: 2, ended: cut, text: "ab\\n\\n[late]"}
  - name: what was spent before counts, until it is a day old
    counters:
      - {name: spend, key: s, value: 1.00 USD, age: 23h}
      - {name: calls, key: [t, u], value: 1 requests}
    calls:
      - expect: {verdict: terminate, rules: [cap, spent], reason: broke, sent: null}
      - after: 1h
        expect: {verdict: constrain}
  - name: a store that is down fails closed
    calls:
      - store: down
        expect: {verdict: terminate, status: 503, reason: policy_error, rules: {spent: errored}}
      - expect: {verdict: constrain, degraded: false}
  - name: bytes go as they are
    calls:
      - request: {path: /v1/chat/completions, body: {model: gpt-4o-mini, messages: [], stream: true}}
        response:
          headers: {content-type: text/event-stream}
          chunks:
            - {ms: 10, data: "data: {\\"choices\\":[{\\"index\\":0,\\"delta\\":{\\"content\\":\\"hel"}
            - {ms: 20, data: "lo\\"}}]}\\n\\ndata: [DONE]\\n\\n"}
        expect: {text: hello, output: {contains: "[DONE]"}}
  - name: tools are called, and a model is asked often
    calls:
      - times: 2
        response: {tool_calls: [{name: f, arguments: {a: 1}}], usage: {input_tokens: 7}}
        expect: {verdict: constrain, output: {contains: '"name": "f"'}}
  - name: in Monitor nothing is done
    mode: Monitor
    calls:
      - request: {model: gpt-4o}
        expect: {verdict: reroute, enforced: false, model: gpt-4o}
"""


def test_everything_that_can_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(play(tmp_path, GOOD + MORE)) == 0, capsys.readouterr().out

    told = capsys.readouterr()
    assert told.out.count("  ok  ") == 9
    assert "9 cases, 16 calls: 9 passed, 0 failed" in told.err


WRONG = {
    "verdict: constrain\n": "verdict: allow\n",
    "enforced: true": "enforced: false",
    "rules: [cap]": "rules: [cap, spent]",
    "by: p/cap": "by: spent",
    'reason: ""': "reason: why",
    "status: 200": "status: 201",
    "ended: complete": "ended: cut",
    "event: null": "event: 0",
    "degraded: false": "degraded: true",
    "model: gpt-4o-mini\n": "model: gpt-4o\n",
    "cost: 0.10 USD": "cost: 0.11 USD",
    "text: hello\n          output": "text: hullo\n          output",
    '"content": "hello"': '"content": "hullo"',
    "lacks: [goodbye]": "lacks: [hello]",
    "retry-after: null": "retry-after: '1'",
    "sent: {model: gpt-4o-mini": "sent: {model: gpt-4o",
    "max_tokens: 100, ": "max_tokens: 101, ",
    "messages.0.content: hi": "messages.0.content: ho",
    "n: null": "n: 1",
    "x-why: null": "x-why: dear",
    "spend: 0.10 USD": "spend: 0.11 USD",
    "calls: 1 requests, seen": "calls: 2 requests, seen",
    'value: "200"': 'value: "201"',
    "exceeded: false, available": "exceeded: true, available",
    "available: true": "available: false",
}


@pytest.mark.parametrize("right", WRONG)
def test_every_expectation_can_fail(tmp_path: Path, right: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert GOOD.count(right) >= 1
    wrong = GOOD.replace(right, WRONG[right], 1)

    found = failures(tmp_path, wrong, capsys)

    assert len(found) == 1, found
    assert found[0]["expected"] != found[0]["came"]
    place = (HEAD + wrong).splitlines()[found[0]["line"] - 1][found[0]["column"] - 1 :]
    assert (
        place.startswith(found[0]["field"].split(".")[-1]) or "output" in found[0]["field"] or "." in found[0]["field"]
    )


def test_counters_begin_where_their_scope_and_mode_have_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = POLICY.replace("limit: 1.00 USD}", "limit: 1.00 USD, scope: Global}")
    cases = """
  - name: across tenants
    counters: [{name: spend, key: s, value: 1 USD}]
    request: {caller: {tenant: acme}}
    calls:
      - expect: {verdict: terminate, by: spent}
  - name: within one
    counters: [{name: p/calls, policy: agents/p, key: [t, u], value: 2 requests, tenant: acme}]
    calls:
      - expect: {verdict: constrain}
      - request: {caller: {tenant: acme}}
        expect: {verdict: terminate, by: calls.exceeded}
  - name: in a Monitor's own life
    mode: Monitor
    counters: [{name: spend, key: s, value: 0.50 USD}, {name: seen, key: gpt-4o-mini, value: "7"}]
    calls:
      - response: {usage: {output_tokens: 100}}
        expect: {enforced: false, counters: {spend: 0.60 USD, seen: "207"}}
"""

    assert leave(play(tmp_path, cases, policy=policy)) == 0, capsys.readouterr().out


def test_a_failure_shows_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = GOOD.replace("text: hello\n          output", "text: hell is other people\n          output")
    assert leave(play(tmp_path, wrong)) == 1

    out = capsys.readouterr().out
    assert "FAIL  each expectation holds" in out
    assert '- "hell is other people"\n          + hello\n' in out
    assert "call 1: text" in out
    assert re.search(r"p\.test\.yaml:\d+:\d+: call 1", out)


MISTAKES = {
    "an unknown field": (
        "expect: {verdikt: allow}",
        "unknown field `verdikt`\n   |       - expect: {verdikt: allow}\n   |                  ^\n   = did you",
    ),
    "an unknown rule": ("expect: {rules: [spend]}", "no rule is called `spend`"),
    "a rule by another name": ("expect: {rules: {spnt: matched}}", "did you mean `spent`?"),
    "an outcome that is none": ("expect: {rules: {spent: yes}}", "`yes` is not a value of `spent`"),
    "an unknown counter": ("expect: {counters: {spent: 1 USD}}", "did you mean `spend`?"),
    "a wrong unit": ("expect: {counters: {spend: 1 requests}}", "`requests` does not measure"),
    "a time that is none": ("at: yesterday", "`yesterday` is not a time"),
    "a time without its offset": ("at: '2026-01-05T09:00:00'", "no offset from UTC"),
    "a pause that is none": ("after: soon", "`soon` is not a duration"),
    "two times at once": ("{at: '2026-01-05T09:00:00Z', after: 1s}", "`at` stands alone"),
    "two bodies": ("request: {body: {}, prompt: hi}", "`prompt` beside `body` says nothing"),
    "a wrong type": ("request: {stream: 'yes'}", "`stream` must be true or false, this is text"),
    "a list for a mapping": ("request: [a]", "`request` must be a mapping, this is a list"),
    "a number out of range": ("response: {status: 999}", "`999` is out of range"),
    "time that goes back": ("response: {chunks: [{ms: 9, data: a}, {ms: 1, data: b}]}", "goes back in time"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_at_its_place(tmp_path: Path, mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    call, said = MISTAKES[mistake]
    cases = "  - name: x\n    calls:\n      - " + call + "\n"
    assert leave(play(tmp_path, cases)) == 2

    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert re.search(r"p\.test\.yaml:8:\d+: error (TEST|YAML)\d+", told.err)
    assert "1 error, 0 warnings" in told.err


BROKEN = {
    "empty": ("", "the file is empty"),
    "not a mapping": ("- a\n", "test cases are a mapping"),
    "another kind": ("kind: LLMPolicy\n", "a test file is of kind `PolicyTest`"),
    "not YAML": ("a: [\n", "not valid YAML"),
    "no cases": (HEAD.removesuffix("cases:\n"), "`cases` is missing"),
    "a case twice": (HEAD + 2 * "  - {name: x, calls: [{}]}\n", "`x` is twice"),
    "policies that are not there": (
        HEAD.replace("cases:", "policies: [q.yaml]\ncases:") + "  - {name: x, calls: [{}]}",
        "no such file or folder\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, said = BROKEN[name]

    assert leave(play(tmp_path, "", head=text)) == 2

    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


def test_what_is_not_there_or_does_not_compile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(["test", str(tmp_path)]) == 2
    assert "no test file there" in capsys.readouterr().err
    assert leave(["test", str(tmp_path / "gone")]) == 2
    args = play(tmp_path, "  - {name: x, calls: [{}]}\n", policy=POLICY.replace("counters.spend", "counters.spent"))
    assert leave(args) == 1
    assert re.search(r"p\.yaml:\d+:\d+: error CEL", capsys.readouterr().err)
    (tmp_path / "p.test.yaml").write_bytes(b"\xff")
    assert leave(["test", str(tmp_path)]) == 2
    assert leave([*play(tmp_path, GOOD), "-k", "no such case"]) == 2


def test_coverage_is_of_both_sides_of_every_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(play(tmp_path, GOOD, "--min-coverage", "100")) == 1
    told = capsys.readouterr()
    assert "agents/p/spent: never matched" in told.out
    assert "agents/p/cheaper: never matched" in told.out
    assert "p/cap" not in told.out
    assert "p/calls.exceeded" not in told.out
    assert "rules covered: 64 %, less than the 100 % asked for" in told.err
    assert leave(play(tmp_path, GOOD + MORE, "--min-coverage", "100")) == 0
    (tmp_path / "other.yaml").write_text(POLICY.replace("name: p,", "name: other,"))
    assert leave(["test", str(tmp_path), "--min-coverage", "100"]) == 1
    assert "agents/other/spent: never matched" in capsys.readouterr().out


def test_machines_get_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = GOOD.replace("ended: complete", "ended: cut").replace("each expectation holds", "<&\x1b]]>\"'")
    cases = cases.replace("<&\x1b]]>\"'", '"<&\\e]]>\'"')
    assert leave(play(tmp_path, cases + MORE, "--format", "junit", "--min-coverage", "50")) == 1
    suites = ElementTree.fromstring(capsys.readouterr().out.split("\n", 1)[1])
    assert (suites.get("tests"), suites.get("failures")) == ("10", "1")
    assert [case.get("name") for case in suites.iter("testcase") if case.find("failure") is not None] == ["<&\\x1b]]>'"]

    assert leave(play(tmp_path, cases + MORE, "--format", "json")) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["summary"] == {"cases": 9, "passed": 8, "failed": 1}
    assert told["coverage"]["percent"] == 100.0
    assert told["cases"][0]["failures"][0] | {"line": 0, "column": 0, "file": ""} == {
        "file": "", "line": 0, "column": 0, "call": 1, "field": "ended", "expected": "cut", "came": "complete",
    }  # fmt: skip


def test_the_page_about_it_is_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, cases = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/testing.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "budget.yaml").write_text(policy)
    (tmp_path / "budget.test.yaml").write_text(cases)

    assert leave(["test", str(tmp_path), "--min-coverage", "100"]) == 0, capsys.readouterr().out


HEADERS = """
  - name: headers are those that left
    calls:
      - request: {headers: {X-Keep: a, x-drop: b}}
        response: {headers: {Server: s, x-via: v}}
        expect:
          headers: {server: null, x-via: v, x-new: "1"}
          sent: {headers: {x-keep: a, x-drop: null, x-set: "2"}}
"""
EDITS = """rules:
    - name: edit
      constrain: {headers: {request: {set: {x-set: "2"}, remove: [x-drop]},
        response: {set: {x-new: "1"}, remove: [server]}}}
"""


def test_headers_are_those_that_left_so_that_what_was_not_removed_is_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = POLICY[: POLICY.index("rules:")] + EDITS
    assert leave(play(tmp_path, HEADERS, policy=policy)) == 0, capsys.readouterr().out
    capsys.readouterr()
    kept = re.sub(r", remove: \[[-a-z]+\]", "", policy)
    assert leave(play(tmp_path, HEADERS, "--format", "json", policy=kept)) == 1
    found = [one for case in json.loads(capsys.readouterr().out)["cases"] for one in case["failures"]]
    assert [(one["field"], one["came"]) for one in found] == [("headers.server", "s"), ("sent.headers.x-drop", "b")]
