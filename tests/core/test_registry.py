"""Which dialect, operation and provider a call's head tells."""

from __future__ import annotations

import pytest

from policyd.core.model.deployment import Deployment
from policyd.core.stream.dialects import registry
from policyd.core.stream.dialects.providers import region_of
from policyd.core.stream.dialects.shared import estimate_tokens, milli_tokens

CHAT, MESSAGES = "openai.chat", "anthropic.messages"
RESPONSES, COMPLETIONS, EMBEDDINGS = "openai.responses", "openai.completions", "openai.embeddings"
GENERIC = "generic"
GEMINI, GOOGLE, VERTEX = "gemini.generate", "generativelanguage.googleapis.com", "us-central1-aiplatform.googleapis.com"
INVOKE, AWS = "bedrock.invoke", "bedrock-runtime.us-east-1.amazonaws.com"
CLAUDE = "/v1/projects/p/locations/us-east5/publishers/anthropic/models/"
CALLS = [
    ("POST", "/v1/chat/completions", "api.openai.com", (CHAT, "chat", "openai")),
    ("POST", "/v1/chat/completions?api-version=1", "localhost:8000", (CHAT, "chat", "unknown")),
    ("POST", "/openai/v1/chat/completions", "api.groq.com", (CHAT, "chat", "groq")),
    ("POST", "/openai/deployments/gpt/chat/completions", "x.openai.azure.com", (CHAT, "chat", "azure")),
    ("POST", "/OpenAI/Deployments/gpt/Chat/Completions", "10.0.0.1", (CHAT, "chat", "azure")),
    ("POST", "/beta/chat/completions", "api.deepseek.com", (CHAT, "chat", "deepseek")),
    ("POST", "/api/v1/chat/completions", "openrouter.ai:443", (CHAT, "chat", "openrouter")),
    ("POST", "/v1/chat/completions/", "API.OPENAI.COM.", (CHAT, "chat", "openai")),
    ("POST", "/v1/messages", "api.anthropic.com", (MESSAGES, "chat", "anthropic")),
    ("POST", "/v1/messages?beta=true", "gateway.internal", (MESSAGES, "chat", "anthropic")),
    ("POST", "/v1/chat/completions", "api.openai.com.evil.example", (CHAT, "chat", "unknown")),
    ("POST", "/v1/chat/completions", "notapi.groq.com", (CHAT, "chat", "unknown")),
    ("POST", "/api/chat", "127.0.0.1:11434", ("ollama.chat", "chat", "ollama")),
    ("POST", "/api/generate", "127.0.0.1:11434", ("ollama.generate", "completion", "ollama")),
    ("POST", "/api/embed", "h", ("ollama.embed", "embedding", "ollama")),
    ("POST", "/api/embeddings", "h", ("ollama.embed", "embedding", "ollama")),
    ("GET", "/api/tags", "h", (None, "other", "")),
    ("POST", "/v2/chat", "api.cohere.com", ("cohere.chat", "chat", "cohere")),
    ("POST", "/v1/chat", "api.cohere.ai", ("cohere.chat", "chat", "cohere")),
    ("POST", "/v1/generate", "api.cohere.ai", ("cohere.generate", "completion", "cohere")),
    ("POST", "/v2/embed", "api.cohere.com", ("cohere.embed", "embedding", "cohere")),
    ("POST", "/v1/rerank", "api.cohere.com", (GENERIC, "rerank", "cohere")),
    ("POST", "/v1/responses", "api.openai.com", (RESPONSES, "chat", "openai")),
    ("POST", "/openai/responses?api-version=preview", "x.openai.azure.com", (RESPONSES, "chat", "azure")),
    ("POST", "/openai/responses", "gateway", (RESPONSES, "chat", "azure")),
    ("POST", "/openai/v1/responses", "x.services.ai.azure.com", (RESPONSES, "chat", "azure")),
    ("POST", "/openai/v1/responses", "api.groq.com", (RESPONSES, "chat", "groq")),
    ("POST", "/v1/completions", "api.openai.com", (COMPLETIONS, "completion", "openai")),
    ("POST", "/openai/deployments/d/completions", "gateway", (COMPLETIONS, "completion", "azure")),
    ("POST", "/inference/v1/completions", "api.fireworks.ai", (COMPLETIONS, "completion", "fireworks")),
    ("POST", "/v1/embeddings", "api.mistral.ai", (EMBEDDINGS, "embedding", "mistral")),
    ("POST", "/openai/deployments/d/embeddings", "x.openai.azure.us", (EMBEDDINGS, "embedding", "azure")),
    ("POST", "/v1/fim/completions", "codestral.mistral.ai", (CHAT, "completion", "mistral")),
    ("POST", "/v1/agents/completions", "api.mistral.ai", (CHAT, "chat", "mistral")),
    ("POST", "/v1/sonar", "api.perplexity.ai", (CHAT, "chat", "perplexity")),
    ("POST", "/compatible-mode/v1/chat/completions", "dashscope-us.aliyuncs.com", (CHAT, "chat", "alibaba")),
    # tricks with the path
    ("POST", "/v1/chat/completions/../../completions", "h", (COMPLETIONS, "completion", "unknown")),
    ("POST", "/v1/models/../chat/completions", "h", (CHAT, "chat", "unknown")),
    ("POST", "/v1/%63hat/completions", "h", (CHAT, "chat", "unknown")),
    ("POST", "/v1/chat%2fcompletions", "h", (CHAT, "chat", "unknown")),
    ("POST", "/v1/files/%2e%2e/chat/completions", "h", (CHAT, "chat", "unknown")),
    ("POST", "/v1/files/%252e%252e/chat/completions", "h", (CHAT, "chat", "unknown")),
    ("POST", "//v1//chat///completions", "h", (CHAT, "chat", "unknown")),
    ("POST", "/v1/chat/completions;x=1", "h", (CHAT, "chat", "unknown")),
    ("POST", "/v1/./messages", "h", (MESSAGES, "chat", "anthropic")),
    ("POST", "/../../v1/messages", "h", (MESSAGES, "chat", "anthropic")),
    ("POST", "/v1\\messages", "h", (MESSAGES, "chat", "anthropic")),
    ("POST", "/v1/messages#x", "h", (MESSAGES, "chat", "anthropic")),
    ("POST", "/v1/files/x/v1/embeddings", "h", (EMBEDDINGS, "embedding", "unknown")),
    # model calls in languages that come later
    ("POST", "/v1/responses/compact", "api.openai.com", (RESPONSES, "chat", "openai")),
    ("POST", "/v1/conversations", "api.mistral.ai", (None, "unknown", "mistral")),
    ("POST", "/v1/threads/runs", "api.openai.com", ("openai.runs", "chat", "openai")),
    ("POST", "/v1/threads/t/runs", "api.openai.com", ("openai.runs", "chat", "openai")),
    ("POST", "/v1/batches", "api.openai.com", (GENERIC, "batch", "openai")),
    ("POST", "/v1/messages/batches", "api.anthropic.com", (GENERIC, "batch", "anthropic")),
    ("POST", "/v1beta/models/g:generateContent", GOOGLE, (GEMINI, "chat", "google")),
    ("POST", "/v1beta/tunedModels/g:streamGenerateContent?alt=sse", GOOGLE, (GEMINI, "chat", "google")),
    ("POST", "/v1/projects/p/publishers/google/models/g:generateContent", VERTEX, (GEMINI, "chat", "google")),
    ("POST", "/v1beta/models/e:batchEmbedContents", GOOGLE, ("gemini.embed", "embedding", "google")),
    ("POST", "/v1beta/models/g:countTokens", GOOGLE, (GENERIC, "token_count", "google")),
    ("POST", "/v1beta/models/g:batchGenerateContent", GOOGLE, (GENERIC, "batch", "google")),
    ("POST", "/model/m%3A0/converse", AWS, ("bedrock.converse", "chat", "bedrock")),
    ("POST", "/model/m/converse-stream", "h", ("bedrock.converse", "chat", "bedrock")),
    ("POST", "/model/arn%3Aaws%3Abedrock%3Ar%3A1%3Ainference-profile%2Fm/invoke", AWS, (INVOKE, "chat", "bedrock")),
    ("POST", "/model/m/invoke-with-response-stream", AWS, (INVOKE, "chat", "bedrock")),
    ("POST", "/model/amazon.titan-embed-text-v2%3A0/invoke", AWS, (INVOKE, "embedding", "bedrock")),
    ("POST", "/model/stability.sd3-large-v1:0/invoke", AWS, (GENERIC, "image", "bedrock")),
    ("POST", "/model/m/count-tokens", AWS, (GENERIC, "token_count", "bedrock")),
    ("POST", "/v1/complete", "api.anthropic.com", ("anthropic.complete", "completion", "anthropic")),
    ("POST", "/generate", "10.0.0.1", ("huggingface.text", "completion", "huggingface")),
    ("POST", "/tools/mcp", "h", ("mcp", "tool_call", "mcp")),
    ("GET", "/mcp", "h", ("mcp", "retrieval", "")),
    ("POST", "/guardrail/g/version/1/apply", AWS, (GENERIC, "moderation", "bedrock")),
    ("POST", f"{CLAUDE}claude-sonnet-4-5@20250929:rawPredict", VERTEX, (MESSAGES, "chat", "google")),
    ("POST", f"{CLAUDE}claude-haiku-4-5:streamRawPredict", "gateway", (MESSAGES, "chat", "google")),
    ("POST", f"{CLAUDE}count-tokens:rawPredict", VERTEX, (GENERIC, "token_count", "google")),
    ("POST", f"{CLAUDE}count-tokens@20250101:rawPredict", VERTEX, (GENERIC, "token_count", "google")),
    ("POST", "/v1/projects/p/locations/l/publishers/m/models/x:rawPredict", VERTEX, (None, "unknown", "google")),
    ("POST", "/v1/projects/p/x:predict", "us-central1-aiplatform.googleapis.com", (None, "unknown", "google")),
    ("POST", "/", "x.endpoints.huggingface.cloud", (None, "unknown", "huggingface")),
    ("PUT", "/v1/chat/completions", "h", (None, "unknown", "")),
    ("POST", "", "", (None, "unknown", "")),
    # content that is kept, fetched, counted or checked
    ("GET", "/v1/chat/completions", "api.openai.com", (GENERIC, "retrieval", "openai")),
    ("GET", "/v1/chat/completions/c", "api.openai.com", (CHAT, "retrieval", "openai")),
    ("GET", "/v1/chat/completions/c/messages", "api.openai.com", (GENERIC, "retrieval", "openai")),
    ("POST", "/v1/files", "api.openai.com", (GENERIC, "storage", "openai")),
    ("POST", "/v1/assistants", "api.openai.com", (GENERIC, "storage", "openai")),
    ("GET", "/v1/assistants/a", "api.openai.com", (GENERIC, "storage", "openai")),
    ("POST", "/v1/threads", "api.openai.com", (GENERIC, "storage", "openai")),
    ("POST", "/v1/threads/t/messages", "api.openai.com", (GENERIC, "storage", "openai")),
    ("GET", "/v1/threads/t/messages", "api.openai.com", (GENERIC, "retrieval", "openai")),
    ("GET", "/v1/threads/t/runs/r", "api.openai.com", ("openai.runs", "retrieval", "openai")),
    ("POST", "/v1/conversations", "api.openai.com", (GENERIC, "storage", "openai")),
    ("POST", "/v1/conversations/c/items", "api.openai.com", (GENERIC, "storage", "openai")),
    ("GET", "/v1/conversations/c/items", "api.openai.com", (GENERIC, "retrieval", "openai")),
    ("POST", "/v1/graders/run", "api.openai.com", (GENERIC, "storage", "openai")),
    ("POST", "/v1/evals/e/runs", "api.openai.com", (GENERIC, "storage", "openai")),
    ("POST", "/agents/a/agentAliases/b/sessions/s/text", AWS, (None, "unknown", "bedrock")),
    ("POST", "/v1/projects/p/locations/l/reasoningEngines/r:query", VERTEX, (None, "unknown", "google")),
    ("POST", "/v1/projects/p/locations/l/reasoningEngines/r:streamQuery", VERTEX, (None, "unknown", "google")),
    ("POST", "/v1beta/corpora/c:query", GOOGLE, (GENERIC, "retrieval", "google")),
    ("POST", "/v1beta/corpora/c/documents/d:query", GOOGLE, (GENERIC, "retrieval", "google")),
    ("POST", "/v1/fine_tuning/jobs", "api.openai.com", (GENERIC, "storage", "openai")),
    ("POST", "/v1/vector_stores/v/search", "api.openai.com", (GENERIC, "retrieval", "openai")),
    ("POST", "/v1beta/cachedContents", GOOGLE, (GENERIC, "storage", "google")),
    ("GET", "/v1beta/files/f?alt=media", GOOGLE, (GENERIC, "retrieval", "google")),
    ("POST", "/openai/files", "x.openai.azure.com", (GENERIC, "storage", "azure")),
    ("POST", "/v1/messages/count_tokens", "api.anthropic.com", (GENERIC, "token_count", "anthropic")),
    ("GET", "/v1/messages/batches/b/results", "api.anthropic.com", ("batch.results", "retrieval", "anthropic")),
    ("GET", "/v1/files/f/content", "api.openai.com", ("batch.results", "retrieval", "openai")),
    ("POST", "/v1/responses/r/cancel", "api.openai.com", (RESPONSES, "retrieval", "openai")),
    ("POST", "/v1/responses/input_tokens", "api.openai.com", (GENERIC, "token_count", "openai")),
    ("GET", "/v1/responses/r", "api.openai.com", (RESPONSES, "retrieval", "openai")),
    ("GET", "/v1/responses/r/input_items", "api.openai.com", (GENERIC, "retrieval", "openai")),
    ("POST", "/v1/moderations", "api.openai.com", (GENERIC, "moderation", "openai")),
    ("POST", "/v1/images/generations", "api.openai.com", (GENERIC, "image", "openai")),
    ("POST", "/openai/deployments/d/images/generations", "x.openai.azure.com", (GENERIC, "image", "azure")),
    ("POST", "/v1/videos", "api.openai.com", (GENERIC, "image", "openai")),
    ("POST", "/v1/audio/speech", "api.openai.com", (GENERIC, "audio", "openai")),
    ("GET", "/v1/realtime?model=m", "api.openai.com", (GENERIC, "realtime", "openai")),
    ("POST", "/v1/realtime/sessions", "api.openai.com", (GENERIC, "realtime", "openai")),
    # no content in either direction
    ("GET", "/v1/models", "api.openai.com", (None, "other", "openai")),
    ("GET", "/v1/files", "api.openai.com", (None, "other", "openai")),
    ("GET", "/v1/batches/b", "api.openai.com", (None, "other", "openai")),
    ("DELETE", "/v1/files/f", "api.openai.com", (None, "other", "openai")),
    ("DELETE", "/v1/responses/r", "api.openai.com", (None, "other", "openai")),
    ("POST", "/v1/batches/b/cancel", "api.openai.com", (None, "other", "openai")),
    ("OPTIONS", "/v1/chat/completions", "api.openai.com", (None, "other", "openai")),
    ("HEAD", "/v1/models", "api.openai.com", (None, "other", "openai")),
    ("POST", "/healthz", "h", (None, "other", "")),
    ("GET", "/", "h", (None, "other", "")),
    # what nobody knows
    ("GET", "/favicon.ico", "h", (None, "unknown", "")),
    ("DELETE", "/x/y", "h", (None, "unknown", "")),
    ("CONNECT", "", "h", (None, "unknown", "")),
    ("GET", "/v1/images/generations", "api.openai.com", (None, "unknown", "openai")),
]


