"""Envoy's own configuration, typed, for an Envoy that streams its calls through policyd.

Rule 1: one filter configuration serves every policy set: both bodies NONE, and each call asks for what its rules read.
Rule 2: what policyd trusts (x-policyd-*) is taken off the caller's request before anything can read it, so that it
        holds with policyd down and failing open, too.
Rule 3: import this module late; Envoy's messages take half a second.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any as Anything

import betterproto2
import yaml
from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation, HeaderMutationRemoveOnMatch
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    Http2ProtocolOptions,
    Metadata,
    Node,
    SubstitutionFormatString,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.core.v3 import HttpProtocolOptions as CommonHttpOptions
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerServerHeaderTransformation,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any, Struct

from policyd.adapters.envoy.clusters import address, extproc_cluster, upstream_cluster
from policyd.adapters.envoy.config import (
    CATALOG_METADATA,
    CATALOG_MOST,
    CLUSTER_ATTRIBUTE,
    EXTPROC_CLUSTER,
    HOST_ATTRIBUTE,
    MESSAGE_S,
    NAMESPACE,
    PREFIX,
    ROUTE_ATTRIBUTE,
    SILENCE_S,
    UPLOAD_S,
    UPSTREAM_HEADER,
    UPSTREAMS_METADATA,
    Settings,
    Upstream,
)
from policyd.adapters.envoy.declared import catalog, fields_of
from policyd.adapters.envoy.local_replies import local_replies

SILENCE, UPLOAD, MESSAGE = (timedelta(seconds=seconds) for seconds in (SILENCE_S, UPLOAD_S, MESSAGE_S))
_NODE = "policyd-envoy"
_NOT_THE_PROVIDERS = ("x-envoy-external-address", "x-envoy-internal")  # who calls from where is nothing to them

_ACCESS_LOG = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",  # a query may hold a credential
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "upstream": "%UPSTREAM_CLUSTER%",
    "request_bytes": "%BYTES_RECEIVED%",
    "response_bytes": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    **{key: f"%DYNAMIC_METADATA({NAMESPACE}:{key})%" for key in ("decision", "verdict", "rule", "mode", "cost_usd")},
}


def bootstrap(settings: Settings) -> Bootstrap:
    """The whole Envoy configuration."""
    clusters = [upstream_cluster(upstream, settings) for upstream in settings.upstreams]
    followed = settings.extproc_tls is not None and settings.extproc_tls.sds
    return Bootstrap(
        node=Node(id=_NODE, cluster=_NODE) if followed else None,  # SDS is refused to an Envoy without a name
        admin=Admin(address=address(settings.admin)) if settings.admin else None,
        static_resources=BootstrapStaticResources(
            listeners=[_listener(settings)], clusters=[*clusters, extproc_cluster(settings)]
        ),
    )


def as_dict(message: betterproto2.Message) -> dict[str, Anything]:
    """A message as Envoy's JSON and YAML have it."""
    return message.to_dict(casing=betterproto2.Casing.SNAKE)


def render(message: betterproto2.Message) -> str:
    """A message as YAML."""
    return str(yaml.safe_dump(as_dict(message), sort_keys=False, width=120))


def ext_proc_filter(settings: Settings) -> ExternalProcessor:
    """The ext_proc filter, the same for every policy set."""
    header, body = ProcessingModeHeaderSendMode, ProcessingModeBodySendMode
    return ExternalProcessor(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=EXTPROC_CLUSTER),
            # So that policyd refuses a policy that this Envoy cannot carry.
            initial_metadata=[
                HeaderValue(key=UPSTREAMS_METADATA, value=",".join(one.name for one in settings.upstreams)),
                *_catalog(settings),
            ],
        ),
        # Only for a policyd that cannot be reached: a busy one answers before message_timeout, judged or not.
        failure_mode_allow=settings.fail_open,
        status_on_error=HttpStatus(code=StatusCode(503)),
        processing_mode=ProcessingMode(
            request_header_mode=header.SEND,
            response_header_mode=header.SEND,
            request_body_mode=body.NONE,
            response_body_mode=body.NONE,
            request_trailer_mode=header.SKIP,
            response_trailer_mode=header.SKIP,
        ),
        allow_mode_override=True,
        message_timeout=MESSAGE,
        request_attributes=[ROUTE_ATTRIBUTE, HOST_ATTRIBUTE, CLUSTER_ATTRIBUTE],
        metadata_options=MetadataOptions(
            forwarding_namespaces=MetadataOptionsMetadataNamespaces(untyped=settings.namespaces),
            receiving_namespaces=MetadataOptionsMetadataNamespaces(untyped=[NAMESPACE]),
        ),
    )


