"""Words that a fact never is: `request.provider == "OpenAI"`, a header's name in upper case.

Rule 1: only where policyd itself makes the words, or where HTTP or the dialects fix them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from policyd.core.compile.cel_limits import Finding
from policyd.core.compile.cel_literals import quoted
from policyd.core.compile.cel_tree import Node, Select
from policyd.core.compile.synonyms import VALUES, plainly
from policyd.core.compile.words import listed, nearest
from policyd.core.model.operations import OPERATIONS
from policyd.core.model.providers import PROVIDER_NAMES
from policyd.core.model.tools import KINDS

_PROVIDER_WORDS = {
    "aws": "bedrock", "amazon": "bedrock", "awsbedrock": "bedrock", "amazonbedrock": "bedrock", "gemini": "google",
    "vertex": "google", "vertexai": "google", "googleai": "google", "gcp": "google", "azureopenai": "azure",
    "microsoft": "azure", "claude": "anthropic", "gpt": "openai", "chatgpt": "openai", "hf": "huggingface",
    "grok": "xai", "togetherai": "together", "fireworksai": "fireworks", "dashscope": "alibaba", "qwen": "alibaba",
    "mistralai": "mistral", "llama": "ollama", "xai": "xai",
}  # fmt: skip
_KNOWN_PROVIDERS = frozenset((*PROVIDER_NAMES, "", "unknown"))
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT")
_CLOSED: Mapping[str, Sequence[str]] = {
    "request.operation": OPERATIONS,
    "request.method": _METHODS,
    "response.inspection": ("full", "partial", "none"),
    "response.cost_source": ("provider", "tokenizer", "estimate", "unpriced"),
}
_ROLES = ("system", "user", "assistant", "tool", "developer", "function", "model")
_LOWER = ("request.headers", "response.headers")


def provider_meant(text: str) -> str | None:
    """The provider that another spelling stands for; None where the name is known, or like no other."""
    if text in _KNOWN_PROVIDERS:
        return None
    return _PROVIDER_WORDS.get(plainly(text)) or nearest(text, PROVIDER_NAMES, VALUES)


def never_equal(subject: Node, path: str, text: str, at: int, *, listed_too: bool = False) -> Iterator[Finding]:
    """What a fact is compared with, though it never is it."""
    if path in _CLOSED and text not in _CLOSED[path]:
        near = nearest(text, _CLOSED[path], VALUES)
        hint = f"write {quoted(near)}" if near else f"there are {listed(_CLOSED[path])}"
        yield at, "CEL106", f"`{path}` is never {quoted(text)}", hint
    elif path == "request.provider" and text not in _KNOWN_PROVIDERS:
        near = provider_meant(text)
        if listed_too and not near:
            return  # a list may name models and other things beside providers
        hint = (
            f"write {quoted(near)}" if near else f"known are {listed(PROVIDER_NAMES)}; a deployment may declare others"
        )
        yield at, "CEL106", f"no provider that policyd knows is called {quoted(text)}", hint
    elif path == "request.path" and not text.startswith("/"):
        yield at, "CEL106", f"`{path}` begins with a slash", f"write {quoted('/' + text)}"
    elif path == "caller.key" and text.startswith(("sk-", "Bearer ", "AIza", "gsk_", "xai-")):
        hint = "`policyd key-id` prints the pseudonym of a credential; never write the credential itself into a policy"
        yield at, "CEL106", "`caller.key` is a pseudonym, never the credential itself", hint
    elif isinstance(subject, Select):
        yield from _of_part(subject, text, at)


def _of_part(subject: Select, text: str, at: int) -> Iterator[Finding]:
    part = subject.operand.type.rpartition(".")[2]
    words = {("Message", "role"): _ROLES, ("Tool", "kind"): KINDS, ("ToolCall", "kind"): KINDS}.get(
        (part, subject.field)
    )
    if words and text not in words:
        near = nearest(text, words, VALUES)
        hint = f"write {quoted(near)}" if near else f"there are {listed(words)}"
        if near or part != "Message":
            yield at, "CEL106", f"`{subject.field}` is never {quoted(text)}", hint


def never_key(path: str, key: str, at: int) -> Iterator[Finding]:
    """Header names are read in lower case: another one is never there."""
    if path in _LOWER and key != key.lower():
        label = f"`{path}` holds names in lower case: {quoted(key)} is never there"
        yield at, "CEL106", label, f'write {path}[?{quoted(key.lower())}].orValue("")'
    elif path in _LOWER and "_" in key and key not in ("_",):
        label = f"{quoted(key)} is hardly the name of a header: they have dashes, not `_`"
        yield at, "CEL106", label, f'write {path}[?{quoted(key.replace("_", "-"))}].orValue("")'
