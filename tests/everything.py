"""Runs every test: a pytest process for each group of folders, a few at a time, for most wait for Envoys and servers.

`python -m tests.everything [--all] [options of pytest]`; `--all` runs the long tests whole. A group's output is printed
when it is over, or interrupted. What has fixed ports stays within one group.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOGETHER = 3  # processes
LONGEST_FIRST = ("core", "envoy", "k8s", "properties", "redis", "cli", "attempts", "faults", "policies")
NO_TESTS = {"__pycache__", "cases", "node"}
_COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)\b")


def groups() -> list[list[str]]:
    """The test folders: the long ones alone, longest first, and the rest together."""
    folders = sorted(path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name not in NO_TESTS)
    rest = [f"tests/{name}" for name in folders if name not in LONGEST_FIRST]
    return [*([f"tests/{name}"] for name in LONGEST_FIRST), rest]


def main(options: Sequence[str]) -> int:
    """The exit code: 0 if every test passed."""
    # Where this runs in the background a shell makes it ignore interrupts, and all that tests start would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    whole = "--all" in options
    options = [option for option in options if option != "--all"]
    running: list[subprocess.Popen[bytes]] = []
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(TOGETHER) as pool:

        def run(paths: list[str]) -> int:
            log = Path(folder) / f"{paths[0].rpartition('/')[2]}.log"
            env = {**os.environ, "POLICYD_TESTS": "all" if whole else os.environ.get("POLICYD_TESTS", "")}
            env.pop(
                "PYTHONDONTWRITEBYTECODE", None
            )  # tests start many processes: each would compile all that it imports
            with log.open("wb") as out:
                command = [sys.executable, "-m", "pytest", *options, *paths]
                process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT)
            running.append(process)
            try:
                return process.wait()
            finally:
                said = log.read_text(errors="replace")
                sys.stdout.write(f"== {' '.join(paths)}\n{said}\n")
                sys.stdout.flush()
                for number, what in _COUNTS.findall(said.rstrip().rpartition("\n")[2]):
                    counts[what.rstrip("s")] += int(number)

        try:
            codes = list(pool.map(run, groups()))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise
    print(", ".join(f"{number} {what}" for what, number in sorted(counts.items())))
    return max(codes)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
