"""How fast and in how much memory `policyd replay` plays made-up traffic: `python -m bench.replays [CALLS ...]`.

Each number of calls is a file of its own and a process of its own. CPU is user and system time of that process, its
start left out by what a file of one call takes; RSS is its peak.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.recorded import lines

POLICIES = """
apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {name: replayed, namespace: bench}
spec:
  mode: Full
  match: {operations: [chat, unknown]}
  counters:
  - {name: spend, key: session.id, charge: Cost, window: {idle: 10m}, limit: 2 USD}
  rules:
  - {name: long, when: response.output_tokens > 1000, terminate: {}}
  - {name: a-key, when: 'response.text.contains("BEGIN RSA PRIVATE KEY")', terminate: {}}
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One process."""

    cpu_s: float
    wall_s: float
    rss_mib: float  # peak


def run(folder: Path, calls: int, events: int) -> Run:
    """Plays so many calls in a process of its own."""
    policies, file, out = folder / "policies.yaml", folder / "calls.jsonl", folder / "out"
    policies.write_text(POLICIES)
    with file.open("w") as recorded:
        recorded.writelines(f"{line}\n" for line in lines(calls, events))
    command = [sys.executable, "-m", "policyd", "replay", "--policies", str(policies), str(file)]
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [(os.POSIX_SPAWN_OPEN, 1, str(out), write, 0o600)]
    began = time.monotonic()
    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(process, 0)
    took = time.monotonic() - began
    file.unlink()
    if status or f"{calls} calls: {calls} allow" not in out.read_text():
        raise RuntimeError(f"the replay did not go as it should: {out.read_text()[-500:]}")
    return Run(usage.ru_utime + usage.ru_stime, took, usage.ru_maxrss / 1024)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.replays", description=__doc__)
    parser.add_argument("calls", type=int, nargs="*", default=[1_000, 10_000])
    parser.add_argument("--events", type=int, default=50, help="of each answer, `[DONE]` among them")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = run(Path(folder), 1, asked.events)
        print(f"start: {start.cpu_s:.1f} s of CPU, {start.rss_mib:.0f} MiB", flush=True)
        for calls in asked.calls:
            one = run(Path(folder), calls, asked.events)
            cpu, events = one.cpu_s - start.cpu_s, calls * asked.events
            speed = f"{cpu / events * 1e6:.1f} us of CPU an event ({events / cpu:,.0f} a second)"
            print(
                f"{calls} calls of {asked.events} events: {speed}, {one.wall_s:.0f} s, {one.rss_mib:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
