"""Programs and packages that tests use for real: built from Go modules, or installed, once, outside the repository.

Rule 1: a part lies in `~/.cache/policyd/WHAT/VERSION/NAME`, or in the folder that `POLICYD_WHAT_CACHE` names.
Rule 2: no test builds one: `make parts` does, and `.ci/run` before its tests, within a time. What is not there is a
        skip with its reason. `POLICYD_WHAT=0` leaves WHAT out.
Rule 3: who needs another program names it in `PARTS`; everything else follows.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHES = Path.home() / ".cache" / "policyd"
PATIENCE_S = 840.0  # for all that is missing; Go keeps what it has compiled, so that the next time goes on from there


@dataclass(frozen=True, slots=True)
class Built:
    """One program: a package of the Go module at `module`, which pins its version."""

    what: str  # the folder of the cache, and the name of the variables
    name: str
    version: str
    package: str
    module: Path
    stamps: tuple[tuple[str, str], ...] = ()  # Go variables that name the version
    found: str = ""  # not built where PATH has this

    @property
    def path(self) -> Path:
        """Where it lies, or would."""
        place = os.environ.get(f"POLICYD_{self.what.upper()}_CACHE")
        return (Path(place) if place else CACHES / self.what) / self.version / self.name

    @property
    def wanted(self) -> bool:
        return os.environ.get(f"POLICYD_{self.what.upper()}") not in ("0", "cluster")

    @property
    def there(self) -> bool:
        return self.path.is_file() or bool(self.found and shutil.which(self.found))

    def missing(self) -> str:
        """Why it cannot be run; empty when it can."""
        if not self.wanted:
            return f"POLICYD_{self.what.upper()} leaves it out"
        return "" if self.there else f"no {self.name} {self.version}: `make parts` builds one with Go, in minutes, once"

    def build(self, seconds: float) -> str:
        """Build it; empty when that worked, else why not."""
        fresh = self.path.with_name(f"{self.name}.{os.getpid()}")
        fresh.parent.mkdir(parents=True, exist_ok=True)
        flags = "-s -w " + " ".join(f"-X {name}={value}" for name, value in self.stamps)
        command = ["go", "build", "-trimpath", "-ldflags", flags.strip(), "-o", str(fresh), self.package]
        try:
            said = _run(command, self.module, seconds)
            if not said:
                fresh.replace(self.path)
            return said
        finally:
            fresh.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Installed:
    """Packages that a package manager installs, exactly as the lock file of `folder` pins them."""

    what: str
    name: str  # the folder that the install makes
    folder: Path
    files: tuple[str, ...]  # what the install reads; the lock file last
    commands: tuple[tuple[str, ...], ...]  # run one after the other in the part's own folder

    @property
    def version(self) -> str:
        """A digest of the lock file."""
        return hashlib.sha256((self.folder / self.files[-1]).read_bytes()).hexdigest()[:12]

    @property
    def path(self) -> Path:
        """Where it lies, or would."""
        place = os.environ.get(f"POLICYD_{self.what.upper()}_CACHE")
        return (Path(place) if place else CACHES / self.what) / self.version / self.name

    @property
    def wanted(self) -> bool:
        return os.environ.get(f"POLICYD_{self.what.upper()}") != "0"

    @property
    def there(self) -> bool:
        return self.path.is_dir()

    def missing(self) -> str:
        """Why it cannot be used; empty when it can."""
        if not self.wanted:
            return f"POLICYD_{self.what.upper()} leaves it out"
        return "" if self.there else f"no {self.what} packages {self.version}: `make parts` installs them, once"

    def build(self, seconds: float) -> str:
        """Install it; empty when that worked, else why not."""
        ends = time.monotonic() + seconds
        fresh = self.path.parent.with_name(f"{self.version}.{os.getpid()}")
        fresh.mkdir(parents=True, exist_ok=True)
        try:
            for name in self.files:
                shutil.copy(self.folder / name, fresh)
            for command in self.commands:
                if said := _run(list(command), fresh, ends - time.monotonic()):
                    return said
            fresh.rename(self.path.parent)
            return ""
        except FileExistsError:
            return ""  # another process was faster
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _run(command: list[str], folder: Path, seconds: float) -> str:
    """The last words of a command that failed. It ends with all it has started when its time is over."""
    settings = {**os.environ, "CGO_ENABLED": "0"}
    with subprocess.Popen(
        command, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=max(1.0, seconds))
        except BaseException as error:  # an interrupt too: nothing goes on building behind whoever gave up
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return f"not done after {seconds:.0f} s; the next time goes on from there"
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return (lines[-1] if lines else f"ended with {process.returncode}") if process.returncode else ""


# ---- what there is --------------------------------------------------------------------------------------------------

KUBERNETES = "v1.35.4"
_MAJOR, _MINOR, _ = KUBERNETES.removeprefix("v").split(".")
_STAMPS = tuple(
    (f"k8s.io/component-base/version.{name}", value)
    for name, value in (("gitVersion", KUBERNETES), ("gitMajor", _MAJOR), ("gitMinor", _MINOR))
)


def _of_kubernetes(name: str, package: str, found: str = "") -> Built:
    return Built("k8s", name, KUBERNETES, package, HERE / "k8s", _STAMPS, found)


APISERVER = _of_kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver")
ETCD = _of_kubernetes("etcd", "go.etcd.io/etcd/server/v3")
KUBECTL = _of_kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", found="kubectl")
LINTER = Built("lint", "kube-score", "v1.20.0", "github.com/zegl/kube-score/cmd/kube-score", HERE / "lint")
GATEWAY = Built("aigw", "aigw", "v1.0.0", "github.com/envoyproxy/ai-gateway/cmd/aigw", HERE / "aigw")
NODE = Installed(
    "node",
    "node_modules",
    HERE / "node",
    ("package.json", "package-lock.json"),
    (("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"),),
)
_PIP = ("lib/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes")
FRAMEWORKS = Installed(
    "frameworks",
    "lib",
    HERE / "frameworks",
    ("requirements.txt",),
    ((sys.executable, "-m", "venv", "lib"), (*_PIP, "--only-binary", ":all:", "-r", "requirements.txt")),
)
BUILT = (APISERVER, ETCD, KUBECTL, LINTER, GATEWAY)
PARTS: tuple[Built | Installed, ...] = (NODE, FRAMEWORKS, *BUILT)


def provide(seconds: float = PATIENCE_S) -> Iterator[str]:
    """Build what is missing and wanted, one after the other; a line for each program there is."""
    ends = time.monotonic() + seconds
    for one in PARTS:
        yield f"{_title(one)} {one.version}: {_provided(one, ends - time.monotonic())}"


def _title(one: Built | Installed) -> str:
    return one.name if isinstance(one, Built) else f"{one.what} packages"


def _provided(one: Built | Installed, seconds: float) -> str:
    if not one.wanted or one.there:
        return one.missing() or "there"
    tool = "go" if isinstance(one, Built) else one.commands[0][0]
    if shutil.which(tool) is None:
        return f"missing, and there is no {tool} to get it with; its tests are skipped"
    if seconds <= 0:
        return "missing, and no time is left; its tests are skipped"
    began = time.monotonic()
    why = one.build(seconds)
    return f"not built: {why}; its tests are skipped" if why else f"built in {time.monotonic() - began:.0f} s"


if __name__ == "__main__":
    for line in provide(float(sys.argv[1]) if len(sys.argv) > 1 else PATIENCE_S):
        print(line, flush=True)
