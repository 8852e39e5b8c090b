"""`policyd cost`: what recorded conversations cost, and whether that is more than it was."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policyd.adapters.prices import load_prices
from policyd.cli.cost_baseline import named_files, read_baseline
from policyd.cli.cost_report import as_json, as_text
from policyd.cli.cost_sums import Bill, Costs, failures
from policyd.cli.dry_run import DryRun
from policyd.cli.thresholds import Threshold, threshold
from policyd.cli.traffic import traffic
from policyd.cli.untouched import untouched
from policyd.core.model.prices import PriceTable


class Format(StrEnum):
    """How costs are printed."""

    TEXT = "text"
    JSON = "json"


def cost(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Exchange JSONL, HAR 1.2, VCR cassettes, or folders of them.")
    ],
    against: Annotated[
        Path | None,
        typer.Option(metavar="BASELINE", help="What `policyd cost --format json` printed, or recordings as above."),
    ] = None,
    max_increase: Annotated[
        Threshold,
        typer.Option(
            parser=threshold,
            metavar="USD|N%",
            help="Exit 1 when everything, a feature or a conversation costs more than the baseline by more than this.",
        ),
    ] = "10%",  # type: ignore[assignment]
    tag: Annotated[str, typer.Option(metavar="NAME", help="The tag that names a feature: x-tag-NAME.")] = "feature",
    format: Annotated[Format, typer.Option(help="Tables for people, or one JSON document.")] = Format.TEXT,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help="Prices that win over the built-in ones.")] = None,
) -> None:
    """Tokens and money of recorded conversations, and of each feature."""
    table = load_prices(prices)
    bill = billed(files, table, tag.lower())
    baseline = None if against is None else read_baseline(against, lambda paths: billed(paths, table, tag.lower()))
    found = [] if baseline is None else list(failures(bill, baseline, max_increase))
    print(as_json(bill, baseline, found) if format is Format.JSON else as_text(bill, baseline))
    for words in found:
        print(f"policyd: {words}", file=sys.stderr)
    raise typer.Exit(int(bool(found)))


def billed(paths: list[Path], prices: PriceTable, tag: str) -> Bill:
    """What these recordings cost. Raises UnreadableInput."""
    names = named_files(paths)
    bill = Bill(prices.digest)
    asyncio.run(_play(untouched(prices), names, tag, bill))
    return bill


async def _play(run: DryRun, names: dict[Path, str], tag: str, bill: Bill) -> None:
    with traffic(list(names), "cost") as recordings:
        for recording in recordings:
            played = await run.play(recording)
            file = Path(recording.source.rpartition("#")[0])
            session = played.facts.session
            conversation = session.id if session.source == "header" else names[file]
            bill.add(conversation, played.facts.request.tags.get(tag, ""), Costs.of(played.record))
