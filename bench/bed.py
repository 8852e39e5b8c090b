"""What is measured, put up together: a provider, the ext_proc servers, and one Envoy with a listener for each of them.

Rule 1: whatever was started is stopped, however the block is left.
Rule 2: every server stands behind the very filter that `policyd envoy bootstrap` prints.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from policyd.adapters.envoy.bootstrap import as_dict, bootstrap
from policyd.adapters.envoy.config import EXTPROC_CLUSTER, settings
from policyd.adapters.errors import NotAvailable
from policyd.cli.emulator import free_port
from policyd.cli.stage import envoy_binary, stop

PATIENCE_S = 30.0


@dataclass(slots=True)
class Contestant:
    """One way through Envoy. `policies` None and `echo` False: without any ext_proc server."""

    name: str
    echo: bool = False
    policies: str | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    admin: int = 0  # Envoy's

    @property
    def key(self) -> str:
        return "".join(letter if letter.isalnum() else "_" for letter in self.name)

    @property
    def around(self) -> int:
        """How many messages a call has besides its stream: headers both ways, and for policyd the request's body."""
        return 2 if self.echo else 3

    def cpu_ns(self) -> int:
        """CPU time that its server has had, all threads, in nanoseconds."""
        if self.process is None:
            return 0
        return sum(map(_ran, Path(f"/proc/{self.process.pid}/task").iterdir()))

    def messages(self) -> int:
        """How many messages Envoy has sent to its server."""
        name = f"http.{self.key}.ext_proc.stream_msgs_sent"
        stats = json.loads(_get(self.admin, f"/stats?format=json&filter=^{name}$"))["stats"]
        return next((int(stat["value"]) for stat in stats if stat.get("name") == name), 0)


def _ran(task: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
        return int((task / "schedstat").read_text().split()[0])
    return 0


@dataclass(slots=True)
class Bed:
    """Everything that is up."""

    folder: Path
    contestants: Sequence[Contestant]
    admin: int = field(default_factory=free_port)


@contextlib.contextmanager
def made(contestants: Sequence[Contestant]) -> Iterator[Bed]:
    """Puts everything up. Raises NotAvailable."""
    if not Path("/proc/self/schedstat").exists():
        raise NotAvailable("the benchmark reads CPU times from /proc/PID/schedstat: it needs Linux")
    binary = envoy_binary()
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="policyd-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        bed = Bed(folder, contestants)
        upstream = free_port()
        stack.enter_context(running(folder / "upstream.log", ["-m", "bench.upstream", str(upstream)]))
        for one in contestants:
            one.admin = bed.admin
            _serve(stack, folder, one)
        config = folder / "envoy.yaml"
        config.write_text(yaml.safe_dump(_configuration(bed, upstream)))
        command = [str(binary), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]
        stack.enter_context(running(folder / "envoy.log", command, python=False))
        wait(lambda: _get(bed.admin, "/ready").strip() == "LIVE", folder / "envoy.log")
        yield bed


def _serve(stack: contextlib.ExitStack, folder: Path, one: Contestant) -> None:
    socket = folder / f"{one.key}.sock"
    log = folder / f"{one.key}.log"
    if one.echo:
        one.process = stack.enter_context(running(log, ["-m", "bench.echo", f"unix:{socket}"]))
    elif one.policies is not None:
        file = folder / f"{one.key}.yaml"
        file.write_text(one.policies)
        command = ["-m", "policyd", "serve", "--policies", str(file), "--listen", f"unix:{socket}"]
        one.process = stack.enter_context(running(log, [*command, "--records", str(folder / "records")]))
    if one.process is not None:
        wait(socket.exists, log)


def _configuration(bed: Bed, upstream: int) -> dict[str, Any]:
    """One Envoy with a listener, and a cluster of its server, for each contestant."""
    whole = settings(upstreams=[f"provider=127.0.0.1:{upstream}"], admin=f"127.0.0.1:{bed.admin}")
    plain = as_dict(bootstrap(whole))
    resources = plain["static_resources"]
    (listener,), clusters = resources["listeners"], resources["clusters"]
    provider, server = clusters
    resources["listeners"] = [_listener(listener, one) for one in bed.contestants]
    resources["clusters"] = [provider, *(_cluster(server, bed, one) for one in bed.contestants)]
    return plain


def _listener(model: dict[str, Any], one: Contestant) -> dict[str, Any]:
    listener = copy.deepcopy(model)
    listener["name"] = one.key
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": one.port}
    connection = listener["filter_chains"][0]["filters"][0]["typed_config"]
    connection["stat_prefix"] = one.key
    ext_proc, router = connection["http_filters"]
    ext_proc["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = f"{EXTPROC_CLUSTER}_{one.key}"
    connection["http_filters"] = [ext_proc, router] if one.process is not None else [router]
    return listener


def _cluster(model: dict[str, Any], bed: Bed, one: Contestant) -> dict[str, Any]:
    cluster = copy.deepcopy(model)
    cluster["name"] = cluster["load_assignment"]["cluster_name"] = f"{EXTPROC_CLUSTER}_{one.key}"
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"] = {"pipe": {"path": str(bed.folder / f"{one.key}.sock")}}
    return cluster


@contextlib.contextmanager
def running(
    log: Path, command: list[str], *, python: bool = True, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    root = str(Path(__file__).parents[1])
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command] if python else command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": root, **(env or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def wait(ready: Any, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if ready():
                return
        select.select([], [], [], 0.02)
    raise NotAvailable(f"waited {PATIENCE_S:g} s in vain:\n{log.read_text(errors='replace')[-3000:]}")


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())