@pytest.mark.parametrize(("method", "path", "host", "expected"), CALLS)
def test_what_a_call_is(method: str, path: str, host: str, expected: tuple[str | None, str, str]) -> None:
    dialect, operation, provider = registry.choose(method, path, host, {})
    assert (dialect and dialect.name, operation, provider) == expected


NO_RECLASSIFICATION = [
    ("POST", "/v1/images/generations", {"mcp-session-id": "1"}, False, "image"),
    ("POST", "/v1/new", {"mcp-session-id": "1"}, False, "unknown"),
    ("POST", "/v1/new", {"mcp-protocol-version": "2025-06-18", "mcp-method": "ping"}, False, "unknown"),
    ("POST", "/v1/chat/completions", {"mcp-session-id": "1"}, True, "chat"),
    ("POST", "/v1/chat/completions", {"x-http-method-override": "GET"}, True, "chat"),
    ("GET", "/v1/models", {"x-http-method-override": "POST"}, False, "unknown"),
    ("GET", "/v1/models", {"x-method-override": "POST"}, False, "unknown"),
    ("GET", "/v1/models", {"x-http-method": "POST"}, False, "unknown"),
    ("GET", "/v1/models", {"x-original-url": "/v1/chat/completions"}, False, "unknown"),
    ("GET", "/v1/models?_method=POST", {}, False, "unknown"),
    ("GET", "/v1/models", {"upgrade": "websocket", "connection": "Upgrade"}, False, "unknown"),
    ("GET", "/v1/models", {"upgrade": "h2c"}, False, "other"),
    ("GET", "/v1/realtime", {"upgrade": "websocket"}, False, "realtime"),
    ("GET", "/v1/responses", {"upgrade": "websocket"}, False, "unknown"),
    ("CONNECT", "/v1/realtime", {":method": "CONNECT", ":protocol": "websocket"}, False, "realtime"),
    ("CONNECT", "/v1/responses", {":method": "CONNECT", ":protocol": "websocket"}, False, "unknown"),
    *((method, "/v1/models", {}, True, "unknown") for method in ("GET", "HEAD", "OPTIONS", "DELETE")),
    *((method, "/v1/chat/completions", {}, True, "unknown") for method in ("GET", "HEAD", "OPTIONS", "DELETE")),
    ("POST", "/healthz", {}, True, "unknown"),
    ("POST", "/v1/batches/b/cancel", {}, True, "unknown"),
]


