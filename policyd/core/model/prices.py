"""Prices as nouns: exact sums, one rounding half up to a nano-dollar per call.

Rule 1: rates are exact (Fraction of nano-dollars a token); nothing is a float on the way to a bill.
Rule 2: `Usage` is as the facts have it: input includes cached and cache writes, output includes reasoning.
Rule 3: a class that is priced apart (PARENTS) is a part of its parent class, and costs the difference on top of what
        the parent's rate has made of it already. So a class without a rate of its own costs what its parent costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import lcm
from types import MappingProxyType
from typing import Protocol

PARENTS: Mapping[str, str] = {
    "cache_write_1h": "cache_write",
    "input_audio": "input",
    "cached_audio": "cached_input",
    "output_audio": "output",
    "input_image": "input",
    "cached_image": "cached_input",
    "output_image": "output",
    "input_video": "input",
    "output_video": "output",
    "reasoning": "output",
    "citation": "",
    "searches": "",
}
"""Classes that may be priced apart, and of which class each is a part; "" for those that stand beside all others.
All are tokens but `searches`, which are billed each."""

NONE: Mapping[str, int] = MappingProxyType({})


def _none() -> Mapping[str, int]:
    return NONE


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. INVARIANT: cached + cache_write <= input, reasoning <= output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    source: str = "estimate"  # provider | tokenizer | estimate
    extra: Mapping[str, int] = field(default_factory=_none)  # of PARENTS but `reasoning` -> how many; no zeros
    service_tier: str = ""  # that the answer names: default, batch, flex, priority, fast; empty: none was named
    fee_nano: int | None = None  # nano-dollars: what the provider says it charged for the request as such
    # The samplings that one call caused, where the provider names each: (its model, empty for the call's own; what it
    # used). Each is billed as its own model's, by the size of its own input. INVARIANT: they add up to the rest.
    parts: tuple[tuple[str, Usage], ...] = ()
    stated_nano: int | None = None  # nano-dollars: what the provider says it charged for the whole call


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates that hold when the input has more than `above` tokens; nano-dollars a token."""

    above: int
    input: Fraction
    output: Fraction
    cached_input: Fraction
    cache_write: Fraction
    extra: Mapping[str, Fraction] = field(default_factory=dict)  # classes that have rates of their own, see PARENTS
    # The same rates over one denominator: (denominator, input, output, cached input, cache write), so that a bill is
    # sums of integers, as exact, and a tenth of the work.
    whole: tuple[int, int, int, int, int] = field(init=False, repr=False, compare=False)
    # What a unit of each class of `extra` costs beyond its parent's rate, over the same denominator.
    beyond: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rates = (self.input, self.output, self.cached_input, self.cache_write)
        common = lcm(*(rate.denominator for rate in (*rates, *self.extra.values())))
        object.__setattr__(self, "whole", (common, *(int(rate * common) for rate in rates)))
        parents = {name: getattr(self, parent) if parent else 0 for name, parent in PARENTS.items()}
        beyond = {name: int((rate - parents[name]) * common) for name, rate in self.extra.items()}
        object.__setattr__(self, "beyond", beyond)


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs; `tiers` ascend by `above`, the first one at 0."""

    model: str
    tiers: tuple[Tier, ...]  # of the service tier that the request asked for
    per_request: Fraction = Fraction(0)  # nano-dollars a call
    source: str = ""  # where the price comes from: the snapshot, or the override file
    variants: Mapping[str, tuple[Tier, ...]] = field(
        default_factory=dict
    )  # service tier -> its rates, where they differ
    confidence: float = field(default=1.0, compare=False)  # 0..1: how sure it is that this is the model's price
    # How the price of another model is found that this call may cause to speak.
    other: Callable[[str], Price | None] | None = field(default=None, compare=False, repr=False)
    guess: bool = field(default=False, compare=False)  # it is another model's: this model's price is not known
    local: bool = field(default=False, compare=False)  # it comes from the operator's own price file

    def asked(self, service_tier: str) -> Price:
        """The same for a request that asks for a service tier: the dearer of that tier and the standard one, as long as
        the response names none. Whether the provider grants a cheaper tier, only the response tells."""
        tiers = self.variants.get(service_tier)
        if tiers is None or _height(tiers) <= _height(self.tiers):
            return self
        return replace(self, tiers=tiers, variants={"default": self.tiers, **self.variants})

    def tier(self, input_tokens: int, service_tier: str = "") -> Tier:
        """The tier that a call of this much input is billed by (the whole call, not the excess)."""
        tiers = self.tiers
        if service_tier:
            tiers = self.variants.get(service_tier) or self.variants.get("default", tiers)
        chosen = tiers[0]
        for tier in tiers[1:]:
            if input_tokens > tier.above:
                chosen = tier
        return chosen

    def cost_nano(self, usage: Usage) -> int:
        """Nano-dollars of one call, rounded half up once; the provider's own sum where it states one."""
        if usage.stated_nano is not None:
            return usage.stated_nano
        total, common = self._tokens(usage) if not usage.parts else self._sum(usage)
        if usage.fee_nano is not None:
            total += usage.fee_nano * common
        elif self.per_request:
            each = self.per_request
            total, common = total * each.denominator + each.numerator * common, common * each.denominator
        return (2 * total + common) // (2 * common)

    def _tokens(self, usage: Usage) -> tuple[int, int]:
        """What the tokens cost, exactly: a fraction of nano-dollars that is not reduced."""
        tier = self.tier(usage.input_tokens, usage.service_tier)
        plain = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens)
        common, input_, output, cached, write = tier.whole
        total = (
            plain * input_
            + usage.output_tokens * output
            + usage.cached_input_tokens * cached
            + usage.cache_write_tokens * write
        )
        if tier.beyond:
            total += usage.reasoning_tokens * tier.beyond.get("reasoning", 0)
            total += sum(many * tier.beyond.get(name, 0) for name, many in usage.extra.items())
        return total, common

    def _sum(self, usage: Usage) -> tuple[int, int]:
        whole = Fraction(0)
        for model, part in usage.parts:
            whole += Fraction(*self._of(model)._tokens(part))
        if beside := {name: many for name, many in usage.extra.items() if not PARENTS.get(name)}:
            whole += Fraction(*self._tokens(Usage(extra=beside, service_tier=usage.service_tier)))
        return whole.numerator, whole.denominator

    def _of(self, model: str) -> Price:
        found = self.other(model) if model and self.other is not None else None
        return found or self

    @property
    def free(self) -> bool:
        """Whether it bills nothing at all."""
        return not self.per_request and not _height(self.tiers)

    def knows(self, usage: Usage) -> bool:
        """Whether it has a rate for all that was used: no service tier and no class that it says nothing about."""
        named = usage.service_tier
        if named and named not in self.variants and named != "default":
            return False
        if any(model and self.other is not None and self.other(model) is None for model, _ in usage.parts):
            return False
        rates = self.tier(usage.input_tokens, named).extra
        return all(name in rates for name in usage.extra)


_FREE_TIER = Tier(0, Fraction(0), Fraction(0), Fraction(0), Fraction(0))
FREE = Price("", (_FREE_TIER,), source="unbilled")
"""The price of calls that providers do not bill."""


def cost_of(price: Price | None, usage: Usage) -> int:
    """Nano-dollars of one call; 0 where neither a price nor the provider's own sum is known."""
    if price is None:
        return usage.stated_nano or 0
    return price.cost_nano(usage)


def _height(tiers: tuple[Tier, ...]) -> Fraction:
    return max(tier.input + tier.output for tier in tiers)


class PriceTable(Protocol):
    """Prices by provider and model as of a time."""

    @property
    def digest(self) -> str: ...
    def price(self, provider: str, model: str, at: float) -> Price | None:
        """The price of a model at a time (seconds since 1970, UTC); None when it is not known. Cached and cheap."""
        ...

    def dearest(self, provider: str, at: float) -> Price | None:
        """The dearest price of a provider's models at a time, as an estimate for a model of unknown price; of all
        providers' where this one's are not known. None when no price at all is known. Cached and cheap."""
        ...
