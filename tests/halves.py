"""Runs every test as two pytest processes side by side: most of the time is spent waiting for Envoys and servers.

What has fixed ports (Envoy AI Gateway) or measures itself stays within one half. Options are passed on to both.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST = ("core", "architecture", "policies", "contracts", "redis", "lint")
ALONE = {"__pycache__", "cases"}


def halves() -> tuple[list[str], list[str]]:
    """The test folders of each half: a new folder belongs to the second one."""
    folders = sorted(path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name not in ALONE)
    return [f"tests/{name}" for name in FIRST], [f"tests/{name}" for name in folders if name not in FIRST]


def main(options: list[str]) -> int:
    """The exit code: 0 if both halves passed."""
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for number, paths in enumerate(halves()):
            log = (Path(folder) / f"{number}.log").open("w+")
            command = [sys.executable, "-m", "pytest", *options, *paths]
            running.append((subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT), log, paths))
        codes = []
        for process, log, paths in running:
            codes.append(process.wait())
            log.seek(0)
            print(f"== {' '.join(paths)}", log.read(), sep="\n", flush=True)
    return max(codes)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
