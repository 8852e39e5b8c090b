"""The Gateway API's objects, as far as policies are attached to them: which there are, and which route hangs where.

Rule 1: where the Gateway API is not installed, or may not be read, that is a fact and no failure: it is asked for again
        each `AGAIN_S`, and policies come into force all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from policyd.adapters.policies_kube.api import Api, Object
from policyd.adapters.policies_kube.mirror import Mirror
from policyd.core.model.route import GATEWAY, HTTP_ROUTE, ObjectName

API_GROUP = "gateway.networking.k8s.io"
AGAIN_S = 30.0
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
