"""From plain data to the model of a policy: every wrong shape at once, and a usable rest to look further into.

Rule 1: what has the wrong shape is reported, then left out or filled in, and the rest is read again: a wrong field
        hides no other mistake.
Rule 2: a document with any issue is never put in force; what is filled in here only lets more issues be found.
Rule 3: a field without a value is a field that is not there, as Kubernetes has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.compile.shape_words import EXAMPLES, kind_of, report
from policyd.core.compile.words import nearest, quoted, suggestion
from policyd.core.model.policy import API_VERSION, KINDS, LIST, MAP, TEXT, PolicyDocument

_TAGS = frozenset((TEXT, LIST, MAP))
_ROUNDS = 12
_FREE = frozenset(("set", "params"))  # below these a null is a value of the author's

_FILL: Mapping[str, object] = {
    "apiVersion": API_VERSION,
    "metadata": {"name": "broken"},
    "spec": {},
    "name": "broken",
    "expression": "true",
    "key": "request.model",
    "charge": "Requests",
    "window": {"idle": "1s"},
    "by": "request.model",
    "system": "broken",
    "tokens_per_second": 1,
    "kind": "Gateway",
}


def read_policy(findings: Findings) -> PolicyDocument | None:
    """The document as a policy, with what is wrong in it left out; None when nothing of it is one."""
    value = findings.document.value
    if not isinstance(value, dict):
        message = f"a policy is a mapping, this is {kind_of(value)}"
        findings.shape((), "YAML006", message, f"begin with `apiVersion: {API_VERSION}`")
        return None
    data = _without_nulls(value)
    if not _is_policy(data, findings):
        return None
    for _ in range(_ROUNDS):
        try:
            return PolicyDocument.model_validate(data)
        except ValidationError as error:
            for one in error.errors(include_url=False, include_context=True):
                report(one, _path(one["loc"], data), findings)
                _mend(_path(one["loc"], data), one, data)
    return None


def _is_policy(data: dict[str, Any], findings: Findings) -> bool:
    """Whether the document means to be one of ours. One that says it in other words is read on."""
    kind, version = data.get("kind"), data.get("apiVersion")
    if kind not in KINDS and kind is not None:
        hint = suggestion(kind, KINDS, "keep other kinds in other files; a policy is")
        findings.shape(("kind",), "POL001", f"{quoted(kind)} is not a kind of policy", hint)
        if (near := nearest(kind, KINDS)) is None:
            return False
        data["kind"] = near
    if version != API_VERSION and version is not None:
        findings.shape(("apiVersion",), "POL001", f"{quoted(version)} is not known here", EXAMPLES["apiVersion"])
        data["apiVersion"] = API_VERSION
    if kind is None:
        findings.shape(("kind",), "POL003", "`kind` is missing", EXAMPLES["kind"])
        data["kind"] = KINDS[0]
        return version == API_VERSION
    return True


def _without_nulls(value: Any, key: str = "") -> Any:
    """A copy; depth is bounded by the reader."""
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    if key in _FREE:
        return {name: _copy(item) for name, item in value.items()}
    return {name: _without_nulls(item, name) for name, item in value.items() if item is not None}


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return {name: _copy(item) for name, item in value.items()} if isinstance(value, dict) else value


# ---- places of errors -----------------------------------------------------------------------------------------------


def _path(location: tuple[str | int, ...], data: Any) -> Path:
    """An error's location as a path of the document: without the tags of unions, and ending at a key."""
    path = tuple(step for step in location if step not in _TAGS)
    return path[:-1] if path and path[-1] == "[key]" and not _holds(path, data) else path


def _holds(path: Path, data: Any) -> bool:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _parent(path: Path, data: Any) -> Any:
    for step in path[:-1]:
        data = data[step]
    return data


def _mend(path: Path, error: Any, data: Any) -> None:
    """Leaves out what is wrong, or fills in what must be there."""
    while path and isinstance(path[-1], int) and not _keeps_its_place(path):
        path = path[:-1]
    if not path or not _holds(path[:-1], data):
        return
    parent, last = _parent(path, data), path[-1]
    if isinstance(parent, list):
        parent[int(last)] = {}
    elif error["type"] != "extra_forbidden" and last == "rules" and path[-2:-1] == ("allow",):
        parent[last] = ["broken/broken"]
    elif error["type"] != "extra_forbidden" and last in _FILL and last not in _optional(path):
        parent[last] = _copy(_FILL[str(last)])
    else:
        parent.pop(last, None)


def _keeps_its_place(path: Path) -> bool:
    """An item of a list of objects; a wrong item in a list of texts spoils the list."""
    return path[:1] == ("spec",) and len(path) == 3 and path[1] in _OBJECTS


_OBJECTS = frozenset(("rules", "counters", "variables", "matchConditions", "targetRefs"))


def _optional(path: Path) -> tuple[str, ...]:
    return ("name", "key") if path[-2:-1] in (("params",), ("values",), ("set",), ("labels",), ("annotations",)) else ()
