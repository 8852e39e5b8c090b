"""policyd beside an empty echo server, on a real Envoy, in one run: `python -m bench`.

Everything is up at once and takes turns, round by round, so that what the machine does besides touches all alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.bed import Bed, Contestant, made
from bench.caller import Pace, at_once, called, flooded, paced
from bench.direct import Engine, best
from bench.policies import policies
from bench.report import Round, table
from policyd.adapters.errors import NotAvailable

YARDSTICK = "echo"
QUIET = Pace(streams=5, gap_ms=20)  # of everybody at once
BUSY = Pace(streams=40, gap_ms=40 / 3)
BURST = Pace(streams=4, gap_ms=20, burst=100)  # about half of what Envoy likes to put into one message
HELD = "100, text held"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: float  # of each paced window
    events: int  # of each stream of a flood
    calls: int
    sets: tuple[int, ...]
    held: bool


FULL = Plan(rounds=4, seconds=0.8, events=10_000, calls=80, sets=(1, 10, 100, 1000), held=True)
QUICK = Plan(rounds=3, seconds=0.6, events=4_000, calls=40, sets=(100,), held=False)


def contestants(plan: Plan) -> list[Contestant]:
    """Who takes part."""
    found = [
        Contestant("no ext_proc"),
        Contestant(YARDSTICK, echo=True),
        Contestant("echo again", echo=True),
        *(Contestant(f"{count} loaded", policies=policies(count)) for count in plan.sets),
    ]
    return [*found, Contestant(HELD, policies=policies(100, held=True))] if plan.held else found


async def measured(bed: Bed, plan: Plan, number: int) -> Round:
    """One round; each begins with another contestant."""
    found = Round()
    shift = number % len(bed.contestants)
    everybody = await at_once(bed.contestants, QUIET, 3 * plan.seconds)
    found.quiet = {one.name: window for one, window in zip(bed.contestants, everybody, strict=True)}
    for one in (*bed.contestants[shift:], *bed.contestants[:shift]):
        name = one.name
        found.busy[name] = await paced(one, BUSY, plan.seconds)
        found.burst[name] = await paced(one, BURST, plan.seconds)
        found.flood[name] = await flooded(one, streams=4, events=plan.events)
        found.calls[name] = await called(one, calls=plan.calls)
    return found


async def warmed(bed: Bed) -> None:
    """Connections, caches and code paths, before anything counts."""
    for one in bed.contestants:
        await flooded(one, streams=2, events=500)
        await called(one, calls=16)


def run(plan: Plan) -> tuple[list[Contestant], list[Round]]:
    """Every round over a real Envoy. Raises NotAvailable."""
    found = contestants(plan)
    rounds = []
    with made(found) as bed:
        uvloop.run(warmed(bed))
        for number in range(plan.rounds):
            print(f"round {number + 1} of {plan.rounds}", file=sys.stderr, flush=True)
            rounds.append(uvloop.run(measured(bed, plan, number)))
    return found, rounds


def engine_alone(sets: Sequence[int], runs: int) -> str:
    """What the engine takes without gRPC and Envoy around it."""
    lines = ["the engine alone, us of CPU per event, the best of runs:", f"{'':16}{'1 a message':>14}{'100':>10}"]
    asked = [(f"{count} loaded", policies(count)) for count in sets] + [(HELD, policies(100, held=True))]
    for name, text in asked:
        engine = Engine(text)
        lines.append(f"{name:16}{best(engine, 1, runs):14.1f}{best(engine, 100, runs):10.1f}")
    return "\n".join(lines)


def machine() -> str:
    """What this ran on."""
    cpus = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in cpus.splitlines() if line.startswith("model name")), "?")
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, one Envoy worker\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about half a minute, 100 policies only")
    parser.add_argument("--direct", action="store_true", help="only the engine, without gRPC and Envoy")
    parser.add_argument("--rounds", type=int, default=0, help="how often everybody has a turn")
    asked = parser.parse_args(arguments)
    plan, began = QUICK if asked.quick else FULL, time.monotonic()
    if asked.rounds:
        plan = Plan(asked.rounds, plan.seconds, plan.events, plan.calls, plan.sets, plan.held)
    print(machine())
    if not asked.direct:
        try:
            found, rounds = run(plan)
        except NotAvailable as failure:
            print(f"bench: {failure}", file=sys.stderr)
            return 3
        print("\nmedians of rounds; xN: beside the echo of the same round")
        print(table(rounds, [one.name for one in found], YARDSTICK), end="\n\n")
    print(engine_alone(plan.sets, 3 if asked.quick else 5))
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
