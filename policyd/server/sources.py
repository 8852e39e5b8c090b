"""Where policies come from: files, or Kubernetes (`kube:`, or `kube:CONTEXT` for one context of a kubeconfig)."""

from __future__ import annotations

import re
import socket
import zlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from policyd.adapters.envoy.carrying import Carrying
from policyd.adapters.policies_dir import PolicyDirectory
from policyd.adapters.reloads import Reload
from policyd.core.compile.policyset import PolicySet
from policyd.core.errors import Issue
from policyd.core.model.route import ObjectName
from policyd.server.settings import KUBE, Settings


class Source(Protocol):
    """Keeps a policy set in force: `start` once, then `watch` until cancelled."""

    refused: Reload | None

    @property
    def current(self) -> PolicySet: ...
    @property
    def away(self) -> str: ...
    @property
    def unready(self) -> str: ...  # why no new calls should come here; empty while they may
    @property
    def placeholders(self) -> tuple[str, ...]: ...  # policies that cannot be read, and whose calls cannot be judged
    @property
    def home(self) -> str | None: ...  # the namespace of calls whose route is not told; None: routes are no part of it
    def parents(self, route: ObjectName) -> tuple[ObjectName, ...]: ...  # the Gateways that an HTTPRoute is attached to
    def start(self) -> tuple[Issue, ...] | Awaitable[tuple[Issue, ...]]: ...
    def again(self) -> None: ...  # what was refused may be right now: look anew
    def watch(self) -> Coroutine[Any, Any, None]: ...


def source_of(
    settings: Settings, compile: Carrying, report: Callable[[Reload], None], untold: Callable[[], str]
) -> Source:
    """What the settings ask for. `untold`: what is not known of calls, for the operator. Raises NotAvailable or
    UnreadableInput where there is no way to a cluster."""
    where = str(settings.policies[0]) if settings.policies else ""
    if not where.startswith(KUBE):
        return PolicyDirectory(settings.policies, compile, report, allow_empty=settings.allow_empty)
    from policyd.adapters.policies_kube import PolicyObjects  # a twentieth of a second that only this source pays
    from policyd.adapters.policies_kube.access import find_access

    return PolicyObjects(
        access=find_access(where.removeprefix(KUBE)),
        compile=compile,
        report=report,
        namespace=settings.options.namespace,
        state=settings.state,
        allow_empty=settings.allow_empty,
        name=replica_name(socket.gethostname(), str(settings.listen)),
        untold=untold,
        uncarried=compile.lacking,
    )


def replica_name(host: str, listen: str) -> str:
    """The same after a restart, and another one for each worker of a host."""
    plain = re.sub(r"[^a-z0-9-]+", "-", host.lower()).strip("-") or "host"
    return f"policyd-{plain[:200]}-{zlib.crc32(listen.encode()):08x}"
