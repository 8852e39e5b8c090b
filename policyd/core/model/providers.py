"""The names of providers that `request.provider` reads. A deployment may declare others."""

from __future__ import annotations

PROVIDER_NAMES = (
    "ai21", "aimlapi", "alibaba", "anthropic", "arcee", "avian", "azure", "baidu", "baseten", "bedrock", "cerebras",
    "chutes", "cloudflare", "cohere", "cursor", "databricks", "deepinfra", "deepseek", "doubleword", "elevenlabs",
    "exa", "featherless", "fireworks", "friendli", "github", "github-copilot", "google", "groq", "heroku",
    "huggingface", "hyperbolic", "inception", "jina", "lambda", "litellm", "meta", "minimax", "mistral", "modal",
    "moonshot", "morph", "nebius", "novita", "nvidia", "ollama", "openai", "openrouter", "ovhcloud", "perplexity",
    "quicksilverpro", "reka", "replicate", "requesty", "sambanova", "scaleway", "siliconflow", "snowflake",
    "stepfun", "tencent", "together", "typesafe", "upstage", "venice", "vercel", "volcengine", "voyageai",
    "watsonx", "writer", "xai", "zai", "zhipuai",
)  # fmt: skip
