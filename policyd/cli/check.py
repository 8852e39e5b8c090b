"""`policyd check`: compile everything, and report every issue at once."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policyd.adapters.policies_dir import read_policies
from policyd.cli.render import as_github, as_json, as_sarif, as_text, summary
from policyd.core.compile.compiler import compile_documents
from policyd.core.errors import Severity
from policyd.core.review.review import review


class Format(StrEnum):
    """How issues are written."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


def run(paths: list[Path], format: Format = Format.TEXT) -> int:
    """Checks the policies at these paths and prints the issues; 0 without errors, else 1. Raises UnreadableInput."""
    files = read_policies(paths)
    issues = review(compile_documents(files))
    match format:
        case Format.TEXT:
            print(as_text(issues, dict(files)), end="")
            print(summary(issues), file=sys.stderr)
        case Format.JSON:
            print(as_json(issues))
        case Format.SARIF:
            print(as_sarif(issues))
        case Format.GITHUB if issues:
            print(as_github(issues))
        case Format.GITHUB:
            pass
    return int(any(issue.severity is Severity.ERROR for issue in issues))


def check(
    paths: Annotated[list[Path], typer.Argument(help="Policy files, or folders of them.", metavar="PATH...")],
    format: Annotated[Format, typer.Option(help="How to print the issues.")] = Format.TEXT,
) -> None:
    """Compile policies and report every issue at once."""
    raise typer.Exit(run(paths, format))
