"""The structural fields of requests, dialect by dialect: the closed list of what is no content.

Rule 1: a field that is missing here is content, which costs noise; a field that is here by mistake hides text. When in
        doubt, leave it out.
Rule 2: a name that is missing here is content, and so is all below it; the lists of names need not be complete.
docs/structural-fields.md is written from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping

from policyd.core.stream.dialects import fields_openai as openai
from policyd.core.stream.dialects import fields_others as others
from policyd.core.stream.dialects.content import ANYTHING, Structure

REQUESTS: Mapping[str, Structure] = {
    "openai.chat": openai.CHAT,
    "openai.responses": openai.RESPONSES,
    "openai.completions": openai.COMPLETIONS,
    "openai.embeddings": openai.EMBEDDINGS,
    "anthropic.messages": openai.ANTHROPIC,
    "anthropic.complete": openai.ANTHROPIC_COMPLETE,
    "ollama.chat": others.OLLAMA,
    "ollama.generate": others.OLLAMA,
    "ollama.embed": others.OLLAMA,
    "cohere.chat": others.COHERE,
    "cohere.generate": others.COHERE,
    "cohere.embed": others.COHERE,
    "gemini.generate": others.GEMINI,
    "gemini.embed": others.GEMINI,
    "bedrock.converse": others.CONVERSE,
    "bedrock.invoke": others.INVOKE,
    "huggingface.text": others.HUGGINGFACE,
    "mcp": others.MCP,
}
"""By the name of the dialect."""


def request_structure(dialect: str) -> Structure:
    """The structural fields of a dialect's requests; of an unknown dialect, none."""
    return REQUESTS.get(dialect, ANYTHING)
