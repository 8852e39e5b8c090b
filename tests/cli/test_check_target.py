"""`policyd check --target ai-gateway`: what will not do there what it says, with its place, in every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyd.cli.main import main

HEAD = "apiVersion: policyd.dev/v1alpha1\nkind: LLMPolicy\nmetadata: {name: p}\nspec:\n  mode: Full\n"
COVER = "  match: {operations: ['*']}\n"


def check(capsys: pytest.CaptureFixture[str], file: Path, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["check", str(file), *words])
    told = capsys.readouterr()
    return int(left.value.code or 0), told.out, told.err


def found(capsys: pytest.CaptureFixture[str], file: Path, *words: str) -> list[tuple[str, int, int]]:
    """Code, line and column of every issue."""
    code, out, _ = check(capsys, file, "--format", "json", *words)
    issues = json.loads(out)["issues"]
    assert (code, {issue["severity"] for issue in issues} - {"warning"}) == (0, set())
    return [(issue["code"], issue["line"], issue["column"]) for issue in issues]


def policy(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "p.yaml"
    file.write_text(HEAD + COVER + "".join(f"  {line}\n" for line in lines))
    return file


def rule(tmp_path: Path, *lines: str) -> Path:
    return policy(tmp_path, "rules:", "  - name: r", *(f"    {line}" for line in lines))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["constrain: {cap: {max_tokens: 5}}"], [("AIG001", 9, 7)]),
        (["constrain: {tools: {deny: [x]}}"], [("AIG001", 9, 7)]),
        (["constrain: {redact: {detectors: [email], in: [request]}}"], [("AIG001", 9, 7)]),
        (["constrain: {redact: {detectors: [email], in: [response]}}"], [("AIG004", 9, 7)]),
        (["constrain: {redact: {detectors: [email]}}"], [("AIG001", 9, 7), ("AIG004", 9, 7)]),
        (["constrain: {headers: {request: {set: {x-a: b}}}}"], []),
        (["reroute: {model: m}"], [("AIG002", 9, 7)]),
        (["reroute: {upstream: u}"], [("AIG003", 9, 7)]),
        (["reroute: {model: m, upstream: u}"], [("AIG002", 9, 7), ("AIG003", 9, 7)]),
        (['when: request.model == "m"', "terminate: {}"], []),
        (['when: response.text.contains("x")', "terminate: {}"], [("AIG004", 9, 13)]),
        (["when: response.status == 500", "terminate: {}"], []),
        (['when: response.inspection == "partial"', "terminate: {}"], []),
    ],
)
def test_what_a_rule_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], expected: list[tuple[str, int, int]]
) -> None:
    file = rule(tmp_path, *lines)
    assert found(capsys, file, "--target", "ai-gateway") == expected
    assert found(capsys, file) == found(capsys, file, "--target", "envoy") == []


@pytest.mark.parametrize(
    ("charge", "limit", "warned"),
    [("Cost", "5 USD", True), ("OutputTokens", "5000 tokens", True), ("Requests", "5 requests", False)],
)
def test_what_a_counter_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], charge: str, limit: str, warned: bool
) -> None:
    counter = (
        f"{{name: c, key: caller.key, onMissing: Refuse, charge: {charge}, window: {{sliding: 1h}}, limit: {limit}}}"
    )
    file = policy(tmp_path, "counters:", f"  - {counter}")
    assert found(capsys, file, "--target", "ai-gateway") == ([("AIG005", 8, 8)] if warned else [])


def test_every_format_tells_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = rule(tmp_path, "reroute: {model: m}")
    code, out, err = check(capsys, file, "--target", "ai-gateway")
    assert (code, err) == (0, "0 errors, 1 warning\n")
    assert f"{file}:9:7: warning AIG002: rule `r` sends calls to another model: behind Envoy AI Gateway" in out
    assert "put policyd's own Envoy in front" in out
    _, sarif, _ = check(capsys, file, "--target", "ai-gateway", "--format", "sarif")
    (result,) = json.loads(sarif)["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("AIG002", "warning")
    _, github, _ = check(capsys, file, "--target", "ai-gateway", "--format", "github")
    assert github.startswith("::warning ") and "AIG002" in github


def test_a_set_with_errors_is_corrected_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = rule(tmp_path, "reroute: {model: m, nonsense: 1}")
    code, out, _ = check(capsys, file, "--target", "ai-gateway")
    assert (code, "AIG" in out) == (1, False)


def test_another_target_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys, rule(tmp_path, "terminate: {}"), "--target", "kong")[0] == 2
