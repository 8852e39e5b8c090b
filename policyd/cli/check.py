"""`policyd check`: compile everything, and report every issue at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policyd.adapters.envoy.ai_gateway import doubts
from policyd.adapters.policies_dir import read_policies
from policyd.cli.derived_text import as_text as derived_text
from policyd.cli.render import as_github, as_json, as_sarif, as_text, summary
from policyd.core.compile.compiler import Compiled, compile_documents, in_order
from policyd.core.errors import Issue, Severity, Span
from policyd.core.review.derived import derived
from policyd.core.review.review import review

_CODE = re.compile(r"[A-Z]{3,4}[0-9]{3}")


class Format(StrEnum):
    """How issues are written."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


class Target(StrEnum):
    """Where policies are to be in force."""

    ENVOY = "envoy"
    AI_GATEWAY = "ai-gateway"


def run(
    paths: list[Path],
    format: Format = Format.TEXT,
    *,
    explain: bool = False,
    target: Target = Target.ENVOY,
    strict: bool = False,
    ignore: Sequence[str] = (),
) -> int:
    """Checks the policies at these paths and prints the issues; 0 without errors, else 1. Raises UnreadableInput.

    `strict`: warnings count as errors do. `ignore`: codes of warnings that are neither printed nor counted.
    """
    files = read_policies(paths)
    compiled = compile_documents(files)
    found = in_order([*review(compiled), *_about(target, compiled), *_empty(paths)])
    issues = tuple(one for one in found if one.severity is Severity.ERROR or one.code not in ignore)
    told = _derived(compiled) if explain else None
    match format:
        case Format.TEXT:
            print(as_text(issues, dict(files)) + derived_text(told or ()), end="")
            print(summary(issues), file=sys.stderr)
        case Format.JSON:
            print(as_json(issues, told))
        case Format.SARIF:
            print(as_sarif(issues))
        case Format.GITHUB if issues:
            print(as_github(issues))
        case Format.GITHUB:
            pass
    return int(any(strict or issue.severity is Severity.ERROR for issue in issues))


def _empty(paths: Sequence[Path]) -> Iterator[Issue]:
    """Folders without a policy: nothing of them was checked, which must not look like success."""
    for path in paths:
        if path.is_dir() and not read_policies([path]):
            hint = "policies are in files named *.yaml or *.yml; *.test.yaml files hold test cases"
            yield Issue(Span(str(path), 1, 1), "POL125", Severity.ERROR, "there is no policy file in this folder", hint)


def _about(target: Target, compiled: Compiled) -> Iterator[Issue]:
    """What will not do there what it says; of a set with errors that is not asked."""
    if target is Target.ENVOY or compiled.policy_set is None:
        return
    for one in compiled.written:
        findings = one.findings.again()
        for path, name, doubt in doubts(one.policy):
            message = f"{name} {doubt.wants}: behind Envoy AI Gateway {doubt.fate}"
            findings.warn(path, doubt.code, message, doubt.hint, key=path[-1] != "when")
        yield from findings.issues


def _derived(compiled: Compiled) -> Sequence[Mapping[str, object]]:
    """Of a set with errors nothing is derived."""
    policies = compiled.policy_set
    return () if policies is None else derived(policies.policies, policies.engine)


def check(
    paths: Annotated[list[Path], typer.Argument(help="Policy files, or folders of them.", metavar="PATH")],
    format: Annotated[Format, typer.Option(help="How to print the issues.")] = Format.TEXT,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell what was derived: phases, reads, counters, Envoy's part.")
    ] = False,
    target: Annotated[
        Target, typer.Option(help="Where they are to be in force: what will not do there what it says is warned of.")
    ] = Target.ENVOY,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where there is a warning, too.")] = False,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Leave out warnings of this code. Give it once per code.")
    ] = None,
) -> None:
    """Compile policies and report every issue at once."""
    _known(ignore or ())
    if explain and format in (Format.SARIF, Format.GITHUB):
        raise typer.BadParameter(f"goes with --format text or json, not {format}", param_hint="--explain")
    raise typer.Exit(run(paths, format, explain=explain, target=target, strict=strict, ignore=tuple(ignore or ())))


def _known(codes: Sequence[str]) -> None:
    for code in codes:
        if not _CODE.fullmatch(code):
            raise typer.BadParameter(f"{code!r} is no code of a warning, such as POL102", param_hint="--ignore")
