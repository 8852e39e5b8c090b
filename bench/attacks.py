"""What one caller can do to another: `python -m bench.attacks`, or `make attacks`.

A real Envoy, policyd as a process of its own, an upstream, one attacker in a loop, and a second caller whose small
calls come at a steady rate, whether the former ones are answered or not. Each attack runs by turns with none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench.attack_list import ATTACKS, Attack
from bench.bed import running, wait
from bench.report import percentile
from policyd.adapters.envoy.bootstrap import bootstrap, render
from policyd.adapters.envoy.config import settings
from policyd.adapters.errors import NotAvailable
from policyd.adapters.loop_watch import VARIABLE
from policyd.cli.emulator import free_port
from policyd.cli.stage import envoy_binary

LIBRARY = Path(__file__).parent.parent / "policies"
TAKEN = (
    "personal-data",
    "secrets",
    "prompt-injection-markers",
    "tool-guard",
    "runaway-stream",
    "max-tokens-cap",
    "session-circuit-breaker",
    "token-rate-limits",
    "unknown-traffic",
)
OWN = """apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {name: bench, namespace: bench}
spec:
  mode: Full
  failurePolicy: Fail
  rules:
    - name: cards
      constrain: {redact: {detectors: [card, email], in: [request, response], replacement: "#"}}
    - name: words
      when: >-
        request.text.matches("(?i)forbidden (words|letters)") || response.text.matches("(?i)forbidden (words|letters)")
      holdBack: 32
      terminate: {reason: words}