def _catalog(settings: Settings) -> list[HeaderValue]:
    """What a reroute's target is; left out where it is longer than Envoy takes."""
    told = catalog(settings.upstreams)
    return [HeaderValue(key=CATALOG_METADATA, value=told)] if len(told) <= CATALOG_MOST else []


def _listener(settings: Settings) -> Listener:
    manager = Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(_connection_manager(settings))
    )
    return Listener(
        name="policyd",
        address=address(settings.listener),
        per_connection_buffer_limit_bytes=settings.max_request,
        filter_chains=[FilterChain(filters=[manager])],
    )


def _connection_manager(settings: Settings) -> HttpConnectionManager:
    return HttpConnectionManager(
        stat_prefix="policyd",
        route_config=RouteConfiguration(name="policyd", virtual_hosts=[_virtual_host(settings)]),
        http_filters=[
            HttpFilter(name="envoy.filters.http.ext_proc", typed_config=Any.pack(ext_proc_filter(settings))),
            HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(Router(suppress_envoy_headers=True))),
        ],
        early_header_mutation_extensions=[_strip_our_headers()],
        normalize_path=True,  # rules read paths: they and the upstream must mean the same one
        merge_slashes=True,
        path_with_escaped_slashes_action=_escaped_slashes(settings),
        use_remote_address=True,
        skip_xff_append=True,
        server_header_transformation=HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
        stream_idle_timeout=SILENCE,
        request_timeout=UPLOAD,
        request_headers_timeout=timedelta(seconds=30),
        common_http_protocol_options=CommonHttpOptions(idle_timeout=SILENCE),
        # An HTTP/2 stream's buffer is its window: a smaller one would answer 413 below the limit.
        http2_protocol_options=Http2ProtocolOptions(
            initial_stream_window_size=max(settings.max_request, 65535),
            initial_connection_window_size=max(settings.max_request, 65535),
            max_concurrent_streams=1024,
        ),
        access_log=[_access_log()],
        local_reply_config=local_replies(),
    )


def _escaped_slashes(settings: Settings) -> HttpConnectionManagerPathWithEscapedSlashesAction:
    """Bedrock's model may be an ARN, whose slash is escaped in the path: policyd rejects `%2F` anywhere else."""
    action = HttpConnectionManagerPathWithEscapedSlashesAction
    bedrock = any(fields_of(upstream).get("provider") == "bedrock" for upstream in settings.upstreams)
    return action.KEEP_UNCHANGED if bedrock else action.REJECT_REQUEST


def _strip_our_headers() -> TypedExtensionConfig:
    match = HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(prefix=PREFIX, ignore_case=True))
    return TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=Any.pack(EarlyHeaderMutation(mutations=[HeaderMutation(remove_on_match=match)])),
    )


def _virtual_host(settings: Settings) -> VirtualHost:
    named = [_route(upstream, settings, _named(upstream.name)) for upstream in settings.upstreams]
    # A reroute to an upstream that this Envoy does not have must not end at the default one.
    unknown = Route(
        match=RouteMatch(prefix="/", headers=[HeaderMatcher(name=UPSTREAM_HEADER, present_match=True)]),
        direct_response=DirectResponseAction(
            status=503, body=DataSource(inline_string="policyd: this Envoy has no upstream of that name\n")
        ),
    )
    return VirtualHost(name="policyd", domains=["*"], routes=[*named, unknown, _route(settings.upstreams[0], settings)])


def _named(name: str) -> HeaderMatcher:
    return HeaderMatcher(name=UPSTREAM_HEADER, string_match=StringMatcher(exact=name))


def _route(upstream: Upstream, settings: Settings, *headers: HeaderMatcher) -> Route:
    return Route(
        match=RouteMatch(prefix="/", headers=[*headers]),
        metadata=Metadata(filter_metadata={NAMESPACE: Struct.from_dict(fields_of(upstream))}),
        route=RouteAction(
            cluster=upstream.name,
            host_rewrite_literal=upstream.authority,  # Host follows a reroute
            timeout=timedelta(0),  # an answer may stream for as long as it likes
        ),
        request_headers_to_remove=[UPSTREAM_HEADER, *_NOT_THE_PROVIDERS],
        request_body_buffer_limit=settings.max_request,
    )


def _access_log() -> AccessLog:
    line = SubstitutionFormatString(json_format=Struct.from_dict(_ACCESS_LOG), omit_empty_values=True)
    return AccessLog(name="envoy.access_loggers.stdout", typed_config=Any.pack(StdoutAccessLog(log_format=line)))
