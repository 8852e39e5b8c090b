"""`policyd replay`: what policies would have done to recorded traffic."""

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
from policyd.adapters.garbage import looking_seldom
from policyd.adapters.policies_dir import read_policies
from policyd.adapters.prices import load_prices
from policyd.adapters.vocabularies import load_vocabularies
from policyd.cli.dry_records import DryRecords, dry_records
from policyd.cli.dry_run import DryRun, Rechunk
from policyd.cli.fail_on import conditions
from policyd.cli.replay_report import JsonPrinter, Printer, TextPrinter
from policyd.cli.replay_sums import Summary
from policyd.cli.rule_times import RuleTimes
from policyd.cli.serve_options import BoundValues, bounds_from
from policyd.cli.traffic import traffic
from policyd.cli.untouched import Recorded
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.policyset import PolicySet
from policyd.core.errors import PolicyError
from policyd.core.model.decision import Mode
from policyd.core.model.options import Options


class Format(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Exchange JSONL, HAR 1.2 or VCR cassettes.")],
    policies: Annotated[list[Path], typer.Option(metavar="PATH", help="Policies: a file or a folder; repeatable.")],
    mode: Annotated[Mode, typer.Option(help="The process's mode.", case_sensitive=False)] = Mode.FULL,
    format: Annotated[Format, typer.Option(help="A table for people, or one JSON document.")] = Format.TEXT,
    rechunk: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Cut answers anew, into pieces of at most N bytes.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="S", help="With --rechunk: random sizes from this seed.")] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE|CEL", help="Exit 1 when a call is matched by this rule, or by this CEL; repeatable."
        ),
    ] = None,
    records: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the decision records there, for `policyd promote`.")
    ] = None,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help="Prices that win over the built-in ones.")] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NS", help="Only this namespace's policies.")] = None,
    bound: BoundValues = None,
) -> None:
    """Dry run policies over recorded traffic, through the engine that serves, counters included.

    Exits with 1 when a --fail-on is found, else with 2 when a file could not be read; the others were.
    """
    if seed is not None and rechunk is None:
        raise typer.BadParameter("goes with --rechunk", param_hint="--seed")
    cut = Rechunk(rechunk, seed) if rechunk is not None else None
    policy_set = compiled(policies)
    looked_for = conditions(fail_on or (), policy_set)
    summary = Summary(looked_for)
    also = frozenset().union(*(one.reads for one in looked_for))
    options = Options(mode=mode, namespace=namespace, observe_all=True, also_reads=also, bounds=bounds_from(bound))
    table = load_prices(prices)
    run = DryRun(policy_set, table, options, cut, vocabularies=load_vocabularies())
    with closing(JsonPrinter() if format is Format.JSON else _text(run)) as printer, looking_seldom():
        unreadable: list[UnreadableInput] = []
        with dry_records(records) as kept:
            asyncio.run(_play(run, Recorded(table), files, summary, (printer, kept), unreadable))
        if unreadable and len(unreadable) == len(files) and not summary.calls:
            raise typer.Exit(USAGE)  # there is nothing to print
        printer.end(summary, unreadable)
    raise typer.Exit(FINDINGS if summary.found else USAGE if unreadable else OK)


def _text(run: DryRun) -> TextPrinter:
    times = RuleTimes()
    run.on_played = times.look_at
    return TextPrinter(times)


def compiled(paths: Sequence[Path]) -> PolicySet:
    """The policy set of these paths, its warnings on stderr. Raises UnreadableInput or PolicyError."""
    compilation = compile_documents(read_policies(paths))
    if compilation.policy_set is None:
        raise PolicyError(tuple(compilation.issues))
    for issue in compilation.issues:
        print(issue, file=sys.stderr)
    return compilation.policy_set


async def _play(
    run: DryRun,
    recorded: Recorded,
    files: Sequence[Path],
    summary: Summary,
    told: tuple[Printer, DryRecords],
    unreadable: list[UnreadableInput],
) -> None:
    printer, records = told
    with traffic(files, "replay", unreadable) as recordings:
        for recording in recordings:
            played = await run.play(recording)
            summary.add(played, await recorded.nano(played))
            printer.row(played)
            records.add(played.record)
