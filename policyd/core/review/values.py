"""What is known of one value: some of its possible values are ruled out, the others are not.

Rule 1: knowing less is always allowed; ruling out a value that can occur never is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Known:
    """The values that are left: those of `only` (None: any), within the bounds, and not in `without`."""

    only: frozenset[Scalar] | None = None
    without: frozenset[Scalar] = frozenset()
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    @property
    def empty(self) -> bool:
        """Whether no value is left."""
        if self.only is not None:
            return not self.only
        if self.low > self.high:
            return True
        return self.low == self.high and (self.low_open or self.high_open or self.low in self.without)

    def among(self, values: Iterable[Scalar]) -> Known:
        """One of these."""
        kept = frozenset(values) if self.only is None else self.only & frozenset(values)
        return replace(self, only=frozenset(value for value in kept if self.allows(value)))

    def excluding(self, values: Iterable[Scalar]) -> Known:
        """None of these."""
        out = frozenset(values)
        only = None if self.only is None else self.only - out
        return replace(self, only=only, without=self.without | out)

    def above(self, low: float, *, strict: bool) -> Known:
        if low > self.low or (low == self.low and strict):
            return replace(self, low=low, low_open=strict).bounded()
        return self

    def below(self, high: float, *, strict: bool) -> Known:
        if high < self.high or (high == self.high and strict):
            return replace(self, high=high, high_open=strict).bounded()
        return self

    def bounded(self) -> Known:
        if self.only is None:
            return self
        return replace(self, only=frozenset(value for value in self.only if self.within(value)))

    def whole(self) -> Known:
        """The same of an integer: bounds at integers that are allowed themselves."""
        low, high = _up(self.low, self.low_open), _down(self.high, self.high_open)
        return replace(self, low=low, high=high, low_open=False, high_open=False)

    def allows(self, value: Scalar) -> bool:
        return value not in self.without and self.within(value)

    def within(self, value: Scalar) -> bool:
        if isinstance(value, str | bool):
            return True
        if value < self.low or value > self.high:
            return False
        return not (value == self.low and self.low_open) and not (value == self.high and self.high_open)


def _up(low: float, strict: bool) -> float:
    if math.isinf(low):
        return low
    return math.floor(low) + 1 if strict or low != math.floor(low) else math.floor(low)


def _down(high: float, strict: bool) -> float:
    if math.isinf(high):
        return high
    return math.ceil(high) - 1 if strict or high != math.ceil(high) else math.ceil(high)


ANYTHING = Known()


def between(low: float, high: float = math.inf) -> Known:
    """A number from `low` to `high`, both included."""
    return Known(low=low, high=high)


def one_of(*values: Scalar) -> Known:
    """One of these values."""
    return Known(only=frozenset(values))
