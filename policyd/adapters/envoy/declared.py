"""Where a call goes, as Envoy's configuration declares it: route metadata, or the cluster's name.

Rule 1: only Envoy's own attributes count. A caller writes none of them.
Rule 2: the filter metadata `policyd` of the route wins; then the annotations that Envoy Gateway copies from an
        HTTPRoute, then the same two of the virtual host. Each text is read once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from google.protobuf import text_format
from google.protobuf.struct_pb2 import Struct, Value

from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.config import CLUSTER_ATTRIBUTE, HOST_ATTRIBUTE, NAMESPACE, ROUTE_ATTRIBUTE, Upstream
from policyd.adapters.envoy.routes import FILTER, LONGEST, METADATA, PREFIX
from policyd.core.model.deployment import UNDECLARED, Deployment
from policyd.core.stream.dialects.providers import provider_of, region_of

ANNOTATION = "policyd-"  # and a field's name: `gateway.envoyproxy.io/policyd-provider`
FIELDS = ("provider", "upstream", "host", "region", "dialects")
_SPLIT = re.compile(r"[,|\s]+")


def deployment_of(message: pb.ProcessingRequest) -> Deployment:
    """The deployment of the call that begins with this message."""
    fields = message.attributes[FILTER].fields if FILTER in message.attributes else {}
    cluster = fields[CLUSTER_ATTRIBUTE].string_value if CLUSTER_ATTRIBUTE in fields else ""
    route = fields[ROUTE_ATTRIBUTE].string_value if ROUTE_ATTRIBUTE in fields else ""
    host = fields[HOST_ATTRIBUTE].string_value if HOST_ATTRIBUTE in fields else ""
    return _declared(route, host, cluster) if route or host or cluster else UNDECLARED


@lru_cache(4_096)
def _declared(route: str, host: str, cluster: str) -> Deployment:
    said: dict[str, str] = {}
    for text in (route, host):
        for name, value in _read(text).items():
            said.setdefault(name, value)
    return made({"upstream": cluster, **said})


def made(said: Mapping[str, str]) -> Deployment:
    """A deployment from its fields; provider and region follow from the host where they are not declared."""
    host = said.get("host", "")
    return Deployment(
        provider=said.get("provider", "") or provider_of(host),
        upstream=said.get("upstream", ""),
        host=host,
        region=said.get("region", "") or region_of(host),
        dialects=tuple(filter(None, _SPLIT.split(said.get("dialects", "")))),
    )


def _read(text: str) -> dict[str, str]:
    if not text or len(text) > LONGEST:
        return {}
    found = pb.Metadata()
    try:
        text_format.Parse(PREFIX.sub("", text), found, allow_unknown_field=True)
        own = _texts(found.filter_metadata.get(NAMESPACE))
        said = {name: own[name] for name in FIELDS if own.get(name)}
        return {**_annotated(found.filter_metadata.get(METADATA)), **said}
    except (text_format.ParseError, ValueError, RecursionError):
        return {}


def _annotated(known: Struct | None) -> dict[str, str]:
    """The annotations of the first resource that has any of ours."""
    if known is None or "resources" not in known.fields:
        return {}
    for resource in known.fields["resources"].list_value.values:
        fields = resource.struct_value.fields
        notes = _texts(fields["annotations"].struct_value) if "annotations" in fields else {}
        short = {name.rpartition("/")[2]: value for name, value in notes.items()}
        said = {name: short[ANNOTATION + name] for name in FIELDS if short.get(ANNOTATION + name)}
        if said:
            return said
    return {}


def _texts(known: Struct | None) -> dict[str, str]:
    return {name: _text(value) for name, value in known.fields.items()} if known is not None else {}


def _text(value: Value) -> str:
    if value.WhichOneof("kind") == "list_value":
        return ",".join(_text(one) for one in value.list_value.values)
    return value.string_value


# ---- what `policyd envoy bootstrap` writes ------------------------------------------------------------------------


def fields_of(upstream: Upstream) -> dict[str, str]:
    """What an upstream declares, by field; empty ones are left out."""
    place = made({"provider": upstream.provider, "host": upstream.authority, "region": upstream.region})
    said = {
        "provider": place.provider,
        "upstream": upstream.name,
        "host": place.host,
        "region": place.region,
        "dialects": ",".join(upstream.dialects),
    }
    return {name: value for name, value in said.items() if value}


def catalog(upstreams: Iterable[Upstream]) -> str:
    """Every upstream and what it declares, for the metadata of a stream."""
    return json.dumps({one.name: fields_of(one) for one in upstreams}, separators=(",", ":")).replace("%", "%%")


def read_catalog(text: str) -> dict[str, Deployment]:
    """The inverse of `catalog`; empty for what is none."""
    try:
        said = json.loads(text)
        return {str(name): made({key: str(value) for key, value in one.items()}) for name, one in said.items()}
    except (ValueError, AttributeError, RecursionError):
        return {}
