"""How `policyd diff` tells what changes: text for a terminal, one JSON document, Markdown for a pull request.

Rule 1: stdout gets one document, or nothing: a file that breaks half way leaves nothing half-written.
Rule 2: people get the first changes of each kind and the number of all; JSON has every one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from policyd.adapters.records import decimal
from policyd.cli.diff_sums import Change, Comparison, Kind, Side
from policyd.cli.spool import Document
from policyd.cli.traffic import clean
from policyd.core.model.counters import NANO

_ROWS = 20  # of each kind, for people
_WORDS = {
    Kind.NEWLY_STOPPED: "newly stopped",
    Kind.NO_LONGER_STOPPED: "no longer stopped",
    Kind.MOVED_CUT: "cut at another event",
    Kind.OTHER_VERDICT: "another verdict",
    Kind.OTHER_RULE: "the same by another rule",
    Kind.OTHER_ANSWER: "another answer",
}


class Printer(Protocol):
    """Takes changes while calls are played, and tells all when they are over."""

    def row(self, change: Change) -> None: ...
    def end(self, comparison: Comparison) -> None: ...
    def close(self) -> None: ...


class JsonDiff:
    """One JSON document: `{"changes": [...], "summary": {...}}`."""

    def __init__(self) -> None:
        self._document = Document("changes")

    def row(self, change: Change) -> None:
        self._document.add(change.fields())

    def end(self, comparison: Comparison) -> None:
        self._document.print(comparison.fields())

    def close(self) -> None:
        self._document.close()


@dataclass(slots=True)
class _Kept:
    """The first changes of each kind."""

    rows: dict[Kind, list[Change]] = field(default_factory=lambda: {kind: [] for kind in Kind})

    def row(self, change: Change) -> None:
        if len(self.rows[change.kind]) < _ROWS:
            self.rows[change.kind].append(change)

    def close(self) -> None:
        self.rows.clear()


class TextDiff(_Kept):
    """For a terminal."""

    def end(self, comparison: Comparison) -> None:
        print("\n".join(self._lines(comparison)))

    def _lines(self, comparison: Comparison) -> Iterator[str]:
        for kind, changes in self.rows.items():
            if not changes:
                continue
            yield f"{_WORDS[kind]}: {comparison.changes[kind]} calls"
            yield from (f"  {clean(one.source)}: {_side(one.before)} -> {_side(one.after)}" for one in changes)
            if more := comparison.changes[kind] - len(changes):
                yield f"  … and {more} more; --format json has all of them"
        yield _sentence(comparison)
        yield _money(comparison)


class MarkdownDiff(_Kept):
    """For a pull request."""

    def end(self, comparison: Comparison) -> None:
        print("\n".join(self._lines(comparison)))

    def _lines(self, comparison: Comparison) -> Iterator[str]:
        before, after = comparison.before, comparison.after
        yield f"### policyd diff: {_sentence(comparison)}\n"
        yield "| | from | to |\n|---|---:|---:|"
        yield f"| policy set | `{before.digest}` | `{after.digest}` |"
        yield f"| stopped | {before.stopped} | {after.stopped} |"
        yield f"| would stop | {before.would_stop} | {after.would_stop} |"
        yield f"| spend | ${decimal(before.spend_nano, NANO)} | ${decimal(after.spend_nano, NANO)} |"
        for words in comparison.failures():
            yield f"\n**Past its threshold:** {words}"
        for kind, changes in self.rows.items():
            if changes:
                yield from self._kind(kind, changes, comparison.changes[kind])

    def _kind(self, kind: Kind, changes: list[Change], count: int) -> Iterator[str]:
        yield f"\n<details><summary>{_WORDS[kind]}: {count}</summary>\n"
        yield "| call | from | to |\n|---|---|---|"
        for one in changes:
            yield f"| {_cell(one.source)} | {_cell(_side(one.before))} | {_cell(_side(one.after))} |"
        if more := count - len(changes):
            yield f"| … and {more} more | | |"
        yield "\n</details>"


def _sentence(comparison: Comparison) -> str:
    counts = [f"{comparison.changes[kind]} {_WORDS[kind]}" for kind in Kind if comparison.changes[kind]]
    return f"{comparison.calls} calls, {', '.join(counts) or 'nothing changes'}"


def _money(comparison: Comparison) -> str:
    before, after = comparison.before.spend_nano, comparison.after.spend_nano
    sign = "+" if comparison.increase_nano > 0 else ""
    spend = f"spend ${decimal(before, NANO)} -> ${decimal(after, NANO)}"
    return f"{spend} ({sign}{decimal(comparison.increase_nano, NANO)})"


def _side(side: Side) -> str:
    by = f" by {', '.join(side.determined_by)}" if side.determined_by else ""
    at = f" at event {side.event}" if side.event is not None else ""
    would = f"would {side.would}" if side.would != side.verdict or not side.enforced else side.verdict
    words = "allow" if side.verdict == side.would == "allow" else would
    return f"{words}{by}{at}"


def _cell(text: str) -> str:
    """Nothing that a recording says becomes Markdown of its own."""
    plain = clean(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
    return f"`{plain}`"
