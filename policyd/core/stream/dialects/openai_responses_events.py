"""The events of an OpenAI Responses stream that carry text, and those that say nothing."""

from __future__ import annotations

# By the event's name without `.delta` or `.done`: what kind of text, by what it is counted, where `.done` says it.
DELTAS: dict[str, tuple[str, str, str]] = {
    "response.output_text": ("text", "content_index", "text"),
    "response.refusal": ("refusal", "content_index", "refusal"),
    "response.function_call_arguments": ("args", "", "arguments"),
    "response.custom_tool_call_input": ("args", "", "input"),
    "response.reasoning_summary_text": ("summary", "summary_index", "text"),
    "response.reasoning_summary": ("summary", "summary_index", "text"),
    "response.reasoning_text": ("reasoning", "content_index", "text"),
    "response.reasoning": ("reasoning", "content_index", "text"),
    "response.audio.transcript": ("text", "content_index", "transcript"),
    "response.output_audio_transcript": ("text", "content_index", "transcript"),
    "response.code_interpreter_call_code": ("other", "", "code"),
    "response.mcp_call_arguments": ("args", "", "arguments"),
    "response.mcp_call.arguments": ("args", "", "arguments"),
    "response.apply_patch_call_operation_diff": ("input", "", "diff"),
    "response.shell_call_command": ("input", "command_index", "command"),
    "response.shell_call_output_content": ("other", "command_index", "output"),
}

_CALLS = frozenset(
    {
        "web_search_call",
        "x_search_call",
        "web_fetch_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_call",
        "mcp_list_tools",
        "computer_call",
        "shell_call",
        "apply_patch_call",
        "tool_search_call",
        "compaction",
    }
)
_STATES = frozenset(
    {
        "in_progress",
        "searching",
        "completed",
        "failed",
        "interpreting",
        "generating",
        "partial_image",
        "incomplete",
        "compacting",
    }
)
_SILENT = frozenset({"keepalive", "ping", "response.audio.delta", "response.audio.done"})


def is_silent(kind: str) -> bool:
    """Whether an event of this type is known to carry no text."""
    head, _, rest = kind.partition(".")
    call, _, state = rest.rpartition(".")
    return kind in _SILENT or (head == "response" and call in _CALLS and state in _STATES)
