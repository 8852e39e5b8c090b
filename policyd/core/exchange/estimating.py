"""What a charge by expression would come to, if the answer had so many output tokens.

Rule 1: it is the charge's own expression, over what is known and the numbers that are supposed.
Rule 2: nothing is left behind: the facts are afterwards what they were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from policyd.core.compile.policyset import CelFailure, Program
from policyd.core.decide.evaluate import World
from policyd.core.decide.plan import Plan
from policyd.core.model.counters import MAX_AMOUNT, MICRO
from policyd.core.model.prices import Price, Usage, cost_of

_SUPPOSED = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """One counter's expression, for one call."""

    program: Program
    plan: Plan
    world: World
    price: Price | None

    @property
    def grows(self) -> bool:
        """Whether the answer has a say in it."""
        return any(read.startswith("response.") for read in self.program.reads)

    def value(self, usage: Usage, output: int) -> object:
        """What the expression gives; a CelFailure when it fails."""
        response = self.world.facts.response
        before, cost = {name: getattr(response, name) for name in _SUPPOSED}, response.cost_nano
        supposed = replace(usage, output_tokens=output, reasoning_tokens=min(usage.reasoning_tokens, output))
        supposed = supposed if output == usage.output_tokens else replace(supposed, stated_nano=None)
        for name in _SUPPOSED:
            setattr(response, name, getattr(supposed, name))
        response.cost_nano = cost_of(self.price, supposed)
        found = self.plan.batch([self.program]).evaluate(self.world.facts, self.world.counters, self.world.hits)[0]
        for name, number in before.items():
            setattr(response, name, number)
        response.cost_nano = cost
        return found

    def amount(self, usage: Usage, output: int) -> int:
        """Store units; 0 where it cannot be told."""
        return units(self.value(usage, output)) or 0

    def within(self, amount: int, usage: Usage, most: int) -> int:
        """The most output tokens, up to `most`, that come to no more than `amount`; -1 when none do."""
        if self.amount(usage, most) <= amount:
            return most
        if self.amount(usage, 0) > amount:
            return -1
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.amount(usage, middle) <= amount else (low, middle)
        return low


def units(value: object) -> int | None:
    """An expression's value as an amount in store units; None when it is none."""
    if isinstance(value, bool | CelFailure) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return min(MAX_AMOUNT, max(0, round(value * MICRO)))
