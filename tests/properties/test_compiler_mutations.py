"""Whatever stands where in a document, compiling it gives a set or issues, each with a place and a hint; never more."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.compile.compiler import compile_documents
from policyd.core.errors import Severity

CASES = Path(__file__).parents[1] / "cases" / "check"
DOCUMENTS = [
    document
    for name in ("reference", "shape", "counters", "actions", "warnings")
    for document in yaml.safe_load_all((CASES / name / "policy.yaml").read_text(encoding="utf-8"))
]

SCALARS = st.none() | st.booleans() | st.integers(-3, 10**30) | st.floats(allow_nan=False) | st.text(max_size=12)
WORDS = st.sampled_from(
    ["true", "request.model", "counters.spend.exceeded", "response.text", "24h", "1 USD", "p/r", "*", "a+"]
)
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "key", "set", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    below = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [path, *(place for key, inner in below for place in places(inner, (*path, key)))]


def put(document: Any, path: tuple[str | int, ...], value: object, how: str) -> Any:
    if not path:
        return value
    document = copy.deepcopy(document)
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    if how == "remove":
        del parent[path[-1]]
    elif how == "rename" and isinstance(parent, dict):
        parent[f"{path[-1]}s"] = parent.pop(path[-1])
    else:
        parent[path[-1]] = value
    return document


@st.composite
def mutants(draw: st.DrawFn) -> Any:
    document = draw(st.sampled_from(DOCUMENTS))
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(places(document)))
        document = put(document, path, draw(VALUES), draw(st.sampled_from(["replace", "remove", "rename"])))
    return document


@given(mutants())
def test_any_document_compiles_or_is_refused_with_places_and_hints(document: Any) -> None:
    result = compile_documents([("f.yaml", json.dumps(document, indent=1))])
    for issue in result.issues:
        assert issue.span.line >= 1 and issue.span.column >= 1
        assert issue.message and issue.hint and "\n" not in issue.message + issue.hint
        assert "is not understood:" not in issue.message, "an error of the model without words of its own"
    errors = [issue for issue in result.issues if issue.severity is Severity.ERROR]
    assert (result.policy_set is None) == bool(errors)
