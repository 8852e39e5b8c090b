"""What OpenAI's Responses are made of, in requests and answers alike: items, and the texts in them.

Rule 1: a text is told by its item's kind and its place in it, so that the same text is found again wherever it is told.
Rule 2: an item of a hosted tool, or of an unknown type, is not read; every string in it that may be text is editable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from policyd.core.stream.dialects import Path
from policyd.core.stream.dialects.shared import listing, mapping, text

CALLS = {"function_call": "arguments", "custom_tool_call": "input"}  # and where their arguments stand


class Tool(NamedTuple):
    """What a call is: the field of its arguments, its kind, and its name where the item has none."""

    field: str
    kind: str
    name: str = ""


# Calls that the client carries out or answers, and those of MCP servers.
TOOL_CALLS: dict[str, Tool] = {
    "function_call": Tool("arguments", "function"),
    "custom_tool_call": Tool("input", "custom"),
    "mcp_call": Tool("arguments", "mcp"),
    "mcp_approval_request": Tool("arguments", "mcp"),
    "local_shell_call": Tool("action", "shell", "local_shell"),
    "shell_call": Tool("action", "shell", "shell"),
    "apply_patch_call": Tool("operation", "patch", "apply_patch"),
    "computer_call": Tool("action", "computer", "computer"),
    "tool_search_call": Tool("arguments", "search", "tool_search"),
}


def tool_of(item: dict[str, object]) -> Tool | None:
    """What this item of a response calls; None when the provider carries it out."""
    kind = item.get("type")
    tool = TOOL_CALLS.get(kind) if isinstance(kind, str) else None
    if tool is None or (kind == "tool_search_call" and item.get("execution") != "client"):
        return None
    if kind == "computer_call" and "actions" in item:
        return tool._replace(field="actions")
    return tool


HOSTED = frozenset(
    {
        "web_search_call",
        "x_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_call",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "computer_call",
        "computer_call_output",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "tool_search_call",
        "tool_search_output",
        "additional_tools",
        "function_call_output",
        "custom_tool_call_output",
        "compaction",
        "compaction_trigger",
        "program",
        "program_output",
        "item_reference",
        "configuration_update",
    }
)
KNOWN = HOSTED | CALLS.keys() | {"message", "reasoning"}

_PARTS = {
    "output_text": "text",
    "input_text": "text",
    "text": "text",
    "refusal": "refusal",
    "output_audio": "transcript",
}
SILENT_PARTS = frozenset({"input_image", "input_file", "input_audio", "output_image", "computer_screenshot"})
# Names, types and data: no text of anybody's.
_NO_TEXT = frozenset(
    {
        "type",
        "id",
        "status",
        "role",
        "call_id",
        "item_id",
        "file_id",
        "container_id",
        "server_label",
        "approval_request_id",
        "image_url",
        "file_data",
        "encrypted_content",
        "fingerprint",
        "created_by",
        "tools",
        "environment",
        "execution",
        "logprobs",
    }
)


class Said(NamedTuple):
    """One text of an item: `kind` is "text", "refusal", "summary", "reasoning", "args" or "other"."""

    kind: str
    place: int  # among the parts of its kind's list
    path: Path  # below the item
    text: str


def said_in(item: dict[str, object]) -> Iterator[Said]:
    """The texts of an item, empty ones of known parts too. Raises Malformed."""
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind == "message":
        yield from _contents(item.get("content"), ("content",))
    elif isinstance(kind, str) and (field := CALLS.get(kind)) is not None:
        yield Said("args", 0, (field,), text(item.get(field), field) or "")
    elif kind == "reasoning":
        yield from _reasoning("summary", item.get("summary"))
        yield from _reasoning("reasoning", item.get("content"))
    else:
        known = {"result": None} if kind == "image_generation_call" else {}
        for path, value in plain_strings((), {**item, **known}):
            yield Said("other", 0, path, value)


def said_in_part(part: dict[str, object], place: int, path: Path = ()) -> Said | None:
    """The text of one part of a message, of a reasoning or of its summary; None when it has none, or is unknown."""
    kind = part.get("type")
    if kind == "summary_text":
        return Said("summary", place, (*path, "text"), text(part.get("text"), "text") or "")
    if kind == "reasoning_text":
        return Said("reasoning", place, (*path, "text"), text(part.get("text"), "text") or "")
    field = _PARTS.get(kind) if isinstance(kind, str) else None
    if field is None:
        return None
    said = text(part.get(field), field) or ""
    return Said("refusal" if field == "refusal" else "text", place, (*path, field), said)


def _contents(content: object, path: Path) -> Iterator[Said]:
    if isinstance(content, str):
        yield Said("text", 0, path, content)
        return
    for place, part in enumerate(listing(content, "content")):
        if (said := said_in_part(mapping(part, "a part"), place, (*path, place))) is not None:
            yield said


def _reasoning(kind: str, parts: object) -> Iterator[Said]:
    field = "summary" if kind == "summary" else "content"
    for place, part in enumerate(listing(parts, field)):
        said = text(mapping(part, "a part").get("text"), "text")
        yield Said(kind, place, (field, place, "text"), said or "")


def plain_strings(path: Path, value: object) -> Iterator[tuple[Path, str]]:
    """Every string below a value that may be text, and where it stands."""
    if isinstance(value, str):
        if value:
            yield path, value
    elif isinstance(value, dict):
        for key, below in value.items():
            if key not in _NO_TEXT:
                yield from plain_strings((*path, key), below)
    elif isinstance(value, list):
        for place, below in enumerate(value):
            yield from plain_strings((*path, place), below)


def unknown_parts(item: dict[str, object]) -> bool:
    """Whether a message holds a part whose type nobody knows."""
    content = item.get("content")
    if item.get("type") != "message" or not isinstance(content, list):
        return False
    return any(isinstance(part, dict) and not known_part(part) for part in content)


def known_part(part: dict[str, object]) -> bool:
    """Whether this part's type is known."""
    kind = part.get("type")
    if not isinstance(kind, str):
        return False
    return kind in _PARTS or kind in SILENT_PARTS or kind in ("summary_text", "reasoning_text")
