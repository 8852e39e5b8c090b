"""The names of providers that `request.provider` reads. A deployment may declare others."""

from __future__ import annotations

PROVIDER_NAMES = (
    "alibaba", "anthropic", "azure", "bedrock", "cerebras", "cohere", "deepseek", "fireworks", "google", "groq",
    "huggingface", "mistral", "moonshot", "ollama", "openai", "openrouter", "perplexity", "together", "xai",
)  # fmt: skip
