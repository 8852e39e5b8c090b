"""The objects that aigw is started with: a Gateway, the providers behind it, and which model goes where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

GATEWAY = "policyd-tests"
NAMESPACE = "default"
TOKENS = {"llm_input_token": "InputToken", "llm_output_token": "OutputToken", "llm_total_token": "TotalToken"}
_AI, _EG, _GW = "aigateway.envoyproxy.io", "gateway.envoyproxy.io", "gateway.networking.k8s.io"


@dataclass(frozen=True, slots=True)
class Backend:
    """A provider behind the gateway, and the dialect it is spoken to in."""

    name: str
    port: int
    schema: str = "OpenAI"


@dataclass(frozen=True, slots=True)
class Way:
    """Calls for one model go to this backend, `renamed`: as another model. `upstream`: those that a reroute sends."""

    model: str
    backend: str
    renamed: str = ""
    upstream: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """An AIGatewayRoute. It counts tokens into metadata, as most do."""

    name: str
    ways: tuple[Way, ...]
    hostname: str = ""


def objects(envoy: str, port: int, log: str, backends: Sequence[Backend], routes: Sequence[Route]) -> list[Object]:
    """A gateway on this port, of this version of Envoy, with the access log in this file."""
    made = [_class(), _gateway(port), _envoy_proxy(envoy, log)]
    made += [one for backend in backends for one in _backend(backend)]
    return [*made, *map(_route, routes), _retries([route.name for route in routes])]


def named(made: Sequence[Object], kind: str) -> Object:
    """The one object of this kind."""
    (found,) = [one for one in made if one["kind"] == kind]
    return found


def policyd_first(made: Sequence[Object]) -> None:
    """Has policyd stand before the gateway's own filter, which goes behind a buffer filter where there is one."""
    order = {"name": "envoy.filters.http.ext_proc", "before": "envoy.filters.http.buffer"}
    named(made, "EnvoyProxy")["spec"]["filterOrder"] = [order]
    named(made, "BackendTrafficPolicy")["spec"]["requestBuffer"] = {"limit": "32Mi"}


def _object(group: str, kind: str, name: str, spec: Object, version: str = "v1") -> Object:
    place = {} if kind == "GatewayClass" else {"namespace": NAMESPACE}
    return {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": {"name": name, **place}, "spec": spec}


def _class() -> Object:
    return _object(_GW, "GatewayClass", GATEWAY, {"controllerName": f"{_EG}/gatewayclass-controller"})


def _gateway(port: int) -> Object:
    spec = {
        "gatewayClassName": GATEWAY,
        "listeners": [{"name": "http", "protocol": "HTTP", "port": port}],
        "infrastructure": {"parametersRef": {"group": _EG, "kind": "EnvoyProxy", "name": GATEWAY}},
    }
    return _object(_GW, "Gateway", GATEWAY, spec)


def _envoy_proxy(envoy: str, log: str) -> Object:
    """Which Envoy, and what its access log tells."""
    fields = {"call": "%REQ(X-CALL)%", "status": "%RESPONSE_CODE%"}
    tokens = {name: f"%DYNAMIC_METADATA(io.envoy.ai_gateway:{name})%" for name in (*TOKENS, "backend_name")}
    decided = {name: f"%DYNAMIC_METADATA(policyd:{name})%" for name in ("decision", "verdict", "rule")}
    sink = {"type": "File", "file": {"path": log}}
    told = {"format": {"type": "JSON", "json": fields | tokens | decided}, "sinks": [sink]}
    spec = {
        "provider": {"type": "Host", "host": {"envoyVersion": envoy}},
        "logging": {"level": {"default": "error"}},
        "extraArgs": ["--file-flush-interval-msec", "50"],
        "telemetry": {"accessLog": {"settings": [told]}},
    }
    return _object(_EG, "EnvoyProxy", GATEWAY, spec, "v1alpha1")


def _backend(backend: Backend) -> list[Object]:
    endpoint = {"ip": {"address": "127.0.0.1", "port": backend.port}}
    reference = {"group": _EG, "kind": "Backend", "name": backend.name}
    service = {"schema": {"name": backend.schema}, "backendRef": reference}
    return [
        _object(_EG, "Backend", backend.name, {"endpoints": [endpoint]}, "v1alpha1"),
        _object(_AI, "AIServiceBackend", backend.name, service, "v1beta1"),
    ]


def _route(route: Route) -> Object:
    spec: Object = {"parentRefs": [{"group": _GW, "kind": "Gateway", "name": GATEWAY}]}
    if route.hostname:
        spec["hostnames"] = [route.hostname]
    spec["rules"] = [_rule(way) for way in route.ways]
    spec["llmRequestCosts"] = [{"metadataKey": key, "type": kind} for key, kind in TOKENS.items()]
    return _object(_AI, "AIGatewayRoute", route.name, spec, "v1beta1")


def _rule(way: Way) -> Object:
    reference: Object = {"name": way.backend}
    match = [{"type": "Exact", "name": "x-ai-eg-model", "value": way.model}]
    if way.renamed:
        reference["modelNameOverride"] = way.renamed
    if way.upstream:
        match = [{"type": "RegularExpression", "name": "x-ai-eg-model", "value": way.model}]
        match.append({"type": "Exact", "name": "x-policyd-upstream", "value": way.upstream})
        reference["headerMutation"] = {"remove": ["x-policyd-upstream"]}
    return {"matches": [{"headers": match}], "backendRefs": [reference], "timeouts": {"request": "0s"}}


def _retries(routes: Sequence[str]) -> Object:
    spec = {
        "targetRefs": [{"group": _GW, "kind": "HTTPRoute", "name": name} for name in routes],
        "retry": {"numRetries": 1, "retryOn": {"httpStatusCodes": [503]}},
    }
    return _object(_EG, "BackendTrafficPolicy", "retries", spec, "v1alpha1")
