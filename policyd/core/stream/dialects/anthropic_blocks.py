"""Content blocks of Anthropic Messages."""

from __future__ import annotations

from policyd.core.model.facts import ToolCall
from policyd.core.stream.dialects import Channel, Path, Segment

TOOL_BLOCKS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
SILENT_BLOCKS = frozenset({"redacted_thinking", "container_upload", "fallback", "mcp_tool_listing"})


class Block:
    """One content block: its kind, the channel of its text, and its tool call if it is one."""

    __slots__ = ("call", "channel", "kind", "seeded")

    def __init__(self, kind: str, channel: Channel, call: ToolCall | None) -> None:
        self.kind, self.channel, self.call = kind, channel, call
        self.seeded = False  # the call began with arguments: deltas replace them


def strings(channel: Channel, path: Path, value: object) -> list[Segment]:
    """Every string of a JSON value that is there as a value, not as text."""
    if isinstance(value, str):
        return [Segment(channel, path, value)] if value else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [segment for key, inner in pairs for segment in strings(channel, (*path, key), inner)]
