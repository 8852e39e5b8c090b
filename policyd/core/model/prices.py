"""Prices as nouns: exact sums, one rounding half up to a nano-dollar per call.

Rule 1: rates are exact (Fraction of nano-dollars a token); nothing is a float on the way to a bill.
Rule 2: `Usage` is as the facts have it: input includes cached and cache writes, output includes reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
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
        total = (
            self.per_request
            + plain * tier.input
            + usage.cached_input_tokens * tier.cached_input
            + usage.cache_write_tokens * tier.cache_write
            + usage.output_tokens * tier.output
        )
        return int((2 * total.numerator + total.denominator) // (2 * total.denominator))


class PriceTable(Protocol):
    """Prices by provider and model as of a time."""

    @property
    def digest(self) -> str: ...
    def price(self, provider: str, model: str, at: float) -> Price | None:
        """The price of a model at a time (seconds since 1970, UTC); None when it is not known. Cached and cheap."""
        ...
