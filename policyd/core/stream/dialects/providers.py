"""Which provider and which region a host belongs to, and which provider serves a call.

Rule 1: the deployment decides. The caller's Host header counts only where no upstream is known.
"""

from __future__ import annotations

import re
from functools import lru_cache

from policyd.core.model.deployment import Deployment

_PROVIDERS = (
    (".openai.azure.com", "azure"),
    (".openai.azure.us", "azure"),
    (".inference.ai.azure.com", "azure"),
    (".models.ai.azure.com", "azure"),
    (".cognitiveservices.azure.com", "azure"),
    (".services.ai.azure.com", "azure"),
    (".api.cognitive.microsoft.com", "azure"),
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
PROVIDERS = frozenset({provider for _, provider in _PROVIDERS}) | {"bedrock", "ollama", "huggingface"}
_BEDROCK = re.compile(r"(?:^|\.)bedrock-runtime[.-][a-z0-9.-]+$")
_REGIONS = (
    re.compile(r"(?:^|\.)bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\."),
    re.compile(r"^([a-z0-9-]+)-aiplatform\.googleapis\.com$"),
    re.compile(r"^aiplatform\.([a-z0-9-]+)\.rep\.googleapis\.com$"),
    re.compile(r"^([a-z0-9]+)\.api\.cognitive\.microsoft\.com$"),
    re.compile(r"\.([a-z0-9]+)\.(?:inference|models)\.ai\.azure\.com$"),
    re.compile(r"^([a-z]{2})\.api\.openai\.com$"),
    re.compile(r"^dashscope-(intl|us)\.aliyuncs\.com$"),
)
_GUESSED = frozenset({"", "openai"})  # what a path says of a call that any OpenAI-compatible provider can serve


@lru_cache(maxsize=1024)
def provider_of(host: str) -> str:
    """The provider that serves at this host; empty when the host does not tell."""
    name = bare_host(host)
    for known, provider in _PROVIDERS:
        if name == known.removeprefix(".") or name.endswith(known if known[0] == "." else f".{known}"):
            return provider
    if name.endswith("-aiplatform.googleapis.com") or _REGIONS[2].search(name):
        return "google"
    return "bedrock" if name.endswith(".amazonaws.com") and _BEDROCK.search(name) else ""


def region_of(host: str) -> str:
    """The region that a provider's host names; empty when it names none."""
    name = bare_host(host)
    if not provider_of(name):
        return ""
    found = (pattern.search(name) for pattern in _REGIONS)
    return next((match[1] for match in found if match), "")


@lru_cache(maxsize=1024)
def provider_of_upstream(name: str) -> str:
    """The provider that an upstream's name means: a provider's own name, or a host as service meshes name clusters."""
    last = name.lower().rpartition("|")[2]
    return last if last in PROVIDERS else provider_of(last)


def bare_host(host: str) -> str:
    """A host without user, port and final dot, in lower case."""
    name = host.lower().rpartition("@")[2]
    if not name.startswith("["):
        name = name.partition(":")[0]
    return name.rstrip(".")


def provider_for(deployment: Deployment, host: str, own: str) -> str:
    """The provider of a call. `host`: the caller's Host header; `own`: what the path says."""
    if declared := deployment.provider or provider_of(deployment.host):
        return declared
    named = provider_of_upstream(deployment.upstream)
    if deployment.host or named:  # the upstream is known: Host decides nothing
        return (named or own) if own in _GUESSED else own
    return provider_of(host) or own


def place_of(deployment: Deployment, host: str) -> tuple[str, str]:
    """(host, region) of a call."""
    known = deployment.host or ("" if provider_of_upstream(deployment.upstream) else host)
    return bare_host(known), deployment.region or region_of(known)
