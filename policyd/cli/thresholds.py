"""Thresholds of the commands that compare: a number, or a share in percent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import typer

_WRITTEN = re.compile(r"\$?([0-9]{1,15}(?:\.[0-9]{1,12})?)\s*(%|USD|)")


@dataclass(frozen=True, slots=True)
class Threshold:
    """How much more is still fine."""

    text: str
    amount: Fraction
    percent: bool

    def passed(self, before: int, after: int, scale: int = 1) -> bool:
        """Whether the increase from `before` to `after`, in units of 1/scale, is more than that. A share of nothing is
        nothing."""
        allowed = before * self.amount / 100 if self.percent else self.amount * scale
        return after - before > allowed

    def too_many(self, count: int, of: int) -> bool:
        """Whether so many of all are more than that."""
        return count > (of * self.amount / 100 if self.percent else self.amount)


def threshold(text: str) -> Threshold:
    """`12`, `0.50` or `5%`. Raises BadParameter."""
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter("write a number or a share, such as 0.50 or 5%")
    return Threshold(text.strip(), Fraction(found[1]), found[2] == "%")
