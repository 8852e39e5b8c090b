"""The clusters of an Envoy beside policyd: its upstreams, and policyd's own workers."""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterLbPolicy,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address as EnvoyAddress,
)
from envoy_data_plane.envoy.config.core.v3 import (
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    Pipe,
    SocketAddress,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsAutoHttpConfig,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any

from policyd.adapters.envoy.config import EXTPROC_CLUSTER, Address, Settings, Upstream
from policyd.adapters.envoy.tls_sockets import extproc_socket, provider_socket

MANY = 100_000  # each live call holds a request to its upstream and a stream to policyd; Envoy's default is 1024
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def address(place: Address) -> EnvoyAddress:
    """An address as Envoy writes it."""
    if place.path:
        return EnvoyAddress(pipe=Pipe(path=place.path))
    return EnvoyAddress(socket_address=SocketAddress(address=place.host, port_value=place.port))


def upstream_cluster(upstream: Upstream, settings: Settings) -> Cluster:
    """Where calls to one provider go."""
    place = Address(upstream.host, upstream.port)
    return Cluster(
        name=upstream.name,
        type=_discovery(place),
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=timedelta(seconds=5),
        load_assignment=_endpoints(upstream.name, place),
        circuit_breakers=_room(),
        transport_socket=provider_socket(upstream, settings.ca_file) if upstream.tls else None,
        typed_extension_protocol_options={_HTTP: Any.pack(_upstream_protocol(upstream))},
    )


def extproc_cluster(settings: Settings) -> Cluster:
    """policyd's workers; each call keeps to the one it began with."""
    places = settings.processors
    http2 = HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
    )
    return Cluster(
        name=EXTPROC_CLUSTER,
        type=_discovery(places[0]),
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=timedelta(seconds=1),
        lb_policy=ClusterLbPolicy.LEAST_REQUEST,
        load_assignment=_endpoints(EXTPROC_CLUSTER, *places),
        circuit_breakers=_room(),
        transport_socket=extproc_socket(settings.extproc_tls, places[0]) if settings.extproc_tls else None,
        typed_extension_protocol_options={_HTTP: Any.pack(http2)},
        health_checks=[_health_check()] if len(places) > 1 else [],
        # One healthy worker is enough; with none at all Envoy tries them anyway.
        common_lb_config=ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=1)) if len(places) > 1 else None,
    )


def _discovery(place: Address) -> ClusterDiscoveryType:
    return ClusterDiscoveryType.STATIC if place.literal else ClusterDiscoveryType.STRICT_DNS


def _endpoints(name: str, *places: Address) -> ClusterLoadAssignment:
    endpoints = [LbEndpoint(endpoint=Endpoint(address=address(place))) for place in places]
    return ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)])


def _room() -> CircuitBreakers:
    room = CircuitBreakersThresholds(max_connections=MANY, max_pending_requests=MANY, max_requests=MANY)
    return CircuitBreakers(thresholds=[room])


def _upstream_protocol(upstream: Upstream) -> HttpProtocolOptions:
    if upstream.tls:  # HTTP/2 where the provider's TLS offers it
        return HttpProtocolOptions(auto_config=HttpProtocolOptionsAutoHttpConfig())
    plain = HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions())
    return HttpProtocolOptions(explicit_http_config=plain)


def _health_check() -> HealthCheck:
    return HealthCheck(
        timeout=timedelta(seconds=1),
        interval=timedelta(seconds=2),
        no_traffic_interval=timedelta(seconds=2),
        unhealthy_threshold=2,
        healthy_threshold=1,
        grpc_health_check=HealthCheckGrpcHealthCheck(),
    )
