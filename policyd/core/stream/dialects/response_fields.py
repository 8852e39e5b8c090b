"""The structural fields of responses, dialect by dialect: the closed list of what is no content.

Rule 1: a field that is missing here is content, which costs noise; a field that is here by mistake hides text. When in
        doubt, leave it out.
Rule 2: a name that is missing here is content, and so is all below it: the response is `partial` where text stands
        there.
"""

from __future__ import annotations

from collections.abc import Mapping

from policyd.core.stream.dialects import response_openai as openai
from policyd.core.stream.dialects import response_others as others
from policyd.core.stream.dialects.content import Structure

RESPONSES: Mapping[str, Structure] = {
    "openai.chat": openai.CHAT_RESPONSE,
    "openai.responses": openai.RESPONSES_RESPONSE,
    "openai.completions": openai.COMPLETIONS_RESPONSE,
    "openai.embeddings": openai.EMBEDDINGS_RESPONSE,
    "anthropic.messages": openai.ANTHROPIC_RESPONSE,
    "anthropic.complete": openai.ANTHROPIC_COMPLETE_RESPONSE,
    "ollama.chat": others.OLLAMA_RESPONSE,
    "ollama.generate": others.OLLAMA_RESPONSE,
    "ollama.embed": others.OLLAMA_RESPONSE,
    "cohere.chat": others.COHERE_RESPONSE,
    "cohere.generate": others.COHERE_RESPONSE,
    "cohere.embed": others.COHERE_RESPONSE,
    "gemini.generate": others.GEMINI_RESPONSE,
    "gemini.embed": others.GEMINI_RESPONSE,
    "bedrock.converse": others.CONVERSE_RESPONSE,
    "bedrock.invoke": others.INVOKE_RESPONSE,
    "huggingface.text": others.HUGGINGFACE_RESPONSE,
    "mcp": others.MCP_RESPONSE,
}
"""By the name of the dialect."""
