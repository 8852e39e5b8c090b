"""Settlements that Redis could not take yet: kept in memory and, where there is a folder, on disk; settled later, once.

Rule 1: what is owed is on disk before its caller is told that it is kept, and off it when Redis has it.
Rule 2: a settlement that may have been done already is asked again only as long as Redis remembers its call; after that
        it would be charged twice, and what its lease was charged stands.
Rule 3: a file belongs to one process. What a dead one has left is taken over by the next that starts here.
Rule 4: neither keys nor sessions stand in a file, only their digests; of an answer, only a sketch.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import IO, Any

from policyd.adapters.errors import UnreadableInput, reason_of
from policyd.core.model.counters import Window, WindowKind

log = logging.getLogger("policyd")

MOST = 100_000  # settlements that are kept
_AGAIN_S = 0.1  # between two attempts while Redis is away
_PREFIX = "owed-"
_DONE = "done"


@dataclass(frozen=True, slots=True)
class Due:
    """An amount for a counter, by its key."""

    key: str
    amount: int
    window: Window
    member: str = ""  # of a counter of different values: which one


@dataclass(frozen=True, slots=True)
class Owed:
    """A settlement as Redis is to have it. `at`: seconds since 1970; `sent`: it may have been done."""

    call: str
    tag: str
    charges: tuple[Due, ...]
    session: tuple[str, int, int] | None  # its key, nano-dollars, tokens
    at: float
    sent: bool = False
    sketch: str = ""  # of what the session was answered, as hexadecimal digits

    @property
    def key(self) -> tuple[str, str]:
        return self.call, self.tag


def to_line(owed: Owed) -> str:
    """One JSON line, without its end."""
    return json.dumps(asdict(owed), separators=(",", ":"))


def from_json(found: dict[str, Any]) -> Owed:
    """Raises ValueError, TypeError, AttributeError or KeyError for what `to_line` has not written."""
    charges = tuple(
        Due(
            due["key"],
            due["amount"],
            Window(**{**due["window"], "kind": WindowKind(due["window"]["kind"])}),
            due.get("member", ""),
        )
        for due in found.pop("charges")
    )
    session = found.pop("session")
    return Owed(**found, charges=charges, session=tuple(session) if session else None)


class Outcome(Enum):
    """How an attempt went."""

    DONE = "done"
    NOT_DONE = "not done"
    UNKNOWN = "unknown"  # it was sent, and no answer came


class Backlog:
    """What is owed, oldest first. `settle` tries one."""

    def __init__(
        self,
        settle: Callable[[Owed], Awaitable[Outcome]],
        *,
        folder: Path | None,
        remember_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._settle, self._remember_s, self._clock = settle, remember_s, clock
        self._folder = folder
        self._owed: dict[tuple[str, str], Owed] = {}  # by call and tag
        self._file: IO[str] | None = None
        self._working: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._owed)

    @property
    def size(self) -> int:
        """Bytes that it has on disk."""
        return os.fstat(self._file.fileno()).st_size if self._file is not None and not self._file.closed else 0

    def open(self) -> None:
        """Take over what earlier processes left. Raises UnreadableInput."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = _claimed_in(self._folder)
            for path in sorted(self._folder.glob(f"{_PREFIX}*.jsonl")):
                self._take_over(path)
        except OSError as error:
            raise UnreadableInput(self._folder, f"cannot keep settlements there: {reason_of(error)}") from None
        if self._owed:
            log.warning("%d settlements of an earlier process are settled now", len(self._owed))

    def _take_over(self, path: Path) -> None:
        try:
            file = path.open(encoding="utf-8")
        except FileNotFoundError:
            return  # another process that starts now has taken it over
        with file:
            if not _claim(file):
                return  # its process lives
            for owed in _left_in(file):
                self.keep(owed)
            path.unlink()  # by now it stands in our own

    def keep(self, owed: Owed) -> bool:
        """Settle this as soon as it can be done. False when there are too many already."""
        if owed.key not in self._owed and len(self._owed) >= MOST:
            return False
        self._owe(owed)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return True

    def _owe(self, owed: Owed) -> None:
        before = self._owed.get(owed.key)
        self._owed[owed.key] = owed = replace(owed, sent=owed.sent or (before is not None and before.sent))
        if owed != before:
            self._write(to_line(owed))

    async def _work(self) -> None:
        while self._owed:
            owed = next(iter(self._owed.values()))
            if owed.sent and self._clock() - owed.at > self._remember_s:
                log.error("call %s may be settled or not, and it is too late to ask: its lease stands", owed.call)
                self._is_done(owed)
                continue
            outcome = await self._settle(owed)
            if outcome is Outcome.DONE:
                self._is_done(owed)
                continue
            if outcome is Outcome.UNKNOWN:
                self._owe(replace(owed, sent=True))
            await asyncio.sleep(_AGAIN_S)
        self._empty()

    def _is_done(self, owed: Owed) -> None:
        del self._owed[owed.key]
        self._write(json.dumps({_DONE: owed.key}))

    def _empty(self) -> None:
        log.info("everything owed is settled")
        if self._file is not None:
            with contextlib.suppress(OSError):  # every line in it is marked as done
                self._file.truncate(0)

    def _write(self, line: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            log.error("what is owed is in memory only: %s: %s", self._file.name, reason_of(error))

    async def close(self) -> None:
        """Stop trying. What is still owed stays on disk."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.wait((self._working,))
        self._shut()

    def _shut(self) -> None:
        if self._owed:
            where = f"kept in {self._file.name}" if self._file else "and lost: --state gives them a place"
            log.error("%d settlements are still owed, %s", len(self._owed), where)
        if self._file is not None:
            if not self._owed:
                Path(self._file.name).unlink(missing_ok=True)
            self._file.close()


def _claimed_in(folder: Path) -> IO[str]:
    """A file of our own. Processes that start at once look at each other's: one that was taken for a dead process's
    before we could claim it is gone."""
    while True:
        path = folder / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        file = path.open("a", encoding="utf-8")
        if _claim(file):
            return file
        file.close()


def _claim(file: IO[str]) -> bool:
    """Whether it is ours: no living process has it, and none has taken it over."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return os.fstat(file.fileno()).st_nlink > 0


def _left_in(file: IO[str]) -> Iterable[Owed]:
    """What a process that is gone had not settled; a line that it wrote in part is left out."""
    left: dict[tuple[str, str], Owed] = {}
    for line in file:
        try:
            found = json.loads(line)
            if _DONE in found:
                left.pop(tuple(found[_DONE]), None)
            else:
                owed = from_json(found)
                left[owed.key] = owed
        except (ValueError, TypeError, KeyError, AttributeError):
            log.error("%s: a line that is no settlement is left out", file.name)
    return left.values()
