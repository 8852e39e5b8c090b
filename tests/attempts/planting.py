"""Where a marker can be planted in a JSON document: in a string, a new field of an object, a new element of a list."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

# Fields that name things in the dialects' own words: what stands there is an id, an enum, a model or a type.
STRUCTURAL = frozenset(
    {
        "model", "role", "type", "id", "object", "finish_reason", "stop_reason", "finishReason", "call_id", "item_id",
        "tool_call_id", "tool_use_id", "toolUseId", "status", "mimeType", "media_type", "index", "jsonrpc", "method",
        "event", "created_at", "system_fingerprint", "service_tier", "detail", "format", "stopReason", "modelVersion",
        "event_type", "done_reason", "generation_id",
    }
)  # fmt: skip

Path = tuple[str | int, ...]


def places(document: Any, path: Path = ()) -> Iterator[tuple[str, Path]]:
    """(kind, path) of every place: `value` replaces a string, `field` adds one to an object, `element` to a list."""
    match document:
        case dict():
            yield "field", path
            for key, value in document.items():
                if not (isinstance(value, str) and key in STRUCTURAL):
                    yield from places(value, (*path, key))
        case list():
            yield "element", path
            for index, value in enumerate(document):
                yield from places(value, (*path, index))
        case str():
            yield "value", path


def planted(document: Any, kind: str, path: Path, text: Any, field: str = "x_note") -> Any:
    """A copy of the document with the text, or number, at this place; a string that holds JSON gets it inside."""
    made = copy.deepcopy(document)
    at = made
    for key in path[:-1] if kind == "value" else path:
        at = at[key]
    match kind:
        case "field":
            at[field] = text
        case "element":
            at.append(text)
        case _:
            at[path[-1]] = _inside(at[path[-1]], text)
    return made


def _inside(value: str, text: str) -> str:
    try:
        document = json.loads(value)
    except ValueError:
        return f"{value} {text}"
    if not isinstance(document, dict):
        return f"{value} {text}"
    return json.dumps({**document, "note": text})


def name_of(kind: str, path: Path) -> str:
    return f"{kind} at {'.'.join(map(str, path)) or 'the top'}"


def escaped(data: bytes, marker: str) -> bytes:
    """The same JSON with every character of the marker as an escape."""
    codes = "".join(f"\\u{ord(one):04x}" for one in marker)
    return data.replace(marker.encode(), codes.encode())
