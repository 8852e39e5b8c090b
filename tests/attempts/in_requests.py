"""Attempts that hide text, or a tool, in a request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.attempts.attempt import Attempt, Request, kept_from_upstream, rejected, served
from tests.attempts.planting import escaped, name_of, places, planted

FORBIDDEN = "zugzwang"  # a rule on request.content terminates the call
SECRET = "canary-314159"  # a rule redacts canary-[0-9]{6}
CARD = 4111111111111111  # a rule forbids it, another one redacts cards

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": {
    "type": "object", "description": "a place", "properties": {"city": {"type": "string", "description": "a city",
    "enum": ["Paris", "Rome"], "default": "Rome"}}}}}  # fmt: skip
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}

SKELETONS: dict[str, tuple[str, Any]] = {
    "openai.chat": ("/v1/chat/completions", {
        "model": "gpt-4o", "user": "u", "metadata": {"topic": "weather"}, "tools": [TOOL],
        "prediction": {"type": "content", "content": "guess"}, "stop": ["halt"],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"description": "d"}}},
        "web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Rome"}}},
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "I think",
             "refusal": "no"},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ]}),
    "openai.responses": ("/v1/responses", {
        "model": "gpt-4o", "instructions": "be kind", "metadata": {"topic": "weather"},
        "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"description": "p"}},
                  {"type": "mcp", "server_label": "wiki", "server_url": "https://mcp.test", "server_description": "s"}],
        "prompt": {"id": "pmpt_1", "variables": {"name": "Ann"}},
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "thinking"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": "b"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "done"},
            {"type": "local_shell_call_output", "id": "l1", "output": "listing"},
        ]}),
    "openai.completions": ("/v1/completions", {"model": "m", "prompt": ["hi", "there"], "suffix": "end"}),
    "openai.embeddings": ("/v1/embeddings", {"model": "m", "input": ["hi", "there"]}),
    "anthropic.messages": ("/v1/messages", {
        "model": "claude-sonnet-4-6", "max_tokens": 9, "metadata": {"user_id": "u-1"},
        "system": [{"type": "text", "text": "be kind"}],
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object", "description": "s"}}],
        "mcp_servers": [{"type": "url", "url": "https://mcp.test", "name": "wiki"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"},
                {"type": "document", "title": "t", "context": "c",
                 "source": {"type": "text", "media_type": "text/plain", "data": "a document"}}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "I think", "signature": "c2ln"},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "b"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1",
                "content": [{"type": "text", "text": "done"}]},
                {"type": "search_result", "source": "https://a.test", "title": "t",
                 "content": [{"type": "text", "text": "found"}]}]},
        ]}),
    "anthropic.complete": ("/v1/complete", {"model": "claude-2", "prompt": "\n\nHuman: hi\n\nAssistant:",
                                            "max_tokens_to_sample": 9}),
    "gemini.generate": ("/v1beta/models/gemini-2.5-pro:generateContent", {
        "systemInstruction": {"parts": [{"text": "be kind"}]},
        "tools": [{"functionDeclarations": [{"name": "f", "description": "d", "parameters": {"description": "p"}}]}],
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}, {"text": "thought", "thought": True}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": "b"}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "done"}}}]},
        ]}),
    "bedrock.converse": ("/model/amazon.nova-pro-v1%3A0/converse", {
        "system": [{"text": "be kind"}], "promptVariables": {"name": {"text": "Ann"}},
        "toolConfig": {"tools": [{"toolSpec": {"name": "f", "description": "d",
                                               "inputSchema": {"json": {"description": "s"}}}}]},
        "additionalModelRequestFields": {"note": "more"}, "requestMetadata": {"topic": "weather"},
        "messages": [
            {"role": "user", "content": [{"text": "hi"},
                {"document": {"name": "doc", "format": "txt", "source": {"text": "a document"}}}]},
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": "b"}}},
                {"reasoningContent": {"reasoningText": {"text": "I think"}}}]},
            {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"text": "done"}]}}]},
        ]}),
    "bedrock.invoke": ("/model/anthropic.claude-3-haiku/invoke", {
        "anthropic_version": "bedrock-2023-05-31", "max_tokens": 5, "system": "be kind",
        "messages": [{"role": "user", "content": "hi"}]}),
    "cohere.chat": ("/v2/chat", {
        "model": "command-a", "documents": [{"id": "d", "data": {"text": "a document", "title": "t"}}],
        "messages": [{"role": "user", "content": "hi"},
                     {"role": "assistant", "tool_plan": "I will", "tool_calls": [CALL]},
                     {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "done"}]}]}),
    "ollama.chat": ("/api/chat", {"model": "m", "tools": [TOOL], "keep_alive": "5m", "messages": [
        {"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": "b"}}}]},
        {"role": "tool", "tool_name": "f", "content": "done"}]}),
    "ollama.generate": ("/api/generate", {"model": "m", "prompt": "hi", "system": "be kind", "template": "{{ .P }}",
                                          "suffix": "end"}),
    "huggingface.text": ("/generate", {"inputs": "hi", "parameters": {"stop": ["halt"]}}),
    "mcp": ("/mcp", {"jsonrpc": "2.0", "id": 7, "method": "tools/call",
                     "params": {"name": "f", "arguments": {"a": "b", "list": ["c"]}}}),
}  # fmt: skip

# Endpoints without a dialect of their own: their bodies are content, too.
GENERIC: dict[str, tuple[str, Any]] = {
    "image": ("/v1/images/generations", {"model": "gpt-image-1", "prompt": "a cat"}),
    "moderation": ("/v1/moderations", {"model": "m", "input": ["hi"]}),
    "rerank": ("/v1/rerank", {"model": "m", "query": "hi", "documents": ["a", {"text": "b"}]}),
    "token_count": ("/v1/messages/count_tokens", {"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    "threads": ("/v1/threads", {"messages": [{"role": "user", "content": "hi"}]}),
    "thread messages": ("/v1/threads/thread_1/messages", {"role": "user", "content": "hi"}),
    "assistants": ("/v1/assistants", {"model": "m", "instructions": "be kind"}),
    "conversations": ("/v1/conversations", {"items": [{"type": "message", "role": "user", "content": "hi"}]}),
    "conversation items": ("/v1/conversations/conv_1/items", {"items": [{"type": "message", "content": "hi"}]}),
    "vector stores": ("/v1/vector_stores/vs_1/search", {"query": "hi"}),
    "graders": ("/v1/fine_tuning/alpha/graders/run", {"grader": {"type": "score_model", "input": "hi"}}),
    "evals": ("/v1/evals", {"name": "n", "testing_criteria": [{"input": "hi"}]}),
    "message batches": ("/v1/messages/batches", {"requests": [{"custom_id": "1", "params": {"messages": [
        {"role": "user", "content": "hi"}]}}]}),
    "speech": ("/v1/audio/speech", {"model": "tts-1", "input": "hi", "voice": "alloy"}),
    "runs": ("/v1/threads/runs", {"assistant_id": "a", "thread": {"messages": [{"role": "user", "content": "hi"}]}}),
    "unheard of": ("/v7/whatever", {"say": "hi"}),
}  # fmt: skip


def attempts() -> Iterator[Attempt]:
    """Every place of every dialect: forbidden text is seen, a secret does not leave."""
    for dialect, (path, skeleton) in {**SKELETONS, **GENERIC}.items():
        for kind, where in places(skeleton):
            name = f"{dialect}, {name_of(kind, where)}"
            yield _forbidden(name, path, planted(skeleton, kind, where, FORBIDDEN))
            yield _secret(name, path, planted(skeleton, kind, where, f"it is {SECRET}."))
            if kind != "value":
                yield from _number(name, path, planted(skeleton, kind, where, CARD))
        for team in ("forbidden", "redacted", "anything"):
            ordinary = Request.json(path, skeleton, team=team)
            yield Attempt("ordinary request (must pass)", f"{dialect}, {team}", [ordinary], served)
    yield from _written_otherwise()
    yield from _twins()
    yield from _charsets()


def _forbidden(name: str, path: str, document: Any) -> Attempt:
    return Attempt("forbidden text in a request", name, [Request.json(path, document, team="forbidden")], rejected)


def _secret(name: str, path: str, document: Any) -> Attempt:
    request = Request.json(path, document, team="redacted")
    return Attempt("secret in a request", name, [request], kept_from_upstream(SECRET))


def _number(name: str, path: str, document: Any) -> Iterator[Attempt]:
    for team, check in (("forbidden", rejected), ("redacted", kept_from_upstream(str(CARD)))):
        request = Request.json(path, document, team=team)
        yield Attempt("number in a request", f"{name} ({team})", [request], check)


def _written_otherwise() -> Iterator[Attempt]:
    """The same text in JSON's escapes, and with JSON inside of a string."""
    for dialect, (path, skeleton) in SKELETONS.items():
        for kind, where in places(skeleton):
            if kind != "value":
                continue
            for text, team in ((FORBIDDEN, "forbidden"), (SECRET, "redacted")):
                body = escaped(json.dumps(planted(skeleton, kind, where, text)).encode(), text)
                check = rejected if team == "forbidden" else kept_from_upstream(SECRET)
                name = f"{dialect}, escaped, {team}, {name_of(kind, where)}"
                yield Attempt("text in JSON escapes", name, [Request(path, body, team=team)], check)


