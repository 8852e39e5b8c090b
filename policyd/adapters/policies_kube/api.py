"""The Kubernetes API, as far as it is needed: list, watch, and server-side apply. The one door to it.

Rule 1: a list is one revision of everything, or an error; a watch goes on from there, event by event.
Rule 2: a connection that is dead and says nothing is found out within seconds: by the kernel (keep-alive probes), and
        where something between still answers these, because a watch has to end each `WATCH_S`.
Rule 3: what goes wrong is one of two: `Refused`, the server's own answer, or `Away`, no answer.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from policyd.adapters.errors import NotAvailable

try:
    import httpx
except ImportError:  # pragma: no cover - an install without the extra
    raise NotAvailable("kube: needs the extra: pip install 'policyd[k8s]'") from None

from policyd.adapters.policies_kube.access import Access
from policyd.adapters.policies_kube.shallow import loads

GROUP, VERSION = "policyd.dev", "v1alpha1"
PAGE = 100  # objects a page of a list: parsing one must not hold up calls
WATCH_S = 3  # the server ends a watch then; the next one begins where it ended
SILENCE_S = 4.0  # a watch that has not ended by then is dead, though its connection may stand: nothing is stale for 5 s
GONE = 410
LONGEST_AFTER_S = 30.0  # a `Retry-After` beyond it is not believed

_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 2))
    if hasattr(socket, name)
]
_WAIT = httpx.Timeout(10.0, connect=3.0)
_WATCHING = httpx.Timeout(10.0, connect=3.0, read=SILENCE_S)

Object = dict[str, Any]

OPENED: Object = {"type": "OPENED"}
"""Not the server's: a watch has been taken up. In a short one there need not be any event."""


class Away(Exception):  # noqa: N818 - the network's doing, an ordinary value to us
    """No answer."""


class Refused(Exception):  # noqa: N818
    """The server's own word against what was asked."""

    def __init__(self, status: int, message: str, after_s: float = 0.0) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.after_s = after_s  # seconds for which it wants to be left alone


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a collection as of one revision."""

    items: list[Object]
    revision: str


@dataclass(slots=True)
class Api:
    """One API server. Use as an async context."""

    access: Access
    agent: str = "policyd"
    _client: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for each request
        transport = httpx.AsyncHTTPTransport(verify=self.access.tls or False, socket_options=_KEEP_ALIVE)
        self._client = httpx.AsyncClient(
            base_url=self.access.url, transport=transport, timeout=_WAIT, headers={"user-agent": self.agent}
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def pages(self, path: str, query: Mapping[str, str] = {}) -> AsyncIterator[Page]:
        """Everything there, page by page, of one revision. Raises Away or Refused."""
        more = ""
        while True:
            page = await self.ask(
                "GET", path, query={**query, "limit": str(PAGE), **({"continue": more} if more else {})}
            )
            found = page.get("items") or []
            kind = str(page.get("kind") or "").removesuffix("List")
            yield Page([{"kind": kind, **one} for one in found], str(page["metadata"]["resourceVersion"]))
            more = page["metadata"].get("continue") or ""
            if not more:
                return

    async def watch(self, path: str, revision: str, query: Mapping[str, str] = {}) -> AsyncIterator[Object]:
        """`OPENED`, then what happens after `revision`. Raises Away or Refused (410: list anew)."""
        asked = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
            "resourceVersion": revision,
        }
        try:
            async with self._client.stream(
                "GET", path, params={**query, **asked}, headers=self._headers(), timeout=_WATCHING
            ) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    raise _refused(answer)
                yield OPENED
                async for line in answer.aiter_lines():
                    yield _event(line)
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise Away(_words(error)) from None

    async def ask(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str] = {},
        kind: str = "application/json",
    ) -> Object:
        """One question. Raises Away or Refused."""
        content = None if body is None else json.dumps(body).encode()
        headers = {**self._headers(), **({"content-type": kind} if body is not None else {})}
        try:
            answer = await self._client.request(method, path, params=dict(query), content=content, headers=headers)
        except (httpx.HTTPError, OSError) as error:
            raise Away(_words(error)) from None
        if answer.status_code >= 300:
            raise _refused(answer)
        return _object(answer.content)

    async def apply(self, path: str, body: Object) -> Object:
        """Server-side apply: these fields are ours, whoever else writes the others. Raises Away or Refused."""
        query = {"fieldManager": self.agent, "force": "true"}
        return await self.ask("PATCH", path, body, query=query, kind="application/apply-patch+yaml")

    def _headers(self) -> dict[str, str]:
        try:
            token = self.access.bearer()
        except NotAvailable as error:
            raise Away(str(error)) from None
        return {"accept": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}


def _event(line: str) -> Object:
    event = _object(line.encode())
    if event.get("type") == "ERROR":
        status = event.get("object") or {}
        raise Refused(int(status.get("code") or 500), str(status.get("message") or "the watch failed"))
    return event


def _object(data: bytes) -> Object:
    """Raises Away: half an answer is none."""
    try:
        found = loads(data)
    except ValueError:
        raise Away("an answer that is no JSON") from None
    if not isinstance(found, dict):
        raise Away("an answer that is no object")
    return found


def _refused(answer: httpx.Response) -> Refused:
    try:
        message = str(loads(answer.content)["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.content[:200].decode("utf-8", "replace").strip()
    told = answer.headers.get("retry-after", "")
    return Refused(answer.status_code, message, min(float(told), LONGEST_AFTER_S) if told.isdecimal() else 0.0)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def policies_path(plural: str, namespace: str | None = None) -> str:
    """Of one kind, in one namespace or everywhere."""
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{GROUP}/{VERSION}{within}/{plural}"


def lease_path(namespace: str | None, name: str = "") -> str:
    """Of one Lease, of those of a namespace, or of all."""
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/coordination.k8s.io/v1{within}/leases" + (f"/{name}" if name else "")


def hooks_path(name: str) -> str:
    """Of one ValidatingWebhookConfiguration."""
    return f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}"
