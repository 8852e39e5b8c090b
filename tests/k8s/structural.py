"""A structural schema's verdict on an object, without an API server: what one would say, as far as the schema says it.

Rule 1: a keyword that is not known here is an error of the test, so nothing of the schema goes unlooked at.
Rule 2: unknown fields are refused, as `kubectl apply` has it (strict field validation).
Rule 3: rules in CEL run in celpy; what the API server adds to CEL and our rules use is `lowerAscii`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import celpy

Schema = dict[str, Any]

_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool}
_KNOWN = {
    "description", "default", "format", "type", "properties", "required", "additionalProperties", "items", "enum",
    "pattern", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minimum",
    "maximum", "exclusiveMinimum", "anyOf", "allOf", "oneOf", "not", "x-kubernetes-int-or-string", "nullable",
    "uniqueItems", "x-kubernetes-validations", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
}  # fmt: skip


def errors(value: Any, schema: Schema, at: str = "") -> Iterator[str]:
    """Why an object is refused; nothing where it is accepted."""
    assert set(schema) <= _KNOWN, set(schema) - _KNOWN
    if "type" in schema and not _is(value, schema["type"]):
        yield f"{at}: not {schema['type']}"
        return
    yield from _choices(value, schema, at)
    yield from _scalar(value, schema, at)
    if isinstance(value, dict):
        yield from _object(value, schema, at)
    if isinstance(value, list):
        yield from _list(value, schema, at)
    yield from (
        f"{at}: {rule['message']}" for rule in schema.get("x-kubernetes-validations", ()) if not _holds(rule, value)
    )


def _choices(value: Any, schema: Schema, at: str) -> Iterator[str]:
    if "anyOf" in schema and all(any(errors(value, one, at)) for one in schema["anyOf"]):
        yield f"{at}: fits none"
    if "oneOf" in schema and sum(not any(errors(value, one, at)) for one in schema["oneOf"]) != 1:
        yield f"{at}: fits none or several"
    for one in schema.get("allOf", ()):
        yield from errors(value, one, at)
    if "not" in schema and not any(errors(value, schema["not"], at)):
        yield f"{at}: fits what it must not"


def _scalar(value: Any, schema: Schema, at: str) -> Iterator[str]:
    if value not in schema.get("enum", [value]):
        yield f"{at}: not one of the words"
    if isinstance(value, str):
        yield from _size(len(value), schema, "Length", at)
        if "pattern" in schema and not _fits(schema["pattern"], value):
            yield f"{at}: pattern"
    if _is(value, "number"):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high or (value == low and schema.get("exclusiveMinimum")):
            yield f"{at}: out of range"


def _fits(pattern: str, value: str) -> bool:
    """As Go reads it, where `$` is the end of the text and of nothing else."""
    return re.search(re.sub(r"\$$", r"\\Z", pattern), value) is not None


def _is(value: Any, type_: str) -> bool:
    if type_ in ("integer", "number"):
        kinds = int if type_ == "integer" else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(value, _TYPES[type_])


def _size(size: int, schema: Schema, what: str, at: str) -> Iterator[str]:
    if not schema.get(f"min{what}", 0) <= size <= schema.get(f"max{what}", size):
        yield f"{at}: size"


def _object(value: Schema, schema: Schema, at: str) -> Iterator[str]:
    yield from _size(len(value), schema, "Properties", at)
    yield from (f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value)
    known = schema.get("properties", {})
    for name, item in value.items():
        if name in known:
            yield from errors(item, known[name], f"{at}.{name}")
        elif "additionalProperties" in schema:
            yield from errors(item, schema["additionalProperties"], f"{at}.{name}")
        elif schema.get("type") == "object" and "properties" in schema:
            yield f"{at}: unknown field {name}"


def _list(value: list[Any], schema: Schema, at: str) -> Iterator[str]:
    yield from _size(len(value), schema, "Items", at)
    for index, item in enumerate(value):
        yield from errors(item, schema.get("items", {}), f"{at}[{index}]")
    if schema.get("x-kubernetes-list-type") == "map":
        keys = [tuple(item.get(key) for key in schema["x-kubernetes-list-map-keys"]) for item in value]
        if len(set(keys)) < len(keys):
            yield f"{at}: an item twice"


def defaulted(value: Any, schema: Schema) -> Any:
    """The object as the API server has it before it is judged: with the schema's defaults."""
    if isinstance(value, list):
        return [defaulted(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    filled = {name: one["default"] for name, one in known.items() if "default" in one} | value
    return {name: defaulted(item, known.get(name, {})) for name, item in filled.items()}


# ---- rules in CEL ---------------------------------------------------------------------------------------------------


def _lower(text: celpy.celtypes.StringType) -> celpy.celtypes.StringType:
    return celpy.celtypes.StringType(text.lower())


@cache
def _program(rule: str) -> Any:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule), functions={"lowerAscii": _lower})


def _holds(rule: Schema, value: Any) -> bool:
    try:
        return bool(_program(rule["rule"]).evaluate({"self": celpy.json_to_cel(value)}))
    except celpy.CELEvalError:
        return False  # an error refuses, as the API server has it
