"""Requests of Cohere: facts, editable text, edits.

Rule 1: `message` in a body is the first version of chat, `messages` the second.
"""

from __future__ import annotations

from collections.abc import Iterator

from policyd.core.model.facts import Message, RequestFacts, ToolResult
from policyd.core.stream.dialects import Edit, Path, RequestChange, Segment
from policyd.core.stream.dialects.answer import strings
from policyd.core.stream.dialects.asking import Fields, Texts, at, fill, plain_edits, said_below
from policyd.core.stream.dialects.offers import Offer, openai_tools, side_doors, without_tools
from policyd.core.stream.dialects.shared import count, flag, listing, mapping, number, text
from policyd.core.stream.json_strict import refuse_twins

READ = frozenset(
    {"model", "stream", "message", "messages", "preamble", "chat_history", "prompt", "texts", "tools", "max_tokens"}
)
FIELDS = Fields(limit=("max_tokens",))


def begin(doc: object, facts: RequestFacts) -> dict[str, object]:
    """The facts that every door has."""
    document = mapping(doc, "the body")
    refuse_twins(document, READ)
    facts.model = text(document.get("model"), "model")
    facts.stream = flag(document.get("stream"), "stream")
    facts.max_tokens = count(document.get("max_tokens"), "max_tokens")
    facts.temperature = number(document.get("temperature"), "temperature")
    facts.wants_usage = True
    return document


def read_chat(doc: object, facts: RequestFacts) -> None:
    """Fills the body facts. Raises Malformed."""
    document = begin(doc, facts)
    facts.tools = [one.tool for one in offers(document)]
    results, given = list(_documents(document)), list(_given(document))
    messages = [_told(one) for one in results]
    messages += _first(document, results) if "message" in document else _second(document, results)
    messages += [_told(one) for one in given]
    results += given
    system = [message.text for message in messages if message.role == "system"]
    preamble = text(document.get("preamble"), "preamble")
    parts = sum(_others(message) for message in listing(document.get("messages"), "messages"))
    system = [*([preamble] if preamble else []), *system]
    fill(facts, messages, system, chat_segments(document), parts, document.get("tools"), results)


def offers(document: dict[str, object]) -> list[Offer]:
    """The ways to tools: functions, and the connectors of the first version."""
    return [*openai_tools(document, "tools"), *side_doors(document)]


def chat_segments(doc: object) -> list[Segment]:
    """Every editable text of a request."""
    document, texts = mapping(doc, "the body"), Texts()
    for field in ("preamble", "message"):
        texts.add((field,), document.get(field))
    for field in ("chat_history", "messages"):
        for index, item in enumerate(listing(document.get(field), field)):
            _message_texts(texts, (field, index), mapping(item, "a message"))
    for field in ("documents", "tool_results"):
        texts.add_all(strings((field,), document.get(field)))
    return texts.found


def chat_edits(doc: object, change: RequestChange) -> list[Edit]:
    """The change in this dialect's fields."""
    out, document = plain_edits(doc, change, FIELDS)
    out += without_tools(document, offers(document), change, choice="tool_choice")
    if change.inject_system and "message" in document:
        before = document.get("preamble")
        said = [before] if isinstance(before, str) and before else []
        out.append(Edit(("preamble",), "\n\n".join([*said, *change.inject_system])))
        return out
    lead = 0
    for item in listing(document.get("messages"), "messages"):
        if not isinstance(item, dict) or item.get("role") not in ("system", "developer"):
            break
        lead += 1
    for place, words in enumerate(change.inject_system):
        out.append(Edit(("messages", lead + place), {"role": "system", "content": words}, insert=True))
    return out


def _told(result: ToolResult) -> Message:
    return Message("tool", result.text, result.name or None)


def _given(holder: dict[str, object]) -> Iterator[ToolResult]:
    """The tool results of the first version, at the top or in a message."""
    for item in listing(holder.get("tool_results"), "tool_results"):
        result = mapping(item, "a tool result")
        name = at(result, ("call", "name"))
        words = [words for _, words in strings((), result.get("outputs"))]
        yield ToolResult(name if isinstance(name, str) else "", "", "\n".join(words))


def _documents(document: dict[str, object]) -> Iterator[ToolResult]:
    """What a search of the caller's has brought."""
    for item in listing(document.get("documents"), "documents"):
        id_ = item.get("id") if isinstance(item, dict) else None
        words = [words for path, words in strings((), item) if path != ("id",)]
        yield ToolResult("documents", id_ if isinstance(id_, str) else "", "\n".join(words))


def _first(document: dict[str, object], results: list[ToolResult]) -> list[Message]:
    """The messages of the first version."""
    messages = []
    for item in listing(document.get("chat_history"), "chat_history"):
        one = mapping(item, "a message")
        role = (text(one.get("role"), "the role of a message") or "").lower()
        found = list(_given(one))
        results += found
        words = text(one.get("message"), "message") or ""
        messages.append(Message(role, "\n".join([*([words] if words else []), *(result.text for result in found)])))
    return [*messages, Message("user", text(document.get("message"), "message") or "")]


def _second(document: dict[str, object], results: list[ToolResult]) -> list[Message]:
    """The messages of the second version."""
    messages = []
    called: dict[str, str] = {}  # the names of the calls so far, by id
    for item in listing(document.get("messages"), "messages"):
        message = mapping(item, "a message")
        role = text(message.get("role"), "the role of a message") or ""
        words = "\n".join(words for _, words in content((), message.get("content")))
        for call in listing(message.get("tool_calls"), "tool_calls"):
            id_, name = at(call, ("id",)), at(call, ("function", "name"))
            if isinstance(id_, str) and isinstance(name, str):
                called[id_] = name
        if role == "tool":
            id_ = text(message.get("tool_call_id"), "tool_call_id") or ""
            results.append(ToolResult(called.get(id_, ""), id_, words))
        messages.append(Message("system" if role == "developer" else role, words))
    return messages


def content(path: Path, value: object) -> Iterator[tuple[Path, str]]:
    """The texts of a content, and where they stand."""
    if isinstance(value, str):
        yield path, value
        return
    for place, item in enumerate(listing(value, "the content of a message")):
        part = mapping(item, "a part of a message")
        if part.get("type") == "document":
            yield from strings((*path, place, "document", "data"), at(part, ("document", "data")))
        elif isinstance(words := part.get("text"), str):
            yield (*path, place, "text"), words
        else:
            yield from said_below((*path, place), part)


def _others(message: object) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    parts = content if isinstance(content, list) else []
    return sum(isinstance(part, dict) and part.get("type") in ("image", "image_url") for part in parts)


def _message_texts(texts: Texts, path: Path, message: dict[str, object]) -> None:
    texts.add((*path, "message"), message.get("message"))
    texts.add((*path, "tool_plan"), message.get("tool_plan"))
    if "content" in message:
        texts.add_all(content((*path, "content"), message["content"]))
    for place, call in enumerate(listing(message.get("tool_calls"), "tool_calls")):
        where = (*path, "tool_calls", place)
        texts.add((*where, "function", "arguments"), at(call, ("function", "arguments")), "args")
        texts.add_all(strings((*where, "parameters"), at(call, ("parameters",))), "args")
    texts.add_all(strings((*path, "tool_results"), message.get("tool_results")))
