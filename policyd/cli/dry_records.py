"""Decision records of a dry run, in a file as `serve --records` writes them.

Rule 1: the file is there when the run is over, whole, or not at all; the next run into the same folder takes its place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from policyd.adapters.errors import UnreadableInput, reason_of
from policyd.adapters.records import encode
from policyd.core.model.decision import DecisionRecord

NAME = "replay.jsonl"


class DryRecords:
    """Writes each record as one line."""

    def __init__(self, draft: IO[bytes] | None) -> None:
        self._draft = draft

    def add(self, record: DecisionRecord) -> None:
        """Nothing where no records are wanted."""
        if self._draft is not None:
            self._draft.write(encode(record) + b"\n")


@contextlib.contextmanager
def dry_records(folder: Path | None) -> Iterator[DryRecords]:
    """The records of a run, in force when the block is left without an error. Raises UnreadableInput."""
    if folder is None:
        yield DryRecords(None)
        return
    draft = folder / f".{NAME}.new"
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = draft.open("wb")
    try:
        with file:
            yield DryRecords(file)
        with _told(folder):
            draft.replace(folder / NAME)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnreadableInput(folder, f"records cannot be written: {reason_of(error)}") from None
