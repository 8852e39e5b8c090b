"""`policyd diff`: what changes between two policy sets on the same traffic."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policyd.adapters.errors import FINDINGS, OK, USAGE, UnreadableInput
from policyd.adapters.prices import load_prices
from policyd.adapters.vocabularies import load_vocabularies
from policyd.cli.diff_report import JsonDiff, MarkdownDiff, Printer, TextDiff
from policyd.cli.diff_sums import Comparison, changes_between
from policyd.cli.dry_run import DryRun
from policyd.cli.replay import compiled
from policyd.cli.serve_options import BoundValues, bounds_from
from policyd.cli.thresholds import Threshold, threshold
from policyd.cli.traffic import traffic
from policyd.core.model.decision import Mode
from policyd.core.model.options import Options


class Format(StrEnum):
    """How the difference is printed."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def diff(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Exchange JSONL, HAR 1.2 or VCR cassettes.")],
    from_: Annotated[list[Path], typer.Option("--from", metavar="PATH", help="The policies as they are; repeatable.")],
    to: Annotated[list[Path], typer.Option("--to", metavar="PATH", help="The policies as they shall be; repeatable.")],
    mode: Annotated[Mode, typer.Option(help="The process's mode.", case_sensitive=False)] = Mode.FULL,
    format: Annotated[Format, typer.Option(help="Text, one JSON document, or Markdown for a pull request.")] = (
        Format.TEXT
    ),
    max_newly_stopped: Annotated[
        Threshold | None,
        typer.Option(parser=threshold, metavar="N|N%", help="Exit 1 when more calls than this are newly stopped."),
    ] = None,
    max_cost_increase: Annotated[
        Threshold | None,
        typer.Option(parser=threshold, metavar="USD|N%", help="Exit 1 when all calls together cost more by this."),
    ] = None,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help="Prices that win over the built-in ones.")] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NS", help="Only this namespace's policies.")] = None,
    bound: BoundValues = None,
) -> None:
    """Play the same traffic through two policy sets: newly stopped, no longer stopped, moved cuts, cost."""
    table = load_prices(prices)
    options = Options(mode=mode, namespace=namespace, observe_all=True, bounds=bounds_from(bound))
    before, after = (DryRun(compiled(paths), table, options, vocabularies=load_vocabularies()) for paths in (from_, to))
    comparison = Comparison(max_newly_stopped, max_cost_increase)
    with closing(_printer(format)) as printer:
        unreadable: list[UnreadableInput] = []
        asyncio.run(_play(before, after, files, comparison, printer, unreadable))
    for words in comparison.failures():
        print(f"policyd: {words}", file=sys.stderr)
    raise typer.Exit(FINDINGS if any(comparison.failures()) else USAGE if unreadable else OK)


def _printer(format: Format) -> Printer:
    match format:
        case Format.TEXT:
            return TextDiff()
        case Format.JSON:
            return JsonDiff()
        case Format.MARKDOWN:
            return MarkdownDiff()


async def _play(
    before: DryRun,
    after: DryRun,
    files: Sequence[Path],
    comparison: Comparison,
    printer: Printer,
    unreadable: list[UnreadableInput],
) -> None:
    with traffic(files, "diff", unreadable) as recordings:
        for recording in recordings:
            was, now = await before.play(recording), await after.play(recording)
            change = changes_between(was, now)
            comparison.add(was, now, change)
            if change is not None:
                printer.row(change)
    if len(unreadable) < len(files) or comparison.calls:
        printer.end(comparison)
