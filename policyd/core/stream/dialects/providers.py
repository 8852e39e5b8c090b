"""Which provider and which region a host belongs to, and which provider serves a call.

Rule 1: the deployment decides. The caller's Host header counts only where no upstream is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from policyd.core.model.deployment import Deployment

_HOSTS = {
    "ai21": ("api.ai21.com",),
    "aimlapi": ("api.aimlapi.com",),
    "alibaba": (
        "dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com", ".maas.aliyuncs.com",
    ),
    "anthropic": ("api.anthropic.com",),
    "arcee": ("api.arcee.ai",),
    "avian": ("api.avian.io",),
    "azure": (
        ".openai.azure.com", ".openai.azure.us", ".inference.ai.azure.com", ".models.ai.azure.com",
        ".cognitiveservices.azure.com", ".services.ai.azure.com", ".api.cognitive.microsoft.com",
    ),
    "baidu": ("qianfan.baidubce.com", "aip.baidubce.com"),
    "baseten": ("inference.baseten.co", ".api.baseten.co"),
    "cerebras": ("api.cerebras.ai",),
    "chutes": ("llm.chutes.ai",),
    "cloudflare": ("api.cloudflare.com", "gateway.ai.cloudflare.com"),
    "cohere": ("api.cohere.com", "api.cohere.ai"),
    "cursor": ("api.cursor.com",),
    "databricks": (".cloud.databricks.com", ".azuredatabricks.net", ".gcp.databricks.com"),
    "deepinfra": ("api.deepinfra.com",),
    "deepseek": ("api.deepseek.com",),
    "doubleword": ("api.doubleword.ai",),
    "elevenlabs": ("api.elevenlabs.io",),
    "exa": ("api.exa.ai",),
    "featherless": ("api.featherless.ai",),
    "fireworks": ("api.fireworks.ai",),
    "friendli": ("api.friendli.ai", "inference.friendli.ai"),
    "github": ("models.github.ai", "models.inference.ai.azure.com"),
    "github-copilot": ("githubcopilot.com",),
    "google": ("generativelanguage.googleapis.com", "aiplatform.googleapis.com"),
    "groq": ("api.groq.com",),
    "heroku": ("inference.heroku.com",),
    "huggingface": ("router.huggingface.co", "api-inference.huggingface.co", ".endpoints.huggingface.cloud"),
    "hyperbolic": ("api.hyperbolic.xyz",),
    "inception": ("api.inceptionlabs.ai",),
    "jina": ("api.jina.ai", "deepsearch.jina.ai"),
    "lambda": ("api.lambda.ai", "api.lambdalabs.com"),
    "meta": ("api.meta.ai", "api.llama.com"),
    "minimax": (
        "api.minimax.io", "api.minimaxi.com", "api.minimax.com", "api.minimax.chat", "api.minimaxi.chat",
    ),
    "mistral": ("api.mistral.ai", "codestral.mistral.ai"),
    "modal": (".modal.run", ".modal.direct"),
    "moonshot": ("api.moonshot.ai", "api.moonshot.cn", "api.kimi.com"),
    "morph": ("api.morphllm.com",),
    "nebius": ("api.studio.nebius.ai", "api.studio.nebius.com", "api.tokenfactory.nebius.com"),
    "novita": ("api.novita.ai",),
    "nvidia": ("integrate.api.nvidia.com", "ai.api.nvidia.com"),
    "ollama": ("ollama.com",),
    "openai": ("api.openai.com", "chatgpt.com"),
    "openrouter": ("openrouter.ai",),
    "ovhcloud": (".cloud.ovh.net", ".ai.cloud.ovh.net"),
    "perplexity": ("api.perplexity.ai",),
    "quicksilverpro": ("api.quicksilverpro.io",),
    "reka": ("api.reka.ai",),
    "replicate": ("api.replicate.com",),
    "requesty": ("router.requesty.ai",),
    "sambanova": ("api.sambanova.ai",),
    "scaleway": ("api.scaleway.ai",),
    "siliconflow": ("api.siliconflow.com", "api.siliconflow.cn"),
    "snowflake": (".snowflakecomputing.com",),
    "stepfun": ("api.stepfun.com", "api.stepfun.ai"),
    "tencent": ("api.hunyuan.cloud.tencent.com", "hunyuan.tencentcloudapi.com"),
    "together": ("api.together.xyz", "api.together.ai"),
    "typesafe": ("api.typesafe.ai",),
    "upstage": ("api.upstage.ai",),
    "venice": ("api.venice.ai",),
    "vercel": ("ai-gateway.vercel.sh", "api.v0.dev"),
    "volcengine": (".volces.com", ".bytepluses.com"),
    "voyageai": ("api.voyageai.com",),
    "watsonx": (".ml.cloud.ibm.com",),
    "writer": ("api.writer.com",),
    "xai": ("api.x.ai",),
    "zai": ("api.z.ai",),
    "zhipuai": ("open.bigmodel.cn",),
}  # fmt: skip
"""Providers and their hosts. A name that begins with a point has its customers' hosts below it."""
_BY_HOST = {host: provider for provider, hosts in _HOSTS.items() for host in hosts}
PROVIDERS = frozenset(_HOSTS) | {"bedrock", "litellm"}
_BEDROCK = re.compile(
    r"(?:^|\.)(?:bedrock-runtime[.-][a-z0-9.-]+\.amazonaws\.com(?:\.cn)?|bedrock-mantle\.[a-z0-9-]+\.api\.aws)$"
)
_REGIONS = (
    re.compile(r"(?:^|\.)bedrock-(?:runtime|mantle)(?:-fips)?\.([a-z0-9-]+)\."),
    re.compile(r"^([a-z0-9-]+)-aiplatform\.googleapis\.com$"),
    re.compile(r"^aiplatform\.([a-z0-9-]+)\.rep\.googleapis\.com$"),
    re.compile(r"^([a-z0-9]+)\.api\.cognitive\.microsoft\.com$"),
    re.compile(r"\.([a-z0-9]+)\.(?:inference|models)\.ai\.azure\.com$"),
    re.compile(r"^([a-z]{2})\.api\.openai\.com$"),
    re.compile(r"^dashscope-(intl|us)\.aliyuncs\.com$"),
)
_GUESSED = frozenset({"", "unknown"})  # what a path says of a call that any OpenAI-compatible provider can serve


@lru_cache(maxsize=1024)
def provider_of(host: str) -> str:
    """The provider that serves at this host; empty when the host does not tell."""
    name = bare_host(host)
    labels = name.split(".")
    for start in range(len(labels)):
        host = ".".join(labels[start:])
        if provider := _BY_HOST.get(host) or _BY_HOST.get(f".{host}"):
            return provider
    if name.endswith("-aiplatform.googleapis.com") or _REGIONS[2].search(name):
        return "google"
    return "bedrock" if _BEDROCK.search(name) else ""


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


_SELLER = re.compile(r"^/([a-z0-9-]+)/")
_OWN_PATHS = frozenset({"v1", "models", "hf-inference"})


def seller(provider: str, path: str, headers: Mapping[str, str]) -> str:
    """Whose price list counts: Hugging Face's router sells many providers' models, each at that provider's price. The
    path or the response's header names it."""
    if provider != "huggingface":
        return provider
    named = headers.get("x-inference-provider", "").lower()
    found = _SELLER.match(path)
    name = named or (found[1] if found and found[1] not in _OWN_PATHS else "")
    return f"{provider}_{name}" if name else provider
