"""What Envoy Gateway writes into Envoy's configuration: which objects a route and a virtual host were made of."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import yaml

CHOOSES = "x-route"  # the header by which a test's caller chooses a route


def metadata(kind: str, namespace: str, name: str, **more: object) -> dict[str, Any]:
    """The metadata of a part of the configuration that was made of this object."""
    resource = {"kind": kind, "name": name, "namespace": namespace, **more}
    return {"filter_metadata": {"envoy-gateway": {"resources": [resource]}}}


def route(namespace: str, name: str) -> dict[str, Any]:
    """Of an HTTPRoute's rule, as Envoy Gateway 1.8 has it."""
    words = {"annotations": {"gateway.envoyproxy.io/why": 'q"\\ ]} fields {'}, "sectionName": "rule-é"}
    return metadata("HTTPRoute", namespace, name, **words)


def with_routes(
    config: str,
    routes: Mapping[str, dict[str, Any]],
    host: dict[str, Any] | None = None,
    asked: list[str] | None = None,
) -> str:
    """This configuration, and before its last route one for each of these, by name; `host` is the virtual host's
    metadata, `asked` the attributes that the filter asks for instead of its own."""
    whole = yaml.safe_load(config)
    manager = whole["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    virtual = manager["route_config"]["virtual_hosts"][0]
    *before, last = virtual["routes"]
    virtual["routes"] = [*before, *(_named(last, name, told) for name, told in routes.items()), last]
    if host is not None:
        virtual["metadata"] = host
    if asked is not None:
        manager["http_filters"][0]["typed_config"]["request_attributes"] = asked
    return str(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))


def _named(last: dict[str, Any], name: str, told: dict[str, Any]) -> dict[str, Any]:
    made = copy.deepcopy(last)
    made["match"]["headers"] = [{"name": CHOOSES, "string_match": {"exact": name}}]
    return {**made, "metadata": told}
