"""Recorded calls as they were, judged by nothing: what they cost when nobody stood in their way."""

from __future__ import annotations

from dataclasses import replace

from policyd.adapters.vocabularies import load_vocabularies
from policyd.cli.dry_run import DryRun, Played
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.policyset import PolicySet
from policyd.core.model.options import Options
from policyd.core.model.prices import PriceTable


def untouched(prices: PriceTable) -> DryRun:
    """A dry run without a policy: every answer passes whole, and is read."""
    return DryRun(no_policies(), prices, Options(observe_all=True), vocabularies=load_vocabularies())


def no_policies() -> PolicySet:
    """The set that judges nothing."""
    empty = compile_documents(()).policy_set
    assert empty is not None
    return empty


class Recorded:
    """What calls cost as they were recorded."""

    def __init__(self, prices: PriceTable) -> None:
        self._run = untouched(prices)

    async def nano(self, played: Played) -> int:
        """Nano-dollars of one call. Only what policies have enforced can have made a difference."""
        record = played.record
        if not record.enforced:
            return record.cost_nano
        again = await self._run.play(replace(played.recording, time=record.time))
        return again.record.cost_nano
