"""What Envoy Gateway (1.8) is told so that it streams calls through policyd: EnvoyExtensionPolicy and its company.

Rule 1: one policy serves every policy set: headers are sent, bodies are not, and each call asks for what its rules read
        (allowModeOverride), as in bootstrap.py.
Rule 2: what bootstrap.py says and an EnvoyExtensionPolicy cannot is said by a ClientTrafficPolicy where the target is a
        Gateway; a route has none, and remarks say what is left to do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from policyd.adapters.envoy.config import (
    MESSAGE_S,
    NAMESPACE,
    PREFIX,
    ROUTE_ATTRIBUTE,
    SILENCE_S,
    UPLOAD_S,
    Address,
    BadSetting,
    Settings,
    is_ip,
)
from policyd.adapters.envoy.gateway_tls import GatewayTls, client_certificate, validation

Object = dict[str, Any]

API = "gateway.envoyproxy.io/v1alpha1"
NAME = "policyd"
SERVICE = "policyd:50051"
TARGET = "Gateway/eg"
GATEWAY, ROUTE = "Gateway", "HTTPRoute"
MAX_BACKENDS = 16  # Envoy Gateway's own bound
_LEAST_WINDOW = 65_535  # bytes, HTTP/2

_TARGET = re.compile(rf"({GATEWAY}|{ROUTE})/([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?)")
_IN_CLUSTER = re.compile(r"([a-z0-9-]+)(?:\.([a-z0-9-]+)\.svc(?:\.cluster\.local)?)?")


@dataclass(frozen=True, slots=True)
class Target:
    """What an EnvoyExtensionPolicy is attached to, in its own namespace."""

    kind: str
    name: str


def parse_target(text: str) -> Target:
    """`Gateway/NAME` or `HTTPRoute/NAME`; raises BadSetting."""
    found = _TARGET.fullmatch(text)
    if found is None:
        raise BadSetting(f"`{text}` is no target: write Gateway/NAME or HTTPRoute/NAME")
    return Target(found[1], found[2])


def service_of(address: Address) -> tuple[str, str] | None:
    """Name and namespace of the Service that an address names (`NAME`, `NAME.NS.svc`); None where it is none."""
    found = None if address.path or is_ip(address.host) else _IN_CLUSTER.fullmatch(address.host)
    return None if found is None else (found[1], found[2] or "")


def documents(settings: Settings, targets: Sequence[Target], tls: GatewayTls | None = None) -> str:
    """Everything to apply, as YAML. Raises BadSetting."""
    made = [
        extension_policy(settings, targets),
        *_backend(settings, tls),
        *_tls(settings, tls),
        *_client_traffic(settings, targets),
    ]
    return "---\n".join(str(yaml.safe_dump(one, sort_keys=False, width=120)) for one in made)


def extension_policy(settings: Settings, targets: Sequence[Target]) -> Object:
    """The EnvoyExtensionPolicy, the same for every policy set."""
    if settings.workers > MAX_BACKENDS:
        raise BadSetting(f"{settings.workers} workers: Envoy Gateway takes at most {MAX_BACKENDS} backends")
    filter_ = {
        "backendRefs": _references(settings),
        "failOpen": settings.fail_open,
        "messageTimeout": f"{MESSAGE_S}s",
        # The virtual host's metadata, which names the Gateway, is not to be had: the API takes `xds.route_` alone.
        "processingMode": {"allowModeOverride": True, "request": {"attributes": [ROUTE_ATTRIBUTE]}, "response": {}},
        "metadata": {"accessibleNamespaces": settings.namespaces, "writableNamespaces": [NAMESPACE]},
    }
    return _object("EnvoyExtensionPolicy", {"targetRefs": _targets(targets), "extProc": [filter_]})


def _object(kind: str, spec: Object, api: str = API) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": NAME}, "spec": spec}


def _targets(targets: Sequence[Target]) -> list[Object]:
    return [{"group": "gateway.networking.k8s.io", "kind": one.kind, "name": one.name} for one in targets]


def _references(settings: Settings) -> list[Object]:
    """Services by name; what is no Service, and all workers that are none, stand behind one Backend."""
    service = service_of(settings.extproc)
    if service is None:
        return [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": NAME}]
    name, namespace = service
    there = {"namespace": namespace} if namespace else {}
    return [{"name": name, **there, "port": place.port} for place in settings.processors]


def _backend(settings: Settings, tls: GatewayTls | None) -> list[Object]:
    if service_of(settings.extproc) is not None:
        return []
    own = client_certificate(tls)
    endpoints = [_endpoint(place) for place in settings.processors]
    return [_object("Backend", {"endpoints": endpoints, **({"tls": own} if own else {})})]


def _tls(settings: Settings, tls: GatewayTls | None) -> list[Object]:
    if tls is None:
        return []
    service, own = service_of(settings.extproc), client_certificate(tls)
    name, namespace = service or (NAME, "")
    group, kind = ("", "Service") if service else ("gateway.envoyproxy.io", "Backend")
    checked = {
        "targetRefs": [{"group": group, "kind": kind, "name": name}],
        "validation": validation(tls, settings.extproc),
    }
    policy = _object("BackendTLSPolicy", checked, "gateway.networking.k8s.io/v1")
    if namespace:
        policy["metadata"]["namespace"] = namespace  # the Service's: it may not lie in another one
    return [policy, *([_object("EnvoyProxy", {"backendTLS": own})] if own and service else [])]


def _endpoint(address: Address) -> Object:
    if address.path:
        return {"unix": {"path": address.path}}
    if is_ip(address.host):
        return {"ip": {"address": address.host, "port": address.port}}
    return {"fqdn": {"hostname": address.host.lower(), "port": address.port}}


def _client_traffic(settings: Settings, targets: Sequence[Target]) -> list[Object]:
    """A Gateway buffers 32 KiB of a request unless told otherwise, less than many a prompt."""
    gateways = [one for one in targets if one.kind == GATEWAY]
    if not gateways:
        return []
    spec = {
        "targetRefs": _targets(gateways),
        "connection": {"bufferLimit": str(settings.max_request)},
        # An HTTP/2 stream's buffer is its window: a smaller one would answer 413 below the limit.
        "http2": {"initialStreamWindowSize": str(max(settings.max_request, _LEAST_WINDOW))},
        "headers": {"earlyRequestHeaders": {"removeOnMatch": [{"type": "Prefix", "value": PREFIX}]}},
        "path": {"escapedSlashesAction": "RejectRequest"},
        "timeout": {"http": {"requestReceivedTimeout": f"{UPLOAD_S}s", "streamIdleTimeout": f"{SILENCE_S}s"}},
    }
    return [_object("ClientTrafficPolicy", spec)]
