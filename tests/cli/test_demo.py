"""The demonstration: it comes out as told, it can fail, and it leaves nothing behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from rich.console import Console

from policyd.cli import demo as demo_module
from policyd.cli.demo_story import POLICIES, STORY, NotAsTold, Scene, Seen, finance_policy
from policyd.cli.emulator import Call
from policyd.cli.stage import envoy_binary, staged

TIME_LIMIT_S = 30.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: a socket's path has 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="d-") as name:
        yield Path(name)


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "policyd", "demo", *options]
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def left_behind(folder: Path) -> list[str]:
    """Files, and processes that name the folder."""
    commands = Path("/proc").glob("[0-9]*/cmdline")
    found = [path.name for path in folder.iterdir()]
    for path in commands:
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in line:
            found.append(line.decode(errors="replace"))
    return found


@pytest.mark.envoy
def test_the_story_comes_out_as_told(folder: Path) -> None:
    begin = time.monotonic()
    with start(folder) as running:
        out, err = running.communicate(timeout=TIME_LIMIT_S)
    assert running.returncode == 0, out + err
    assert time.monotonic() - begin < TIME_LIMIT_S
    assert f"{len(STORY)} of {len(STORY)} calls came out as told" in out
    for word in ("allow", "constrain", "reroute", "terminate", "Monitor", "Soft", "Full", "was spared"):
        assert word in out
    assert not left_behind(folder)


@pytest.mark.envoy
def test_the_story_can_fail() -> None:
    """With every rule in Monitor nothing but the untouched calls come out as told."""
    policies = {**POLICIES, "finance.yaml": finance_policy("Monitor")}
    shown = Console(file=io.StringIO(), width=150)
    with staged(policies, envoy=envoy_binary(), serve=["--mode", "Monitor"]) as stage:
        failed = demo_module._play(stage, shown)
    assert failed == sum(scene.enforced for scene in STORY)


@pytest.mark.envoy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_keep_stays_up_until_it_is_told_to_stop(folder: Path, number: signal.Signals) -> None:
    with start(folder, "--keep") as running:
        assert running.stdout
        lines = []
        for line in running.stdout:
            lines.append(line)
            if "metrics:" in line:
                break
        assert running.poll() is None
        assert any("curl -N" in line for line in lines)
        running.send_signal(number)
        _, err = running.communicate(timeout=TIME_LIMIT_S)
    assert running.returncode == 0, err
    assert not left_behind(folder)


def test_without_envoy_it_says_what_to_do(folder: Path) -> None:
    code = "import sys; sys.modules['envoy'] = None; from policyd.cli.main import main; main(['demo'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "policyd[demo]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not left_behind(folder)


def seen(record: Mapping[str, object], status: int = 200, **calls: tuple[Call, ...]) -> Seen:
    return Seen(status, {}, b"{}", record, {"openai": (), "backup": (), **calls})


@pytest.mark.parametrize("scene", STORY, ids=lambda scene: scene.title.replace(" ", "_"))
def test_no_scene_believes_a_record_alone(scene: Scene) -> None:
    """The right verdict in the record is not enough when the upstream saw something else."""
    wrong = Call("POST", "/v1/chat/completions", (), b'{"max_tokens": 7}', planned=9, events=9)
    with pytest.raises(NotAsTold):
        scene.play(
            seen(
                {"verdict": scene.verdict, "would": scene.verdict, "enforced": scene.enforced},
                201,
                openai=(wrong, wrong),
            )
        )
