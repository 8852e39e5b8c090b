"""How `policyd cost` tells it: tables for people, one JSON document that a later run can compare with."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from io import StringIO

from policyd.adapters.records import decimal
from policyd.cli.cost_sums import Bill, Costs
from policyd.cli.traffic import clean
from policyd.core.model.counters import NANO

_ROWS = 200  # conversations that people are shown
_WIDTH = 160  # characters of a line that no terminal bounds


def as_json(bill: Bill, baseline: Bill | None, failures: Sequence[str]) -> str:
    """One document; without its `baseline` and `failures` it is the same whatever it was compared with."""
    before = baseline or Bill()
    summary: dict[str, object] = {**bill.total.told(), "prices": bill.prices}
    if baseline is not None:
        same = "same" if baseline.prices == bill.prices else "other"
        summary |= {"baseline": baseline.total.told(), "baseline_prices": same, "failures": list(failures)}
    document = {
        "conversations": _rows(bill.conversations, before.conversations),
        "features": _rows(bill.features, before.features),
        "summary": summary,
    }
    if baseline is not None:
        document["gone"] = sorted(baseline.conversations.keys() - bill.conversations.keys())
    return json.dumps(document)


def _rows(now: Mapping[str, Costs], before: Mapping[str, Costs]) -> list[dict[str, object]]:
    rows = []
    for name, costs in sorted(now.items()):
        row = {"name": name, **costs.told()}
        if name in before:
            row["baseline"] = before[name].told()
        rows.append(row)
    return rows


def as_text(bill: Bill, baseline: Bill | None) -> str:
    """Tables and the sums."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDTH
    console = Console(highlight=False, width=width, file=StringIO() if width else None)
    with console.capture() as captured:
        console.print(_table("conversation", bill.conversations, baseline.conversations if baseline else None))
        if bill.features.keys() - {""}:
            console.print(_table("feature", bill.features, baseline.features if baseline else None))
        for line in _sums(bill, baseline):
            console.print(line, markup=False)
    return captured.get().rstrip("\n")


def _table(what: str, now: Mapping[str, Costs], before: Mapping[str, Costs] | None) -> object:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(what, overflow="fold")
    for name in ("calls", "tokens in", "out", "USD", *(("was", "difference") if before is not None else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for name, costs in sorted(now.items(), key=lambda item: -item[1].nano)[:_ROWS]:
        table.add_row(*(Text(cell) for cell in _cells(name, costs, before)))
    return table


def _cells(name: str, costs: Costs, before: Mapping[str, Costs] | None) -> list[str]:
    tokens = [str(costs.calls), str(costs.input_tokens), str(costs.output_tokens)]
    cells = [clean(name) or "(none)", *tokens, decimal(costs.nano, NANO)]
    if before is None:
        return cells
    was = before.get(name)
    if was is None:
        return [*cells, "new", ""]
    return [*cells, decimal(was.nano, NANO), _difference(was.nano, costs.nano)]


def _difference(before: int, now: int) -> str:
    sign = "+" if now > before else ""
    share = f" ({sign}{100 * (now - before) / before:.1f}%)" if before and now != before else ""
    return f"{sign}{decimal(now - before, NANO)}{share}"


def _sums(bill: Bill, baseline: Bill | None) -> list[str]:
    total = bill.total
    lines = [
        f"{total.calls} calls in {len(bill.conversations)} conversations, {total.input_tokens} input and "
        f"{total.output_tokens} output tokens, ${decimal(total.nano, NANO)}"
    ]
    notes = {"estimated": total.estimated, "without a price": total.unpriced, "not read": total.unread}
    if said := ", ".join(f"{count} {what}" for what, count in notes.items() if count):
        lines.append(f"of all calls: {said}")
    if len(bill.conversations) > _ROWS:
        lines.append(f"the {_ROWS} dearest conversations are shown; --format json has all of them")
    if baseline is not None:
        lines += _compared(bill, baseline)
    return lines


def _compared(bill: Bill, baseline: Bill) -> list[str]:
    lines = [
        f"the baseline cost ${decimal(baseline.total.nano, NANO)}: {_difference(baseline.total.nano, bill.total.nano)}"
    ]
    if gone := len(baseline.conversations.keys() - bill.conversations.keys()):
        lines.append(f"{gone} conversations of the baseline are not there any more")
    if baseline.prices != bill.prices:
        lines.append("the baseline was made with other prices: part of the difference may be theirs")
    return lines
