"""`policyd crds`: the kinds LLMPolicy, ClusterLLMPolicy and DataPlaneReport as Kubernetes learns them.

Rule 1: deploy/k8s/crds/policyd.dev.yaml holds what this prints, and a test keeps it fresh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from policyd.cli.crd_rules import CLUSTER, NAMESPACED, finish
from policyd.cli.crd_structure import structural
from policyd.cli.schemas import schema as published
from policyd.core.model.policy import API_VERSION
from policyd.core.model.report import KIND, LONGEST_WORDS, MOST_LINES, MOST_UNCARRIED, PLURAL

Schema = dict[str, Any]

GROUP, _, VERSION = API_VERSION.partition("/")
MAX_ANCESTORS = 16  # GEP-713's own bound
_SIMPLE = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind, and what kubectl calls it."""

    name: str
    plural: str
    short: str
    scope: str
    about: str


KINDS = (
    Kind("LLMPolicy", "llmpolicies", "llmp", "Namespaced", "What is allowed of LLM calls on one namespace's routes."),
    Kind("ClusterLLMPolicy", "clusterllmpolicies", "cllmp", "Cluster", "What is allowed of every LLM call."),
)


def crds() -> None:
    """Print the CustomResourceDefinitions, for `kubectl apply`."""
    print(text(), end="")


def text() -> str:
    """The definitions as they stand in deploy/k8s/crds/."""
    head = "# policyd crds\n"
    every = [*map(definition, KINDS), reports()]
    return head + "".join("---\n" + yaml.dump(one, Dumper=_Plain, **_STYLE) for one in every)


_STYLE: Any = {"sort_keys": False, "width": 120, "allow_unicode": True}


class _Plain(yaml.SafeDumper):
    """Without anchors: they would be lost on the way through kubectl, and nobody would miss them."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the shape is the parent's
        return True


def definition(kind: Kind) -> Schema:
    """One CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "labels": {
                "app.kubernetes.io/name": "policyd",
                "gateway.networking.k8s.io/policy": "Direct" if kind.scope == "Namespaced" else "Inherited",
            },
        },
        "spec": {
            "group": GROUP,
            "scope": kind.scope,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["policyd", "gateway-api"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": resource(kind)},
                }
            ],
        },
    }


def resource(kind: Kind) -> Schema:
    """The structural schema of one object."""
    policy = published("policy")
    spec = structural({"$ref": "#/$defs/PolicySpec"}, policy["$defs"], finish)
    spec["x-kubernetes-validations"] = CLUSTER if kind.scope == "Cluster" else NAMESPACED
    words = {"apiVersion": "The group and version of this object.", "kind": "The kind of this object."}
    return {
        "description": kind.about,
        "type": "object",
        "required": ["spec"],
        "properties": {
            **{name: {"type": "string", "description": about, "maxLength": 64} for name, about in words.items()},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _status(),
        },
    }


def _columns() -> list[Schema]:
    def condition(name: str) -> Schema:
        path = f'.status.ancestors[*].conditions[?(@.type=="{name}")].status'
        return {"name": name, "type": "string", "jsonPath": path}

    return [
        {"name": "Mode", "type": "string", "jsonPath": ".spec.mode"},
        condition("Accepted"),
        condition("Programmed"),
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]


