"""Whether the running Envoy can carry a policy set: it tells the upstreams that it has, and a set that wants others is
refused.

Rule 1: Envoy says it with each stream, in the words of `policyd envoy bootstrap`. One that says nothing, as Envoy
        Gateway's, is not judged: its routes are its owner's.
Rule 2: an upstream is there when any Envoy has told it: they change one after another.
Rule 3: what is in force stays. To take a policy out because Envoy came back with another configuration would lift its
        other rules; a call that it reroutes there gets Envoy's 503, and /readyz says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc

from policyd.adapters.envoy.config import CATALOG_METADATA, UPSTREAMS_METADATA
from policyd.adapters.envoy.declared import read_catalog
from policyd.core.compile.carry import Wanted, wanted
from policyd.core.compile.compiler import Compiled, Compiler, in_order
from policyd.core.model.deployment import Deployment

log = logging.getLogger("policyd")

MOST = 64  # different tellings that are remembered, to be known again without being read
MOST_NAMES = 4096  # upstreams
LONGEST = 64 << 10  # characters of one


@dataclass(slots=True)
class Carrying:
    """Compiles as its compiler does, and refuses what no Envoy that was heard can carry.

    `again`: judge anew what was refused.
    """

    compiler: Compiler
    again: Callable[[], None] = lambda: None
    _heard: set[str] = field(default_factory=set)
    upstreams: dict[str, Deployment] = field(default_factory=dict)  # what each declares, by name
    _known: frozenset[str] = frozenset()
    _in_force: tuple[Wanted, ...] = ()

    def __call__(self, files: Sequence[tuple[str, str]]) -> Compiled:
        compiled = self.compiler(files)
        if compiled.policy_set is None:
            return compiled
        asked = wanted(compiled.written)
        known, before = self._known, {one.said for one in self._in_force}
        missing = [one for one in self._missing(asked, known) if one.said not in before]
        if missing:
            issues = in_order([*compiled.issues, *(one.issue(known) for one in missing)])
            return replace(compiled, policy_set=None, issues=issues)
        self._in_force = asked
        return compiled

    @staticmethod
    def _missing(asked: Iterable[Wanted], known: frozenset[str]) -> list[Wanted]:
        return [one for one in asked if known and one.upstream not in known]

    def hear(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """A stream begins, with this metadata of gRPC's."""
        for name, value in metadata:
            if name == CATALOG_METADATA and value not in self._heard:
                self._declare(str(value))
            if name == UPSTREAMS_METADATA and value not in self._heard:
                self._learn(str(value))

    def _declare(self, told: str) -> None:
        if len(told) > LONGEST:
            return
        if len(self._heard) >= MOST:
            self._heard.clear()
        self._heard.add(told)
        found = read_catalog(told)
        if len(self.upstreams.keys() | found.keys()) <= MOST_NAMES:
            self.upstreams.update(found)

    def _learn(self, told: str) -> None:
        if len(told) > LONGEST:
            return
        if len(self._heard) >= MOST:
            self._heard.clear()
        self._heard.add(told)
        names = frozenset(name for part in told.split(",") if (name := part.strip()))
        if names <= self._known or len(self._known | names) > MOST_NAMES:
            return
        self._known |= names
        for words in self.words:
            log.error("%s", words)
        self.again()

    def lacking(self) -> dict[str, str]:
        """What is in force and cannot be carried, by file: why."""
        known = self._known
        issues = [one.issue(known) for one in self._missing(self._in_force, known)]
        return {issue.span.file: str(issue) for issue in issues}

    @property
    def words(self) -> list[str]:
        """What is in force and cannot be carried, for /readyz."""
        known = self._known
        return [
            f"{one.issue(known)}; in force all the same: such a call gets Envoy's 503"
            for one in self._missing(self._in_force, known)
        ]


class Listening(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC brings no types
    """A service, and `hear`, which is told what metadata each of its streams begins with."""

    def __init__(
        self, service: grpc.GenericRpcHandler, hear: Callable[[Iterable[tuple[str, str | bytes]]], None]
    ) -> None:
        self._service, self._hear = service, hear

    def service(self, details: Any) -> Any:
        """As gRPC asks for it, once a stream."""
        self._hear(details.invocation_metadata or ())
        return self._service.service(details)