@pytest.mark.parametrize(("method", "path", "headers", "body", "expected"), NO_RECLASSIFICATION)
def test_no_header_and_no_body_makes_a_call_other(
    method: str, path: str, headers: dict[str, str], body: bool, expected: str
) -> None:
    assert registry.choose(method, path, "api.openai.com", headers, body=body)[1] == expected


OPENAI = Deployment(host="api.openai.com")
DECLARED = [
    (OPENAI, "api.groq.com", "/v1/chat/completions", (CHAT, "chat", "openai")),
    (OPENAI, "writer.com", "/v1/chat/completions", (CHAT, "chat", "openai")),
    (Deployment(provider="groq", host="10.0.0.1"), "api.openai.com", "/v1/chat/completions", (CHAT, "chat", "groq")),
    (
        Deployment(upstream="openai", host="127.0.0.1:80"),
        "api.groq.com",
        "/v1/chat/completions",
        (CHAT, "chat", "openai"),
    ),
    (
        Deployment(upstream="main", host="127.0.0.1:80"),
        "api.groq.com",
        "/v1/chat/completions",
        (CHAT, "chat", "unknown"),
    ),
    (
        Deployment(upstream="groq", host="127.0.0.1:80"),
        "api.x.ai",
        "/openai/v1/chat/completions",
        (CHAT, "chat", "groq"),
    ),
    (Deployment(upstream="openai", host="127.0.0.1:80"), "x", "/v1/messages", (MESSAGES, "chat", "anthropic")),
    (Deployment(upstream="outbound|443||api.groq.com"), "api.x.ai", "/v1/chat/completions", (CHAT, "chat", "groq")),
    (Deployment(upstream="main"), "api.groq.com", "/v1/chat/completions", (CHAT, "chat", "groq")),
    (Deployment(host="api.cohere.com"), "writer.com", "/v1/chat", ("cohere.chat", "chat", "cohere")),
    (Deployment(host="10.0.0.1"), "x.endpoints.huggingface.cloud", "/", (None, "unknown", "")),
    (Deployment(host="x.endpoints.huggingface.cloud"), "h", "/", ("huggingface.text", "completion", "huggingface")),
    (Deployment(provider="openai", dialects=(RESPONSES,)), "h", "/v1/chat/completions", (None, "unknown", "openai")),
    (Deployment(dialects=("mcp",)), "h", "/rpc", ("mcp", "tool_call", "mcp")),
]


