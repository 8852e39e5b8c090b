"""Which policies are about a call, by the route that it came in by.

Rule 1: a ClusterLLMPolicy is about every call; an LLMPolicy about those of its namespace's routes; with targets it is
        about those of its targets, and about no other.
Rule 2: finding them costs what they are, not what is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable

from policyd.core.compile.policyset import CompiledPolicy
from policyd.core.model.route import GATEWAY, ObjectName, Route


class Scopes:
    """Policies, as numbers, by what they are about."""

    def __init__(self, policies: Iterable[CompiledPolicy]) -> None:
        self._everywhere: list[int] = []
        self._namespaces: dict[str, list[int]] = {}
        self._routes: dict[ObjectName, list[int]] = {}
        self._gateways: dict[ObjectName, list[int]] = {}
        for number, policy in enumerate(policies):
            self._add(number, policy)

    def _add(self, number: int, policy: CompiledPolicy) -> None:
        if policy.cluster:
            self._everywhere.append(number)
        elif not policy.targets:
            self._namespaces.setdefault(policy.namespace, []).append(number)
        for target in policy.targets:
            places = self._gateways if target.kind == GATEWAY else self._routes
            places.setdefault((policy.namespace, target.name), []).append(number)

    def of(self, route: Route) -> tuple[int, ...]:
        """The numbers of the policies that are about calls of this route, in order."""
        found = {*self._everywhere, *self._namespaces.get(route.namespace, ())}
        if route.name:
            found.update(self._routes.get((route.namespace, route.name), ()))
        for gateway in route.gateways:
            found.update(self._gateways.get(gateway, ()))
        return tuple(sorted(found))
