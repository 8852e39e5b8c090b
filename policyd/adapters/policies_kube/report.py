"""A replica's report: a DataPlaneReport that says which policy set it runs, and by its changes that it lives.

Rule 1: it is for the operator's eyes; a replica that may not write one serves all the same, and says so once.
Rule 2: written when the set changes, at most each `SHORTEST_S`, and renewed each `RENEW_S`; taken away at the end.
Rule 3: a kind of its own, in the data plane's own namespace: Kubernetes' roles for tenants (`edit`, `admin`) say
        nothing of it, so only who is given it can write one.
Rule 4: whoever reads one takes nothing in it for granted: what is too long, or of another shape, is cut or dropped.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from policyd.adapters.policies_kube.api import GROUP, VERSION, Api, Away, Object, Refused, policies_path
from policyd.core.model.report import KIND, LONGEST_WORDS, MOST_LINES, MOST_UNCARRIED, PLURAL

log = logging.getLogger("policyd")

LONGEST_FILE = 400  # characters of a policy's name
RENEW_S = 10.0
SHORTEST_S = 0.1
AGAIN_S = 1.0  # after one that failed
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Running:
    """What one replica runs. `seen`: which state of the API server it has judged; `namespace`: empty for all."""

    digest: str
    seen: str
    namespace: str = ""
    uncarried: Mapping[str, str] = field(default_factory=dict)  # by file: why its Envoy cannot carry that policy


def reports_path(namespace: str, name: str = "") -> str:
    """Of one report, or of all of a namespace."""
    return policies_path(PLURAL, namespace) + (f"/{name}" if name else "")


def instant(at: datetime) -> str:
    """As Kubernetes writes times."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def line(words: Any) -> str:
    """Words as one line of bounded length; empty for what is no text."""
    return _CONTROLS.sub(" ", words[:LONGEST_WORDS]) if isinstance(words, str) else ""


def lines(words: Any) -> tuple[str, ...]:
    """Some lines of bounded length."""
    found = (line(one) for one in words[:MOST_LINES]) if isinstance(words, list) else ()
    return tuple(one for one in found if one)


def by_file(found: Any) -> dict[str, str]:
    """Some files, each with a line."""
    if not isinstance(found, Mapping):
        return {}
    some = ((file, line(words)) for file, words in sorted(found.items()) if len(file) <= LONGEST_FILE)
    return dict(one for one, _ in zip((one for one in some if one[1]), range(MOST_UNCARRIED), strict=False))


@dataclass(slots=True)
class Reporter:
    """One replica's report. `tell` what runs; `run` until cancelled."""

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
        """Write the report when there is news, and renew it; for ever."""
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
            await self.api.apply(self._path, self._report(running))
        except (Away, Refused) as error:
            if str(error) != self._failure:
                log.warning("the operator cannot be told what runs here: %s %s: %s", KIND, self.name, error)
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
            log.info("%s %s is left to lapse: %s", KIND, self.name, error)

    @property
    def _path(self) -> str:
        return reports_path(self.api.access.namespace, self.name)

    def _report(self, running: Running) -> Object:
        spec: Object = {
            "renewed": instant(self.now()),
            "digest": running.digest,
            "seen": running.seen,
            "namespace": running.namespace,
            "home": self.home,
            "untold": list(lines(self.untold().split("\n"))),
        }
        if uncarried := by_file(running.uncarried):  # an empty map that is applied over a full one becomes null
            spec["uncarried"] = uncarried
        metadata = {"name": self.name, "namespace": self.api.access.namespace}
        return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "spec": spec}
