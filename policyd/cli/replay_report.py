"""What `policyd replay` tells: one JSON document for machines, a table for people.

Rule 1: stdout gets one document, or nothing: it is spooled, so a file that breaks half way leaves nothing half-written.
Rule 2: memory does not grow with the number of calls.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any, Protocol

from policyd.adapters.errors import UnreadableInput
from policyd.adapters.records import counter_fields, decimal
from policyd.cli.dry_run import Played
from policyd.cli.replay_sums import CutPoints, Summary, stopped_at
from policyd.cli.rule_times import RuleTimes
from policyd.cli.spool import Document
from policyd.cli.traffic import clean
from policyd.core.model.counters import NANO
from policyd.core.model.decision import RuleResult, Verdict

_ROWS = 200  # rows of the table for people
_WIDTH = 160  # characters of a line that no terminal bounds
_LONGEST_NAME = 48  # characters
_SLOWEST = 5  # rules named to people


def exchange_fields(played: Played) -> dict[str, object]:
    """One exchange as `--format json` promises it."""
    record, response = played.record, played.facts.response
    text = response.text()
    return {
        "source": played.recording.source,
        "dialect": record.dialect,
        "operation": record.operation,
        "provider": record.provider,
        "model": record.model,
        "stream": record.stream,
        "inspection": record.inspection,
        "usage": dict(record.usage),
        "cost": {
            "usd": decimal(record.cost_nano, NANO),
            "source": record.cost_source,
            "confidence": record.cost_confidence,
            "price_source": record.price_source,
            "price_digest": record.price_digest,
            "service_tier": record.service_tier,
        },
        "finish_reasons": list(record.finish_reasons),
        "tool_calls": [{"name": call.name} for call in response.tool_calls],
        "text": {"chars": len(text), "sha256": sha256(text.encode("utf-8", "surrogatepass")).hexdigest()},
        "decision": {
            "verdict": record.verdict.value,
            "would": record.would.value,
            "mode": record.mode.value,
            "enforced": record.enforced,
            "degraded": record.degraded,
            "reason": record.reason,
            "rules": [_rule(result) for result in record.rules],
            "determined_by": list(record.determined_by),
            "event": record.event,
            "phase": record.phase,
            "status": record.status,
            "ended": record.ended,
            "counters": [counter_fields(counter) for counter in record.counters],
            "output_sha256": played.output_sha256,
        },
    }


def _rule(result: RuleResult) -> dict[str, object]:
    return {
        "policy": result.policy,
        "namespace": result.namespace,
        "rule": result.rule,
        "action": result.action,
        "outcome": result.outcome.value,
        "enforced": result.enforced,
    }


class Printer(Protocol):
    """Takes rows while calls are played, and tells all when they are over."""

    def row(self, played: Played) -> None: ...
    def end(self, summary: Summary, unreadable: Sequence[UnreadableInput] = ()) -> None: ...
    def close(self) -> None: ...


class JsonPrinter:
    """One JSON document."""

    def __init__(self) -> None:
        self._document = Document("exchanges")

    def row(self, played: Played) -> None:
        self._document.add(exchange_fields(played))

    def end(self, summary: Summary, unreadable: Sequence[UnreadableInput] = ()) -> None:
        issues = [{"file": one.place.file, "line": one.place.line, "message": one.message} for one in unreadable]
        self._document.print(summary.fields(), issues)

    def close(self) -> None:
        self._document.close()


class TextPrinter:
    """A table of the first calls, and the sums of all."""

    def __init__(self, times: RuleTimes | None = None) -> None:
        self._times = times or RuleTimes()
        self._rows: list[tuple[str, ...]] = []
        self._more = 0

    def end(self, summary: Summary, unreadable: Sequence[UnreadableInput] = ()) -> None:
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
        console.print(self._table())
        if self._more:
            console.print(f"… and {self._more} more calls; --format json has all of them")
        for line in _sums(summary):
            console.print(line, markup=False)
        if unreadable:
            console.print(f"files that could not be read to their end: {len(unreadable)}", markup=False)
        slowest = [f"{clean(name)} {micros:.0f} us" for name, micros in self._times.slowest(_SLOWEST)]
        if slowest:
            console.print(f"slowest rules, each judged alone: {', '.join(slowest)}", markup=False)

    def row(self, played: Played) -> None:
        if len(self._rows) >= _ROWS:
            self._more += 1
            return
        self._rows.append(_cells(played))

    def close(self) -> None:
        self._rows.clear()

    def _table(self) -> Any:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("call", "model", "verdict", "rule"):
            table.add_column(name, no_wrap=True)
        for name in ("event", "tokens in", "out", "USD"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in self._rows:
            table.add_row(*(Text(cell) for cell in row))
        return table


def _cells(played: Played) -> tuple[str, ...]:
    record = played.record
    verdict = record.verdict.value
    if record.would is not record.verdict:
        verdict += f" (would {record.would.value})"
    elif record.verdict is not Verdict.ALLOW and not record.enforced:
        verdict += " (not enforced)"
    usage = record.usage
    return (
        _short(clean(played.recording.source)),
        clean(record.model or record.operation),
        verdict,
        ", ".join(record.determined_by),
        "" if (event := stopped_at(record)) is None else str(event),
        str(usage.get("input_tokens", "")),
        str(usage.get("output_tokens", "")),
        decimal(record.cost_nano, NANO),
    )


def _short(source: str) -> str:
    """The end of a source: its file's name and its number are what tells calls apart."""
    name = source.rpartition("/")[2]
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def _sums(summary: Summary) -> Iterator[str]:
    verdicts = ", ".join(f"{count} {name}" for name, count in summary.verdicts.most_common())
    yield f"{summary.calls} calls: {verdicts}; {summary.enforced} enforced"
    if summary.would != summary.verdicts:
        yield "would be: " + ", ".join(f"{count} {name}" for name, count in summary.would.most_common())
    for by, cuts in sorted(summary.cuts.items()):
        yield f"stopped by {clean(by)}: {_cuts(cuts)}"
    tokens = summary.tokens
    spend, avoided = decimal(summary.spend_nano, NANO), decimal(summary.avoided_nano, NANO)
    added = f"; added ${decimal(summary.added_nano, NANO)}" if summary.added_nano else ""
    yield (
        f"{tokens['input_tokens']} input and {tokens['output_tokens']} output tokens, ${spend}; avoided ${avoided}"
        + added
    )
    for condition in summary.conditions:
        first = f", the first one {clean(condition.first)}" if condition.calls else ""
        yield f"--fail-on {clean(condition.text)}: {condition.calls} calls{first}"


def _cuts(cuts: CutPoints) -> str:
    words = [f"{cuts.refused} before the answer"] if cuts.refused else []
    if cuts.cut:
        where = f"{cuts.first}" if cuts.first == cuts.last else f"{cuts.first} to {cuts.last}, mean {cuts.mean:.1f}"
        words.append(f"{cuts.cut} at event {where}")
    return ", ".join(words)
