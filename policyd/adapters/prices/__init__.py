"""Prices: the snapshot that ships with policyd, and a local file whose entries win."""

from __future__ import annotations

import json
from pathlib import Path

from policyd.adapters.prices.table import Prices
from policyd.core.model.prices import PriceTable

SNAPSHOT = Path(__file__).resolve().parents[2] / "data" / "prices.json"


def load_prices(override: Path | None = None) -> PriceTable:
    """The prices that ship, and before them those of a local file (its format: local.py).

    Raises UnreadableInput for a file that cannot be read, PolicyError with all issues for one that makes no sense.
    """
    snapshot = json.loads(SNAPSHOT.read_bytes())
    if override is None:
        return Prices(snapshot)
    from policyd.adapters.prices.local import read_overrides  # YAML is paid for by those who use it

    return Prices(snapshot, read_overrides(override))


__all__ = ["SNAPSHOT", "Prices", "load_prices"]
