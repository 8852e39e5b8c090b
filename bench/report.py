"""Numbers of several rounds into a table that a person reads.

Rule 1: a ratio is made within one round, where both sides had the same machine; what is shown is the median of rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.caller import Window

Row = Mapping[str, float]  # contestant -> value


@dataclass(slots=True)
class Round:
    """What one round gave, by contestant."""

    quiet: dict[str, Window] = field(default_factory=dict)
    busy: dict[str, Window] = field(default_factory=dict)
    burst: dict[str, Window] = field(default_factory=dict)
    flood: dict[str, Window] = field(default_factory=dict)
    calls: dict[str, Window] = field(default_factory=dict)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values is below; 0 when there are none."""
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))]) if ordered else 0.0


def added_us(windows: Mapping[str, Window], share: float) -> Row:
    """Latency added to Envoy without ext_proc, microseconds."""
    alone = percentile(windows["no ext_proc"].delays, share)
    return {name: (percentile(window.delays, share) - alone) / 1000 for name, window in windows.items()}


def cpu_us(windows: Mapping[str, Window]) -> Row:
    """CPU of the server for each event, microseconds."""
    return {name: window.cpu_ns / window.events / 1000 for name, window in windows.items() if window.events}


def per_message(windows: Mapping[str, Window]) -> Row:
    """CPU of the server for each message, microseconds."""
    return {name: value * windows[name].together for name, value in cpu_us(windows).items()}


def together(windows: Mapping[str, Window]) -> Row:
    """Events in one message of Envoy's; none without a server."""
    return {name: window.together for name, window in windows.items() if window.cpu_ns}


def per_second(windows: Mapping[str, Window]) -> Row:
    return {name: window.events / window.seconds for name, window in windows.items()}


MEASURES: Sequence[tuple[str, Callable[[Round], Row], str]] = (
    ("added p50, quiet, us", lambda one: added_us(one.quiet, 0.5), ".0f"),
    ("added p99, quiet, us", lambda one: added_us(one.quiet, 0.99), ".0f"),
    ("added p50, busy, us", lambda one: added_us(one.busy, 0.5), ".0f"),
    ("added p99, busy, us", lambda one: added_us(one.busy, 0.99), ".0f"),
    ("CPU per message, quiet, us", lambda one: per_message(one.quiet), ".1f"),
    ("CPU per message, busy, us", lambda one: per_message(one.busy), ".1f"),
    ("events per message, burst", lambda one: together(one.burst), ".0f"),
    ("CPU per event, burst, us", lambda one: cpu_us(one.burst), ".2f"),
    ("events per message, flood", lambda one: together(one.flood), ".0f"),
    ("CPU per event, flood, us", lambda one: cpu_us(one.flood), ".2f"),
    ("events per second, flood", lambda one: per_second(one.flood), ",.0f"),
    ("CPU per call, us", lambda one: cpu_us(one.calls), ",.0f"),
)


def table(rounds: Sequence[Round], names: Sequence[str], yardstick: str) -> str:
    """Every measure of every contestant, and how it compares with the yardstick."""
    width = max(12, *(len(name) + 2 for name in names))
    lines = [" " * 27 + "".join(f"{name:>{width}}" for name in names)]
    for label, measure, form in MEASURES:
        rows = [measure(one) for one in rounds]
        lines.append(f"{label:27}" + "".join(f"{_value(rows, name, form):>{width}}" for name in names))
        if not label.startswith("events per message"):
            lines.append(f"{'':27}" + "".join(f"{_ratio(rows, name, yardstick):>{width}}" for name in names))
    return "\n".join(lines)


def _value(rows: Sequence[Row], name: str, form: str) -> str:
    values = [row[name] for row in rows if name in row]
    return format(median(values), form) if any(values) else "-"


def _ratio(rows: Sequence[Row], name: str, yardstick: str) -> str:
    ratios = [row[name] / row[yardstick] for row in rows if row.get(name) and row.get(yardstick)]
    return f"x{median(ratios):.2f}" if ratios and name != yardstick and median(ratios) > 0 else ""
