"""Attempts to offer tools past `deny`, and to have a tool called past a rule on tool calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.attempts.attempt import Attempt, Request, kept_from_caller, kept_from_upstream, rejected, served, whole
from tests.attempts.in_responses import WHOLE

CHAT = "/v1/chat/completions"
PLAIN: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
URLS = (
    "https://x@evil.test/", "https://evil.test./", "https://evil.test\\x", "https://%65vil.test/", "ftp://evil.test/",
    "//evil.test/", "evil.test/mcp", "https://ｅvil.test/", "https://evil.test:0443/", " https://evil.test/",
)  # fmt: skip
F = {"name": "drop_all", "arguments": "{}"}
CALL = {"id": "c", "type": "function", "function": F}
SHAPES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("openai.chat", "toolCalls", {"choices": [{"index": 0, "message": {"toolCalls": [CALL]}}]}),
    ("openai.chat", "tool_calls of the choice", {"choices": [{"index": 0, "message": {}, "tool_calls": [CALL]}]}),
    ("openai.chat", "Tool_calls", {"choices": [{"index": 0, "message": {"Tool_calls": [CALL]}}]}),
    ("openai.chat", "Name", {"choices": [{"index": 0, "message": {"tool_calls": [
        {**CALL, "function": {"name": "f", "Name": "drop_all", "arguments": "{}"}}]}}]}),
    ("openai.responses", "unknown item", {"output": [{"type": "novel_call", "id": "n", "call_id": "c", **F}]}),
    ("openai.responses", "unknown item without arguments", {"output": [{"type": "browser_call", "do": "drop_all"}]}),
    ("anthropic.messages", "unknown tool", {"content": [{"type": "novel_tool_use", "id": "t", "name": "drop_all",
                                                         "input": {}}]}),
    ("gemini.generate", "function_call", {"candidates": [{"content": {"parts": [
        {"function_call": {"name": "drop_all", "args": {}}}]}}]}),
    ("bedrock.converse", "tool_use", {"output": {"message": {"content": [{"tool_use": {"name": "drop_all",
                                                                                       "input": {}}}]}}}),
)  # fmt: skip


def attempts() -> Iterator[Attempt]:
    """Every one of them."""
    for url in URLS:
        for path, body in (
            (CHAT, {**PLAIN, "tools": [{"type": "mcp", "server_label": "wiki", "server_url": url}]}),
            ("/v1/responses", {"model": "gpt-4o", "input": "hi", "tools": [
                {"type": "mcp", "server_label": "wiki", "server_url": url}]}),
            ("/v1/messages", {**PLAIN, "max_tokens": 9, "mcp_servers": [{"type": "url", "name": "wiki", "url": url}]}),
        ):  # fmt: skip
            request = Request.json(path, body, team="few-tools")
            yield Attempt("MCP server at an ambiguous place", f"{path} {url!r}", [request], rejected)
    for name, more, mark in (
        ("model suffix", {"model": "openai/gpt-4o:online"}, ":online"),
        ("fallback model suffix", {"models": ["gpt-4o", "gpt-4o:online"]}, ":online"),
        ("plugin", {"plugins": [{"id": "web"}]}, "plugins"),
        ("extra_body", {"extra_body": {"tools": [{"type": "web_search"}]}}, "web_search"),
        ("switch", {"enable_web_search": True}, "enable_web_search"),
    ):
        request = Request.json(CHAT, {**PLAIN, **more}, team="few-tools")
        yield Attempt("search by other ways", name, [request], kept_from_upstream(mark))
    place = {"type": "mcp", "server_label": "wiki", "server_url": "https://ok.test/mcp"}
    yield Attempt("ordinary request (must pass)", "MCP server that is not denied",
                  [Request.json(CHAT, {**PLAIN, "tools": [place]}, team="few-tools")], served)  # fmt: skip
    for dialect, name, changed in SHAPES:
        path, body, skeleton = WHOLE[dialect]
        request = Request.json(path, body, team="calls", reply=whole({**skeleton, **changed}))
        yield Attempt("tool call of an unknown shape", f"{dialect}, {name}", [request], kept_from_caller("drop_all"))
