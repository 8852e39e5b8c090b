"""Lines to a file, written by a thread of their own: whoever puts one never waits for a disk.

Rule 1: `put` returns at once. A full queue or a failing disk loses lines, never the call; what is lost is counted, and
        a `dropped` line says so as soon as lines can be written again.
Rule 2: a file is written by one process only and holds whole lines only: a line that the disk took in part is cut off.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from policyd.adapters.errors import UnreadableInput, reason_of

MAX_LINES = 10_000
MAX_BYTES = 256 * 1024 * 1024  # held in memory until written
_BATCH = 512  # lines a write
_LINGER_S = 0.1  # lines are written at most this long after they were put

Line = bytes | Callable[[], bytes]
"""A line without its end, or what makes it: then the making is the thread's work too."""


@dataclass(slots=True)
class LineFile:
    """An append-only file of JSON lines. `put` from any thread, `close` once."""

    path: Path
    max_lines: int = MAX_LINES
    max_bytes: int = MAX_BYTES
    clock: Callable[[], float] = time.time
    write: Callable[[int, memoryview], int] = os.write
    on_dropped: Callable[[int], None] = lambda _: None
    dropped: int = 0  # lines lost, in all
    failure: str = ""  # the disk's newest complaint; empty when the last write went well
    _fd: int = field(default=-1, init=False)
    _torn: bool = field(default=False, init=False)  # part of a line is in the file and could not be cut off
    _unsaid: int = field(default=0, init=False)  # dropped lines that no line in the file speaks of yet
    _queue: deque[tuple[Line, int]] = field(default_factory=deque, init=False)
    _held: int = field(default=0, init=False)
    _wake: threading.Condition = field(default_factory=threading.Condition, init=False)
    _closing: bool = field(default=False, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def open(self) -> LineFile:
        """Create the file and start its thread. Raises UnreadableInput where that is not possible."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise UnreadableInput(self.path, f"cannot be written: {reason_of(error)}") from None
        self._thread = threading.Thread(target=self._run, name=f"lines to {self.path.name}", daemon=True)
        self._thread.start()
        return self

    def put(self, line: Line, size: int = 0) -> bool:
        """Hand over one line; `size` is what it holds in memory, bytes. False when it had to be dropped."""
        size = size or (len(line) if isinstance(line, bytes) else 0)
        with self._wake:
            if self._closing or len(self._queue) >= self.max_lines or self._held + size > self.max_bytes:
                self._drop(1)
                return False
            self._queue.append((line, size))
            self._held += size
            if len(self._queue) >= _BATCH:
                self._wake.notify()
        return True

    def close(self, patience_s: float = 10.0) -> None:
        """Write what was put, and end the thread; a disk that hangs is not waited for longer. Safe to call twice."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(patience_s)
            self._thread = None

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._closing and len(self._queue) < _BATCH:
                    self._wake.wait(_LINGER_S)
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                last = self._closing and not self._queue
            self._write(batch)
            if last:
                self._finish()
                return

    def _write(self, batch: list[tuple[Line, int]]) -> None:
        if not batch and not self._unsaid:
            return
        lines = [made for line, _ in batch if (made := self._made(line)) is not None]
        said = self._unsaid
        head = [self._gap(said)] if said else []
        if self._append(b"".join(line + b"\n" for line in (*head, *lines))):
            with self._wake:
                self._unsaid -= said
        else:
            with self._wake:
                self._drop(len(lines))
        with self._wake:
            self._held -= sum(size for _, size in batch)

    def _made(self, line: Line) -> bytes | None:
        if isinstance(line, bytes):
            return line
        try:
            return line()
        except (TypeError, ValueError) as error:  # a record that JSON cannot say: lost, and said so
            self.failure = f"unwritable record: {type(error).__name__}"
            with self._wake:
                self._drop(1)
            return None

    def _gap(self, count: int) -> bytes:
        return json.dumps({"kind": "dropped", "time": round(self.clock(), 6), "count": count}).encode()

    def _append(self, data: bytes) -> bool:
        """All of it or, cut back to where it began, nothing."""
        if not data:
            return True
        before = None
        try:
            before = os.fstat(self._fd).st_size
            view = memoryview(b"\n" + data if self._torn else data)
            while view:
                view = view[self.write(self._fd, view) :]
        except OSError as error:
            self.failure = reason_of(error)
            self._cut_back(before)
            return False
        self._torn = False
        self.failure = ""
        return True

    def _cut_back(self, size: int | None) -> None:
        if size is None:
            return
        try:
            os.ftruncate(self._fd, size)
        except OSError:
            self._torn = True

    def _finish(self) -> None:
        if self._unsaid:
            self._write([])
        try:
            os.fsync(self._fd)
        except OSError as error:
            self.failure = reason_of(error)
        os.close(self._fd)

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._unsaid += count
        self.on_dropped(count)


def process_file(folder: Path | str, kind: str, at: float | None = None) -> Path:
    """A name that no other process or earlier start has: KIND-START-PID.jsonl, and a number where that is taken."""
    start = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    path = Path(folder, f"{kind}-{start}-{os.getpid()}.jsonl")
    number = 1
    while path.exists():  # in a container every process has the same id
        path = Path(folder, f"{kind}-{start}-{os.getpid()}-{number}.jsonl")
        number += 1
    return path
