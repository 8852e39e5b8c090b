"""Mistakes seeded into the library, a kind at a time: each is caught by `check`, or by the policy's own cases.

By default some of each kind are tried; POLICYD_MUTATIONS=all tries every place that a kind finds. The table is printed
(`pytest -s`).
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from policyd.adapters.errors import UnreadableInput
from policyd.adapters.prices import load_prices
from policyd.cli.cases.reading import read_suites
from policyd.cli.cases.running import cases_of, prices_of, run_case
from policyd.core.compile.compiler import compile_documents
from policyd.core.errors import Issue, PolicyError, Severity
from policyd.core.review.review import review
from tests.sizes import some

LIBRARY = Path(__file__).parents[2] / "policies"
LEAST = 10  # of each kind
ALL = os.environ.get("POLICYD_MUTATIONS") == "all"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One policy with one mistake."""

    kind: str
    policy: str
    text: str
    line: int
    said: str  # what stands there now

    def __str__(self) -> str:
        return f"{self.policy}/policy.yaml:{self.line}: {self.said}"


Swap = Callable[[re.Match[str]], str]


def by(table: dict[str, str]) -> Swap:
    return lambda found: table[found[0]]


def times(factor: float) -> Swap:
    return lambda found: f"{found[1]}{float(found[2]) * factor:g}{found[3]}"


COMPARED = {">=": "<", "<=": ">", "==": "!=", "!=": "==", ">": "<", "<": ">"}
EDGES = {">=": ">", "<=": "<", ">": ">=", "<": "<="}
PHASES = {"response.": "request.", "request.": "response.", "[request]": "[response]", "[response]": "[request]"}
PHASES |= {".exceeded": ".available", "[request, response]": "[request]"}
UNITS = {"USD": "tokens", "tokens": "requests", "requests": "USD", "24h": "24m", "1m": "1h", "1h": "1m"}
UNITS |= {"Day": "Month", "Month": "Day", "UTC": "Asia/Tokyo"}
AMOUNTS = (r"([a-z0-9-]+: )([\d.]+)( (?:USD|tokens|requests))", r"( [<>]=? )(\d[\d.]*)()", r"(: )(\d{4,})()")

KINDS: dict[str, list[tuple[str, Swap]]] = {
    "a swapped comparison": [(r"(?<=[ ])(>=|<=|==|!=|>|<)(?= )", by(COMPARED))],
    "an edge on the wrong side": [(r"(?<=[ ])(>=|<=|>|<)(?= )", by(EDGES))],
    "and for or, yes for no": [(r"&&", lambda _: "||"), (r"\|\|", lambda _: "&&"), (r'(?<=[" ])!\(', lambda _: "(")],
    "a wrong unit": [(r"(?<=\d )(USD|tokens|requests)\b|\b(24h|1m|1h|Day|Month|UTC)\b", by(UNITS))],
    "a limit ten times too high": [(pattern, times(10)) for pattern in AMOUNTS],
    "a limit ten times too low": [(pattern, times(0.1)) for pattern in AMOUNTS],
    "a wrong phase": [(r"(?<=[\" (!'])(?:response|request)\.(?=[a-z])", by(PHASES)),
                      (r"\[request\]|\[response\]|\[request, response\]|\.exceeded\b", by(PHASES))],
    "a name misspelt": [(r"(?<=[\" (!'])(request|response|caller|session|counters|params|variables)\.([a-z])([a-z_]+)",
                         lambda found: f"{found[1]}.{found[3]}{found[2]}")],
    "a condition that was dropped": [(r"(?m)^      when: .*\n(?: {8}.*\n)*", lambda _: "")],
    "a rule that was dropped": [(r"(?m)^    - name: [\w-]+\n(?:      .*\n| {8}.*\n)*", lambda _: "")],
    "an action of another status": [(r"(?<=status: )\d+", lambda found: "418" if found[0] != "418" else "403")],
    "an entry that is missing": [(r"(?<=\[)([\w.-]+), ", lambda _: ""), (r", ([\w.-]+)(?=\])", lambda _: "")],
    "another failure policy": [(r"failurePolicy: Fail", lambda _: "failurePolicy: Ignore"),
                               (r"failurePolicy: Ignore", lambda _: "failurePolicy: Fail")],
    "a counter of something else": [(r"(?<=charge: )(?!Requests)\w+", lambda _: "Requests"),
                                    (r"(?<=charge: )Requests", lambda _: "OutputTokens"),
                                    (r"(?<= key: )(?:session\.id|caller\.key|caller\.team)", lambda _: "request.model"),
                                    (r"(?<= key: )\[caller\.team, caller\.user\]", lambda _: "caller.team")],
    "a reason for another": [(r"(?<=reason: )\w+", lambda found: f"{found[0]}_2")],
    "a pattern that sees less": [(r"\(\?i\)", lambda _: ""), (r"(?<=[|(])([a-z\\]{4,})\|", lambda _: "")],
}  # fmt: skip

