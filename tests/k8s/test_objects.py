"""Objects, and what is said of them: by `policyd check`, and by the schema that `kubectl apply` meets.

The first line of an invalid one tells the first issue of `check`, and whether the schema refuses it already or only
the compiler: with the webhook off, such an object is stored, and its status says what is wrong.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from policyd.cli.crds import KINDS, resource
from policyd.core.compile.compiler import compile_documents
from policyd.core.compile.source import read_documents
from policyd.core.errors import Severity
from tests.k8s.structural import errors

OBJECTS = Path(__file__).parent / "objects"
VALID = sorted(OBJECTS.glob("valid/*.yaml"))
INVALID = sorted(OBJECTS.glob("invalid/*.yaml"))
LIBRARY = sorted((Path(__file__).parents[2] / "policies").glob("*/policy.yaml"))
SCHEMAS = {kind.name: resource(kind) for kind in KINDS}
_SAID = re.compile(r"# check: (\S+) (\d+):(\d+); refused by: (schema|compiler)\n")

each = {"ids": lambda file: file.parent.name + "/" + file.stem}


def checked(file: Path) -> list[str]:
    """What `policyd check` finds: code and place of each error."""
    issues = compile_documents([(file.name, file.read_text())]).issues
    return [f"{one.code} {one.span.line}:{one.span.column}" for one in issues if one.severity is Severity.ERROR]


def refused(file: Path) -> list[str]:
    """Why an API server refuses it by its schema, as `kubectl apply` asks."""
    documents, issues = read_documents(file.name, file.read_text())
    if issues:
        return [str(issue) for issue in issues]
    found: list[str] = []
    for document in documents:
        value = document.value
        if not isinstance(value, dict) or value.get("kind") not in SCHEMAS:
            return ["no such kind"]
        if value["apiVersion"] != "policyd.dev/v1alpha1":
            return ["no such version"]
        found += [*_name(value["metadata"]), *errors(value, SCHEMAS[value["kind"]])]
    return found


def _name(metadata: dict[str, str]) -> list[str]:
    label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    return [] if re.fullmatch(rf"{label}(\.{label})*", metadata.get("name", "")) else ["metadata.name"]


def test_there_are_enough() -> None:
    assert len(VALID) >= 40
    assert len(INVALID) >= 60


@pytest.mark.parametrize("file", [*VALID, *LIBRARY], **each)
def test_a_valid_object_is_accepted_by_both(file: Path) -> None:
    assert (checked(file), refused(file)) == ([], [])


@pytest.mark.parametrize("file", INVALID, **each)
def test_an_invalid_object_is_refused_where_it_says(file: Path) -> None:
    said = _SAID.match(file.read_text())
    assert said, "begin with what `policyd check` says"
    code, line, column, by = said.groups()

    assert checked(file)[0] == f"{code} {line}:{column}"
    assert bool(refused(file)) == (by == "schema"), refused(file)


def test_most_of_what_is_wrong_never_gets_past_kubectl() -> None:
    by_schema = [file for file in INVALID if "refused by: schema" in file.read_text()]
    assert len(by_schema) > 3 * len(INVALID) / 4


def test_every_object_is_one_that_kubectl_can_send() -> None:
    for file in (*VALID, *INVALID):
        if "YAML" not in file.read_text().split("\n")[0]:
            assert isinstance(yaml.safe_load(file.read_text()), dict), file
