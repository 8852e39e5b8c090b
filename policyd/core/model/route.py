"""Where a call came in, in Kubernetes' names, and what a policy there is attached to.

Rule 1: it is told by Envoy's own configuration alone; nothing that a caller sends is any part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

ObjectName = tuple[str, str]
"""(namespace, name) of an object."""

GATEWAY, HTTP_ROUTE = "Gateway", "HTTPRoute"


@dataclass(frozen=True, slots=True)
class Route:
    """The route that a call was matched by. `name` is empty where only the namespace is known: then no HTTPRoute that a
    policy names is this one. `gateways`: those that it may have come through."""

    namespace: str
    name: str = ""
    gateways: tuple[ObjectName, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """What a policy is attached to, in its own namespace."""

    kind: str
    name: str
