"""`policyd replay`: what policies would have done to recorded traffic."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from policyd.adapters.policies_dir import read_policies
from policyd.adapters.prices import load_prices
from policyd.adapters.recordings import Recording, read_recordings
from policyd.cli.dry_run import DryRun, Rechunk
from policyd.cli.replay_report import JsonPrinter, Printer, Summary, TextPrinter, clean
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
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Exchange JSONL, HAR 1.2 or VCR cassettes.")],
    policies: Annotated[list[Path], typer.Option(metavar="PATH", help="Policies: a file or a folder; repeatable.")],
    mode: Annotated[Mode, typer.Option(help="The process's mode.", case_sensitive=False)] = Mode.FULL,
    format: Annotated[Format, typer.Option(help="A table for people, or one JSON document.")] = Format.TEXT,
    rechunk: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Cut answers anew, into pieces of at most N bytes.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="S", help="With --rechunk: random sizes from this seed.")] = None,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help="Prices that win over the built-in ones.")] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NS", help="Only this namespace's policies.")] = None,
) -> None:
    """Dry run policies over recorded traffic, through the engine that serves, counters included.

    Example: policyd replay --policies policies/ --mode Full recorded.jsonl
    """
    if seed is not None and rechunk is None:
        raise typer.BadParameter("goes with --rechunk", param_hint="--seed")
    options = Options(mode=mode, namespace=namespace, observe_all=True)
    cut = Rechunk(rechunk, seed) if rechunk is not None else None
    run = DryRun(compiled(policies), load_prices(prices), options, cut)
    with closing(JsonPrinter() if format is Format.JSON else TextPrinter()) as printer:
        asyncio.run(_play(run, files, printer))


def compiled(paths: Sequence[Path]) -> PolicySet:
    """The policy set of these paths, its warnings on stderr. Raises UnreadableInput or PolicyError."""
    compilation = compile_documents(read_policies(paths))
    if compilation.policy_set is None:
        raise PolicyError(tuple(compilation.issues))
    for issue in compilation.issues:
        print(issue, file=sys.stderr)
    return compilation.policy_set


async def _play(run: DryRun, files: Sequence[Path], printer: Printer) -> None:
    summary = Summary()
    with _progress() as advance:
        for file in files:
            for recording in read_recordings(file):
                played = await run.play(recording)
                summary.add(played)
                printer.row(played)
                advance(recording)
    printer.end(summary)


@contextmanager
def _progress() -> Iterator[Any]:
    """A count of calls on stderr, for people only."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed} calls"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[at]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replay", total=None, at="")

        def advance(recording: Recording) -> None:
            progress.update(task, advance=1, at=clean(recording.source))

        yield advance
