"""What stands around the commands: examples that run, completion, hooks, the action, and files that are no policies."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd.adapters.records import encode
from policyd.cli.examples import EXAMPLES
from policyd.cli.main import COMMANDS, load, main
from tests.certificates import Authority, replace
from tests.driving import Bed, chat, policy, stream_of
from tests.envoy.harness import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
EVERY = [(command, example) for command, shown in EXAMPLES.items() for example, _ in shown]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that examples speak of."""
    folder = tmp_path_factory.mktemp("examples")
    shown = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "testing.md").read_text(), re.M | re.S)
    for name in ("policies", "main"):
        (folder / name).mkdir()
        (folder / name / "budget.yaml").write_text(next(one for one in shown if "kind: LLMPolicy" in one))
    (folder / "policies" / "budget.test.yaml").write_text(next(one for one in shown if "kind: PolicyTest" in one))
    request = {"method": "POST", "path": "/v1/chat/completions", "headers": {"host": "api.openai.com"}}
    chunks = [{"ms": 0, "data": data.decode()} for data in stream_of("a", "b")]
    answer = {"status": 200, "headers": {"content-type": "text/event-stream"}, "chunks": chunks}
    line = {"request": {**request, "body": chat(stream=True).decode()}, "response": answer}
    (folder / "recorded.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "key.txt").write_text("Bearer sk-example\n")
    watched = 'rules: [{name: r, when: request.text.contains("launch"), terminate: {}}]'
    (folder / "policies" / "words.yaml").write_text(policy(watched, "words", mode="Monitor"))
    (folder / "wrong.txt").write_text("")
    (folder / "tls").mkdir()
    authority = Authority()
    authority.certify("policyd.example").put(folder / "tls")
    replace(folder / "tls" / "ca.crt", authority.pem)
    (folder / "records").mkdir()
    bed = Bed(*((folder / "policies" / name).read_text() for name in ("budget.yaml", "words.yaml")))
    told = encode(bed.call(body=chat(), headers=[("x-user-id", "u")], chunks=stream_of("a")).record)
    (folder / "records" / "records-1.jsonl").write_bytes(b"%s\n" % told * 1000)
    return folder


def shell(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-ec", line]
    return subprocess.run(command, cwd=folder, env={**ENVIRONMENT, **more}, capture_output=True, text=True, check=False)


Ran = Callable[..., tuple[int, str]]


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """A line of a shell that holds no more than one command of policyd and its redirections, in this process: most of
    a process of its own is its start."""

    def run(line: str, **environment: str) -> tuple[int, str]:
        words = re.fullmatch(r"policyd ?([^<>|]*?)(?: < (\S+))?(?: > (\S+))?", line)
        assert words, line
        monkeypatch.chdir(folder)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with (folder / (words[2] or os.devnull)).open() as typed, pytest.raises(SystemExit) as left:
            monkeypatch.setattr(sys, "stdin", typed)
            main(shlex.split(words[1]))
        out, _ = capsys.readouterr()
        if words[3]:
            (folder / words[3]).write_text(out)
        return int(left.value.code or 0), out

    return run


# ---- help -----------------------------------------------------------------------------------------------------------


def test_every_command_shows_examples() -> None:
    commands = {name: load(name) for name in COMMANDS}
    whole = {f"{name} {below}".strip() for name, one in commands.items() for below in getattr(one, "commands", {"": 0})}
    assert whole == set(EXAMPLES)
    for name in COMMANDS:
        for one in getattr(commands[name], "commands", {"": commands[name]}).values():
            assert "Examples:" in one.epilog


@pytest.mark.parametrize(
    ("command", "example"), [pair for pair in EVERY if pair[0] not in ("demo", "serve", "operator")]
)
def test_the_example_runs(command: str, example: str, here: Ran) -> None:
    """Those of `demo` are run by test_demo.py, those of `operator` by tests/k8s."""
    assert example.startswith(f"policyd {command} ")
    code, out = here(example)
    assert (code, bool(out)) == (0, "--format github" not in example or "::" in out)


def test_an_example_runs_in_a_shell(folder: Path) -> None:
    ran = shell(EXAMPLES["key-id"][0][0], folder)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("example", [example for command, example in EVERY if command == "serve"])
def test_the_example_serves(example: str, folder: Path) -> None:
    port = free_port()
    (folder / "policyd.sock").unlink(missing_ok=True)
    ours = example.replace("0.0.0.0:50051", f"127.0.0.1:{port}")
    with subprocess.Popen(["bash", "-c", f"exec {ours}"], cwd=folder, env=ENVIRONMENT) as process:
        until = time.monotonic() + 60
        while not listens(folder, port) and process.poll() is None and time.monotonic() < until:
            select_nothing(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def listens(folder: Path, port: int) -> bool:
    with socket.socket() as peer:
        return (folder / "policyd.sock").exists() or peer.connect_ex(("127.0.0.1", port)) == 0


def select_nothing(seconds: float) -> None:
    import select

    select.select([], [], [], seconds)


# ---- completion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_a_shell_is_told_how_to_complete(name: str, here: Ran) -> None:
    code, out = here(f"policyd --show-completion {name}")
    assert (code, "_POLICYD_COMPLETE" in out) == (0, True)


@pytest.mark.parametrize(
    ("name", "typed", "offered"),
    [
        ("bash", {"COMP_WORDS": "policyd expl", "COMP_CWORD": "1"}, "explain"),
        ("bash", {"COMP_WORDS": "policyd check --fo", "COMP_CWORD": "2"}, "--format"),
        ("bash", {"COMP_WORDS": "policyd check --format sa", "COMP_CWORD": "3"}, "sarif"),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "policyd expl"}, "explain"),
        ("fish", {"_TYPER_COMPLETE_ARGS": "policyd expl", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}, "explain"),
    ],
)
def test_what_a_shell_is_offered(name: str, typed: dict[str, str], offered: str, here: Ran) -> None:
    _, out = here("policyd", _POLICYD_COMPLETE=f"complete_{name}", **typed)
    assert offered in out
    assert "replay" not in out


def test_bash_completes() -> None:
    """The real shell: what its function puts into COMPREPLY."""
    ask = "COMP_WORDS=(policyd sch); COMP_CWORD=1; _policyd_completion policyd; echo ${COMPREPLY[@]}"
    ran = shell(f'eval "$(policyd --show-completion bash)"; {ask}', ROOT)
    assert ran.stdout.split() == ["schema"], ran.stderr


# ---- hooks and the action -------------------------------------------------------------------------------------------


def test_the_hooks_run(here: Ran) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [hook["id"] for hook in hooks] == ["policyd-check", "policyd-test"]
    for hook in hooks:
        assert (hook["language"], hook["pass_filenames"]) == ("python", False)
        assert re.search(hook["files"], "policies/budget.yaml")
        line = " ".join([hook["entry"], *hook["args"]])
        assert here(line)[0] == 0


def steps() -> dict[str, dict[str, Any]]:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert action["runs"]["using"] == "composite"
    return {step["name"]: step for step in action["runs"]["steps"] if "run" in step}


def given(step: dict[str, Any], folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """A step as the runner runs it: expressions of its environment filled in, its script as it stands."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    known = {name: one["default"] for name, one in action["inputs"].items()} | inputs
    found = {}
    for name, value in step["env"].items():
        (wanted,) = re.findall(r"^\$\{\{ inputs\.([\w-]+) \}\}$", value)
        found[name] = known[wanted]
    assert "${{" not in step["run"]
    return shell(step["run"], folder, **found)


def test_the_action_checks_and_tests(folder: Path) -> None:
    check = given(steps()["Check"], folder)
    assert (check.returncode, "::warning file=policies/budget.yaml" in check.stdout) == (0, True), check.stderr
    assert given(steps()["Test"], folder).returncode == 0
    assert given(steps()["Check"], folder, policies="$(touch oops)").returncode == 2
    assert not (folder / "oops").exists()


def test_the_action_compares(folder: Path) -> None:
    inputs = {"baseline": "main", "traffic": "recorded.jsonl"}
    compared = given(steps()["Compare"], folder, **inputs)
    assert compared.returncode == 0, compared.stderr
    (folder / "strict").mkdir(exist_ok=True)
    (folder / "strict" / "p.yaml").write_text(policy("rules: [{name: no, terminate: {}}]"))
    assert given(steps()["Compare"], folder, policies="strict", **inputs).returncode == 1


def test_the_action_installs_from_its_own_folder() -> None:
    install = steps()["Install policyd"]
    assert install["env"] == {"ACTION": "${{ github.action_path }}"}
    assert install["run"].endswith('"$ACTION"')


# ---- files that are no policies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", 1, "p.yaml:1:1: error YAML006"),
        (b"spec: [\n", 1, "p.yaml:2:1: error YAML001"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 2, "p.yaml:1:1: not UTF-8: byte 0x89"),
        (b"kind: \0\n", 1, "p.yaml:1:7: error YAML001"),
        (b'{"log": {"version": "1.2", "entries": []}}\n', 1, "p.yaml:1:1: error"),
        (b"kind: Deployment\napiVersion: apps/v1\n", 1, "p.yaml:1:7: error POL001"),
        (b"a: " + b"[" * 5000 + b"\n", 1, "error YAML005"),
        (b"- " * 60_000 + b"x\n", 1, "error YAML005"),
        (b"a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b]\n", 1, "error"),
    ],
)
@pytest.mark.parametrize("command", ["check", "explain"])
def test_a_file_that_is_no_policy(
    command: str, data: bytes, code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_bytes(data)
    (tmp_path / "c.jsonl").write_text("{}\n")
    explain = ["--policies", str(tmp_path / "p.yaml"), str(tmp_path / "c.jsonl")]
    with pytest.raises(SystemExit) as left:
        main([command, *([str(tmp_path / "p.yaml")] if command == "check" else explain)])
    said = capsys.readouterr()
    assert left.value.code == code
    assert words in said.out + said.err
    assert command == "check" or not said.out


def test_an_enormous_file_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "p.yaml").open("wb") as file:
        file.truncate(1 << 36)  # a hole: it takes no space
    with pytest.raises(SystemExit) as left:
        main(["check", str(tmp_path)])
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (2, "")
    assert "p.yaml: is larger than 128 MiB" in said.err


# ---- what was derived -----------------------------------------------------------------------------------------------


def test_check_explains_what_it_derived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counter = "{name: spend, key: session.id, charge: Cost, window: {idle: 1h}, limit: 2 USD}"
    almost = "{name: almost, when: counters.spend.used > 0.8 && request.model == 'o3', reroute: {model: m}}"
    spent = "{name: spent, when: counters.spend.exceeded, terminate: {}}"
    (tmp_path / "p.yaml").write_text(policy(f"counters: [{counter}]\nrules: [{almost}, {spent}]"))
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path), "--explain", "--format", "json"])
    (told,) = json.loads(capsys.readouterr().out)["policies"]
    assert told["envoy"]["request_body"] == "BUFFERED"
    assert [(rule["rule"], rule["phase"]) for rule in told["rules"]] == [
        ("almost", "request"),
        ("spent", "request, after the hold"),
        ("spend.exceeded", "request, after the hold"),
    ]
    assert told["rules"][0]["reads"] == ["counters.spend.used", "request.model"]
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path), "--explain"])
    assert "Envoy sends: request body BUFFERED, response body FULL_DUPLEX_STREAMED" in capsys.readouterr().out


def test_explaining_goes_with_words_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["check", str(ROOT / "policies"), "--explain", "--format", "sarif"])
    assert (left.value.code, capsys.readouterr().out) == (2, "")
