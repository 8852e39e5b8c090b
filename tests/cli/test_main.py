"""The command line's root: quick, and clear about mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from policyd.adapters.errors import NotAvailable, UnreadableInput
from policyd.cli import main as root
from policyd.core.errors import Issue, PolicyError, Severity, Span
from tests.driving import policy

ISSUE = Issue(Span("p.yaml", 3, 7), "POL001", Severity.ERROR, "unknown variable `requst`", "did you mean `request`?")


def policyd(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "policyd", *args], capture_output=True, text=True, check=False)


def run(monkeypatch: pytest.MonkeyPatch, command: Callable[[], None]) -> object:
    """The exit code of a root whose `check` is this command."""
    app = typer.Typer()
    app.command("check")(command)
    monkeypatch.setattr(root, "load", lambda _: typer.main.get_command(app))
    with pytest.raises(SystemExit) as left:
        root.main(["check"])
    return left.value.code


def test_help_names_every_command_and_imports_none() -> None:
    script = (
        "import sys\nfrom policyd.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = ('grpc', 'cel_expr_python', 'yaml', 'prometheus_client', 'uvloop', 'asyncio')\n"
        "print('loaded:', [name for name in heavy if name in sys.modules])\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(name in told for name in root.COMMANDS)
    assert "loaded: []" in told


def test_no_command_shows_the_help_and_is_wrong_usage() -> None:
    assert policyd().returncode == root.USAGE


def test_a_misspelt_command_is_wrong_usage_with_a_suggestion() -> None:
    told = policyd("chekc")
    assert told.returncode == root.USAGE
    assert "Did you mean 'check'?" in told.stderr
    assert "Traceback" not in told.stderr


def test_the_version_is_printed() -> None:
    told = policyd("--version")
    assert (told.returncode, told.stdout.split()[0]) == (0, "policyd")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PolicyError((ISSUE, ISSUE)), root.FINDINGS, f"{ISSUE}\n{ISSUE}\n"),
        (UnreadableInput("x.yaml", "no such file or folder"), root.USAGE, "policyd: x.yaml: no such file or folder\n"),
        (NotAvailable("no Envoy on this machine"), root.UNAVAILABLE, "policyd: no Envoy on this machine\n"),
    ],
)
def test_mistakes_are_words_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int, words: str
) -> None:
    def fails() -> None:
        raise error

    assert run(monkeypatch, fails) == code
    assert capsys.readouterr() == ("", words)


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_commands_own_exit_code_stands(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def leaves() -> None:
        raise typer.Exit(code)

    assert run(monkeypatch, leaves) == code


# ---- stdout, and who reads it ---------------------------------------------------------------------------------------


def piped(line: str) -> tuple[int, str]:
    """The first command's exit code, and stderr."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"]
    ran = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("command", ["schema policy", "--help"])
def test_a_reader_that_leaves_is_no_finding(command: str) -> None:
    """The first writes by itself, the second by rich."""
    assert piped(f"policyd {command} | sleep 0") == (root.PIPE_CLOSED, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told() -> None:
    told = "policyd: the output cannot be written: no space left on device\n"
    assert piped("policyd schema policy > /dev/full") == (root.UNAVAILABLE, told)


@pytest.mark.parametrize("option", ["--format json", "--format=json"])
@pytest.mark.parametrize("command", ["replay --policies", "test", "explain --policies", "diff --from p.yaml --to"])
def test_machines_get_a_document_of_what_does_not_compile(
    command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(policy("rules: [{name: r, when: requst.stream, terminate: {}}]"))
    Path("p.test.yaml").write_text(
        "apiVersion: policyd.dev/v1alpha1\nkind: PolicyTest\ncases: [{name: c, calls: [{}]}]\n"
    )
    file = "p.test.yaml" if command == "test" else "p.yaml c.jsonl"
    with pytest.raises(SystemExit) as left:
        root.main([*f"{command} {file}".split(), *option.split()])
    out, err = capsys.readouterr()
    (issue,) = [one for one in json.loads(out)["issues"] if one["severity"] == "error"]
    assert (left.value.code, issue["file"], "requst" in err) == (root.FINDINGS, "p.yaml", True)
