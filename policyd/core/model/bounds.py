"""How much one call may make policyd do. Over a bound a call cannot be judged, and the record names the bound.

Rule 1: a bound is checked before the work that it bounds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one call."""

    tool_calls: int = 256  # of one response
