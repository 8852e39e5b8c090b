"""The Gateway API's objects, as far as policies are attached to them: which there are, and which route hangs where.

Rule 1: where the Gateway API is not installed, or may not be read, that is a fact and no failure: it is asked for again
        each `AGAIN_S`, and policies come into force all the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from policyd.adapters.policies_kube.api import Api, Object
from policyd.adapters.policies_kube.kept import EACH_S, Keeper, Kept
from policyd.adapters.policies_kube.mirror import Mirror
from policyd.core.model.route import GATEWAY, HTTP_ROUTE, ObjectName

API_GROUP = "gateway.networking.k8s.io"
AGAIN_S = 30.0
FILE = "routes-kube.json"
PLURALS = {GATEWAY: "gateways", HTTP_ROUTE: "httproutes"}

T = TypeVar("T")


def objects_path(kind: str, namespace: str | None = None) -> str:
    """Of one kind, in one namespace or everywhere."""
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{API_GROUP}/v1{within}/{PLURALS[kind]}"


def mirror_of(
    api: Api, kind: str, shape: Callable[[Object], T], changed: Callable[[], None], namespace: str | None = None
) -> Mirror[T]:
    """These objects, kept in step where there are such."""
    return Mirror(api, objects_path(kind, namespace), shape, changed, again_s=AGAIN_S)


def parents_of(route: Object) -> tuple[ObjectName, ...]:
    """The Gateways that an HTTPRoute is attached to, as it says itself."""
    own = str(route["metadata"].get("namespace") or "")
    listed = (route.get("spec") or {}).get("parentRefs")
    found = [_gateway(one, own) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return tuple(dict.fromkeys(place for place in found if place is not None))


def _gateway(reference: Object, own: str) -> ObjectName | None:
    if reference.get("kind", GATEWAY) != GATEWAY or reference.get("group", API_GROUP) != API_GROUP:
        return None
    return str(reference.get("namespace") or own), str(reference.get("name") or "")


def exists(_: Object) -> bool:
    """That there is one is all that has to be known of it."""
    return True


@dataclass(slots=True)
class Attachments:
    """The Gateways of each HTTPRoute, kept in step, and on disk for a start without an API server."""

    api: Api
    namespace: str | None = None
    state: Path | None = None
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    mirror: Mirror[tuple[ObjectName, ...]] = field(init=False)
    _keeper: Keeper | None = None
    _kept: Mapping[ObjectName, tuple[ObjectName, ...]] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.mirror = mirror_of(self.api, HTTP_ROUTE, parents_of, self._news.set, self.namespace)
        if self.state is not None:
            self._keeper = Keeper(Kept(self.state, FILE))
            self._kept = _read(self._keeper.kept.read() or {})

    def parents(self, route: ObjectName) -> tuple[ObjectName, ...]:
        """The Gateways of this one, as far as is known."""
        known = self.mirror.objects if self.mirror.synced.is_set() else self._kept
        return known.get(route, ())

    async def run(self) -> None:
        """Follow them, for ever; what is not on disk yet gets there at the end."""
        parts = [self.mirror.run()] if self._keeper is None else [self.mirror.run(), self._keep(self._keeper)]
        tasks = [asyncio.ensure_future(part) for part in parts]
        if self._keeper is not None:
            tasks.append(asyncio.ensure_future(self._keeper.run()))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, keeper: Keeper) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            keeper.keep({"/".join(route): json.dumps(found) for route, found in self.mirror.objects.items() if found})
            await self.pause(EACH_S)


def _read(texts: Mapping[str, str]) -> dict[ObjectName, tuple[ObjectName, ...]]:
    found: dict[ObjectName, tuple[ObjectName, ...]] = {}
    for route, gateways in texts.items():
        space, _, name = route.partition("/")
        found[space, name] = tuple((str(one), str(other)) for one, other in json.loads(gateways))
    return found
