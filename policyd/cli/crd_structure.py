"""JSON Schema as pydantic writes it, to a structural schema as Kubernetes takes it.

Rule 1: structural means: a type at every place, nothing refers, a union only restricts. So where text, a list or a
        mapping may stand, the place is left open and `anyOf` says which shapes fit, without the word `type`.
Rule 2: nothing that the model says is dropped in silence but what Kubernetes cannot say: the pattern of a map's keys,
        which a rule of crd_rules.py says where the API server's cost budget allows it.
Rule 3: unknown fields are refused as `kubectl apply` refuses them (strict field validation), not by the schema.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

Schema = dict[str, Any]
Finish = Callable[[str, Schema], None]
"""What is added to a model's schema once it is structural; the model's name comes first."""

OPEN: Schema = {"x-kubernetes-preserve-unknown-fields": True}

# Bounds that contradict each other hold for whatever they do not measure: `not` of them says the shape.
_SHAPES: dict[str, Schema] = {
    "string": {"not": {"minLength": 1, "maxLength": 0}},
    "array": {"not": {"minItems": 1, "maxItems": 0}},
    "object": {"not": {"minProperties": 1, "maxProperties": 0}},
}
_KEPT = ("description", "type", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "minProperties",
         "maxProperties", "minimum", "maximum")  # fmt: skip
_RESTRICTS = ("enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "required")


def structural(node: Schema, definitions: dict[str, Schema], finish: Finish) -> Schema:
    """The same, structural. `definitions`: what `$ref` names."""
    return _Walk(definitions, finish).schema(node)


class _Walk:
    """One translation: definitions are written out wherever they are named."""

    def __init__(self, definitions: dict[str, Schema], finish: Finish) -> None:
        self.definitions = definitions
        self.finish = finish

    def schema(self, node: Schema) -> Schema:
        if "$ref" in node:
            return self._named(node)
        choices = [one for one in self._choices(node) if one.get("type") != "null"]
        if len(choices) == 1:
            return self.schema({**choices[0], **_said(node)})
        if choices:
            return self._union([self.schema(one) for one in choices]) | _described(node)
        return self._plain(node)

    @staticmethod
    def _choices(node: Schema) -> list[Schema]:
        if "properties" in node:
            return []  # what is said of fields together is said again, in words, by a rule
        return [*node.get("anyOf", ()), *node.get("oneOf", ())]

    def _named(self, node: Schema) -> Schema:
        name = node["$ref"].rsplit("/", 1)[-1]
        made = self.schema(self.definitions[name]) | _said(node)
        if "properties" in made:
            self.finish(name, made)
        return made

    def _plain(self, node: Schema) -> Schema:
        made = {key: node[key] for key in _KEPT if key in node}
        if "type" not in node and "enum" not in node and "const" not in node:
            return {**made, **OPEN}
        if "const" in node:
            made["enum"] = [node["const"]]
        for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if bound in node:
                made |= {limit: node[bound], bound: True}  # OpenAPI 3.0: whether the limit itself is out
        made |= _default(node)
        return made | self._below(node)

    def _below(self, node: Schema) -> Schema:
        if node.get("type") == "array":
            return {"items": self.schema(node["items"])}
        if "properties" in node:
            required = {"required": node["required"]} if node.get("required") else {}
            return {"properties": {name: self.schema(one) for name, one in node["properties"].items()}, **required}
        if node.get("type") == "object":
            named = list(node.get("patternProperties", {}).values())
            return {"additionalProperties": self.schema(named[0] if named else node["additionalProperties"])}
        return {}

    def _union(self, shapes: list[Schema]) -> Schema:
        """One of several shapes: left open, and `anyOf` closes it."""
        made: Schema = dict(OPEN)
        for shape in shapes:
            made |= {key: shape[key] for key in ("properties", "items") if key in shape}
        return {**made, "anyOf": [one for shape in shapes for one in _fits(shape)]}


def _fits(shape: Schema) -> list[Schema]:
    fits = {**_SHAPES[shape["type"]], **{key: shape[key] for key in _RESTRICTS if key in shape}}
    return _closed(shape, fits) if "properties" in shape else [fits]


def _closed(shape: Schema, fits: Schema) -> list[Schema]:
    """An open place takes unknown fields, so every set of known ones is counted out."""
    required = shape.get("required", [])
    free = [name for name in shape["properties"] if name not in required]
    sets = [(*required, *some) for count in range(len(free) + 1) for some in combinations(free, count)]
    return [{**fits, "required": list(names), "maxProperties": len(names)} for names in sets]


def _said(node: Schema) -> Schema:
    return {**_described(node), **_default(node)}


def _described(node: Schema) -> Schema:
    return {"description": node["description"]} if "description" in node else {}


def _default(node: Schema) -> Schema:
    """A default that says something: an empty one is what leaving the field out means anyway."""
    value = node.get("default")
    return {"default": value} if value and isinstance(value, str | int | float) else {}
