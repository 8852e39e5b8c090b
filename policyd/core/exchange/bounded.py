"""The bounds on what a request holds: messages, parts and tools, in every dialect.

Rule 1: lists are counted in the document, before a dialect reads it; what a dialect flattens is counted afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator

from policyd.core.model.bounds import Bounds
from policyd.core.model.facts import RequestFacts

_CONVERSATIONS = ("messages", "contents", "input", "inputs", "chat_history", "requests", "prompt", "instances", "texts")
"""Fields that hold the messages of a request, or the inputs of an embedding, in one dialect or another."""
_WITHIN = ("content", "parts")  # fields of a message that may hold one object with a list in it


def check_lists(document: object, bounds: Bounds) -> None:
    """Raises Malformed where the document has more messages, parts or tools than it may."""
    messages = list(_messages(document))
    bounds.check("messages", len(messages))
    bounds.check("parts", sum(map(_parts, messages)))
    if isinstance(document, dict):
        offers = [each for name in ("tools", "functions") if isinstance(each := document.get(name), list)]
        bounds.check("tools", sum(map(len, offers)))


def check_facts(request: RequestFacts, bounds: Bounds) -> None:
    """Raises Malformed where a dialect has read more messages or tools than there may be."""
    bounds.check("messages", max(len(request.messages), len(request.tool_results)))
    bounds.check("tools", len(request.tools))


def _messages(document: object) -> Iterator[object]:
    if isinstance(document, list):  # of JSON-RPC
        yield from document
    elif isinstance(document, dict):
        for name in _CONVERSATIONS:
            if isinstance(value := document.get(name), list):
                yield from value


def _parts(message: object) -> int:
    """The elements of the lists in a message, and of those in its content."""
    if not isinstance(message, dict):
        return 0
    within = [value for name in _WITHIN if isinstance(value := message.get(name), dict)]
    return sum(len(value) for each in (message, *within) for value in each.values() if isinstance(value, list))
