"""The CRDs: fresh, structural, and bounded everywhere."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd.cli.crds import KINDS, definition, reports, resource
from policyd.cli.main import main
from policyd.core.model.policy import PolicySpec
from tests.k8s.objects import until
from tests.k8s.server import ApiServer, kubectl
from tests.k8s.structural import errors

FILE = Path(__file__).parents[2] / "deploy" / "k8s" / "crds" / "policyd.dev.yaml"

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def test_the_definitions_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    """`policyd crds > deploy/k8s/crds/policyd.dev.yaml` writes them anew."""
    with pytest.raises(SystemExit) as left:
        main(["crds"])
    assert (left.value.code or 0, capsys.readouterr().out) == (0, FILE.read_text())
    assert list(yaml.safe_load_all(FILE.read_text())) == [*map(definition, KINDS), reports()]


def nodes(schema: Any, at: str = "", nested: bool = False) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every schema below one; `nested`: below `anyOf` or `not`, where it only restricts."""
    yield at, schema, nested
    for name, one in schema.get("properties", {}).items():
        yield from nodes(one, f"{at}.{name}", nested)
    for word in ("items", "additionalProperties", "not"):
        if word in schema:
            yield from nodes(schema[word], f"{at}/{word}", nested or word == "not")
    for one in schema.get("anyOf", ()):
        yield from nodes(one, at, True)


@each_kind
def test_every_place_has_a_type_or_is_open_on_purpose(kind: Any) -> None:
    places = [(at, node) for at, node, nested in nodes(resource(kind)) if not nested]
    untyped = [at.rpartition(".")[2] for at, node in places if "type" not in node]
    assert all(node.get("x-kubernetes-preserve-unknown-fields") for _, node in places if "type" not in node)
    assert untyped == ["params/additionalProperties", "key", "charge", "limit", "set/additionalProperties"]
    assert not any(
        {"type", "additionalProperties", "default"} & set(node) for _, node, nested in nodes(resource(kind)) if nested
    )


@each_kind
def test_every_list_map_text_and_number_has_a_bound(kind: Any) -> None:
    for at, node, nested in nodes(resource(kind)):
        if nested or at == ".metadata":
            continue
        match node.get("type"):
            case "string":
                assert node.get("enum") or "maxLength" in node, at
            case "array":
                assert "maxItems" in node, at
            case "object":
                assert "properties" in node or "maxProperties" in node, at
            case "integer" | "number":
                assert "minimum" in node, at


@each_kind
def test_the_model_loses_no_field_on_the_way(kind: Any) -> None:
    fields = {field.alias for field in PolicySpec.model_fields.values()}
    assert set(resource(kind)["properties"]["spec"]["properties"]) == fields


@each_kind
def test_every_field_says_what_it_is(kind: Any) -> None:
    fields = {at: node for at, node, nested in nodes(resource(kind)) if not nested and at.count("/") < at.count(".")}
    silent = [at for at, node in fields.items() if at.endswith(_named(at)) and "description" not in node]
    assert [at for at in silent if at not in ("", ".metadata")] == []


def _named(at: str) -> str:
    """The last step, where it is a field's name; of lists and maps the field above tells."""
    return at.rpartition(".")[2] if "/" not in at.rpartition(".")[2] else "\0"


STATUS = {
    "digest": "sha256:" + "0" * 64,
    "replicas": {"programmed": 2, "total": 3},
    "ancestors": [
        {
            "ancestorRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"},
            "controllerName": "policyd.dev/operator",
            "conditions": [
                {
                    "type": "Accepted",
                    "status": "False",
                    "observedGeneration": 3,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                    "reason": "Invalid",
                    "message": "12:7: unknown variable `requst`",
                }
            ],
        }
    ],
}


def test_the_status_is_gateway_apis() -> None:
    schema = resource(KINDS[0])["properties"]["status"]
    assert list(errors(STATUS, schema)) == []
    assert list(errors({"ancestors": [{"conditions": []}]}, schema)) != []


def test_kubectl_shows_what_matters() -> None:
    for kind in KINDS:
        made = definition(kind)["spec"]
        version = made["versions"][0]
        assert [column["name"] for column in version["additionalPrinterColumns"]] == [
            "Mode",
            "Accepted",
            "Programmed",
            "Age",
        ]
        assert version["subresources"] == {"status": {}}
        assert made["names"]["shortNames"] and made["names"]["categories"]


def test_kubectl_explains_what_a_rule_is(api: ApiServer, tmp_path: Path) -> None:
    if not kubectl():
        pytest.skip("no kubectl on this machine")
    command = [kubectl(), "--kubeconfig", api.access.kubeconfig(tmp_path / "config"), "explain"]

    # The server describes a new kind a moment after it takes it.
    def described() -> bool:
        return all(
            subprocess.run([*command, kind], capture_output=True, check=False).returncode == 0
            for kind in ("llmp", "cllmp")
        )

    asyncio.run(until(described, "the kinds to be described"))
    for place in ("llmpolicy.spec", "llmp.spec.rules", "cllmp.spec.rules.terminate", "llmp.spec.counters"):
        told = subprocess.run([*command, place], capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr
        assert "<no description>" not in told.stdout
    told = subprocess.run([*command, "llmpolicy.spec.rules"], capture_output=True, text=True, check=True).stdout
    lines = " ".join(told.split())
    for words in (
        "All are judged; the strictest that matches wins.",
        "when <string> CEL; true means act. Without it the rule always acts.",
        "terminate <Object> Refuses the call, or ends its answer properly.",
        "severity <string> enum: Info, Low, Medium, High, .... Soft enforces Critical alone;",
    ):
        assert words in lines
    whole = subprocess.run([*command, "llmpolicy", "--recursive"], capture_output=True, text=True, check=True).stdout
    assert {"spec", "counters", "timeZone", "ancestors"} <= set(re.findall(r"^ *(\w+)\t", whole, re.MULTILINE))
