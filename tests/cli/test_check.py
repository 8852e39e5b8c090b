"""`policyd check`: exit codes, and the four ways to print issues."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from policyd.cli.main import main

CASES = Path(__file__).parents[1] / "cases" / "check"
TEN = CASES / "ten-mistakes" / "policy.yaml"


def check(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["check", *map(str, args)])
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def issues_of(out: str) -> list[dict[str, Any]]:
    document = json.loads(out)
    assert list(document) == ["issues"]
    issues: list[dict[str, Any]] = document["issues"]
    return issues


# ---- must hold: ten mistakes, ten issues ----------------------------------------------------------------------------


def test_ten_mistakes_are_reported_at_once_each_with_its_place_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = check(capsys, TEN, "--format", "json")
    issues = issues_of(out)

    # The file numbers its mistakes in comments; the last one stands three lines below its number.
    marked = [at for at, line in enumerate(TEN.read_text().splitlines(), 1) if re.search(r"# \d+ ", line)]
    assert len(marked) == 10
    assert [issue["line"] for issue in issues] == [*marked[:-1], marked[-1] + 3]
    assert all(issue["severity"] == "error" and issue["hint"] and issue["column"] > 1 for issue in issues)
    assert all(issue["file"] == str(TEN) for issue in issues)
    assert len({(issue["line"], issue["message"]) for issue in issues}) == 10
    assert (code, err) == (1, "")


def test_the_fields_of_an_issue_are_the_contracts(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = check(capsys, TEN, "--format", "json")
    fields = ["file", "line", "column", "code", "severity", "message", "hint"]
    assert all(list(issue) == fields for issue in issues_of(out))


def test_as_a_program_of_its_own() -> None:
    command = [sys.executable, "-m", "policyd.cli.main", "check", str(TEN), "--format", "json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert len(issues_of(ran.stdout)) == 10
    assert ran.stderr == ""


# ---- exit codes -----------------------------------------------------------------------------------------------------

GOOD = """\
apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {name: good}
spec:
  mode: Full
  match: {operations: ["*"]}
  rules: [{name: no, when: request.model == "x", terminate: {}}]
