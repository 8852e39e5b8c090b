"""What `policyd replay` tells: one JSON document for machines, a table for people.

Rule 1: stdout gets one document, or nothing: it is spooled, so a file that breaks half way leaves nothing half-written.
Rule 2: memory does not grow with the number of calls.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import IO, Any, Protocol

from policyd.adapters.records import decimal
from policyd.cli.dry_run import Played
from policyd.core.model.counters import NANO
from policyd.core.model.decision import RuleResult, Verdict

_SPOOL = 16 * 1024 * 1024  # bytes of a document that stay in memory
_ROWS = 200  # rows of the table for people
_WIDTH = 160  # characters of a line that no terminal bounds
_LONGEST_NAME = 48  # characters
_TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")


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
            "event": record.event,
            "status": record.status,
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


@dataclass(slots=True)
class Summary:
    """What all calls add up to."""

    calls: int = 0
    enforced: int = 0  # calls on which a rule was enforced
    verdicts: Counter[str] = field(default_factory=Counter)
    would: Counter[str] = field(default_factory=Counter)
    inspection: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    spend_nano: int = 0

    def add(self, played: Played) -> None:
        record = played.record
        self.calls += 1
        self.enforced += record.enforced
        self.verdicts[record.verdict.value] += 1
        self.would[record.would.value] += 1
        self.inspection[record.inspection] += 1
        self.spend_nano += record.cost_nano
        for name in _TOKENS:
            self.tokens[name] += _count(record.usage.get(name))

    def fields(self) -> dict[str, object]:
        return {
            "calls": self.calls,
            "enforced": self.enforced,
            "verdicts": dict(self.verdicts),
            "would": dict(self.would),
            "inspection": dict(self.inspection),
            "spend_usd": decimal(self.spend_nano, NANO),
            "tokens": {name: self.tokens[name] for name in _TOKENS},
            "skipped": 0,  # nothing is: what cannot be read ends the run with exit code 2
        }


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


class Printer(Protocol):
    """Takes rows while calls are played, and tells all when they are over."""

    def row(self, played: Played) -> None: ...
    def end(self, summary: Summary) -> None: ...
    def close(self) -> None: ...


class JsonPrinter:
    """One JSON document, spooled until it is whole."""

    def __init__(self) -> None:
        self._spool: IO[str] = tempfile.SpooledTemporaryFile(_SPOOL, "w+", encoding="ascii")  # noqa: SIM115
        self._lead = '{"exchanges": [\n'

    def row(self, played: Played) -> None:
        self._spool.write(self._lead + json.dumps(exchange_fields(played)))
        self._lead = ",\n"

    def end(self, summary: Summary) -> None:
        lead = "\n" if summary.calls else self._lead
        self._spool.write(lead + '],\n"summary": ' + json.dumps(summary.fields()) + "}\n")
        self._spool.seek(0)
        shutil.copyfileobj(self._spool, sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        self._spool.close()


class TextPrinter:
    """A table of the calls that policies touched, and the sums of all."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, ...]] = []
        self._more = 0

    def end(self, summary: Summary) -> None:
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
        console.print(self._table())
        if self._more:
            console.print(f"… and {self._more} more calls; --format json has all of them")
        for line in _sums(summary):
            console.print(line, markup=False)

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
        "" if record.event is None else str(record.event),
        str(usage.get("input_tokens", "")),
        str(usage.get("output_tokens", "")),
        decimal(record.cost_nano, NANO),
    )


def _short(source: str) -> str:
    """The end of a source: its file's name and its number are what tells calls apart."""
    name = source.rpartition("/")[2]
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def clean(text: str) -> str:
    """What a caller sent must not drive a terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def _sums(summary: Summary) -> Iterator[str]:
    verdicts = ", ".join(f"{count} {name}" for name, count in summary.verdicts.most_common())
    yield f"{summary.calls} calls: {verdicts}; {summary.enforced} enforced"
    if summary.would != summary.verdicts:
        yield "would be: " + ", ".join(f"{count} {name}" for name, count in summary.would.most_common())
    tokens = summary.tokens
    spend = decimal(summary.spend_nano, NANO)
    yield f"{tokens['input_tokens']} input and {tokens['output_tokens']} output tokens, ${spend}"
