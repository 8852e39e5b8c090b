"""From Monitor to enforcement: the evidence, the gates, and the one word that changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from policyd.adapters.records import encode
from policyd.cli import main as root
from tests.driving import Bed, answer_of, chat

WATCHED = """\
apiVersion: policyd.dev/v1alpha1   # kept
kind: LLMPolicy
metadata: {name: watched, namespace: agents}
spec:
  description: "mode: is not what this says"
  mode: "Monitor"  # for now
  rules:
    - {name: big, when: request.model == "big", terminate: {}}
---
apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {name: other, namespace: agents}
spec:
  mode: Full
  rules: [{name: never, when: request.model == "never", terminate: {}}]
"""


@dataclass
class Said:
    """What a run gave."""

    code: int
    out: str
    err: str


@dataclass
class Case:
    """A folder of policies, and one of records."""

    folder: Path
    run: Callable[..., Said]

    @property
    def file(self) -> Path:
        return self.folder / "policies" / "p.yaml"

    def put(self, text: str = WATCHED) -> None:
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(text, encoding="utf-8")

    def saw(self, models: list[str], name: str = "records-1.jsonl", *, torn: bool = False) -> list[str]:
        """Records of calls for these models; their ids."""
        bed = Bed(self.file.read_text(encoding="utf-8"))
        lines = [encode(bed.call(body=chat(model=one), chunks=[answer_of("x")]).record) for one in models]
        folder = self.folder / "records"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\n".join([*lines, b'{"kind":"dec' if torn else b""]))
        return [json.loads(line)["id"] for line in lines]

    def promote(self, *options: str, policy: str = "watched") -> Said:
        where = ["--policies", str(self.file.parent), "--records", str(self.folder / "records")]
        return self.run("promote", policy, *where, *options)


@pytest.fixture
def case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Case:
    def run(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as left:
            root.main(list(arguments))
        captured = capsys.readouterr()
        return Said(int(left.value.code or 0), captured.out, captured.err)

    made = Case(tmp_path, run)
    made.put()
    return made


def test_a_gate_that_is_met_changes_one_word(case: Case) -> None:
    case.saw(["small"] * 99 + ["big"])
    said = case.promote("--min-calls", "100", "--max-would-stop", "1%", "--write")
    assert said.code == 0, said
    assert "100 calls seen in Monitor, 1 would have been stopped" in said.out
    assert case.file.read_text() == WATCHED.replace('mode: "Monitor"', "mode: Full")


def test_without_write_nothing_changes(case: Case) -> None:
    case.saw(["small"])
    assert case.promote("--min-calls", "1").code == 0
    assert case.file.read_text() == WATCHED


@pytest.mark.parametrize(
    ("models", "options", "finding"),
    [
        (["small"], [], "1 calls seen, 1000 are wanted"),
        (["big", "small"], ["--min-calls", "2", "--max-would-stop", "0"], "1 of 2 calls would have been stopped"),
        (["big"] * 3, ["--min-calls", "1", "--max-would-stop", "99.9%"], "3 of 3 calls would have been stopped"),
    ],
)
def test_a_gate_that_is_not_met_says_so_and_changes_nothing(
    case: Case, models: list[str], options: list[str], finding: str
) -> None:
    case.saw(models)
    said = case.promote(*options, "--write")
    assert said.code == root.FINDINGS
    assert f"not met: {finding}" in said.out
    assert case.file.read_text() == WATCHED


def test_a_disputed_stop_is_one_too_many(case: Case, tmp_path: Path) -> None:
    ids = case.saw(["small", "big", "big"])
    wrong = tmp_path / "wrong.txt"
    wrong.write_text(f"{ids[1]}\nanother-id\n")
    said = case.promote("--min-calls", "1", "--disputed", str(wrong))
    assert (said.code, "1 of 2 stops are disputed" in said.out) == (root.FINDINGS, True)
    assert case.promote("--min-calls", "1", "--disputed", str(wrong), "--max-disputed", "50%").code == 0


def test_what_was_edited_since_has_no_past(case: Case) -> None:
    case.saw(["small"] * 5)
    case.put(WATCHED.replace('"big"', '"bigger"'))
    said = case.promote("--min-calls", "5")
    assert said.code == root.FINDINGS
    assert "5 calls were judged by other policy sets" in said.out
    assert case.promote("--min-calls", "5", "--any-set").code == 0


def test_a_line_that_is_still_being_written_is_passed_over(case: Case) -> None:
    case.saw(["small"] * 5, torn=True)
    assert case.promote("--min-calls", "5").code == 0


def test_json(case: Case) -> None:
    ids = case.saw(["small", "big"])
    said = json.loads(case.promote("--min-calls", "1", "--format", "json").out)
    assert said["met"] is True
    assert (said["calls"], said["would_stop"], said["stopped"]) == (2, 1, {"big": [ids[1]]})


MODES = {
    "absent": ("spec:\n  rules", "spec:\n  mode: Full\n  rules"),
    "quoted": ("spec:\n  mode: 'Monitor'\n  rules", "spec:\n  mode: Full\n  rules"),
    "flow": ("spec: {mode: Monitor, rules", "spec: {mode: Full, rules"),
}


@pytest.mark.parametrize("name", MODES)
def test_the_mode_is_changed_however_it_is_written(case: Case, name: str) -> None:
    before, after = MODES[name]
    end = "}" if "{" in before else ""
    head = "apiVersion: policyd.dev/v1alpha1\nkind: LLMPolicy\nmetadata: {name: watched}\n"
    rest = f': [{{name: r, when: request.model == "big", terminate: {{}}}}]{end}\n'
    case.put(head + before + rest)
    case.saw(["small"])
    assert case.promote("--min-calls", "1", "--write").code == 0
    assert case.file.read_text() == head + after + rest


def test_where_it_cannot_be_changed_the_file_stays(case: Case) -> None:
    text = (
        "apiVersion: policyd.dev/v1alpha1\nkind: LLMPolicy\nmetadata: {name: watched}\n"
        'spec: {rules: [{name: r, when: request.model == "big", terminate: {}}]}\n'
    )
    case.put(text)
    case.saw(["small"])
    said = case.promote("--min-calls", "1", "--write")
    assert (said.code, "set `mode: Full`" in said.err) == (root.USAGE, True)
    assert case.file.read_text() == text


@pytest.mark.parametrize(
    ("policy", "said"),
    [("nobody", "there is no policy nobody"), ("other", "is in Full already"), ("agents/watched", "")],
)
def test_which_policy(case: Case, policy: str, said: str) -> None:
    case.saw(["small"])
    found = case.promote("--min-calls", "1", policy=policy)
    assert (found.code, said in found.err) == (root.USAGE if said else 0, True)


@pytest.mark.parametrize("line", [b"{}\n", b"not json\n", b'{"kind":"decision"}\n', b"[1]\n"])
def test_a_line_that_is_no_record_is_told_with_its_place(case: Case, line: bytes) -> None:
    case.saw(["small"])
    (case.folder / "records" / "z.jsonl").write_bytes(b'{"kind":"dropped","lines":3}\n' + line)
    said = case.promote("--min-calls", "1")
    assert said.code == root.USAGE
    assert "z.jsonl:2" in said.err


def test_no_records(case: Case) -> None:
    assert case.promote().code == root.USAGE
    (case.folder / "records").mkdir()
    assert case.promote().code == root.USAGE