"""


def test_a_folder_without_policies_is_an_error_that_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.yaml").write_text(GOOD)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.test.yaml").write_text("cases: []\n")
    code, out, _ = check(capsys, tmp_path / "good", empty, "--format", "json")
    assert code == 1
    assert [(one["file"], one["code"]) for one in issues_of(out)] == [(str(empty), "POL125")]


DOUBTED = GOOD.replace('["*"]', "[chat]")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 0, ["POL102"]),
        (("--strict",), 1, ["POL102"]),
        (("--strict", "--ignore", "POL102"), 0, []),
        (("--ignore", "POL101"), 0, ["POL102"]),
    ],
)
def test_strict_counts_warnings_and_ignore_leaves_some_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], code: int, said: list[str]
) -> None:
    (tmp_path / "a.yaml").write_text(DOUBTED)
    ended, out, _ = check(capsys, tmp_path, "--format", "json", *options)
    assert (ended, [one["code"] for one in issues_of(out)]) == (code, said)


def test_an_error_cannot_be_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace("terminate: {}", "deny: {}"))
    code, out, _ = check(capsys, tmp_path, "--format", "json", "--ignore", "POL002")
    assert (code, "POL002" in out) == (1, True)


def test_a_redaction_of_responses_is_told_to_read_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    redact = "constrain: {redact: {detectors: [email], in: [response]}}"
    (tmp_path / "a.yaml").write_text(GOOD.replace("terminate: {}", redact))
    _, out, _ = check(capsys, tmp_path, "--explain")
    assert "response body FULL_DUPLEX_STREAMED" in out


def test_a_good_policy_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    assert check(capsys, tmp_path) == (0, "", "no issues\n")


def test_warnings_alone_are_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace("mode: Full", "mode: Monitor"))
    code, out, err = check(capsys, tmp_path / "a.yaml")
    assert code == 0
    assert "a.yaml:5:9: warning POL101: policy `good` enforces nothing" in out
    assert err == "0 errors, 1 warning\n"


def test_a_missing_file_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = check(capsys, TEN, tmp_path / "nothing.yaml", "--format", "json")
    assert (code, out) == (2, "")
    assert err == f"policyd: {tmp_path / 'nothing.yaml'}: no such file or folder\n"


def test_what_is_no_text_is_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_bytes(b"kind: \xff\n")
    code, out, err = check(capsys, tmp_path)
    assert (code, out) == (2, "")
    assert "a.yaml:1:7: not UTF-8" in err


def test_an_unknown_format_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys, TEN, "--format", "xml")[0] == 2


@pytest.mark.parametrize("text", ["", "# nothing but words\n", "---\n---\n"])
def test_an_empty_file_holds_no_policy(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(text)
    code, out, _ = check(capsys, tmp_path, "--format", "json")
    assert code == 1
    assert [(issue["code"], issue["line"], issue["column"]) for issue in issues_of(out)] == [("YAML006", 1, 1)]


def test_folders_are_read_whole_and_cases_are_no_policies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "a.test.yaml").write_text("cases: []\n")
    (tmp_path / "sub" / "b.yml").write_text(GOOD)
    code, out, _ = check(capsys, tmp_path, "--format", "json")
    assert code == 1
    (twice,) = issues_of(out)
    assert twice["code"] == "POL007"
    assert twice["file"] == str(tmp_path / "sub" / "b.yml")
    assert f"{tmp_path / 'a.yaml'}:3:18" in twice["hint"]


# ---- formats --------------------------------------------------------------------------------------------------------


def test_the_caret_stands_under_the_character(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace("request.model", "request.modle"))
    _, out, _ = check(capsys, tmp_path)
    head, excerpt, caret, hint = out.splitlines()
    assert head.endswith("a.yaml:7:28: error CEL002: unknown variable `request.modle`")
    assert excerpt[caret.index("^") :].startswith("request.modle")
    assert hint == "   = did you mean `request.model`?"


def test_a_long_line_is_shown_around_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    padding = " && ".join(['request.model != "x"'] * 60)
    (tmp_path / "a.yaml").write_text(GOOD.replace('request.model == "x"', f"'{padding} && request.modle == \"y\"'"))
    _, out, _ = check(capsys, tmp_path)
    _, excerpt, caret, _ = out.splitlines()
    assert len(excerpt) < 200
    assert excerpt[caret.index("^") :].startswith("request.modle")


def test_nothing_an_author_wrote_reaches_the_terminal_as_a_control_character(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(
        GOOD.replace("terminate: {}", 'terminate: {reason: "\\e[31m\\n::error::"}  # \x85')
    )
    for form in ("text", "github"):
        code, out, _ = check(capsys, tmp_path, "--format", form)
        assert code == 1
        assert "\x1b" not in out and "\x85" not in out
        assert not [line for line in out.splitlines() if line.startswith("::error::")]


def test_github_annotations(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = check(capsys, TEN, "--format", "github")
    lines = out.splitlines()
    assert code == 1
    assert len(lines) == 10
    assert lines[0].startswith(f"::error file={TEN},line=6,col=9,title=POL005::`full` is not a value of `mode`")


def test_github_escapes_what_it_would_read_as_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a,b:c%"
    folder.mkdir()
    (folder / "a.yaml").write_text(GOOD.replace("mode: Full", "mode: 100%"))
    _, out, _ = check(capsys, folder, "--format", "github")
    assert "a%2Cb%3Ac%25" in out
    assert "`100%25`" in out


def test_sarif(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = check(capsys, TEN, "--format", "sarif")
    log = json.loads(out)
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert code == 1
    assert log["version"] == "2.1.0"
    assert len(run["results"]) == 10
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning")
        place = result["locations"][0]["physicalLocation"]
        assert place["region"]["startLine"] >= 1 and place["region"]["startColumn"] >= 1
        assert place["artifactLocation"]["uri"].startswith("file:///")


def test_machine_formats_are_one_document_even_without_issues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    assert json.loads(check(capsys, tmp_path, "--format", "json")[1]) == {"issues": []}
    assert json.loads(check(capsys, tmp_path, "--format", "sarif")[1])["runs"][0]["results"] == []
    assert check(capsys, tmp_path, "--format", "github")[1] == ""
