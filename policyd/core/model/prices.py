"""Prices as nouns: exact sums, one rounding half up to a nano-dollar per call.

Rule 1: rates are exact (Fraction of nano-dollars a token); nothing is a float on the way to a bill.
Rule 2: `Usage` is as the facts have it: input includes cached and cache writes, output includes reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. INVARIANT: cached + cache_write <= input, reasoning <= output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    source: str = "estimate"  # provider | tokenizer | estimate


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates that hold when the input has more than `above` tokens; nano-dollars a token."""

    above: int
    input: Fraction
    output: Fraction
    cached_input: Fraction
    cache_write: Fraction
    # The same rates over one denominator: (denominator, input, output, cached input, cache write), so that a bill is
    # sums of integers, as exact, and a tenth of the work.
    whole: tuple[int, int, int, int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rates = (self.input, self.output, self.cached_input, self.cache_write)
        common = lcm(*(rate.denominator for rate in rates))
        whole = (common, *(int(rate * common) for rate in rates))
        object.__setattr__(self, "whole", whole)


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs; `tiers` ascend by `above`, the first one at 0."""

    model: str
    tiers: tuple[Tier, ...]
    per_request: Fraction = Fraction(0)  # nano-dollars a call
    source: str = ""  # where the price comes from: the snapshot, or the override file

    def tier(self, input_tokens: int) -> Tier:
        """The tier that a call of this much input is billed by (the whole call, not the excess)."""
        chosen = self.tiers[0]
        for tier in self.tiers[1:]:
            if input_tokens > tier.above:
                chosen = tier
        return chosen

    def cost_nano(self, usage: Usage) -> int:
        """Nano-dollars of one call, rounded half up once."""
        tier = self.tier(usage.input_tokens)
        plain = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens)
        common, input_, output, cached, write = tier.whole
        total = (
            plain * input_
            + usage.output_tokens * output
            + usage.cached_input_tokens * cached
            + usage.cache_write_tokens * write
        )
        if self.per_request:
            each = self.per_request
            total, common = total * each.denominator + each.numerator * common, common * each.denominator
        return (2 * total + common) // (2 * common)


class PriceTable(Protocol):
    """Prices by provider and model as of a time."""

    @property
    def digest(self) -> str: ...
    def price(self, provider: str, model: str, at: float) -> Price | None:
        """The price of a model at a time (seconds since 1970, UTC); None when it is not known. Cached and cheap."""
        ...
