"""The table of facts, the proto and docs/facts.md say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyd.core.compile._pb import facts_pb2 as pb
from policyd.core.compile.cel_facts import COUNTER_FACTS, FACTS, PART_FIELDS, ROOTS
from policyd.core.compile.facts_doc import facts_markdown

ROOT = Path(__file__).parents[2]
NAMES = {pb.Request: "request", pb.Caller: "caller", pb.Session: "session", pb.Response: "response"}
SCALARS = {"TYPE_STRING": "string", "TYPE_INT64": "int", "TYPE_DOUBLE": "double", "TYPE_BOOL": "bool"}


def cel_type(field: Any) -> str:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        value = message.fields_by_name["value"]
        return f"map(string, {cel_type(value)})"
    kind = {value: name for name, value in vars(type(field)).items() if name.startswith("TYPE_")}[field.type]
    one = SCALARS.get(kind) or message.name.replace("Duration", "duration")
    return f"list({one})" if field.is_repeated else one


@pytest.mark.parametrize(("message", "root"), NAMES.items(), ids=list(NAMES.values()))
def test_the_table_has_the_paths_and_types_of_the_proto(message: Any, root: str) -> None:
    in_proto = {f"{root}.{field.name}": cel_type(field) for field in message.DESCRIPTOR.fields}
    in_table = {path: fact.type for path, fact in FACTS.items() if path.startswith(f"{root}.")}
    assert in_table == in_proto


def test_counters_too() -> None:
    assert {name: fact.type for name, fact in COUNTER_FACTS.items()} == {
        field.name: cel_type(field) for field in pb.Counter.DESCRIPTOR.fields
    }


def test_every_scalar_is_optional_so_that_has_is_true_to_what_was_sent() -> None:
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            assert field.has_presence or field.is_repeated, field.full_name


def test_messages_in_lists_have_the_fields_of_the_proto() -> None:
    for kind, names in PART_FIELDS.values():
        assert tuple(field.name for field in kind.DESCRIPTOR.fields) == names


def test_the_roots_are_those_of_the_proto() -> None:
    assert tuple(NAMES.values()) == ROOTS


def test_the_page_is_fresh() -> None:
    page = ROOT / "docs" / "facts.md"
    assert page.read_text() == facts_markdown(), "write it anew: python tests/core/test_cel_facts.py"


def test_the_page_names_every_fact() -> None:
    page = facts_markdown()
    for path in [*FACTS, *(f"counters.NAME.{name}" for name in COUNTER_FACTS)]:
        assert f"`{path}`" in page


if __name__ == "__main__":
    (ROOT / "docs" / "facts.md").write_text(facts_markdown())
