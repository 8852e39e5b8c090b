"""A replica's sign of life: a Lease that says which policy set it runs.

Rule 1: it is for the operator's eyes; a replica that may not write one serves all the same, and says so once.
Rule 2: written when the set changes, at most each `SHORTEST_S`, and renewed each `RENEW_S`; taken away at the end.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from policyd.adapters.policies_kube.api import GROUP, Api, Away, Object, Refused, lease_path

log = logging.getLogger("policyd")

PART = f"{GROUP}/part"
DATA_PLANE = "data-plane"
DIGEST, SEEN, SPACE = f"{GROUP}/digest", f"{GROUP}/seen", f"{GROUP}/namespace"
HOME, UNTOLD, UNCARRIED = f"{GROUP}/home", f"{GROUP}/untold", f"{GROUP}/uncarried"
MOST_UNCARRIED, LONGEST_WORDS = 100, 500  # policies, and characters on each: a Lease has room for 256 KiB
RENEW_S = 10.0
SHORTEST_S = 0.1
AGAIN_S = 1.0  # after one that failed
LASTS_S = 30  # without a renewal a replica is taken for gone


@dataclass(frozen=True, slots=True)
class Running:
    """What one replica runs. `seen`: which state of the API server it has judged; `namespace`: empty for all."""

    digest: str
    seen: str
    namespace: str = ""
    uncarried: str = ""  # by file: why the Envoy beside it cannot carry that policy; as JSON, empty for none


def uncarried(found: Mapping[str, str]) -> str:
    """As a Lease has it."""
    some = {file: words[:LONGEST_WORDS] for file, words in sorted(found.items())[:MOST_UNCARRIED]}
    return json.dumps(some) if some else ""


def instant(at: datetime) -> str:
    """As Kubernetes writes the times of Leases."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(slots=True)
class Presence:
    """One replica's Lease. `tell` what runs; `run` until cancelled."""

    api: Api
    name: str
    home: str = ""  # the namespace that calls without a route are taken for
    untold: Callable[[], str] = lambda: ""  # what is not known of calls
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _running: Running | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _failure: str = ""

    def tell(self, running: Running) -> None:
        """This runs from now on."""
        if running != self._running:
            self._running = running
            self._news.set()

    async def run(self) -> None:
        """Write the Lease when there is news, and renew it; for ever."""
        try:
            while True:
                await self._news_or_time()
                if self._running is not None:
                    await self._write(self._running)
                await self.pause(SHORTEST_S)
        finally:
            if self._running is not None:
                await self._remove()

    async def _news_or_time(self) -> None:
        try:
            async with asyncio.timeout(RENEW_S):  # wait_for may swallow a cancellation in Python 3.11
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()

    async def _write(self, running: Running) -> None:
        try:
            await self.api.apply(self._path, self._lease(running))
        except (Away, Refused) as error:
            if str(error) != self._failure:
                log.warning("the operator cannot be told what runs here: Lease %s: %s", self.name, error)
            self._failure = str(error)
            await self.pause(max(AGAIN_S, error.after_s if isinstance(error, Refused) else 0.0))
            self._news.set()
        else:
            self._failure = ""

    async def _remove(self) -> None:
        try:
            async with asyncio.timeout(0.5):
                await self.api.ask("DELETE", self._path)
        except (Away, Refused, TimeoutError) as error:
            log.info("Lease %s is left to lapse: %s", self.name, error)

    @property
    def _path(self) -> str:
        return lease_path(self.api.access.namespace, self.name)

    def _lease(self, running: Running) -> Object:
        notes = {DIGEST: running.digest, SEEN: running.seen, SPACE: running.namespace, HOME: self.home}
        if untold := self.untold():
            notes[UNTOLD] = untold
        if running.uncarried:
            notes[UNCARRIED] = running.uncarried
        metadata = {
            "name": self.name,
            "namespace": self.api.access.namespace,
            "labels": {PART: DATA_PLANE},
            "annotations": notes,
        }
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": LASTS_S, "renewTime": instant(self.now())}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
