"""The fields that may stand at a place of a document, read from its JSON Schema."""

from __future__ import annotations

from functools import cache
from typing import Any

from policyd.core.compile.places import Path
from policyd.core.model.policy import PolicyDocument

Schema = dict[str, Any]
"""A JSON Schema, as pydantic makes it."""


@cache
def policy_schema() -> Schema:
    return PolicyDocument.model_json_schema(by_alias=True)


def fields_at(path: Path) -> list[str]:
    """The fields that the model of a policy has at a place, in the order of the reference."""
    return fields_in(policy_schema(), path)


def fields_in(schema: Schema, path: Path) -> list[str]:
    """The fields that a model with this JSON Schema has at a place."""
    nodes = _expand(schema, schema)
    for step in path:
        nodes = [inner for node in nodes for inner in _below(node, step, schema)]
    return [name for node in nodes for name in node.get("properties", {})]


def _below(node: Schema, step: str | int, schema: Schema) -> list[Schema]:
    if isinstance(step, int):
        return _expand(node.get("items", {}), schema)
    inner = node.get("properties", {}).get(step, node.get("additionalProperties", {}))
    return _expand(inner, schema) if isinstance(inner, dict) else []


def _expand(node: Schema, schema: Schema) -> list[Schema]:
    """A node and whatever it refers to."""
    if "$ref" in node:
        return _expand(schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], schema)
    either = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
    return [inner for one in either for inner in _expand(one, schema)] or [node]
