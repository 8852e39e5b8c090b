"""What `policyd test` tells: text for people, JSON for machines, JUnit for CI."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.sax.saxutils import escape, quoteattr

from policyd.cli.cases.coverage import Coverage
from policyd.cli.cases.running import CallResult, CaseResult
from policyd.cli.cases.seeing import Difference
from policyd.cli.render import clean
from policyd.core.errors import Span

LONGEST = 400  # characters of one side of a difference


@dataclass(frozen=True, slots=True)
class Report:
    """Every case that ran, and the coverage that is asked for, in percent."""

    cases: Sequence[CaseResult]
    coverage: Coverage
    least: float

    @property
    def failed(self) -> int:
        return sum(not case.passed for case in self.cases)

    @property
    def covered(self) -> bool:
        return self.coverage.percent >= self.least - 1e-9

    def summary(self) -> str:
        """One line for people."""
        calls = sum(len(case.calls) for case in self.cases)
        words = f"{len(self.cases)} cases, {calls} calls: {len(self.cases) - self.failed} passed, {self.failed} failed"
        share = f"; rules covered: {self.coverage.percent:.0f} %"
        return words + share + ("" if self.covered else f", less than the {self.least:g} % asked for")


def _by_file(cases: Iterable[CaseResult]) -> Iterator[tuple[str, list[CaseResult]]]:
    for file, group in groupby(cases, key=lambda case: case.suite.document.file):
        yield file, list(group)


def _place(case: CaseResult, difference: Difference) -> Span:
    return case.suite.document.key_span(difference.path)


def _call_name(call: CallResult) -> str:
    return f"call {call.number}" + (f" ({call.name})" if call.name else "")


# ---- text -----------------------------------------------------------------------------------------------------------


def as_text(report: Report) -> str:
    """Every case a line, a failed one with what was expected (-) and what came (+), then what no case has seen."""
    lines: list[str] = []
    for file, cases in _by_file(report.cases):
        lines.append(clean(file))
        for case in cases:
            lines.append(clean(f"  {'ok  ' if case.passed else 'FAIL'}  {case.spec.name}"))
            lines += [line for call in case.calls for line in _failed(case, call)]
    missing = report.coverage.missing
    if missing:
        lines += ["", "not seen by any case:"]
        lines += [clean(f"  {key}: never {word}") for key, word in missing]
    return "\n".join([*lines, ""])


def _failed(case: CaseResult, call: CallResult) -> Iterator[str]:
    for one in call.differences:
        yield clean(f"        {_place(case, one)}: {_call_name(call)}: {one.field}")
        expected, came = _both(one.expected, one.came)
        yield clean(f"          - {expected}")
        yield clean(f"          + {came}")
        if len(one.expected) > 20 and (at := _parting(expected, came)) > 0:
            yield f"            {' ' * at}^ from here on"
    if call.differences:
        rules = ", ".join(f"{one.rule} {one.outcome.value.replace('_', ' ')}" for one in call.rules) or "none"
        yield clean(f"          {call.verdict}; rules judged: {rules}")
        for rule in call.rules:
            if rule.reason and rule.outcome.value == "errored":
                yield clean(f"          {rule.rule}: {rule.reason}")


def _both(expected: str, came: str) -> tuple[str, str]:
    """Both sides, from shortly before they part where they are long."""
    start = max(0, _parting(expected, came) - LONGEST // 4) if max(len(expected), len(came)) > LONGEST else 0
    return _short(expected, start), _short(came, start)


def _short(text: str, start: int) -> str:
    return ("…" if start else "") + text[start : start + LONGEST] + ("…" if len(text) > start + LONGEST else "")


def _parting(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


# ---- JSON -----------------------------------------------------------------------------------------------------------


def as_json(report: Report) -> str:
    """The one JSON document."""
    summary = {"cases": len(report.cases), "passed": len(report.cases) - report.failed, "failed": report.failed}
    document = {
        "cases": [_case(case) for case in report.cases],
        "coverage": {
            "percent": round(report.coverage.percent, 2),
            "least": report.least,
            "rules": [
                {"rule": str(key), "matched": seen.matched, "not_matched": seen.not_matched}
                for key, seen in sorted(report.coverage.rules.items())
            ],
        },
        "summary": summary,
    }
    return json.dumps(document, indent=2)


def _case(case: CaseResult) -> dict[str, object]:
    place = case.suite.document.key_span(("cases", case.at))
    return {
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "name": case.spec.name,
        "passed": case.passed,
        "seconds": round(case.seconds, 6),
        "verdicts": [call.verdict for call in case.calls],
        "failures": [_failure(case, call, one) for call in case.calls for one in call.differences],
    }


def _failure(case: CaseResult, call: CallResult, one: Difference) -> dict[str, object]:
    place = _place(case, one)
    at = {"file": place.file, "line": place.line, "column": place.column, "call": call.number}
    return {**at, "field": one.field, "expected": one.expected, "came": one.came}


# ---- JUnit ----------------------------------------------------------------------------------------------------------


def as_junit(report: Report) -> str:
    """JUnit's XML: a suite a file, and one for the coverage where some is asked for."""
    suites = [part for file, cases in _by_file(report.cases) for part in _suite(file, cases)]
    if report.least:
        suites += _coverage_suite(report)
    tests, failures = len(report.cases) + bool(report.least), report.failed + (not report.covered)
    head = f'<testsuites name="policyd" tests="{tests}" failures="{failures}">'
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', head, *suites, "</testsuites>"])


def _suite(file: str, cases: Sequence[CaseResult]) -> Iterator[str]:
    failed, seconds = sum(not case.passed for case in cases), sum(case.seconds for case in cases)
    counts = f'tests="{len(cases)}" failures="{failed}" errors="0" time="{seconds:.6f}"'
    yield f"  <testsuite name={_attribute(file)} {counts}>"
    for case in cases:
        head = f"<testcase classname={_attribute(file)} name={_attribute(case.spec.name)}"
        head = f'    {head} file={_attribute(file)} time="{case.seconds:.6f}"'
        if case.passed:
            yield f"{head}/>"
            continue
        lines = [line.strip() for call in case.calls for line in _failed(case, call)]
        message = next(f"{one.field} is not as expected" for call in case.calls for one in call.differences)
        yield f"{head}>"
        yield f"      <failure message={_attribute(message)}>{escape(chr(10).join(lines))}</failure>"
        yield "    </testcase>"
    yield "  </testsuite>"


def _coverage_suite(report: Report) -> Iterator[str]:
    yield f'  <testsuite name="coverage" tests="1" failures="{int(not report.covered)}" errors="0" time="0">'
    head = '    <testcase classname="coverage" name="rules covered" time="0"'
    if report.covered:
        yield f"{head}/>"
    else:
        words = "\n".join(f"{key}: never {word}" for key, word in report.coverage.missing)
        message = _attribute(f"{report.coverage.percent:.0f} % of {report.least:g} %")
        yield f"{head}><failure message={message}>{escape(clean(words))}</failure></testcase>"
    yield "  </testsuite>"


def _attribute(text: str) -> str:
    return quoteattr(clean(text))
