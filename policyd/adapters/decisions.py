"""Decision records read back, as docs/records.md promises them; what a judgement does not need is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jiter

from policyd.adapters.errors import Place, UnreadableInput, reason_of


@dataclass(frozen=True, slots=True)
class RuleSaid:
    """One rule of one record."""

    policy: str
    namespace: str
    rule: str
    outcome: str
    mode: str


@dataclass(frozen=True, slots=True)
class FateTold:
    """How a policy in Monitor would have ended the call; `event` None: before there was one."""

    policy: str
    namespace: str
    rule: str
    event: int | None


@dataclass(frozen=True, slots=True)
class DecisionTold:
    """One record."""

    id: str
    digest: str
    rules: tuple[RuleSaid, ...]
    shadow: tuple[FateTold, ...]


def read_decisions(folder: Path) -> Iterator[DecisionTold]:
    """The decisions in every `*.jsonl` of a folder, or of one file. A last line without an end is still being written,
    and passed over. Raises UnreadableInput."""
    files = sorted(folder.rglob("*.jsonl")) if folder.is_dir() else [folder]
    if not files:
        raise UnreadableInput(folder, "there are no records (*.jsonl) in this folder")
    for file in files:
        yield from _of_file(file)


def _of_file(file: Path) -> Iterator[DecisionTold]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.endswith(b"\n") and (told := _told(file, number, line)):
                    yield told
    except OSError as error:
        raise UnreadableInput(file, f"cannot be read: {reason_of(error)}") from None


def _told(file: Path, number: int, line: bytes) -> DecisionTold | None:
    try:
        record = jiter.from_json(line)
        if record["kind"] != "decision":
            return None
        rules = tuple(RuleSaid(**{name: one[name] for name in RuleSaid.__slots__}) for one in record["rules"])
        shadow = tuple(FateTold(**{name: one[name] for name in FateTold.__slots__}) for one in record.get("shadow", ()))
        return DecisionTold(record["id"], record["policy_set"], rules, shadow)
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableInput(Place(str(file), number), f"is no decision record: {error}") from None
