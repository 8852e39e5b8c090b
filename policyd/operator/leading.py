"""One operator of several writes: the one that holds the Lease.

Rule 1: whether another holder is gone is told by our own clock since its Lease last changed, never by its times.
Rule 2: who could not renew for `STEP_DOWN_S` leads no longer, before anyone else may begin (`LASTS_S`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from policyd.adapters.policies_kube.api import Api, Away, Object, Refused, lease_path
from policyd.adapters.policies_kube.report import instant

log = logging.getLogger("policyd")

LEASE = "policyd-operator"
LASTS_S = 15
STEP_DOWN_S = 10.0
RENEW_S = 2.0
_CONFLICT, _MISSING = 409, 404


@dataclass(slots=True)
class Leadership:
    """Tries for the Lease, for ever. `leads` says whether it is ours now."""

    api: Api
    identity: str
    changed: Callable[[], None] = lambda: None
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic  # seconds
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _renewed: float | None = None
    _seen: tuple[str, float] = field(default=("", 0.0))  # the Lease's revision, and when it was first seen
    _failure: str = ""

    @property
    def leads(self) -> bool:
        return self._renewed is not None and self.clock() - self._renewed < STEP_DOWN_S

    async def run(self) -> None:
        """Take it when it is free, renew it while it is ours; for ever."""
        try:
            while True:
                led = self.leads
                await self._try()
                if self.leads != led:
                    log.info("%s the Lease %s", "leading: holding" if self.leads else "not leading: without", LEASE)
                    self.changed()
                await self.pause(RENEW_S)
        finally:
            await self._let_go()

    async def _try(self) -> None:
        began = self.clock()
        try:
            lease = await self._read()
            if lease is None:
                await self.api.ask("POST", lease_path(self._space), self._lease({}))
            elif self._free(lease):
                await self.api.ask("PUT", lease_path(self._space, LEASE), self._lease(lease))
            else:
                self._renewed = None
                return
            self._renewed, self._failure = began, ""
        except (Away, Refused) as error:
            if isinstance(error, Refused) and error.status == _CONFLICT:
                self._renewed = None  # somebody else was quicker
            elif str(error) != self._failure:
                log.error("the Lease %s cannot be had: %s", LEASE, error)
                self._failure = str(error)

    async def _read(self) -> Object | None:
        try:
            return await self.api.ask("GET", lease_path(self._space, LEASE))
        except Refused as error:
            if error.status == _MISSING:
                return None
            raise

    def _free(self, lease: Object) -> bool:
        revision = str(lease["metadata"]["resourceVersion"])
        if revision != self._seen[0]:
            self._seen = revision, self.clock()
        holder = (lease.get("spec") or {}).get("holderIdentity")
        return holder in (None, "", self.identity) or self.clock() - self._seen[1] > LASTS_S

    def _lease(self, before: Object, holder: str | None = None) -> Object:
        spec = dict(before.get("spec") or {})
        mine = spec.get("holderIdentity") == self.identity
        at = instant(self.now())
        spec |= {
            "holderIdentity": self.identity if holder is None else holder,
            "leaseDurationSeconds": LASTS_S,
            "renewTime": at,
            "acquireTime": spec.get("acquireTime", at) if mine else at,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if mine else 1),
        }
        metadata = before.get("metadata") or {"name": LEASE, "namespace": self._space}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    async def _let_go(self) -> None:
        """The next one need not wait for it to lapse."""
        if not self.leads:
            return
        self._renewed = None
        try:
            async with asyncio.timeout(1.0):
                lease = await self._read()
                if lease is not None and lease["spec"].get("holderIdentity") == self.identity:
                    await self.api.ask("PUT", lease_path(self._space, LEASE), self._lease(lease, holder=""))
        except (Away, Refused, TimeoutError) as error:
            log.info("the Lease %s is left to lapse: %s", LEASE, error)

    @property
    def _space(self) -> str:
        return self.api.access.namespace
