"""A collection of the API server's, kept in step by list and watch.

Rule 1: level-triggered: what counts is what is there, never which events led to it. A list replaces everything.
Rule 2: a watch that breaks goes on from the last event; one that cannot (410) and each `resync_s` begins with a list.
Rule 3: while the server is away what was seen last stands; attempts are never more than `LONGEST_PAUSE_S` apart,
        unless the server asks for more (429).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from policyd.adapters.policies_kube.api import GONE, OPENED, Api, Away, Object, Refused

log = logging.getLogger("policyd")

RESYNC_S = 600.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
LASTED_S = 1.0  # a watch that lasted so long was a good one, events or none
_NOT_THERE = (403, 404)

T = TypeVar("T")

Key = tuple[str, str]
"""(namespace, name); no namespace: empty"""


@dataclass(slots=True)
class Mirror(Generic[T]):
    """One collection. `run` until cancelled; `changed` is called after each change that `shape` can see."""

    api: Api
    path: str
    shape: Callable[[Object], T]
    changed: Callable[[], None]
    query: Mapping[str, str] = field(default_factory=dict)
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic  # seconds
    objects: dict[Key, T] = field(default_factory=dict)
    synced: asyncio.Event = field(default_factory=asyncio.Event)  # listed once
    answered: asyncio.Event = field(default_factory=asyncio.Event)  # listed once, or refused
    resync_s: float = RESYNC_S  # between lists
    again_s: float = 0.0  # seconds between attempts while the server does not know the collection, or does not give it
    failure: str = ""  # why the last attempt failed; empty while it is in step
    refusal: int = 0  # the status of the last refusal, while it lasts
    _revision: str = ""
    _listed_at: float = 0.0
    _wait: float = 0.0  # seconds before the next attempt

    async def run(self) -> None:
        """Keep in step, for ever."""
        while True:
            asked = 0.0  # seconds
            try:
                await self._step()
            except Refused as error:
                self._revision = "" if error.status == GONE else self._revision
                self.failure, self.refusal, asked = str(error), error.status, error.after_s
                self.answered.set()
            except Away as error:
                self.failure = str(error)
            except Exception as error:  # whatever it is, it must not end in silence: said, and begun anew
                log.exception("%s", self.path)
                self._revision, self.failure = "", f"{type(error).__name__}: {error}"
            self._wait = min(LONGEST_PAUSE_S, 2 * self._wait) or FIRST_PAUSE_S
            if self.refusal in _NOT_THERE:
                asked = max(asked, self.again_s)
            # Replicas of one server come back apart.
            await self.pause(self._wait * random.uniform(0.75, 1.0) + asked * random.uniform(1.0, 1.25))

    async def _step(self) -> None:
        """A list where one is due, then one watch to its end."""
        if not self._revision or self.clock() - self._listed_at > self.resync_s:
            await self._list()
        began = self.clock()
        async for event in self.api.watch(self.path, self._revision, self.query):
            if event is OPENED:
                self.failure = ""
            else:
                self._take(event)
        if self.clock() - began >= LASTED_S:  # one that is ended at once, again and again, is no way to be in step
            self._in_step()

    async def _list(self) -> None:
        objects: dict[Key, T] = {}
        revision, news = "", not self.synced.is_set()
        async for page in self.api.pages(self.path, self.query):
            revision = page.revision
            found = {_key(one): self.shape(one) for one in page.items}
            news = news or any(self.objects.get(key) != one for key, one in found.items())
            objects |= found
            await self.pause(0)  # calls that run take their turn
        news = news or len(objects) != len(self.objects)
        self.objects = objects
        self._revision, self._listed_at = revision, self.clock()
        self._in_step()
        self.synced.set()
        self.answered.set()
        if news:
            self.changed()

    def _in_step(self) -> None:
        self.failure, self.refusal, self._wait = "", 0, 0.0

    def _take(self, event: Object) -> None:
        self._in_step()
        one = event.get("object") or {}
        self._revision = str(one.get("metadata", {}).get("resourceVersion") or self._revision)
        match event.get("type"):
            case "ADDED" | "MODIFIED":
                self._put(_key(one), self.shape(one))
            case "DELETED":
                if self.objects.pop(_key(one), None) is not None:
                    self.changed()
            case _:
                pass  # a bookmark: the revision was all

    def _put(self, key: Key, shaped: T) -> None:
        known = self.objects.get(key)
        self.objects[key] = shaped
        if known != shaped:
            self.changed()


def _key(one: Object) -> Key:
    metadata = one["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])
