"""docs/tutorial.md is done as it says, in an empty folder: its files written, its commands run, its output compared.

Rule 1: in what is shown, a line of `…` alone stands for any lines, `…` within a line for any words.
Rule 2: a command succeeds, unless the next one asks for its exit code.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from policyd.cli.main import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
BLOCK = re.compile(r"(?:`(?P<file>[\w./]+)`[^\n`]*:\n\n)?^```(?P<language>\w+)\n(?P<body>.*?)^```", re.M | re.S)
COMMANDS = ("check", "test", "cost", "replay", "explain", "promote", "diff", "envoy")


def shell(line: str, folder: Path, code: int) -> tuple[int, str]:
    """Runs one line as a person at a terminal would see it; `code` is that of the line before."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    command = ["bash", "-c", f"(exit {code}); {line}"]
    merged = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    ran = subprocess.run(command, cwd=folder, env=environment, text=True, check=False, **merged)  # type: ignore[call-overload]
    return ran.returncode, ran.stdout


def here(line: str) -> tuple[int, str]:
    """A plain command of policyd, in this process: starting one takes longer than what it does."""
    seen = io.StringIO()
    with contextlib.redirect_stdout(seen), contextlib.redirect_stderr(seen), pytest.raises(SystemExit) as left:
        main(shlex.split(line)[1:])
    return int(left.value.code or 0), seen.getvalue()


def steps(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and what is shown below it."""
    for one in block.removeprefix("$ ").split("\n$ "):
        line, _, shown = one.rstrip("\n").partition("\n")
        yield line, shown


def pattern(shown: str) -> str:
    lines = ("(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in plain(shown))
    return "".join(lines)


def plain(text: str) -> list[str]:
    """Lines as people see them."""
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def do(block: str, folder: Path) -> None:
    todo = list(steps(block))
    code = 0
    for number, (line, shown) in enumerate(todo):
        plain_one = line.startswith("policyd ") and ">" not in line
        code, came = here(line) if plain_one else shell(line, folder, code)
        asked = number + 1 < len(todo) and todo[number + 1][0] == "echo $?"
        assert code == 0 or asked, (line, came)
        seen = "".join(f"{one}\n" for one in plain(came))
        assert re.fullmatch(pattern(shown), seen), f"{line}\n--- shown\n{shown}\n--- came\n{came}"


def test_the_tutorial_is_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in BLOCK.finditer(PAGE):
        if block["language"] == "console":
            do(block["body"], tmp_path)
            continue
        file = tmp_path / block["file"]
        file.parent.mkdir(exist_ok=True)
        file.write_text(block["body"])


def test_the_tutorial_leaves_nothing_out() -> None:
    shown = [
        line for block in BLOCK.finditer(PAGE) if block["language"] == "console" for line, _ in steps(block["body"])
    ]
    assert {line.split()[1] for line in shown if line.startswith("policyd ")} == set(COMMANDS)
    assert PAGE.count("\n```") == 2 * len(list(BLOCK.finditer(PAGE)))
    assert "rollout:" in PAGE


@pytest.mark.parametrize(("shown", "came"), [("a\nb", "a\n"), ("a …", "b c\n"), ("…\nb", "a\nc\n"), ("a", "a\nb\n")])
def test_another_output_is_seen(shown: str, came: str) -> None:
    assert not re.fullmatch(pattern(shown), came)
