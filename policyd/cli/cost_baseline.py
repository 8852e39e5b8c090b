"""What `policyd cost` compares with, and the names that conversations have in both.

Rule 1: a file's name is told without what stands above it, so that two checkouts can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

from policyd.adapters.errors import Place, UnreadableInput, reason_of
from policyd.adapters.recordings import MAX_DOCUMENT, parse_json, shape
from policyd.cli.cost_sums import Bill, Costs
from policyd.core.model.counters import NANO

SUFFIXES = frozenset({".yaml", ".yml", ".json", ".jsonl", ".har"})
_AMOUNT = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?", re.ASCII)
_COUNTS = tuple(each.name for each in fields(Costs) if each.name != "nano")


def named_files(paths: list[Path]) -> dict[Path, str]:
    """Every recording in these files and folders with its conversation's name, in order. Raises UnreadableInput."""
    names: dict[Path, str] = {}
    known: dict[str, Path] = {}
    for path in paths:
        for file, name in _below(path):
            if known.setdefault(name, file) != file:
                raise UnreadableInput(file, f"{known[name]} has the same name; name the folder above both")
            names[file] = name
    return names


def _below(path: Path) -> Iterator[tuple[Path, str]]:
    if not path.is_dir():
        yield path, path.name
        return
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not found:
        raise UnreadableInput(path, f"no recordings in this folder ({', '.join(sorted(SUFFIXES))})")
    yield from ((file, file.relative_to(path).as_posix()) for file in found)


def read_baseline(path: Path, billed: Callable[[list[Path]], Bill]) -> Bill:
    """A bill that was printed as JSON, or that of recordings. Raises UnreadableInput."""
    document = None if path.is_dir() else _printed(path)
    return billed([path]) if document is None else _bill(Place(str(path)), document)


def _printed(path: Path) -> dict[str, object] | None:
    """The document that `cost --format json` wrote; None when the file is something else."""
    try:
        with path.open("rb") as file:
            if not file.read(64).lstrip().startswith(b'{"conversations"'):
                return None
            file.seek(0)
            data = file.read(MAX_DOCUMENT)
    except OSError as error:
        raise UnreadableInput(path, reason_of(error)) from None
    return shape.mapping(Place(str(path)), parse_json(str(path), data), "document")


def _bill(place: Place, document: dict[str, object]) -> Bill:
    summary = shape.mapping(place, document.get("summary"), "summary")
    return Bill(
        prices=shape.text(place, summary.get("prices"), "summary.prices"),
        total=_costs(place, summary, "summary"),
        conversations=_named(place, document, "conversations"),
        features=_named(place, document, "features"),
    )


def _named(place: Place, document: dict[str, object], field: str) -> dict[str, Costs]:
    named: dict[str, Costs] = {}
    for index, item in enumerate(shape.listing(place, document.get(field), field)):
        at = f"{field}[{index}]"
        row = shape.mapping(place, item, at)
        named[shape.text(place, row.get("name"), f"{at}.name")] = _costs(place, row, at)
    return named


def _costs(place: Place, row: dict[str, object], field: str) -> Costs:
    counts = {name: int(shape.number(place, row.get(name), f"{field}.{name}")) for name in _COUNTS}
    return Costs(**counts, nano=_nano(place, row.get("cost_usd"), f"{field}.cost_usd"))


def _nano(place: Place, value: object, field: str) -> int:
    found = _AMOUNT.fullmatch(shape.text(place, value, field))
    if found is None:
        raise UnreadableInput(place, f"{field}: expected an amount of USD, such as 0.001250")
    return int(found[1]) * NANO + int((found[2] or "").ljust(9, "0"))
