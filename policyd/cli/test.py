"""`policyd test`: run the cases that stand beside policies, and say which rules they have seen."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from policyd.adapters.errors import UnreadableInput
from policyd.adapters.policies_dir import TEST_SUFFIXES, read_policies
from policyd.adapters.prices import load_prices
from policyd.cli.cases.coverage import Coverage
from policyd.cli.cases.reading import Suite, read_suites
from policyd.cli.cases.report import Report, as_json, as_junit, as_text
from policyd.cli.cases.running import CaseResult, cases_of, prices_of, run_case
from policyd.cli.render import as_text as issues_as_text
from policyd.cli.render import clean, summary
from policyd.core.compile.compiler import compile_documents
from policyd.core.errors import PolicyError, Severity
from policyd.core.model.decision import Mode
from policyd.core.model.prices import PriceTable


class Format(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"


def test(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Test files, or folders with policies.")],
    format: Annotated[Format, typer.Option(help="For people, one JSON document, or JUnit's XML.")] = Format.TEXT,
    min_coverage: Annotated[
        float, typer.Option(metavar="PERCENT", min=0, max=100, help="Fail where the cases have seen less of the rules.")
    ] = 0.0,
    only: Annotated[
        str | None, typer.Option("-k", "--only", metavar="WORDS", help="Cases whose name has this.")
    ] = None,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help="Prices that win over the built-in ones.")] = None,
) -> None:
    """Run the `*.test.yaml` cases beside policies: calls in a row on a fake clock, through the engine that serves."""
    report = run(paths, load_prices(prices), least=min_coverage, only=only)
    match format:
        case Format.TEXT:
            print(as_text(report), end="")
            print(report.summary(), file=sys.stderr)
        case Format.JSON:
            print(as_json(report))
        case Format.JUNIT:
            print(as_junit(report))
    raise typer.Exit(int(bool(report.failed) or not report.covered))


def run(paths: Sequence[Path], prices: PriceTable, *, least: float = 0.0, only: str | None = None) -> Report:
    """Every case below these paths. Raises UnreadableInput, also for mistakes in a test file, or PolicyError."""
    found = read_suites(paths)
    if found.issues:
        print(issues_as_text(sorted(found.issues, key=lambda one: one.span), found.texts), end="", file=sys.stderr)
        raise UnreadableInput(", ".join(map(str, paths)), f"the cases cannot be run: {summary(found.issues)}")
    cases = [(suite, at) for suite, at in cases_of(found.suites) if only is None or only in suite.spec.cases[at].name]
    if not cases:
        raise UnreadableInput(", ".join(map(str, paths)), f"no case's name has `{only}` in it")
    results = asyncio.run(_run(cases, prices))
    coverage = Coverage(
        [*(one for suite in found.suites for one in suite.sets.values()), *_others(paths, found.suites)]
    )
    coverage.see(results)
    return Report(results, coverage, least)


async def _run(cases: Sequence[tuple[Suite, int]], prices: PriceTable) -> list[CaseResult]:
    results: list[CaseResult] = []
    with _progress(len(cases)) as advance:
        for suite, at in cases:
            advance(suite.spec.cases[at].name)
            results.append(await run_case(suite, at, prices_of(suite, prices)))
    return results


def _others(paths: Sequence[Path], suites: Sequence[Suite]) -> Iterator[Any]:
    """The policies below these paths that no case is about."""
    seen = {Path(name).resolve() for suite in suites for name in suite.policy_files}
    files = [path for path in paths if not path.name.endswith(TEST_SUFFIXES)]
    rest = [(name, text) for name, text in read_policies(files) if Path(name).resolve() not in seen]
    if not rest:
        return
    compiled = compile_documents(rest, mode=Mode.FULL)
    if compiled.policy_set is None:
        raise PolicyError(tuple(issue for issue in compiled.issues if issue.severity is Severity.ERROR))
    yield compiled.policy_set


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar on stderr, for people only."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[at]}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("test", total=total, at="")

        def advance(name: str) -> None:
            progress.update(task, advance=1, at=clean(name))

        yield advance
