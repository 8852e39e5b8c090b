"""Which dialect a call speaks, what it is about, and who is meant to answer.

Rule 1: `other` is what is known to be no model call; what is not known is `unknown`: a policy may refuse it.
Rule 2: a path is compared as a server would resolve it: decoded, dot segments gone, doubled slashes and parameters too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from policyd.core.stream.dialects import Dialect
from policyd.core.stream.dialects.anthropic import AnthropicMessages
from policyd.core.stream.dialects.anthropic_complete import AnthropicComplete
from policyd.core.stream.dialects.bedrock import BedrockConverse, BedrockInvoke
from policyd.core.stream.dialects.cohere import CohereChat, CohereEmbed, CohereGenerate
from policyd.core.stream.dialects.gemini import GeminiEmbed, GeminiGenerate
from policyd.core.stream.dialects.huggingface import HuggingFaceText
from policyd.core.stream.dialects.mcp import Mcp
from policyd.core.stream.dialects.ollama import OllamaChat, OllamaEmbed, OllamaGenerate
from policyd.core.stream.dialects.openai_chat import OpenAIChat
from policyd.core.stream.dialects.openai_completions import OpenAICompletions
from policyd.core.stream.dialects.openai_embeddings import OpenAIEmbeddings
from policyd.core.stream.dialects.openai_responses import OpenAIResponses
from policyd.core.stream.dialects.paths import resolve

DIALECTS: tuple[Dialect, ...] = (
    OpenAIChat(),
    OpenAIResponses(),
    OpenAICompletions(),
    OpenAIEmbeddings(),
    AnthropicMessages(),
    AnthropicComplete(),
    OllamaChat(),
    OllamaGenerate(),
    OllamaEmbed(),
    CohereChat(),
    CohereGenerate(),
    CohereEmbed(),
    GeminiGenerate(),
    GeminiEmbed(),
    BedrockConverse(),
    BedrockInvoke(),
    HuggingFaceText(),
    Mcp(),
)

_PROVIDERS = (
    (".openai.azure.com", "azure"),
    (".openai.azure.us", "azure"),
    (".inference.ai.azure.com", "azure"),
    (".models.ai.azure.com", "azure"),
    (".cognitiveservices.azure.com", "azure"),
    (".services.ai.azure.com", "azure"),
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral"),
    ("codestral.mistral.ai", "mistral"),
    ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "xai"),
    ("api.together.xyz", "together"),
    ("api.together.ai", "together"),
    ("api.perplexity.ai", "perplexity"),
    ("api.fireworks.ai", "fireworks"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("openrouter.ai", "openrouter"),
    ("api.cerebras.ai", "cerebras"),
    ("api.moonshot.ai", "moonshot"),
    ("api.moonshot.cn", "moonshot"),
    ("dashscope.aliyuncs.com", "alibaba"),
    ("dashscope-intl.aliyuncs.com", "alibaba"),
    ("dashscope-us.aliyuncs.com", "alibaba"),
    ("generativelanguage.googleapis.com", "google"),
    ("aiplatform.googleapis.com", "google"),
)
_BEDROCK = re.compile(r"(?:^|\.)bedrock-runtime[.-][a-z0-9.-]+$")

# Known to be no model call, whatever the method. A batch is many of them: it is not in here.
_OTHER = re.compile(
    r"^(?:/openai)?(?:/deployments/[^/]+)?(?:/v\d\w*)?/(?:models|files|uploads|assistants|vector_stores|containers"
    r"|fine_tuning|organization|skills|conversations)(?:/[^:]*)?$"
    r"|^(?:/openai)?(?:/v\d\w*)?/threads(?:/(?!runs$)[^/]+(?:/messages(?:/[^/]+)?)?)?$"
    r"|/responses/(?:input_tokens|[^/]+/(?:cancel|input_items))$"
    r"|/messages/count_tokens$|/models/count-tokens(?:@[^:/]*)?:rawpredict$|/(?:tokenize|detokenize)$|:(?:count|compute)tokens$|^/model/.+/count-tokens$"
    r"|^/guardrail/[^/]+/version/[^/]+/apply$"
    r"|^/(?:health|healthz|livez|readyz|ready|ping|metrics)$"
)
# A model's own verbs, and calls behind a path that only looks like one of those.
_CALLS = re.compile(r"/models/.+/\w+$|/(?:completions|embeddings|responses)$|/v\d\w*/messages$")
_READING = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


def choose(method: str, path: str, host: str, headers: Mapping[str, str]) -> tuple[Dialect | None, str, str]:
    """(dialect, operation, provider) of a call; no dialect for one that none here speaks."""
    resolved = resolve(path).lower()  # Azure does not tell cases apart
    provider = provider_of(host)
    for dialect in DIALECTS:
        if operation := dialect.operation(method, resolved, headers):
            return dialect, operation, provider or dialect.provider(host, resolved, headers)
    return None, _operation(method, resolved, provider), provider


def _operation(method: str, path: str, provider: str) -> str:
    if method in _READING:
        return "other"
    if provider == "mistral" and "/conversations" in path:
        return "unknown"  # there they are talks with a model, not places to keep one
    return "other" if _OTHER.search(path) and not _CALLS.search(path) else "unknown"


@lru_cache(maxsize=1024)
def provider_of(host: str) -> str:
    """Who answers at this host; empty when the host does not tell."""
    name = host.lower().rpartition("@")[2]
    if not name.startswith("["):
        name = name.partition(":")[0]
    name = name.rstrip(".")
    for known, provider in _PROVIDERS:
        if name == known.removeprefix(".") or name.endswith(known if known[0] == "." else f".{known}"):
            return provider
    if name.endswith("-aiplatform.googleapis.com"):
        return "google"
    return "bedrock" if name.endswith(".amazonaws.com") and _BEDROCK.search(name) else ""
