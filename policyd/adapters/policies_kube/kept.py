"""The last good policies on disk, for a start without an API server.

Rule 1: the file is replaced whole, or not at all; one that is not as it was written is not used.
Rule 2: what cannot be written is said, once for each reason, and does not stop policies from coming into force.
Rule 3: policies do not wait for it: it is written behind them, at most each `EACH_S`, and a fifth of the time at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock

from policyd.adapters.aside import aside
from policyd.adapters.errors import reason_of
from policyd.adapters.policies_kube.good import Texts

log = logging.getLogger("policyd")

FILE = "policies-kube.json"
EACH_S = 1.0
REST = 4.0  # times as long as a write took, none begins


@dataclass(slots=True)
class Kept:
    """One file in the folder of `--state`."""

    folder: Path
    file: str = FILE
    _said: str = ""
    _writing: Lock = field(default_factory=Lock)  # a write that nobody waits for any more still ends before the next

    @property
    def path(self) -> Path:
        return self.folder / self.file

    def read(self) -> Texts | None:
        """What was kept; None when nothing was, or when it cannot be read any more."""
        try:
            document = json.loads(self.path.read_text("utf-8"))
            found = {str(file): str(text) for file, text in document["policies"].items()}
            if document["sha256"] != _sum(found):
                raise ValueError("it is damaged: its sum is another one")
            return found
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.error("%s: cannot be used: %s", self.path, error)
            return None

    def write(self, texts: Texts) -> bool:
        """Whether they are on disk now."""
        with self._writing:
            why = self._write(texts)
        if why and why != self._said:
            log.error("%s: the last good policies are not kept: %s", self.path, why)
        if self._said and not why:
            log.info("%s: the last good policies are kept again", self.path)
        self._said = why
        return not why

    def _write(self, texts: Texts) -> str:
        """Why it could not; empty when it could."""
        fresh = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with fresh.open("w", encoding="utf-8") as file:
                for piece in _pieces(texts):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)  # half of it would only fill a full disk
            return reason_of(error)
        return ""


def _pieces(texts: Texts) -> Iterator[str]:
    """The document, text by text: ten thousand in one go would hold up calls."""
    yield f'{{"sha256": "{_sum(texts)}", "policies": {{\n'
    for at, (file, text) in enumerate(texts.items()):
        yield f"{',' if at else ''}{json.dumps(file)}: {json.dumps(text)}\n"
    yield "}}\n"


def _sum(texts: Texts) -> str:
    """In the order in which they stand."""
    found = hashlib.sha256()
    for file, text in texts.items():
        found.update(f"{len(file)} {file}{len(text)} {text}".encode("utf-8", "surrogatepass"))
    return found.hexdigest()


@dataclass(slots=True)
class Keeper:
    """Follows the policies in force to the disk. `keep` the newest; `run` until cancelled, which writes what is due."""

    kept: Kept
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic  # seconds
    _due: Texts | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def keep(self, texts: Texts) -> None:
        self._due = texts
        self._news.set()

    async def run(self) -> None:
        try:
            while True:
                await self._news.wait()
                began = self.clock()
                await self._write()
                await self.pause(max(EACH_S, REST * (self.clock() - began)))
        finally:
            await self._write()

    async def _write(self) -> None:
        texts, self._due = self._due, None
        self._news.clear()
        if texts is not None and not await aside(partial(self.kept.write, texts)) and self._due is None:
            self.keep(texts)  # the disk may have room later
