"""Google's enums as numbers: with `enum-encoding=int` in the query, every enum of a response is its number.

Rule 1: rules read the names, whatever the client asked for. Vertex and the Gemini API number some of them differently.
Rule 2: a number without a name stays a number, in words.
"""

from __future__ import annotations

from policyd.core.stream.dialects.shared import text

_SHARED = ("FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION")
_VERTEX = (
    *_SHARED, "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL", "MODEL_ARMOR",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER", "UNEXPECTED_TOOL_CALL", "NO_IMAGE",
)  # fmt: skip
_GEMINI = (
    *_SHARED, "OTHER", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL",
    "IMAGE_SAFETY", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "IMAGE_PROHIBITED_CONTENT", "IMAGE_OTHER",
    "NO_IMAGE", "IMAGE_RECITATION", "MISSING_THOUGHT_SIGNATURE",
)  # fmt: skip
BLOCKED = ("BLOCK_REASON_UNSPECIFIED", "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY")
MODALITIES = ("MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "VIDEO", "AUDIO", "DOCUMENT")
TRAFFIC = ("TRAFFIC_TYPE_UNSPECIFIED", "ON_DEMAND", "PROVISIONED_THROUGHPUT")


def finish_words(path: str) -> tuple[str, ...]:
    """The names of finish reasons by their numbers, as the server behind this path numbers them."""
    return _VERTEX if "/publishers/" in path or "/projects/" in path else _GEMINI


def enum(value: object, names: tuple[str, ...], what: str) -> str | None:
    """An enum's name; None for null. Raises Malformed."""
    if type(value) is int:
        return names[value] if 0 <= value < len(names) else str(value)
    return text(value, what)
