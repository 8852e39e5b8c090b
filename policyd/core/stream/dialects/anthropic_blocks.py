"""Content blocks of Anthropic Messages."""

from __future__ import annotations

from policyd.core.model.facts import ToolCall
from policyd.core.stream.dialects import Channel

TOOL_BLOCKS = {"tool_use": "function", "server_tool_use": "hosted", "mcp_tool_use": "mcp"}  # and their kinds
SILENT_BLOCKS = frozenset({"redacted_thinking", "container_upload", "fallback", "mcp_tool_listing"})


class Block:
    """One content block: its kind, the channel of its text, and its tool call if it is one."""

    __slots__ = ("call", "channel", "kind", "seeded")

    def __init__(self, kind: str, channel: Channel, call: ToolCall | None) -> None:
        self.kind, self.channel, self.call = kind, channel, call
        self.seeded = False  # the call began with arguments: deltas replace them
