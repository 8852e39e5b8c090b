"""What a policy is attached to, and whether that is there.

Rule 1: what cannot be told is not said to be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from policyd.adapters.policies_kube.api import Object
from policyd.adapters.policies_kube.gateway_api import API_GROUP
from policyd.adapters.policies_kube.good import Policy
from policyd.adapters.policies_kube.mirror import Mirror
from policyd.core.model.route import ObjectName

MOST = 16  # entries of a status, by GEP-713
_NOT_INSTALLED = 404


@dataclass(frozen=True, slots=True)
class Known:
    """The Gateways and HTTPRoutes that there are, by kind."""

    objects: Mapping[str, frozenset[ObjectName]] = field(default_factory=dict)  # a kind that is not in it is not known
    why: Mapping[str, str] = field(default_factory=dict)  # why it is not, or why there are none

    def lacks(self, policy: Policy, place: Object) -> str:
        """Why this target cannot be found; empty where it is there, or nobody knows."""
        kind, name = str(place["kind"]), str(place["name"])
        known = self.objects.get(kind)
        if known is None or (policy.namespace, name) in known:
            return ""
        return f"there is no {kind} {name} in namespace {policy.namespace}{self._because(kind)}"

    def doubt(self, place: Object) -> str:
        """Why nobody knows whether this target is there; empty where it is known."""
        kind = str(place["kind"])
        return "" if kind in self.objects else f"whether this {kind} is there cannot be told{self._because(kind)}"

    def _because(self, kind: str) -> str:
        return f": {self.why[kind]}" if kind in self.why else ""


def known_of(mirrors: Mapping[str, Mirror[Any]]) -> Known:
    """What these mirrors have seen."""
    objects = {kind: frozenset(mirror.objects) for kind, mirror in mirrors.items() if mirror.synced.is_set()}
    why = {kind: mirror.failure for kind, mirror in mirrors.items() if mirror.failure and kind not in objects}
    for kind, mirror in mirrors.items():
        if mirror.refusal == _NOT_INSTALLED:
            objects[kind], why[kind] = frozenset(), "the Gateway API is not installed here"
    return Known(objects, why)


def targets_of(policy: Policy) -> list[Object]:
    """Its targets as they are written, as far as they are any."""
    return [one for one in policy.targets if isinstance(one, dict) and one.get("name") and one.get("kind")][:MOST]


def places_of(policy: Policy, space: str) -> list[Object]:
    """The entries of its status: its targets, else its namespace, else policyd itself in namespace `space`."""
    if targets := targets_of(policy):
        return list(_once({"group": API_GROUP, "kind": one["kind"], "name": one["name"]} for one in targets))
    if policy.namespace:
        return [{"group": "", "kind": "Namespace", "name": policy.namespace}]
    return [{"group": "", "kind": "Service", "name": "policyd", "namespace": space}]


def _once(places: Iterable[Object]) -> Iterable[Object]:
    seen: list[Object] = []
    for place in places:
        if place not in seen:
            seen.append(place)
            yield place
