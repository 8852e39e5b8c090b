"""By which route a call came, as Envoy's configuration names it: `xds.route_metadata`, in Envoy Gateway's words.

Rule 1: only Envoy's own attributes count. Headers and dynamic metadata are not read for it: a caller or a filter could
        write them.
Rule 2: what is not told, or told oddly, is a fact: the call is taken for one of the home namespace, that is said once
        on the log, and for a while on /readyz and to the operator.
Rule 3: it is read once a call, and one text only once.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from google.protobuf import text_format
from google.protobuf.struct_pb2 import Struct

from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.config import HOST_ATTRIBUTE, ROUTE_ATTRIBUTE
from policyd.core.compile.policyset import PolicySet
from policyd.core.model.route import GATEWAY, HTTP_ROUTE, ObjectName, Route

log = logging.getLogger("policyd")

FILTER = "envoy.filters.http.ext_proc"  # under which Envoy sends attributes, whatever the filter is called
METADATA = "envoy-gateway"
LONGEST = 64 << 10  # characters of a text that is read
REMEMBERED = 4 << 10  # characters of one that is remembered
MOST_SAID = 64  # different lines of the log
LATELY_S = 600.0  # how long an untold route is spoken of

PREFIX = re.compile(r"\A\s*goo\.gle/\S+\s")  # protobuf marks texts that are meant for people, and varies their spaces
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Resource:
    """The object that a part of Envoy's configuration was made of."""

    kind: str  # empty where Envoy Gateway has lost it, as 1.8 does for what it reads from files
    namespace: str
    name: str

    def is_a(self, kind: str) -> bool:
        """Whether it is of this kind, the only one that is expected in its place."""
        return self.kind in ("", kind)


def resource_of(text: str) -> Resource | str:
    """The object that this metadata names; else why there is none, for people."""
    if not text:
        return "it has no metadata"
    if len(text) > LONGEST:
        return f"its metadata is longer than {LONGEST} characters"
    return _remembered(text) if len(text) <= REMEMBERED else _read(text)


def _read(text: str) -> Resource | str:
    found = pb.Metadata()
    try:
        text_format.Parse(PREFIX.sub("", text), found, allow_unknown_field=True)
        known = found.filter_metadata.get(METADATA)
        return f"its metadata has no `{METADATA}`" if known is None else _first(known)
    except (text_format.ParseError, ValueError, RecursionError):
        return "its metadata cannot be read"


_remembered = lru_cache(4_096)(_read)


def _first(known: Struct) -> Resource | str:
    """Of several the first: the one that it was made of."""
    listed = known.fields["resources"].list_value.values if "resources" in known.fields else ()
    if not listed:
        return f"its metadata names no resource of `{METADATA}`"
    fields = listed[0].struct_value.fields
    kind, space, name = (fields[part].string_value if part in fields else "" for part in ("kind", "namespace", "name"))
    if not (_SPACE.fullmatch(space) and _OBJECT.fullmatch(name)):
        return "its metadata names no object with a namespace and a name"
    return Resource(kind, space, name)


class _Lack(StrEnum):
    """What a call may come without."""

    ROUTE = "route"
    GATEWAY = "Gateway"


@dataclass(slots=True)
class Routes:
    """Tells the route of each call, and remembers what was not told."""

    home: str  # the namespace that calls without a route are taken for
    policies: Callable[[], PolicySet]
    parents: Callable[[ObjectName], tuple[ObjectName, ...]] = (
        lambda _: ()
    )  # the Gateways that an HTTPRoute is attached to
    clock: Callable[[], float] = time.monotonic  # seconds
    _lacked: dict[_Lack, tuple[str, float]] = field(default_factory=dict)  # why, and when last
    _said: set[str] = field(default_factory=set)
    _known: tuple[PolicySet, Mapping[_Lack, str]] | None = None  # what the policies in force lose by each lack

    def of(self, message: pb.ProcessingRequest) -> Route | None:
        """The route of the call that begins with this message; None where it is not told."""
        fields = message.attributes[FILTER].fields if FILTER in message.attributes else {}
        if ROUTE_ATTRIBUTE not in fields:
            self._lack(_Lack.ROUTE, f"Envoy was not asked for {ROUTE_ATTRIBUTE}")
            return None
        route = resource_of(fields[ROUTE_ATTRIBUTE].string_value)
        if isinstance(route, str):
            self._lack(_Lack.ROUTE, f"as for {ROUTE_ATTRIBUTE}, {route}")
            return None
        host = resource_of(fields[HOST_ATTRIBUTE].string_value) if HOST_ATTRIBUTE in fields else ""
        gateways = self._gateways(route, host)
        if not gateways:
            self._lack(_Lack.GATEWAY, f"neither {HOST_ATTRIBUTE} nor an HTTPRoute known here tells it")
        return Route(route.namespace, route.name if route.is_a(HTTP_ROUTE) else "", gateways)

    def _gateways(self, route: Resource, host: Resource | str) -> tuple[ObjectName, ...]:
        """The very one, where it is told; else all that the route is attached to: it may have been each."""
        if isinstance(host, Resource) and host.is_a(GATEWAY):
            return ((host.namespace, host.name),)
        return self.parents((route.namespace, route.name)) if route.is_a(HTTP_ROUTE) else ()

    def _lack(self, what: _Lack, why: str) -> None:
        self._lacked[what] = why, self.clock()
        words = self._words(what)
        if words and words not in self._said and len(self._said) < MOST_SAID:
            self._said.add(words)
            log.warning("%s", words)

    @property
    def untold(self) -> str:
        """What lately was not told though policies ask for it, and what that means, a line each; empty for nothing."""
        return "\n".join(words for what in _Lack if (words := self._words(what)))

    def _words(self, what: _Lack) -> str:
        why, at = self._lacked.get(what, ("", 0.0))
        policies = self.policies()
        if self._known is None or self._known[0] is not policies:
            self._known = policies, _losses(policies, self.home)
        loss = self._known[1][what]
        if not why or not loss or self.clock() - at > LATELY_S:
            return ""
        return f"calls come without their {what} ({why}): {loss} do not apply to them"


def _losses(policies: PolicySet, home: str) -> Mapping[_Lack, str]:
    """What is not about a call that lacks this; a call without a route is taken for one of the home namespace."""
    bound = [policy for policy in policies.policies if policy.targets]
    others = sum(not (one.cluster or one.targets or one.namespace == home) for one in policies.policies)
    gateways = sum(any(target.kind == GATEWAY for target in one.targets) for one in bound)
    parts = [
        f"{others} of other namespaces than {home}" if others else "",
        f"{len(bound)} with targetRefs" if bound else "",
    ]
    route = " and ".join(filter(None, parts))
    return {
        _Lack.ROUTE: f"policies ({route})" if route else "",
        _Lack.GATEWAY: f"policies ({gateways} with a Gateway among their targetRefs)" if gateways else "",
    }
