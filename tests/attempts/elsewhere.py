"""Attempts to change what a call is, who it is from, and which model serves it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.attempts.attempt import Attempt, Outcome, Request, kept_from_upstream, passes, rejected, served
from tests.attempts.in_requests import SKELETONS
from tests.attempts.planting import planted

FORBIDDEN = "zugzwang"
CHAT, CHAT_BODY = SKELETONS["openai.chat"]
SAID = planted(CHAT_BODY, "value", ("messages", 0, "content"), FORBIDDEN)
PLAIN = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}

PATHS = (
    "/v1/chat/completions/", "//v1/chat/completions", "/v1//chat/completions", "/v1/./chat/completions",
    "/v1/x/../chat/completions", "/v1/chat/completions;x=1", "/v1;a/chat/completions", "/v1/chat/completions/.",
    "/v1/chat/completions/x/..", "/V1/Chat/Completions", "/v1/CHAT/completions", "/v1/chat%2Fcompletions",
    "/v1/%63hat/completions", "/v1/chat/completion%73", "/v1/chat/completions%20", "/v1/chat/completions%00",
    "/v1/chat/completions?x=1", "/v1/chat/completions#x", "/v1/chat/completions%3Fx", "/v1/chat/completions%23x",
    "/v1\\chat\\completions", "/v1/chat/completions%2f", "/%76%31/chat/completions", "/v1/%2e/chat/completions",
    "/v1/x/%2e%2e/chat/completions", "/v1/chat/completions%3bx", "/v1/%2563hat/completions", "/v1/chat/completions//",
    "/v1/chat/completions%09", "/v1/chat/completions%0a",
)  # fmt: skip
HEADERS: tuple[Mapping[str, str], ...] = (
    {"mcp-session-id": "1"}, {"mcp-protocol-version": "2025-06-18"}, {"mcp-method": "ping"},
    {"x-http-method-override": "GET"}, {"x-method-override": "GET"}, {"x-http-method": "GET"},
    {"host": "writer.com"}, {"host": "api.groq.com"}, {"host": "bedrock-runtime.us-east-1.amazonaws.com"},
    {"host": "api.anthropic.com"}, {"host": "generativelanguage.googleapis.com"}, {"host": "api.cohere.com"},
    {"x-original-url": "/health"}, {"x-rewrite-url": "/health"}, {"x-forwarded-host": "api.groq.com"},
    {"anthropic-version": "2023-06-01"}, {"x-amz-target": "x"}, {"accept": "text/event-stream"},
    {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": "multipart/form-data; boundary=x"}, {"content-type": "application/json-rpc"},
    {"x-goog-api-client": "x"}, {"upgrade": "websocket"}, {"openai-beta": "assistants=v2"},
)  # fmt: skip
UNKNOWN = ("/v1/images/generations", "/v1/videos", "/v7/whatever", "/v1/agents/run", "/api/paas/v4/anything")


def attempts() -> Iterator[Attempt]:
    """Every one of them."""
    yield from _paths()
    yield from _reclassified()
    yield from _methods()
    yield from _models()
    yield from _budgets()
    yield from _sessions()
    yield from _tools()


def _paths() -> Iterator[Attempt]:
    """A policy for one path, and its path written in other ways."""
    for path in PATHS:
        request = Request.json(path, SAID, team="by-path")
        yield Attempt("path in another form", path, [request], kept_from_upstream(FORBIDDEN))


def _reclassified() -> Iterator[Attempt]:
    """Headers that would make a call another one."""
    for headers in HEADERS:
        for path, body in [(CHAT, SAID), *((path, {"prompt": FORBIDDEN}) for path in UNKNOWN)]:
            request = Request.json(path, body, headers=headers, team="forbidden")
            yield Attempt("reclassified by a header", f"{headers} on {path}", [request], kept_from_upstream(FORBIDDEN))


def _methods() -> Iterator[Attempt]:
    """A body on a method that has none, and odd methods."""
    for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "QUERY", "PROPFIND", "post", "TRACE"):
        for path in (CHAT, "/v1/responses", "/v1/models", "/v1/responses/resp_1", "/v7/whatever"):
            request = Request(path, json.dumps(SAID).encode(), method=method, team="forbidden")
            yield Attempt("method with a body", f"{method} {path}", [request], kept_from_upstream(FORBIDDEN))


def _models() -> Iterator[Attempt]:
    """A model that is not on the list, named where the provider reads it."""
    chat: dict[str, Any] = {**PLAIN}
    cases: list[tuple[str, str, Any]] = [
        ("fallback list", CHAT, {**chat, "models": ["gpt-4o", "o3"]}),
        ("fallbacks", CHAT, {**chat, "fallbacks": ["o3"]}),
        ("fallback objects", CHAT, {**chat, "fallbacks": [{"model": "o3"}]}),
        ("fallbacks by model", CHAT, {**chat, "fallbacks": [{"gpt-4o": ["o3"]}]}),
        ("extra_body", CHAT, {**chat, "extra_body": {"models": ["o3"]}}),
        ("Azure deployment", "/openai/deployments/o3/chat/completions?api-version=1", chat),
        ("Azure deployment in upper case", "/openai/Deployments/o3/chat/completions?api-version=1", chat),
        ("Bedrock path", "/model/o3/converse", {"messages": [{"role": "user", "content": [{"text": "hi"}]}],
                                                "model": "gpt-4o"}),
        ("Bedrock invoke path", "/model/o3/invoke", {"prompt": "hi", "max_gen_len": 5, "model": "gpt-4o"}),
        ("Gemini path", "/v1beta/models/o3:generateContent", {"contents": [{"parts": [{"text": "hi"}]}],
                                                              "model": "gpt-4o"}),
        ("twin", CHAT, {**chat, "Model": "o3"}),
        ("upper case", CHAT, {"MODEL": "o3", "messages": chat["messages"]}),
        ("none", CHAT, {"messages": chat["messages"]}),
        ("null", CHAT, {"model": None, "messages": chat["messages"]}),
        ("list", CHAT, {"model": ["o3"], "messages": chat["messages"]}),
        ("trailing space", CHAT, {**chat, "model": "o3 "}),
        ("image model", "/v1/images/generations", {"model": "o3", "prompt": "a"}),
        ("batch", "/v1/messages/batches", {"requests": [{"custom_id": "1", "params": {"model": "o3",
                                                                                     "messages": []}}]}),
    ]  # fmt: skip
    for name, path, body in cases:
        yield Attempt("model past a list", name, [Request.json(path, body, team="models")], rejected)
    yield Attempt("ordinary request (must pass)", "listed model", [Request.json(CHAT, chat, team="models")], served)


def _credentials(number: int) -> Iterator[tuple[str, dict[str, str], str]]:
    """(provider's path, headers, query) of one caller who changes all that is not the credential."""
    junk = {"x-tenant-id": f"t{number}", "x-session-id": f"s{number}", "x-request-id": f"r{number}"}
    signed = (
        f"AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/2026112{number}/us-east-1/bedrock/aws4_request, Signature=ab{number}"
    )
    yield CHAT, {"authorization": ("Bearer", "bearer", "BEARER")[number % 3] + " sk-1", "x-api-key": f"j{number}",
                 "api-key": "", **junk}, ""  # fmt: skip
    yield "/v1/messages", {"x-api-key": "sk-ant-1", "authorization": f"Bearer junk{number}", **junk}, ""
    yield "/v1beta/models/g:generateContent", {"x-api-key": f"j{number}", **junk}, "?key=AIza1"
    yield "/v1beta/models/g:generateContent", {"x-goog-api-key": "AIza2", "x-api-key": f"j{number}", **junk}, ""
    yield "/model/m/converse", {"authorization": signed, "x-api-key": f"j{number}", **junk}, ""
    yield (
        "/openai/deployments/d/chat/completions",
        {"api-key": "az-1", "authorization": f"Bearer j{number}", **junk},
        "",
    )
    yield "/v2/chat", {"authorization": "Bearer co-1", "api-key": f"j{number}", **junk}, ""


BODIES: dict[str, Any] = {
    CHAT: PLAIN,
    "/v1/messages": {**PLAIN, "max_tokens": 9},
    "/v1beta/models/g:generateContent": {"contents": [{"parts": [{"text": "hi"}]}]},
    "/model/m/converse": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
    "/openai/deployments/d/chat/completions": PLAIN,
    "/v2/chat": PLAIN,
}


def _budgets() -> Iterator[Attempt]:
    """One caller, a budget of three calls, everything else changed with each call."""
    rows = [list(_credentials(number)) for number in range(8)]
    for provider in range(len(rows[0])):
        asked = [
            Request.json(path + query, BODIES[path], headers={**headers, "host": f"h{number}.test"}, team="budget")
            for number, (path, headers, query) in enumerate(row[provider] for row in rows)
        ]
        yield Attempt("budget of a key", f"{rows[0][provider][0]} {sorted(rows[0][provider][1])}", asked, passes(3))
    refused = [Request.json(CHAT, PLAIN, team="budget") for _ in range(5)]
    yield Attempt("budget of a key", "no credential at all", refused, passes(0))


def _sessions() -> Iterator[Attempt]:
    """A caller spends the session of another one."""
    for sent in ("s1", "derived:anonymous", "derived:user:0", "derived:key-0", "a/b", "default"):
        spent = [_in_session(sent, "mallory") for _ in range(6)]
        last = [_in_session(sent, "ann")]

        def check(outcomes: list[Outcome]) -> str:
            return "" if outcomes[-1].calls else "a stranger's calls spent the session of another caller"

        yield Attempt("session of another caller", sent, [*spent, *last], check)


def _in_session(session: str, who: str) -> Request:
    headers = {"authorization": f"Bearer sk-{who}", "x-session-id": session}
    return Request.json(CHAT, PLAIN, headers=headers, team="session")


def _tools() -> Iterator[Attempt]:
    """Only get_weather is allowed: every other way to a tool goes, or the call is rejected."""
    chat: dict[str, Any] = {**PLAIN}
    responses: dict[str, Any] = {"model": "gpt-4o", "input": "hi"}
    claude: dict[str, Any] = {**PLAIN, "model": "claude-sonnet-4-6", "max_tokens": 9}
    converse: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    gemini: dict[str, Any] = {"contents": [{"parts": [{"text": "hi"}]}]}
    cases: list[tuple[str, str, Any, str]] = [
        ("function", CHAT, {**chat, "tools": [{"type": "function", "function": {"name": "drop_all"}}]}, "drop_all"),
        ("functions", CHAT, {**chat, "functions": [{"name": "drop_all"}]}, "drop_all"),
        ("custom tool", CHAT, {**chat, "tools": [{"type": "custom", "custom": {"name": "drop_all"}}]}, "drop_all"),
        ("web search", CHAT, {**chat, "web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ("plugins", CHAT, {**chat, "plugins": [{"id": "web"}]}, "plugins"),
        ("compound tools", CHAT, {**chat, "compound_custom": {"tools": {"enabled_tools": ["web_search"]}}},
         "compound_custom"),
        ("named hosted tool", "/v1/responses", {**responses, "tools": [
            {"type": "mcp", "server_label": "get_weather", "server_url": "https://evil.test"}]}, "evil.test"),
        ("hosted under a name", "/v1/responses", {**responses, "tools": [
            {"type": "web_search", "name": "get_weather"}]}, "web_search"),
        ("code interpreter", "/v1/responses", {**responses, "tools": [
            {"type": "code_interpreter", "container": {"type": "auto"}}]}, "code_interpreter"),
        ("connector", "/v1/responses", {**responses, "tools": [
            {"type": "mcp", "server_label": "get_weather", "connector_id": "connector_gmail"}]}, "connector_gmail"),
        ("MCP servers", "/v1/messages", {**claude, "mcp_servers": [
            {"type": "url", "url": "https://evil.test", "name": "get_weather"}]}, "evil.test"),
        ("server tool under a name", "/v1/messages", {**claude, "tools": [
            {"type": "web_search_20250305", "name": "get_weather"}]}, "web_search_20250305"),
        ("skills", "/v1/messages", {**claude, "container": {"skills": [
            {"type": "anthropic", "skill_id": "pptx", "version": "latest"}]}}, "pptx"),
        ("Bedrock side door", "/model/anthropic.claude-3/converse", {**converse, "additionalModelRequestFields": {
            "tools": [{"type": "computer_20241022", "name": "computer"}]}}, "computer_20241022"),
        ("Bedrock tool", "/model/m/converse", {**converse, "toolConfig": {"tools": [
            {"toolSpec": {"name": "cachePoint", "inputSchema": {"json": {}}}}]}}, "cachePoint"),
        ("Gemini search", "/v1beta/models/g:generateContent", {**gemini, "tools": [{"googleSearch": {}}]},
         "googleSearch"),
        ("Gemini search in snake case", "/v1beta/models/g:generateContent", {**gemini, "tools": [
            {"google_search": {}}]}, "google_search"),
        ("Gemini code", "/v1beta/models/g:generateContent", {**gemini, "tools": [{"codeExecution": {}}]},
         "codeExecution"),
        ("Gemini tools as one object", "/v1beta/models/g:generateContent", {**gemini, "tools": {"googleSearch": {}}},
         "googleSearch"),
        ("Cohere connectors", "/v1/chat", {"model": "m", "message": "hi", "connectors": [{"id": "web-search"}]},
         "web-search"),
        ("Ollama tool", "/api/chat", {**chat, "tools": [{"type": "function", "function": {"name": "drop_all"}}]},
         "drop_all"),
        ("MCP call", "/mcp", {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "drop_all"}},
         "drop_all"),
    ]  # fmt: skip
    for name, path, body, mark in cases:
        request = Request.json(path, body, team="tools")
        yield Attempt("way to a tool", name, [request], kept_from_upstream(mark))
    allowed = {**chat, "tools": [{"type": "function", "function": {"name": "get_weather"}}]}
    yield Attempt("ordinary request (must pass)", "allowed tool", [Request.json(CHAT, allowed, team="tools")], served)
