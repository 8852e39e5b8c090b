"""What CEL costs: microseconds an evaluation, and a compilation. Run: python bench/cel.py

Medians of five; the machine's noise is the spread between two runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from policyd.core.compile.cel import CelEngine, CompiledProgram, Scope, Want
from policyd.core.compile.policyset import CounterRef, Watcher
from policyd.core.model.facts import CounterFacts, Facts

POLICY = "bench/policy"
STREAM_RULES = (
    "response.cost_usd > 2",
    "response.output_tokens > 4000 && request.model in params.dear",
    "counters.spend.exceeded",
    'response.text.contains("-----BEGIN")',
    "counters.spend.used >= 0.8 && response.events > 10",
    'response.tool_calls.exists(t, t.name == "shell")',
    "response.elapsed_ms > 30000",
    'response.text.matches("AKIA[0-9A-Z]{16}")',
    'request.tags[?"feature"].orValue("") == "batch" && response.output_tokens > 100',
    "session.cost_usd + response.cost_usd > 5",
)


def scope(policy: str = POLICY) -> Scope:
    return Scope(policy=policy, counters=["spend"], params={"dear": ["gpt-4o", "o3"]}, variables=[])


def compiled(source: str, into: Scope) -> CompiledProgram:
    program = into.compile(source, Want.BOOL)
    assert isinstance(program, CompiledProgram), program
    return program


def facts() -> Facts:
    made = Facts()
    made.request.model, made.request.tags = "gpt-4o-mini", {"feature": "chat"}
    made.response.output_tokens, made.response.events, made.response.cost_nano = 500, 5, 1_000_000
    made.response.elapsed_ms, made.response.texts = 900.0, {0: ["hello " * 200]}
    return made


def micros(act: Callable[[], object], number: int) -> float:
    """The median of five, microseconds for each call."""
    spans = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(number):
            act()
        spans.append((time.perf_counter() - start) / number * 1e6)
    return statistics.median(spans)


def main() -> None:
    known = facts()
    counters: dict[CounterRef, CounterFacts] = {(POLICY, "spend"): CounterFacts(value=1.0, used=0.2)}
    programs = [compiled(source, scope()) for source in STREAM_RULES]
    hits: frozenset[Watcher] = frozenset()
    for count in (1, 3, 10):
        batch = CelEngine().batch(programs[:count])
        print(f"{count:3d} rules, none true: {micros(lambda b=batch: b.evaluate(known, counters, hits), 5000):7.2f} us")  # type: ignore[misc]
    counters[POLICY, "spend"] = CounterFacts(value=3.0, used=1.2, exceeded=True)
    batch = CelEngine().batch(programs)
    print(f" 10 rules, one true:  {micros(lambda: batch.evaluate(known, counters, hits), 2000):7.2f} us")
    many = [compiled(source, scope(f"bench/p{index}")) for index in range(10) for source in STREAM_RULES]
    wide = CelEngine().batch(many)
    spread = {(f"bench/p{index}", "spend"): CounterFacts(value=1.0, used=0.2) for index in range(10)}
    print(f"100 rules, none true: {micros(lambda: wide.evaluate(known, spread, hits), 1000):7.2f} us")
    print(f"compile a rule:       {micros(lambda: compiled(STREAM_RULES[1], scope()), 300):7.2f} us")
    print(f"build a batch of 10:  {micros(lambda: CelEngine().batch(programs), 50):7.2f} us")


if __name__ == "__main__":
    main()
