"""TLS between Envoy Gateway's Envoys and policyd: BackendTLSPolicy, and where Envoy's own certificate is named.

Rule 1: no certificate stands here: objects name Secrets and ConfigMaps, whose changes Envoy Gateway follows.
Rule 2: a Service's client certificate is its Gateway's (EnvoyProxy); a Backend has its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from policyd.adapters.envoy.config import Address, BadSetting, is_ip
from policyd.adapters.envoy.names import Kind, Name, parse_name

_AUTHORITY = re.compile(r"(Secret|ConfigMap)/([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)")
_SECRET = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SANS = {Kind.DNS: ("Hostname", "hostname"), Kind.URI: ("URI", "uri")}


@dataclass(frozen=True, slots=True)
class GatewayTls:
    """What a user says of it."""

    kind: str  # Secret or ConfigMap with the authority of policyd's certificate under `ca.crt`
    name: str
    cert: str = ""  # a Secret of type kubernetes.io/tls: Envoy's own; "": policyd does not ask for one
    names: tuple[Name, ...] = ()  # any of them must stand in policyd's certificate; none: its host


def parse_tls(ca: str, cert: str, sans: Sequence[str]) -> GatewayTls | None:
    """What these words say; None where they say nothing. Raises BadSetting."""
    if not (ca or cert or sans):
        return None
    found = _AUTHORITY.fullmatch(ca)
    if found is None:
        raise BadSetting(f"--extproc-ca `{ca}` names no authority: write Secret/NAME or ConfigMap/NAME, with a ca.crt")
    if cert and not _SECRET.fullmatch(cert):
        raise BadSetting(f"--extproc-cert `{cert}` is no name of a Secret")
    names = tuple(map(parse_name, sans))
    if addresses := [name.text for name in names if name.kind is Kind.IP]:
        raise BadSetting(f"`{addresses[0]}`: a BackendTLSPolicy takes DNS names and URIs alone")
    return GatewayTls(found[1], found[2], cert, names)


def validation(tls: GatewayTls, place: Address) -> dict[str, Any]:
    """A BackendTLSPolicy's `validation`. Raises BadSetting."""
    if place.path:
        raise BadSetting(f"`{place}`: a unix socket has no TLS: leave --extproc-ca out")
    host = next((name.text for name in tls.names if name.kind is Kind.DNS), place.host.lower())
    if is_ip(host):
        raise BadSetting(f"`{host}`: an address has no name to be checked: give --extproc-san with a DNS name")
    sans = [{"type": _SANS[one.kind][0], _SANS[one.kind][1]: one.text} for one in tls.names]
    return {
        "caCertificateRefs": [{"group": "", "kind": tls.kind, "name": tls.name}],
        "hostname": host,
        **({"subjectAltNames": sans} if sans else {}),
    }


def client_certificate(tls: GatewayTls | None) -> dict[str, Any]:
    """What names Envoy's own certificate, in an EnvoyProxy's `backendTLS` and in a Backend's `tls`."""
    return {"clientCertificateRef": {"kind": "Secret", "name": tls.cert}} if tls and tls.cert else {}