SAME: dict[str, str] = {
    "attribution-required/policy.yaml:13: failurePolicy: Fail  ->  failurePolicy: Ignore": (
        "its rules read headers alone, which are always there, and its counter refuses nothing"
    ),
    "off-hours-freeze/policy.yaml:12: failurePolicy: Ignore  ->  failurePolicy: Fail": (
        "its rules read headers and the clock alone, which are always there"
    ),
}
"""Mutants that change nothing that could be seen, each with the reason."""


def mutants(kind: str) -> Iterator[Mutant]:
    """Every mistake of a kind that the library has a place for."""
    for file in sorted(LIBRARY.glob("*/policy.yaml")):
        text = file.read_text()
        body = text.index("spec:")
        for pattern, swap in KINDS[kind]:
            for found in re.finditer(pattern, text):
                if found.start() < body or "description:" in text[text.rfind("\n", 0, found.start()) : found.start()]:
                    continue
                changed = text[: found.start()] + swap(found) + text[found.end() :]
                if changed != text:
                    yield Mutant(kind, file.parent.name, changed, *_said(text, changed, found.start()))


def _said(text: str, changed: str, at: int) -> tuple[int, str]:
    line = text.count("\n", 0, at)
    before, after = text.split("\n")[line].strip(), [*changed.split("\n"), ""][line].strip()
    return line + 1, f"{before[:90]}  ->  {after[:90]}"


def tried(kind: str) -> list[Mutant]:
    every = list({mutant.text: mutant for mutant in mutants(kind)}.values())  # patterns may find the same place
    if ALL or len(every) <= LEAST:
        return every
    return random.Random(kind).sample(every, LEAST)


def issues_of(text: str) -> list[Issue]:
    return list(review(compile_documents([("policy.yaml", text)])))


def caught_by(mutant: Mutant, tmp_path: Path) -> str:
    """`check` or `cases`; empty when neither sees anything."""
    before = issues_of((LIBRARY / mutant.policy / "policy.yaml").read_text())
    after = issues_of(mutant.text)
    if any(issue.severity is Severity.ERROR for issue in after):
        return "check"
    if {issue.code for issue in after} - {issue.code for issue in before}:
        return "check"
    (tmp_path / "policy.yaml").write_text(mutant.text)
    (tmp_path / "policy.test.yaml").write_text((LIBRARY / mutant.policy / "policy.test.yaml").read_text())
    return "cases" if cases_fail(tmp_path) else ""


def cases_fail(folder: Path) -> bool:
    """Whether a case fails, or cannot even be run; the first one is enough."""
    try:
        found = read_suites([folder])
    except (PolicyError, UnreadableInput):
        return True
    runs = (asyncio.run(run_case(suite, at, prices_of(suite, PRICES))) for suite, at in cases_of(found.suites))
    return bool(found.issues) or any(not result.passed for result in runs)


PRICES = load_prices(None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_seeded_mistake_is_caught(kind: str, tmp_path: Path) -> None:
    seeded = some(tried(kind), 8)
    caught = {mutant: caught_by(mutant, tmp_path) for mutant in seeded}

    counts = {who: list(caught.values()).count(who) for who in ("check", "cases", "")}
    print(
        f"{kind:34} {len(seeded):4} seeded {counts['check']:4} by check {counts['cases']:4} by cases {counts['']:4} not"
    )
    missed = [str(mutant) for mutant, who in caught.items() if not who and str(mutant) not in SAME]
    assert len(tried(kind)) >= LEAST
    assert not missed, "\n".join(missed)


def test_what_changes_nothing_is_still_there() -> None:
    """A mutant that is excused and no longer exists would excuse another one some day."""
    every = {str(mutant) for kind in KINDS for mutant in mutants(kind)}

    assert SAME.keys() <= every