def _twins() -> Iterator[Attempt]:
    """Keys that differ in case alone, at every depth: servers in Go read either."""
    for dialect, (path, skeleton) in SKELETONS.items():
        for kind, where in places(skeleton):
            if kind != "value" or not isinstance(where[-1], str):
                continue
            for twin in (where[-1].capitalize(), where[-1].upper()):
                if twin == where[-1]:
                    continue
                document = planted(skeleton, "field", where[:-1], FORBIDDEN, twin)
                name = f"{dialect}, {twin} beside {name_of(kind, where)}"
                yield Attempt("case twins", name, [Request.json(path, document, team="anything")], rejected)


def _charsets() -> Iterator[Attempt]:
    """A body in another encoding than the one that is judged."""
    path, skeleton = SKELETONS["openai.chat"]
    document = planted(skeleton, "value", ("messages", 0, "content"), FORBIDDEN)
    for charset in ("utf-7", "utf-16", "utf-16le", "utf-16be", "utf-32", "UTF-7", '"utf-16"', "cp037", "iso-2022-jp"):
        headers = {"content-type": f"application/json; charset={charset}"}
        codec = charset.strip('"')
        for said, body in (("encoded", json.dumps(document, ensure_ascii=False).encode(codec)),
                           ("in ASCII", json.dumps(skeleton).encode())):  # fmt: skip
            request = Request(path, body, headers=headers, team="forbidden")
            yield Attempt("charset of a request", f"{charset}, {said}", [request], rejected)
