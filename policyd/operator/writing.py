"""Statuses on their way to the API server: at a bounded pace, and none while it has enough or is away.

Rule 1: at most `RATE` requests a second and `TOGETHER` at once: ten thousand statuses take minutes, so that nobody
        else's requests have to wait for them.
Rule 2: a server that says 429 or 503, or nothing, ends the round. The next one begins when the server has said, else
        after a time that doubles with each failure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from policyd.adapters.policies_kube import CLUSTER, NAMESPACED
from policyd.adapters.policies_kube.api import GROUP, VERSION, Api, Away, Object, Refused, policies_path
from policyd.adapters.policies_kube.good import Policy

log = logging.getLogger("policyd")

RATE = 100.0  # requests a second
BURST = 20
TOGETHER = 8
FIRST_S = 0.5
LONGEST_S, LONGEST_AWAY_S = 30.0, 2.0  # a server that has enough is spared; one that was away is back at once
_GONE = (404, 409)  # deleted, or changed: the next look tells
_ENOUGH = (429, 503)

Due = tuple[Policy, Object]
"""A policy, and the status that it should have."""


@dataclass(slots=True)
class Writer:
    """Writes statuses while `leads` says so."""

    api: Api
    leads: Callable[[], bool]
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic  # seconds
    _free: float = 0.0  # when the next request may leave
    _wait: float = 0.0  # seconds that the last failure cost
    _ended: bool = False  # this round
    _failure: str = ""  # of the server as a whole
    _failures: dict[str, str] = field(default_factory=dict)  # file -> why its status could not be written

    async def write(self, due: Sequence[Due]) -> bool:
        """One round. Whether it came to its end."""
        self._ended = False
        gate = asyncio.Semaphore(TOGETHER)

        async def one(policy: Policy, status: Object) -> None:
            async with gate:
                await self._turn()
                if self.leads() and not self._ended:
                    await self._write(policy, status)

        await asyncio.gather(*(one(policy, status) for policy, status in due))
        return not self._ended

    async def _turn(self) -> None:
        if self._ended or not self.leads():
            return
        now = self.clock()
        at = max(self._free, now - BURST / RATE)
        self._free = at + 1 / RATE
        if at > now:
            await self.pause(at - now)

    async def _write(self, policy: Policy, status: Object) -> None:
        plural = NAMESPACED if policy.namespace else CLUSTER
        path = f"{policies_path(plural, policy.namespace or None)}/{policy.name}/status"
        metadata = {"name": policy.name, **({"namespace": policy.namespace} if policy.namespace else {})}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": policy.kind, "metadata": metadata, "status": status}
        try:
            await self.api.apply(path, body)
        except Refused as error:
            self._refused(policy, error)
        except Away as error:
            self._end(str(error), 0.0, LONGEST_AWAY_S)
        else:
            self._failures.pop(policy.file, None)
            self._wait, self._failure = 0.0, ""

    def _refused(self, policy: Policy, error: Refused) -> None:
        if error.status in _ENOUGH:
            self._end(str(error), error.after_s)
        elif error.status not in _GONE:
            if self._failures.get(policy.file) != str(error):
                log.error("%s: its status cannot be written: %s", policy.file, error)
            self._failures[policy.file] = str(error)

    def _end(self, why: str, after_s: float, longest_s: float = LONGEST_S) -> None:
        if self._ended:
            return  # others of this round met the same
        self._ended, self._wait = True, min(longest_s, 2 * self._wait or FIRST_S)
        self._free = max(self._free, self.clock()) + max(after_s, self._wait)
        if why != self._failure:
            log.error("statuses cannot be written: %s", why)
        self._failure = why
