"""TLS of the gRPC port, and who may ask.

Rule 1: a client is known by its certificate alone. The handshake checks whose it is, each call what it names.
Rule 2: nothing that is served is reached past `guarded`: calls and health alike.
Rule 3: connections end, gracefully, after a while: running calls go on, new ones come with today's certificates.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from policyd.adapters.envoy.names import Kind, Name
from policyd.adapters.tls_files import Pems, TlsWatch

SPIFFE = "spiffe://"
_PROPERTIES = {Kind.URI: "peer_uri", Kind.DNS: "peer_dns", Kind.IP: "peer_ip"}

Options = list[tuple[str, int]]


def renewing(seconds: float) -> Options:
    """gRPC's options for rule 3. It waits for running calls without an end."""
    return [("grpc.max_connection_age_ms", int(seconds * 1000))]


def credentials(watch: TlsWatch) -> grpc.ServerCredentials:
    """Credentials that follow the files: each new connection is met with what they hold then."""
    given: list[Pems] = [watch.current]

    def fetch() -> Any:
        # INVARIANT: called by gRPC's own threads, so it only looks at what the watch has put there in one assignment.
        now = watch.current
        if now is given[0]:
            return None
        given[0] = now
        return _configuration(now)

    asked = watch.files.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(
        _configuration(watch.current), fetch, require_client_authentication=asked
    )


def _configuration(pems: Pems) -> Any:
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.cert)], root_certificates=pems.client_ca)


@dataclass(frozen=True, slots=True)
class Door:
    """Who is let in, by the names in certificates that the handshake has found genuine."""

    allowed: Sequence[Name]
    report: Callable[[str], None] = lambda _: None  # told who each client was that was turned away

    def turns_away(self, call: Any) -> bool:
        """Whether this call's client is none of those that may ask."""
        names = names_of(call.auth_context())
        if any(one.matches(names[one.kind]) for one in self.allowed):
            return False
        self.report(", ".join(name for kind in Kind for name in names[kind]) or "no name")
        return True


def names_of(peer: Mapping[str, Sequence[bytes]]) -> Mapping[Kind, Sequence[str]]:
    """The names in a certificate, by kind. SPIFFE's own rule: with a second URI beside it its id is none."""
    names = {kind: [one.decode("utf-8", "replace") for one in peer.get(key, ())] for kind, key in _PROPERTIES.items()}
    if len(names[Kind.URI]) > 1:
        names[Kind.URI] = [one for one in names[Kind.URI] if not one.startswith(SPIFFE)]
    return names


def guarded(inner: grpc.GenericRpcHandler, door: Door) -> grpc.GenericRpcHandler:
    """The same methods, for those only whom the door lets in."""
    return _Guarded(inner, door)


class _Guarded(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, inner: grpc.GenericRpcHandler, door: Door) -> None:
        self._inner, self._door = inner, door
        self._known: dict[str, grpc.RpcMethodHandler] = {}  # methods that are there: a small, closed set

    def service(self, details: Any) -> grpc.RpcMethodHandler | None:
        known = self._known.get(details.method)
        if known is None and (found := self._inner.service(details)) is not None:
            known = self._known[details.method] = _behind(self._door, found)
        return known


def _behind(door: Door, method: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
    """A method of ours behind the door: one that converses, one that answers, or one that goes on answering."""

    async def converse(messages: Any, call: Any) -> None:
        await _admit(door, call)
        await method.stream_stream(messages, call)

    async def answer(request: bytes, call: Any) -> bytes:
        await _admit(door, call)
        answered: bytes = await method.unary_unary(request, call)
        return answered

    async def go_on(request: bytes, call: Any) -> AsyncIterator[bytes]:
        await _admit(door, call)
        async for one in method.unary_stream(request, call):
            yield one

    if method.request_streaming:
        return grpc.stream_stream_rpc_method_handler(converse)
    if method.response_streaming:
        return grpc.unary_stream_rpc_method_handler(go_on)
    return grpc.unary_unary_rpc_method_handler(answer)


async def _admit(door: Door, call: Any) -> None:
    if door.turns_away(call):
        await call.abort(
            grpc.StatusCode.PERMISSION_DENIED, "policyd: --tls-client-san names nobody in this certificate"
        )
