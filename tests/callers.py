"""One caller of every provider of docs/dialects.md, who keeps its credential and changes everything else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass

Pairs = tuple[tuple[str, str], ...]
HOSTS = ("api.groq.com", "x.openai.azure.com", "api.anthropic.com", "generativelanguage.googleapis.com", "localhost")
KEY = "sk-the-callers-own-0123456789"
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
BEARERS = (f"Bearer {KEY}", f"bearer  {KEY}", f"BEARER\t{KEY} ", f"Bearer {KEY}, Bearer {KEY}")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
CONVERSE = {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "t", "arguments": {}}}

Way = Callable[[int], tuple[Pairs, str]]
"""The n-th time: the headers and the query that carry the credential."""


def bearer(n: int) -> tuple[Pairs, str]:
    return (("authorization", BEARERS[n % len(BEARERS)]),), ""


def header(name: str, *, before: bool) -> Way:
    """A key in a header of its own; `before`: the provider reads it before Authorization."""

    def way(n: int) -> tuple[Pairs, str]:
        junk = (("authorization", f"Bearer junk-{n}"),) if before else ()
        return (*junk, (name, f" {KEY}" if n % 2 else KEY)), ""

    return way


def query_key(n: int) -> tuple[Pairs, str]:
    junk = (("authorization", f"Bearer junk-{n}"), ("x-api-key", f"junk-{n}"))
    return junk, f"alt=sse&n={n}&{'%6Bey' if n % 2 else 'key'}={KEY}"


def signed(n: int) -> tuple[Pairs, str]:
    parts = [f"Credential={ACCESS_KEY}/202601{n % 28 + 1:02}/us-east-1/bedrock/aws4_request"]
    parts += ["SignedHeaders=host;x-amz-date", f"Signature={n:064x}"]
    value = f"AWS4-HMAC-SHA256 {', '.join(parts[::-1] if n % 2 else parts)}"
    return (("authorization", value), ("x-amz-date", f"20260101T{n:06}Z"), ("x-amz-security-token", f"t{n}")), ""


def presigned(n: int) -> tuple[Pairs, str]:
    scope = f"{ACCESS_KEY}%2F20260101%2Fus-east-1%2Fbedrock%2Faws4_request"
    return (), f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={scope}&X-Amz-Signature={n:064x}"


def short_term(n: int) -> tuple[Pairs, str]:
    url = f"bedrock.amazonaws.com/?Action=CallWithBearerToken&{presigned(n)[1]}&Version=1"
    return (("authorization", f"Bearer bedrock-api-key-{base64.b64encode(url.encode()).decode()}"),), ""


@dataclass(frozen=True, slots=True)
class Caller:
    """One way to call one provider."""

    name: str
    path: str
    body: object
    way: Way
    junk: tuple[str, ...] = ("x-api-key", "api-key", "x-goog-api-key", "ocp-apim-subscription-key")  # not read there

    def request(self, n: int) -> tuple[Pairs, str, bytes]:
        """(headers, path, body) of the n-th call."""
        own, query = self.way(n)
        named = {name for name, _ in own}
        junk = tuple((name, f"junk-{name}-{n}") for name in self.junk if name not in named)
        who = (
            ("x-tenant-id", f"tenant-{n}"),
            ("x-user-id", f"user-{n}"),
            ("x-team-id", f"team-{n}"),
            ("x-session-id", f"session-{n}"),
            ("user-agent", f"agent/{n}"),
            ("x-forwarded-for", f"10.0.0.{n}"),
            ("cookie", f"c={n}"),
        )
        headers = (*junk, *own, *who) if n % 2 else (*who, *own, *junk)
        mark = "&" if "?" in self.path else "?"
        path = f"{self.path}{mark}{query}" if query else self.path
        return headers, path, json.dumps(self.body).encode()


AZURE = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
VERTEX = "/v1/projects/p/locations/us-east5/publishers"
NO_AZURE = ("x-api-key", "x-goog-api-key")
NO_GOOGLE = ("x-api-key", "api-key", "ocp-apim-subscription-key")
NO_ANTHROPIC = ("api-key", "x-goog-api-key", "ocp-apim-subscription-key")
CALLERS = (
    Caller("openai chat", "/v1/chat/completions", CHAT, bearer),
    Caller("openai responses", "/v1/responses", {"model": "m", "input": "hello"}, bearer),
    Caller("openai completions", "/v1/completions", {"model": "m", "prompt": "hello"}, bearer),
    Caller("openai embeddings", "/v1/embeddings", {"model": "m", "input": "hello"}, bearer),
    Caller("azure key", AZURE, CHAT, header("api-key", before=True), NO_AZURE),
    Caller("azure token", AZURE, CHAT, bearer, NO_AZURE),
    Caller("anthropic key", "/v1/messages", {**CHAT, "max_tokens": 9}, header("x-api-key", before=True), NO_ANTHROPIC),
    Caller("anthropic token", "/v1/messages", {**CHAT, "max_tokens": 9}, bearer, NO_ANTHROPIC),
    Caller(
        "anthropic complete",
        "/v1/complete",
        {"model": "m", "prompt": "hello", "max_tokens_to_sample": 9},
        header("x-api-key", before=True),
        NO_ANTHROPIC,
    ),
    Caller(
        "anthropic on vertex",
        f"{VERTEX}/anthropic/models/claude:rawPredict",
        {"anthropic_version": "vertex-2023-10-16", "messages": CHAT["messages"], "max_tokens": 9},
        bearer,
        NO_GOOGLE,
    ),
    Caller(
        "gemini key",
        "/v1beta/models/g:generateContent",
        GEMINI,
        header("x-goog-api-key", before=True),
        NO_GOOGLE,
    ),
    Caller("gemini query", "/v1beta/models/g:generateContent", GEMINI, query_key, NO_GOOGLE),
    Caller(
        "gemini embed",
        "/v1beta/models/g:embedContent",
        {"content": {"parts": [{"text": "hello"}]}},
        query_key,
        NO_GOOGLE,
    ),
    Caller("gemini on vertex", f"{VERTEX}/google/models/g:generateContent", GEMINI, bearer, NO_GOOGLE),
    Caller("bedrock signature", "/model/m/converse", CONVERSE, signed),
    Caller("bedrock presigned", "/model/m/converse", CONVERSE, presigned),
    Caller("bedrock key", "/model/m/converse", CONVERSE, bearer),
    Caller("bedrock short-term key", "/model/m/converse", CONVERSE, short_term),
    Caller(
        "bedrock invoke",
        "/model/anthropic.claude-3/invoke",
        {"anthropic_version": "bedrock-2023-05-31", "messages": CHAT["messages"], "max_tokens": 9},
        signed,
    ),
    Caller("cohere chat", "/v2/chat", CHAT, bearer),
    Caller("cohere generate", "/v1/generate", {"prompt": "hello"}, bearer),
    Caller("cohere embed", "/v2/embed", {"model": "m", "texts": ["hello"], "input_type": "x"}, bearer),
    Caller("ollama chat", "/api/chat", CHAT, bearer),
    Caller("ollama generate", "/api/generate", {"model": "m", "prompt": "hello"}, bearer),
    Caller("ollama embed", "/api/embed", {"model": "m", "input": "hello"}, bearer),
    Caller("huggingface", "/generate", {"inputs": "hello"}, bearer),
    Caller("mcp", "/mcp", CALL, bearer),
)