"""
_LIMITS = re.compile(r"(?<=limit: )\d+(?= (requests|tokens))|(?<=output_tokens > )\d+")
_LONGEST = re.compile(rb"^policyd_longest_turn_seconds (\S+)", re.MULTILINE)
RATE = 40.0  # calls a second of the second caller
PATIENCE_S = 20.0
BODY = b'{"model":"gpt-4o","max_tokens":50,"messages":[{"role":"user","content":"Tell me about fuses."}]}'
_numbers = itertools.count()
MOST_MS = 50.0  # by which the second caller's p99 may rise
MOST_TURN_MS = 20.0  # processor time between two looks of policyd's event loop at what else there is to do
MOST_TIMES = 8  # of the largest body, that memory may rise by


@dataclass(slots=True)
class Bed:
    """What is up."""

    listener: int
    policyd: subprocess.Popen[bytes]
    log: Path
    admin: int
    folder: Path

    def longest_turn_ms(self) -> float:
        """Of policyd's event loop, since this was last asked."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=20) as page:
            found = _LONGEST.search(page.read())
        return float(found[1]) * 1000 if found else 0.0

    def memory(self, what: str) -> int:
        """VmRSS or VmHWM of policyd, bytes."""
        status = Path(f"/proc/{self.policyd.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) << 10

    def forget_peak(self) -> None:
        Path(f"/proc/{self.policyd.pid}/clear_refs").write_text("5")


def policies() -> dict[str, str]:
    """The library in mode Full, and the bench's own. Its limits are raised: a refused call is no attack."""
    texts = {name: (LIBRARY / name / "policy.yaml").read_text() for name in TAKEN}
    for name, text in texts.items():
        text = text.replace("mode: Monitor", "mode: Full")
        texts[name] = _LIMITS.sub("1000000000", text)
    return {**texts, "bench": OWN}


@contextlib.contextmanager
def made(serve: Sequence[str] = (), workers: int = 1, *, fail_open: bool = False) -> Iterator[Bed]:
    """Puts everything up. Raises NotAvailable."""
    binary = envoy_binary()
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="policyd-attacks-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        found, upstream, listener, admin = folder / "policies", free_port(), free_port(), free_port()
        found.mkdir()
        for name, text in policies().items():
            (found / f"{name}.yaml").write_text(text)
        stack.enter_context(running(folder / "upstream.log", ["-m", "bench.attack_upstream", str(upstream)]))
        socket = folder / "policyd.sock"
        command = ["-m", "policyd", "serve", "--policies", str(found), "--listen", f"unix:{socket}", *serve]
        log, pages = folder / "policyd.log", free_port()
        command += ["--records", str(folder / "records"), "--admin", f"127.0.0.1:{pages}"]
        policyd = stack.enter_context(running(log, command, env={VARIABLE: "1"}))
        wait(socket.exists, log)
        config = folder / "envoy.yaml"
        wanted = settings(
            listener=f"127.0.0.1:{listener}",
            upstreams=[f"provider=127.0.0.1:{upstream}"],
            extproc=f"unix:{socket}",
            admin=f"127.0.0.1:{admin}",
            fail_open=fail_open,
        )
        config.write_text(render(bootstrap(wanted)))
        envoy = [str(binary), "-c", str(config), "--use-dynamic-base-id", "--concurrency", str(workers), "-l", "error"]
        stack.enter_context(running(folder / "envoy.log", envoy, python=False))
        wait(lambda: _connects(listener), folder / "envoy.log")
        yield Bed(listener, policyd, log, pages, folder)


def _connects(port: int) -> bool:
    import socket

    with socket.create_connection(("127.0.0.1", port), 1):
        return True


# ---- the second caller ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Caller:
    """Small calls at a steady rate. Latencies are milliseconds."""

    port: int
    took: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def run(self, seconds: float) -> None:
        """Call for so long, and wait for the responses."""
        loop, calls = asyncio.get_running_loop(), []
        began = loop.time()
        for number in range(int(seconds * RATE)):
            await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))
            calls.append(asyncio.ensure_future(self._call()))
        await asyncio.gather(*calls)

    async def _call(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                said = await self._asked(next(_numbers))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            said = type(error).__name__.encode()
        self.took.append((time.monotonic() - began) * 1000)
        if not said.startswith(b"HTTP/1.1 200") or b"Hello there." not in said:
            self.failed.append(said[:400].decode(errors="replace"))

    async def _asked(self, number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: api.openai.com\r\ncontent-type: application/json\r\n"
                b"authorization: Bearer sk-second\r\nx-session-id: second-%d\r\nx-team-id: second\r\nx-user-id: ann\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (number, len(BODY), BODY)
            )
            return await reader.read()
        finally:
            writer.transport.abort()


# ---- one attack -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attack did. Memory is bytes; `size` is of the largest body, times the attack's calls at once."""

    attack: Attack
    quiet: Caller
    beside: Caller
    before: int
    peak: int
    after: int
    size: int
    turn_ms: float  # the longest of policyd's event loop
    said: dict[str, Any]

    @property
    def rise(self) -> float:
        """By how many milliseconds the second caller's p99 rose."""
        return percentile(self.beside.took, 0.99) - percentile(self.quiet.took, 0.99)

    @property
    def wrong(self) -> str:
        """Which aims were missed."""
        found = [
            *(["latency"] if self.rise > MOST_MS else []),
            *(["failed calls"] if self.beside.failed else []),
            *(["loop"] if self.turn_ms > MOST_TURN_MS else []),
            *(["memory"] if self.peak - self.before > max(MOST_TIMES * self.size, 32 << 20) else []),
        ]
        return ", ".join(found)


async def _calm(bed: Bed) -> None:
    """Wait until what the last attack has left behind is done."""
    for _ in range(20):
        probe = Caller(bed.listener)
        await probe.run(0.25)
        if not probe.failed and max(probe.took) < 100:
            return


async def measured(bed: Bed, attack: Attack, *, seconds: float, turns: int) -> Outcome:
    """One attack, by turns with none."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.attacker", str(bed.listener), attack.name,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        size = json.loads(await process.stdout.readline())["ready"] * attack.at_once
        quiet, beside, said = Caller(bed.listener), Caller(bed.listener), {}
        before = bed.memory("VmRSS")
        bed.forget_peak()
        bed.longest_turn_ms()
        for _ in range(turns):
            await quiet.run(seconds)
            process.stdin.write(b"%g\n" % seconds)
            await beside.run(seconds)
            said = json.loads(await process.stdout.readline())
        peak, turn = bed.memory("VmHWM"), bed.longest_turn_ms()
        await asyncio.sleep(0.5)
        return Outcome(attack, quiet, beside, before, peak, bed.memory("VmRSS"), size, turn, said)
    finally:
        process.kill()
        await process.wait()


def line(outcome: Outcome) -> str:
    """One row of the table."""
    quiet, beside = outcome.quiet.took, outcome.beside.took
    seen = ", ".join(f"{name} x{count}" for name, count in outcome.said["seen"].items())
    told = f" ({outcome.said['said'][:60]})" if outcome.said["said"] else ""
    memory = "/".join(f"{value / 2**20:.0f}" for value in (outcome.before, outcome.peak, outcome.after))
    return (
        f"{outcome.attack.name:46} {percentile(quiet, 0.5):6.1f}/{percentile(quiet, 0.99):6.1f}"
        f" {percentile(beside, 0.5):8.1f}/{percentile(beside, 0.99):8.1f} {len(outcome.beside.failed):5}"
        f" {outcome.turn_ms:6.0f}  {memory:>14}  {outcome.wrong or 'held':22} {seen}{told}, "
        f"slowest {outcome.said['slowest']:.1f} s"
    )


async def _all(bed: Bed, chosen: Sequence[Attack], seconds: float, turns: int) -> list[Outcome]:
    await Caller(bed.listener).run(1.0)  # code paths, caches, connections
    warm = Caller(bed.listener)
    await warm.run(1.0)
    if warm.failed:
        raise NotAvailable(f"the second caller alone fails: {warm.failed[0]}")
    found = []
    for attack in chosen:
        await _calm(bed)
        outcome = await measured(bed, attack, seconds=seconds, turns=turns)
        found.append(outcome)
        print(line(outcome), flush=True)
        for failure in outcome.beside.failed[:1]:
            print("    a failed call:", " | ".join(failure.splitlines())[-300:], flush=True)
        if bed.policyd.poll() is not None:
            raise NotAvailable(f"policyd ended:\n{bed.log.read_text()[-2000:]}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.attacks", description=__doc__)
    parser.add_argument("names", nargs="*", help="only attacks whose names hold one of these words")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=2, help="with and without the attack")
    parser.add_argument("--envoy-workers", type=int, default=1)
    parser.add_argument("--serve", default="", help="further options of `policyd serve`")
    asked = parser.parse_args(arguments)
    chosen = [one for one in ATTACKS.values() if not asked.names or any(word in one.name for word in asked.names)]
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    print(f"{'':46} {'quiet p50/p99':>13} {'beside p50/p99':>17} failed turn ms  RSS MB {'':9}aims")
    try:
        with made(asked.serve.split(), asked.envoy_workers) as bed:
            found = uvloop.run(_all(bed, chosen, asked.seconds, asked.turns))
    except NotAvailable as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 3
    missed = [one.attack.name for one in found if one.wrong]
    print(f"{len(found) - len(missed)} of {len(found)} attacks held; load average {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
