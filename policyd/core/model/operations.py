"""The closed list of operations: what a call is about."""

from __future__ import annotations

OPERATIONS = (
    "chat",
    "completion",
    "embedding",
    "tool_call",
    "batch",
    "image",
    "audio",
    "realtime",
    "rerank",
    "moderation",
    "token_count",
    "storage",
    "retrieval",
    "unknown",
    "other",
)
NOT_BY_DEFAULT = frozenset(("unknown", "other"))
"""What a policy that lists no operations is not about."""
UNBILLED = frozenset(("storage", "retrieval", "token_count", "moderation"))
"""Operations that providers do not bill by the token."""
