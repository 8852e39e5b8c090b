"""How long a rule's condition takes, sampled: what makes a policy set slow.

Rule 1: a sample is judged apart from the call, over its facts as they stand at its end; it changes nothing.
Rule 2: the first calls are sampled, then few: what is measured must not be what takes the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nlargest
from time import perf_counter_ns

from policyd.core.compile.policyset import Batch, CompiledRule
from policyd.core.exchange.call import Call

_FIRST = 20  # calls that are sampled in any case
_EVERY = 1000  # afterwards one in so many
_MOST = 10_000  # rules


@dataclass(slots=True)
class _Timed:
    """One rule."""

    batch: Batch
    samples: int = 0
    total_ns: int = 0


@dataclass(slots=True)
class RuleTimes:
    """Shown every call when it is over."""

    _calls: int = 0
    _rules: dict[CompiledRule, _Timed] = field(default_factory=dict)

    def look_at(self, call: Call) -> None:
        self._calls += 1
        if self._calls <= _FIRST or self._calls % _EVERY == 0:
            self._sample(call)

    def _sample(self, call: Call) -> None:
        plan, world = call.plan, call.world
        for bound in plan.rules if plan is not None else ():
            program = bound.rule.when
            if plan is None or program is None or (len(self._rules) >= _MOST and bound.rule not in self._rules):
                continue
            timed = self._rules.setdefault(bound.rule, _Timed(plan.batch([program])))
            began = perf_counter_ns()
            timed.batch.evaluate(world.facts, world.counters, world.hits)
            timed.total_ns += perf_counter_ns() - began
            timed.samples += 1

    def slowest(self, count: int) -> Iterator[tuple[str, float]]:
        """(policy/rule, microseconds) of the conditions that take longest."""
        means = {rule: timed.total_ns / timed.samples / 1000 for rule, timed in self._rules.items() if timed.samples}
        for rule, micros in nlargest(count, means.items(), key=lambda item: item[1]):
            yield f"{rule.policy}/{rule.name}", micros
