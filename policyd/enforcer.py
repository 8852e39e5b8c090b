"""Drives one exchange: brings the readings that it needs, keeps deadlines, and turns their failures into events.

The exchange decides, the enforcer fetches.
"""

from __future__ import annotations

from typing import Protocol

from policyd.core.model.counters import Readings
from policyd.core.model.decision import DecisionRecord
from policyd.core.model.steps import Extend, Read, Reserve, Settle


class CounterStore(Protocol):
    """Where counters live. Every operation is idempotent by its `op`; none raises: a failure is in the answer."""

    async def read(self, need: Read) -> Readings: ...
    async def reserve(self, need: Reserve) -> Readings: ...
    async def extend(self, need: Extend) -> Readings: ...
    async def settle(self, step: Settle) -> Readings: ...


class RecordSink(Protocol):
    """Where decision records go. `write` returns at once; the work is done off the byte path."""

    def write(self, record: DecisionRecord) -> None: ...
