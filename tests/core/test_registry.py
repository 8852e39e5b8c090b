"""Which dialect, operation and provider a call's head tells."""

from __future__ import annotations

import pytest

from policyd.core.stream.dialects import registry
from policyd.core.stream.dialects.shared import estimate_tokens, milli_tokens

CHAT, MESSAGES = "openai.chat", "anthropic.messages"
RESPONSES, COMPLETIONS, EMBEDDINGS = "openai.responses", "openai.completions", "openai.embeddings"
GEMINI, GOOGLE, VERTEX = "gemini.generate", "generativelanguage.googleapis.com", "us-central1-aiplatform.googleapis.com"
INVOKE, AWS = "bedrock.invoke", "bedrock-runtime.us-east-1.amazonaws.com"
CLAUDE = "/v1/projects/p/locations/us-east5/publishers/anthropic/models/"
CALLS = [
    ("POST", "/v1/chat/completions", "api.openai.com", (CHAT, "chat", "openai")),
    ("POST", "/v1/chat/completions?api-version=1", "localhost:8000", (CHAT, "chat", "openai")),
    ("POST", "/openai/v1/chat/completions", "api.groq.com", (CHAT, "chat", "groq")),
    ("POST", "/openai/deployments/gpt/chat/completions", "x.openai.azure.com", (CHAT, "chat", "azure")),
    ("POST", "/OpenAI/Deployments/gpt/Chat/Completions", "10.0.0.1", (CHAT, "chat", "azure")),
    ("POST", "/beta/chat/completions", "api.deepseek.com", (CHAT, "chat", "deepseek")),
    ("POST", "/api/v1/chat/completions", "openrouter.ai:443", (CHAT, "chat", "openrouter")),
    ("POST", "/v1/chat/completions/", "API.OPENAI.COM.", (CHAT, "chat", "openai")),
    ("POST", "/v1/messages", "api.anthropic.com", (MESSAGES, "chat", "anthropic")),
    ("POST", "/v1/messages?beta=true", "gateway.internal", (MESSAGES, "chat", "anthropic")),
    ("POST", "/v1/chat/completions", "api.openai.com.evil.example", (CHAT, "chat", "openai")),
    ("POST", "/v1/chat/completions", "notapi.groq.com", (CHAT, "chat", "openai")),
    ("POST", "/api/chat", "127.0.0.1:11434", ("ollama.chat", "chat", "ollama")),
    ("POST", "/api/generate", "127.0.0.1:11434", ("ollama.generate", "completion", "ollama")),
    ("POST", "/api/embed", "h", ("ollama.embed", "embedding", "ollama")),
    ("POST", "/api/embeddings", "h", ("ollama.embed", "embedding", "ollama")),
    ("GET", "/api/tags", "h", (None, "other", "")),
    ("POST", "/v2/chat", "api.cohere.com", ("cohere.chat", "chat", "cohere")),
    ("POST", "/v1/chat", "api.cohere.ai", ("cohere.chat", "chat", "cohere")),
    ("POST", "/v1/generate", "api.cohere.ai", ("cohere.generate", "completion", "cohere")),
    ("POST", "/v2/embed", "api.cohere.com", ("cohere.embed", "embedding", "cohere")),
    ("POST", "/v1/rerank", "api.cohere.com", (None, "unknown", "cohere")),
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
    ("POST", "/v1/chat/completions/../../completions", "h", (COMPLETIONS, "completion", "openai")),
    ("POST", "/v1/models/../chat/completions", "h", (CHAT, "chat", "openai")),
    ("POST", "/v1/%63hat/completions", "h", (CHAT, "chat", "openai")),
    ("POST", "/v1/chat%2fcompletions", "h", (CHAT, "chat", "openai")),
    ("POST", "/v1/files/%2e%2e/chat/completions", "h", (CHAT, "chat", "openai")),
    ("POST", "/v1/files/%252e%252e/chat/completions", "h", (CHAT, "chat", "openai")),
    ("POST", "//v1//chat///completions", "h", (CHAT, "chat", "openai")),
    ("POST", "/v1/chat/completions;x=1", "h", (CHAT, "chat", "openai")),
    ("POST", "/v1/./messages", "h", (MESSAGES, "chat", "anthropic")),
    ("POST", "/../../v1/messages", "h", (MESSAGES, "chat", "anthropic")),
    ("POST", "/v1\\messages", "h", (MESSAGES, "chat", "anthropic")),
    ("POST", "/v1/messages#x", "h", (MESSAGES, "chat", "anthropic")),
    ("POST", "/v1/files/x/v1/embeddings", "h", (EMBEDDINGS, "embedding", "openai")),
    # model calls in languages that come later
    ("POST", "/v1/responses/compact", "api.openai.com", (None, "unknown", "openai")),
    ("POST", "/v1/conversations", "api.mistral.ai", (None, "unknown", "mistral")),
    ("POST", "/v1/threads/runs", "api.openai.com", (None, "unknown", "openai")),
    ("POST", "/v1/threads/t/runs", "api.openai.com", (None, "unknown", "openai")),
    ("POST", "/v1/batches", "api.openai.com", (None, "unknown", "openai")),
    ("POST", "/v1/messages/batches", "api.anthropic.com", (None, "unknown", "anthropic")),
    ("POST", "/v1beta/models/g:generateContent", GOOGLE, (GEMINI, "chat", "google")),
    ("POST", "/v1beta/tunedModels/g:streamGenerateContent?alt=sse", GOOGLE, (GEMINI, "chat", "google")),
    ("POST", "/v1/projects/p/publishers/google/models/g:generateContent", VERTEX, (GEMINI, "chat", "google")),
    ("POST", "/v1beta/models/e:batchEmbedContents", GOOGLE, ("gemini.embed", "embedding", "google")),
    ("POST", "/v1beta/models/g:countTokens", GOOGLE, (None, "other", "google")),
    ("POST", "/v1beta/models/g:batchGenerateContent", GOOGLE, (None, "unknown", "google")),
    ("POST", "/model/m%3A0/converse", AWS, ("bedrock.converse", "chat", "bedrock")),
    ("POST", "/model/m/converse-stream", "h", ("bedrock.converse", "chat", "bedrock")),
    ("POST", "/model/arn%3Aaws%3Abedrock%3Ar%3A1%3Ainference-profile%2Fm/invoke", AWS, (INVOKE, "chat", "bedrock")),
    ("POST", "/model/m/invoke-with-response-stream", AWS, (INVOKE, "chat", "bedrock")),
    ("POST", "/model/amazon.titan-embed-text-v2%3A0/invoke", AWS, (INVOKE, "embedding", "bedrock")),
    ("POST", "/model/stability.sd3-large-v1:0/invoke", AWS, (None, "unknown", "bedrock")),
    ("POST", "/model/m/count-tokens", AWS, (None, "other", "bedrock")),
    ("POST", "/v1/complete", "api.anthropic.com", ("anthropic.complete", "completion", "anthropic")),
    ("POST", "/generate", "10.0.0.1", ("huggingface.text", "completion", "huggingface")),
    ("POST", "/tools/mcp", "h", ("mcp", "tool_call", "mcp")),
    ("GET", "/mcp", "h", (None, "other", "")),
    ("POST", "/guardrail/g/version/1/apply", AWS, (None, "other", "bedrock")),
    ("POST", f"{CLAUDE}claude-sonnet-4-5@20250929:rawPredict", VERTEX, (MESSAGES, "chat", "google")),
    ("POST", f"{CLAUDE}claude-haiku-4-5:streamRawPredict", "gateway", (MESSAGES, "chat", "google")),
    ("POST", f"{CLAUDE}count-tokens:rawPredict", VERTEX, (None, "other", "google")),
    ("POST", f"{CLAUDE}count-tokens@20250101:rawPredict", VERTEX, (None, "other", "google")),
    ("POST", "/v1/projects/p/locations/l/publishers/m/models/x:rawPredict", VERTEX, (None, "unknown", "google")),
    ("POST", "/v1/projects/p/x:predict", "us-central1-aiplatform.googleapis.com", (None, "unknown", "google")),
    ("POST", "/", "x.endpoints.huggingface.cloud", (None, "unknown", "")),
    ("PUT", "/v1/chat/completions", "h", (None, "unknown", "")),
    ("POST", "", "", (None, "unknown", "")),
    # no model calls
    ("GET", "/v1/chat/completions", "api.openai.com", (None, "other", "openai")),
    ("GET", "/v1/models", "api.openai.com", (None, "other", "openai")),
    ("POST", "/v1/files", "api.openai.com", (None, "other", "openai")),
    ("POST", "/v1/assistants", "api.openai.com", (None, "other", "openai")),
    ("POST", "/v1/threads", "api.openai.com", (None, "other", "openai")),
    ("POST", "/v1/threads/t/messages", "api.openai.com", (None, "other", "openai")),
    ("GET", "/v1/threads/t/runs/r", "api.openai.com", (None, "other", "openai")),
    ("POST", "/openai/files", "x.openai.azure.com", (None, "other", "azure")),
    ("POST", "/v1/messages/count_tokens", "api.anthropic.com", (None, "other", "anthropic")),
    ("POST", "/v1/responses/r/cancel", "api.openai.com", (None, "other", "openai")),
    ("POST", "/v1/responses/input_tokens", "api.openai.com", (None, "other", "openai")),
    ("GET", "/v1/responses/r", "api.openai.com", (None, "other", "openai")),
    ("DELETE", "/v1/files/f", "api.openai.com", (None, "other", "openai")),
    ("POST", "/healthz", "h", (None, "other", "")),
]


@pytest.mark.parametrize(("method", "path", "host", "expected"), CALLS)
def test_what_a_call_is(method: str, path: str, host: str, expected: tuple[str | None, str, str]) -> None:
    dialect, operation, provider = registry.choose(method, path, host, {})
    assert (dialect and dialect.name, operation, provider) == expected


def test_the_estimate_is_additive() -> None:
    for text, tokens in (("", 0), ("abcd", 1), ("abcde", 2), ("éé", 1), ("漢字", 3), ("😀😀", 5)):
        assert estimate_tokens(text) == tokens
        assert sum(map(milli_tokens, text)) == milli_tokens(text)