@pytest.mark.parametrize(("deployment", "host", "path", "expected"), DECLARED)
def test_the_deployment_decides_and_host_does_not(
    deployment: Deployment, host: str, path: str, expected: tuple[str | None, str, str]
) -> None:
    dialect, operation, provider = registry.choose("POST", path, host, {":authority": host}, deployment)
    assert (dialect and dialect.name, operation, provider) == expected


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("bedrock-runtime.eu-west-1.amazonaws.com", "eu-west-1"),
        ("bedrock-runtime-fips.us-east-2.amazonaws.com:443", "us-east-2"),
        ("us-east5-aiplatform.googleapis.com", "us-east5"),
        ("aiplatform.eu.rep.googleapis.com", "eu"),
        ("eastus.api.cognitive.microsoft.com", "eastus"),
        ("eu.api.openai.com", "eu"),
        ("api.openai.com", ""),
        ("bedrock-runtime.eu-west-1.example.org", ""),
    ],
)
def test_the_host_tells_the_region(host: str, region: str) -> None:
    assert region_of(host) == region


def test_the_estimate_is_additive() -> None:
    for text, tokens in (("", 0), ("abcd", 1), ("abcde", 2), ("éé", 1), ("漢字", 3), ("😀😀", 5)):
        assert estimate_tokens(text) == tokens
        assert sum(map(milli_tokens, text)) == milli_tokens(text)
