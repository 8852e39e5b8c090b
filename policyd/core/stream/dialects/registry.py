"""Which dialect a call speaks, what it is about, and which provider serves it.

Rule 1: `other` is only what carries no content in either direction. What is not known is `unknown`: a policy can
        reject it.
Rule 2: the path is judged in its normal form (paths.py). No header but Upgrade, which says that the call becomes
        something else, has a part in the choice.
Rule 3: the deployment decides the provider and which dialects a route permits.
"""

from __future__ import annotations

from collections.abc import Mapping

from policyd.core.model.deployment import UNDECLARED, Deployment
from policyd.core.model.paths import LONGEST, resolve
from policyd.core.stream.dialects import Dialect
from policyd.core.stream.dialects.anthropic import AnthropicMessages
from policyd.core.stream.dialects.anthropic_complete import AnthropicComplete
from policyd.core.stream.dialects.batch_results import BatchResults
from policyd.core.stream.dialects.bedrock import BedrockConverse, BedrockInvoke
from policyd.core.stream.dialects.cohere import CohereChat, CohereEmbed, CohereGenerate
from policyd.core.stream.dialects.endpoints import READING, operation_of
from policyd.core.stream.dialects.gemini import GeminiEmbed, GeminiGenerate
from policyd.core.stream.dialects.generic import GENERIC, UNKNOWN, Stored
from policyd.core.stream.dialects.google_interactions import GoogleInteractions
from policyd.core.stream.dialects.huggingface import HuggingFaceText
from policyd.core.stream.dialects.mcp import Mcp
from policyd.core.stream.dialects.mistral_conversations import MistralConversations
from policyd.core.stream.dialects.ollama import OllamaChat, OllamaEmbed, OllamaGenerate
from policyd.core.stream.dialects.openai_chat import OpenAIChat
from policyd.core.stream.dialects.openai_completions import OpenAICompletions
from policyd.core.stream.dialects.openai_embeddings import OpenAIEmbeddings
from policyd.core.stream.dialects.openai_responses import OpenAIResponses
from policyd.core.stream.dialects.openai_runs import OpenAIRuns
from policyd.core.stream.dialects.providers import provider_for
from policyd.core.stream.dialects.providers import provider_of as provider_of
from policyd.core.stream.dialects.stored import stored_as
from policyd.core.stream.dialects.vertex_predict import VertexPredict

MCP = Mcp()
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
    OpenAIRuns(),
    GoogleInteractions(),
    VertexPredict(),
    MistralConversations(),
    MCP,
)
_STORED: Mapping[str, Dialect] = {dialect.name: Stored(dialect) for dialect in (*DIALECTS, BatchResults())}

OVERRIDES = frozenset(
    {
        "x-http-method-override",
        "x-method-override",
        "x-http-method",
        "x-original-method",
        "x-original-url",
        "x-rewrite-url",
        "x-override-url",
    }
)
"""Headers by which some servers take another method or path than the one that was judged."""
_SAME_PROTOCOL = frozenset({"h2c", "http/2.0", "tls/1.0"})


def choose(
    method: str,
    path: str,
    host: str,
    headers: Mapping[str, str],
    deployment: Deployment = UNDECLARED,
    *,
    body: bool = False,
) -> tuple[Dialect | None, str, str]:
    """(dialect, operation, provider) of a call. `body`: it has one. No dialect for a call without content, and for one
    that nobody knows."""
    resolved = resolve(path).lower()  # Azure does not tell cases apart
    told = {**headers, ":authority": deployment.host} if deployment.host else headers
    for dialect in DIALECTS:
        if operation := dialect.operation(method, resolved, told):
            provider = provider_for(deployment, host, dialect.provider(host, resolved, told))
            if deployment.dialects and dialect.name not in deployment.dialects:
                return None, "unknown", provider
            return dialect, operation, provider
    provider = provider_for(deployment, host, "")
    if method == "POST" and deployment.dialects == (MCP.name,):
        return MCP, "tool_call", provider or MCP.name
    operation = _operation(method, resolved, path.partition("?")[2].lower(), provider, headers, body=body)
    if operation in ("unknown", "other"):
        return None, operation, provider
    if operation == "retrieval" and (name := stored_as(resolved)):
        return _STORED[name], operation, provider
    return GENERIC, operation, provider


def dialect_of(dialect: Dialect | None, operation: str) -> Dialect | None:
    """What reads a call: one that nobody knows is read by its strings."""
    return UNKNOWN if dialect is None and operation == "unknown" else dialect


def _operation(
    method: str, path: str, query: str, provider: str, headers: Mapping[str, str], *, body: bool
) -> str:  # fmt: skip
    if len(path) > LONGEST:
        return "unknown"
    operation = operation_of(method, path, provider)
    if operation == "realtime":
        return operation
    overridden = not OVERRIDES.isdisjoint(headers) or "_method=" in query
    if upgrades(headers) or (method in READING and (body or overridden)):
        return "unknown"
    if operation == "other" and "alt=media" in query:
        return "retrieval"  # Google sends the file itself, not its description
    return "unknown" if operation == "other" and body else operation


def upgrades(headers: Mapping[str, str]) -> bool:
    """Whether the call is to become another protocol, whose messages nobody reads."""
    if headers.get(":method") == "CONNECT":
        return True
    wanted = {one.strip().lower() for one in headers.get("upgrade", "").split(",")} - {""}
    return not wanted <= _SAME_PROTOCOL