def reports() -> Schema:
    """The definition of what replicas write and the operator reads."""
    spec = _object(
        "What the replica runs.",
        ["renewed"],
        {
            "renewed": _text("Changes while the replica lives; by the replica's clock.", 64),
            "digest": _text("The policy set in force.", 128),
            "seen": _text("The state of the policies that it has judged.", 64),
            "namespace": _text("The namespace whose policies it reads; all of them without.", 63),
            "home": _text("The namespace that calls without a route are taken for.", 63),
            "untold": {
                "type": "array",
                "description": "What it is not told of calls, a line each.",
                "maxItems": MOST_LINES,
                "x-kubernetes-list-type": "atomic",
                "items": {"type": "string", "maxLength": LONGEST_WORDS},
            },
            "uncarried": {
                "type": "object",
                "description": "Policies that its Envoy cannot carry, and why.",
                "maxProperties": MOST_UNCARRIED,
                "additionalProperties": {"type": "string", "maxLength": LONGEST_WORDS},
            },
        },
    )
    about = "What one replica of policyd's data plane runs. Written by replicas, for the operator."
    words = {"apiVersion": "The group and version of this object.", "kind": "The kind of this object."}
    schema = {
        "description": about,
        "type": "object",
        "required": ["spec"],
        "properties": {
            **{name: {"type": "string", "description": text, "maxLength": 64} for name, text in words.items()},
            "metadata": {"type": "object"},
            "spec": spec,
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "labels": {"app.kubernetes.io/name": "policyd"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower()},
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        {"name": "Digest", "type": "string", "jsonPath": ".spec.digest"},
                        {"name": "Renewed", "type": "string", "jsonPath": ".spec.renewed"},
                    ],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


# ---- status: GEP-713's ----------------------------------------------------------------------------------------------


def _text(about: str, most: int, **more: Any) -> Schema:
    return {"type": "string", "description": about, "maxLength": most, **more}


def _number(about: str, most: int = 2**63 - 1) -> Schema:
    wide = {"format": "int64"} if most >= 2**31 else {"format": "int32", "maximum": most}
    return {"type": "integer", "description": about, "minimum": 0, **wide}


def _object(about: str, required: list[str], properties: Schema) -> Schema:
    return {"type": "object", "description": about, "required": required, "properties": properties}


def _status() -> Schema:
    ancestors = _object(
        "What became of the policy at one place.",
        ["ancestorRef", "controllerName"],
        {
            "ancestorRef": _ancestor(),
            "controllerName": _text("Who says so.", 253, minLength=1),
            "conditions": _conditions(),
        },
    )
    about = "Where it is in force, and why not where it is not. Written by policyd's operator alone."
    return {
        "type": "object",
        "description": about,
        "properties": {
            "ancestors": {
                "type": "array",
                "description": "One entry a place: a Gateway, a route, or policyd itself.",
                "maxItems": MAX_ANCESTORS,
                "x-kubernetes-list-type": "atomic",
                "items": ancestors,
            },
            "digest": _text("The policy set that holds this policy as it is written now.", 128),
            "replicas": _replicas(),
        },
    }


def _ancestor() -> Schema:
    return _object(
        "The object that the policy has an effect on.",
        ["name"],
        {
            "group": _text("Its API group.", 253),
            "kind": _text("Its kind.", 63, minLength=1),
            "namespace": _text("Its namespace; the policy's own without.", 63),
            "name": _text("Its name.", 253, minLength=1),
            "sectionName": _text("A part of it, such as a listener.", 253),
            "port": _number("A port of it.", 65535),
        },
    )


def _replicas() -> Schema:
    return _object(
        "How many replicas of the data plane have it in force.",
        ["programmed", "total"],
        {
            "programmed": _number("Those that run a policy set with this policy in it.", 2**31 - 1),
            "total": _number("All that are known.", 2**31 - 1),
        },
    )


def _conditions() -> Schema:
    condition = _object(
        "One thing that is true or not.",
        ["type", "status", "lastTransitionTime", "reason", "message"],
        {
            "type": _text("Accepted, Programmed.", 316, minLength=1),
            "status": {"type": "string", "description": "Whether it is so.", "enum": ["True", "False", "Unknown"]},
            "observedGeneration": _number("The generation of the policy that this is about."),
            "lastTransitionTime": _text("When `status` last changed.", 64, format="date-time"),
            "reason": _text("Why, in one word.", 1024, minLength=1, pattern=_SIMPLE),
            "message": _text("Why, in a sentence; of a mistake its line and column.", 32768),
        },
    )
    return {
        "type": "array",
        "description": "Accepted: it is understood and allowed. Programmed: the data plane enforces it.",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": condition,
    }
