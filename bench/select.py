"""What finding the matching policies costs a call with 10, 100, 1,000 and 10,000 policies loaded, of which 5 match.

Microseconds a call: `known` asks what was asked before, `new` never asks the same twice, so that no cache helps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from policyd.core.compile.policyset import Batch, CompiledPolicy, Match, Program
from policyd.core.compile.select import CompiledSet
from policyd.core.model.decision import FailurePolicy, Mode

CALLS = 20_000
MATCHING = 5


class NoEngine:
    """Selecting judges nothing."""

    def batch(self, programs: Sequence[Program]) -> Batch:
        raise NotImplementedError


def loaded(count: int) -> CompiledSet:
    """So many policies, each for a model and a path of its own, but MATCHING for everything under /v1."""
    matches = [Match(models=(f"team-{index}-*", f"m{index}"), paths=(f"/t{index}/*",)) for index in range(count)]
    matches[:MATCHING] = [Match(models=("gpt-*",), paths=("/v1/*",))] * MATCHING
    policies = [
        CompiledPolicy(str(index), "", True, Mode.FULL, FailurePolicy.FAIL, match, (), (), ())
        for index, match in enumerate(matches)
    ]
    return CompiledSet("sha256:0", policies, NoEngine())


def cost(ask: Callable[[int], tuple[CompiledPolicy, ...]]) -> float:
    """Microseconds of CPU a call, the best of three runs."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for index in range(CALLS):
            assert len(ask(index)) == MATCHING
        best = min(best, time.process_time() - began)
    return best / CALLS * 1e6


def main() -> None:
    print(f"{'policies':>8} {'known':>8} {'new':>8}   us a call")
    for count in (10, 100, 1_000, 10_000):
        chosen = loaded(count)
        known = cost(lambda _, chosen=chosen: chosen.select("chat", "openai", "/v1/chat", "gpt-4o"))  # type: ignore[misc]
        new = cost(lambda index, chosen=chosen: chosen.select("chat", "openai", f"/v1/{index}", f"gpt-{index}"))  # type: ignore[misc]
        print(f"{count:>8} {known:>8.2f} {new:>8.2f}")


if __name__ == "__main__":
    main()
