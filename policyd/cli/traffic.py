"""Recorded files as one stream of calls, with a progress bar where somebody watches.

Rule 1: the bar is for a terminal on stderr only; whatever is piped or written to a file holds none of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from policyd.adapters.errors import UnreadableInput
from policyd.adapters.recordings import Recording, read_recordings
from policyd.adapters.vocabularies import load_vocabularies


class Bar(Protocol):
    """How far it is."""

    def bytes(self, done: int) -> None: ...
    def call(self, recording: Recording) -> None: ...


class _Unseen:
    """Nobody watches."""

    def bytes(self, done: int) -> None: ...
    def call(self, recording: Recording) -> None: ...


class _Shown:
    """A bar of bytes read, with the number of calls and the newest one's name."""

    def __init__(self, progress: object, task: object) -> None:
        self._progress, self._task, self._calls = progress, task, 0

    def bytes(self, done: int) -> None:
        self._progress.update(self._task, completed=done)  # type: ignore[attr-defined]

    def call(self, recording: Recording) -> None:
        self._calls += 1
        fields = {"calls": self._calls, "at": clean(recording.source.rpartition("/")[2])}
        self._progress.update(self._task, **fields)  # type: ignore[attr-defined]


def clean(text: str) -> str:
    """What a caller sent must not drive a terminal."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


@contextmanager
def traffic(
    files: Sequence[Path], what: str, unreadable: list[UnreadableInput] | None = None
) -> Iterator[Iterator[Recording]]:
    """The calls of these files, one after another. `what` is being done with them. `unreadable` takes the files that
    cannot be read, to their end; without it the first of them ends the run."""
    with _bar(files, what) as bar:
        yield _calls(files, bar, unreadable)


def _calls(files: Sequence[Path], bar: Bar, unreadable: list[UnreadableInput] | None) -> Iterator[Recording]:
    before, lacking = 0, _lacking()
    for file in files:
        try:
            for recording in read_recordings(file, lambda done, before=before: bar.bytes(before + done)):  # type: ignore[misc]
                bar.call(recording)
                lacking(recording)
                yield recording
        except UnreadableInput as error:
            if unreadable is None:
                raise
            unreadable.append(error)
            print(f"policyd: {error}", file=sys.stderr)
        before += _size(file)
        bar.bytes(before)


def _lacking() -> Callable[[Recording], None]:
    """What says, once each, that a call was counted by a vocabulary that is not at hand: here it is estimated."""
    known, said = load_vocabularies(), set[str]()

    def look(recording: Recording) -> None:
        for rate in (recording.rates or {}).values():
            name = rate.tokenizer
            if name and name not in said and known.count(name) is None:
                said.add(name)
                words = "was counted by a vocabulary that is not at hand: cuts may move without policyd[tokens]"
                print(f"policyd: {clean(recording.source)}: {words} ({clean(name)})", file=sys.stderr)

    return look


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0  # reading it will say what is wrong with it


@contextmanager
def _bar(files: Sequence[Path], what: str) -> Iterator[Bar]:
    if not sys.stderr.isatty():
        yield _Unseen()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.fields[calls]} calls"), TextColumn("{task.fields[at]}")
    columns = (SpinnerColumn(), TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), *words)
    total = sum(map(_size, files)) or None
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Shown(progress, progress.add_task(what, total=total, calls=0, at=""))
