"""The published schemas: fresh, true of what ships, and against what `check` refuses by shape."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd.cli.main import main
from policyd.cli.schemas import BASE, KINDS, text

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "docs" / "schemas"


@pytest.mark.parametrize("name", KINDS)
def test_the_published_schema_is_fresh(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`policyd schema NAME > docs/schemas/FILE` writes it anew."""
    published = (SCHEMAS / KINDS[name].file).read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["schema", name])
    assert (left.value.code or 0, capsys.readouterr().out) == (0, published)
    assert published == text(name)


# ---- a validator of the keywords that the schemas use ---------------------------------------------------------------

_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
_KNOWN = {
    "$schema", "$id", "$defs", "$ref", "title", "description", "default", "type", "properties", "required",
    "additionalProperties", "propertyNames", "items", "enum", "const", "pattern", "minLength", "maxLength", "minItems",
    "maxItems", "minProperties", "maxProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "anyOf",
    "oneOf", "patternProperties",
}  # fmt: skip


class Validator:
    """Draft 2020-12, as far as the schemas go: an unknown keyword is an error of the test."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.root = schema

    def errors(self, value: Any, schema: Any = None, at: str = "") -> Iterator[str]:
        schema = self.root if schema is None else schema
        if schema is True or schema == {}:
            return
        if schema is False:
            yield f"{at}: not allowed"
            return
        assert set(schema) <= _KNOWN, set(schema) - _KNOWN
        if "$ref" in schema:
            yield from self.errors(value, self.root["$defs"][schema["$ref"].removeprefix("#/$defs/")], at)
        yield from self._choices(value, schema, at)
        yield from self._scalar(value, schema, at)
        if isinstance(value, dict):
            yield from self._object(value, schema, at)
        if isinstance(value, list):
            yield from self._size(len(value), schema, "Items", at)
            for index, item in enumerate(value):
                yield from self.errors(item, schema.get("items", True), f"{at}/{index}")

    def _choices(self, value: Any, schema: dict[str, Any], at: str) -> Iterator[str]:
        for word in ("anyOf", "oneOf"):
            fits = [not any(self.errors(value, one, at)) for one in schema.get(word, ())]
            if word in schema and (not any(fits) or (word == "oneOf" and sum(fits) > 1)):
                yield f"{at}: {word} fits {sum(fits)}"

    def _scalar(self, value: Any, schema: dict[str, Any], at: str) -> Iterator[str]:
        if "type" in schema and not self._is(value, schema["type"]):
            yield f"{at}: not {schema['type']}"
            return
        if value not in schema.get("enum", [value]) or schema.get("const", value) != value:
            yield f"{at}: not one of the words"
        if isinstance(value, str):
            yield from self._size(len(value), schema, "Length", at)
            if "pattern" in schema and not re.search(schema["pattern"], value):
                yield f"{at}: pattern"
        if self._is(value, "number"):
            low, high = schema.get("minimum", value), schema.get("maximum", value)
            over, under = schema.get("exclusiveMinimum", value - 1), schema.get("exclusiveMaximum", value + 1)
            if not (low <= value <= high and over < value < under):
                yield f"{at}: out of range"

    @staticmethod
    def _is(value: Any, type_: str) -> bool:
        if type_ in ("integer", "number"):
            kinds = int if type_ == "integer" else (int, float)
            return isinstance(value, kinds) and not isinstance(value, bool)
        return isinstance(value, _TYPES[type_])

    @staticmethod
    def _size(size: int, schema: dict[str, Any], what: str, at: str) -> Iterator[str]:
        if not schema.get(f"min{what}", 0) <= size <= schema.get(f"max{what}", size):
            yield f"{at}: size"

    def _object(self, value: dict[str, Any], schema: dict[str, Any], at: str) -> Iterator[str]:
        yield from self._size(len(value), schema, "Properties", at)
        yield from (f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value)
        for name, item in value.items():
            yield from self.errors(name, schema.get("propertyNames", True), f"{at}/{name}")
            known = schema.get("properties", {})
            rest = schema.get("additionalProperties", True)
            matching = [one for pattern, one in schema.get("patternProperties", {}).items() if re.search(pattern, name)]
            for one in matching or [known.get(name, rest)]:
                yield from self.errors(item, one, f"{at}/{name}")


def errors(name: str, document: object) -> list[str]:
    return list(Validator(json.loads(text(name))).errors(document))


# ---- what ships ------------------------------------------------------------------------------------------------------


class Plain(yaml.SafeLoader):
    """As editors read YAML 1.2: a time is a text."""


Plain.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def shown() -> list[tuple[str, str, dict[str, Any]]]:
    """Every policy and every case file that ships or that a page shows."""
    found = []
    for file in [*(ROOT / "policies").rglob("*.yaml"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        texts = re.findall(r"^```yaml\n(.*?)^```", file.read_text(), re.M | re.S) if file.suffix == ".md" else []
        for one in texts or ([file.read_text()] if file.suffix == ".yaml" else []):
            for document in yaml.load_all(one, Loader=Plain):
                if isinstance(document, dict) and document.get("apiVersion") == "policyd.dev/v1alpha1":
                    name = "test" if document["kind"] == "PolicyTest" else "policy"
                    found.append((str(file.relative_to(ROOT)), name, document))
    return found


def test_what_ships_fits_its_schema() -> None:
    every = shown()
    assert {name for _, name, _ in every} == {"policy", "test"}
    assert {file: found for file, name, document in every if (found := errors(name, document))} == {}


GOOD: dict[str, Any] = {
    "apiVersion": "policyd.dev/v1alpha1",
    "kind": "LLMPolicy",
    "metadata": {"name": "p"},
    "spec": {
        "counters": [{"name": "c", "key": "session.id", "charge": "Cost", "window": {"idle": "1h"}, "limit": "2 USD"}],
        "rules": [{"name": "r", "terminate": {}}],
    },
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kind",), "Policy"),
        (("metadata", "name"), "Upper"),
        (("spec", "mod"), "Full"),
        (("spec", "mode"), "full"),
        (("spec", "rules", 0, "when"), 5),
        (("spec", "rules", 0, "reroute"), {"model": "m"}),
        (("spec", "counters", 0, "charge"), "Dollars"),
        (("spec", "counters", 0, "window", "sliding"), "1h"),
        (("spec", "counters", 0, "window"), {}),
        (("spec", "counters", 0, "limit"), 2),
        (("spec", "counters", 0, "key"), []),
    ],
)
def test_what_check_refuses_by_shape_is_underlined(path: tuple[str | int, ...], value: object, tmp_path: Path) -> None:
    document = copy.deepcopy(GOOD)
    assert errors("policy", document) == []
    at: Any = document
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert errors("policy", document)
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(SystemExit) as left:
        main(["check", str(tmp_path)])
    assert left.value.code == 1


def test_a_modeline_names_the_published_schema() -> None:
    named = re.findall(r"yaml-language-server: \$schema=(\S+)", (ROOT / "docs" / "check.md").read_text())
    assert f"{BASE}/{KINDS['policy'].file}" in named
