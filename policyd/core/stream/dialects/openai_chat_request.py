"""Requests of OpenAI Chat Completions: facts, editable text, edits.

Rule 1: with both max_completion_tokens and max_tokens the fact is the higher: that much may come. A cap lowers both.
Rule 2: a part of an unknown type is kept, and counts as a part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from policyd.core.errors import Malformed
from policyd.core.model.facts import Message, RequestFacts, ToolResult
from policyd.core.stream.dialects import Edit, Path, RequestChange, Segment
from policyd.core.stream.dialects.asking import said, said_below, samplings
from policyd.core.stream.dialects.offers import Offer, openai_tool, openai_tools, removal, side_doors
from policyd.core.stream.dialects.openai_shared import deployment, estimate_input, read_usage_wish
from policyd.core.stream.dialects.parts import with_runs
from policyd.core.stream.dialects.shared import (
    cap_edit,
    count,
    flag,
    listing,
    mapping,
    number,
    set_edits,
    text,
    with_sets,
)
from policyd.core.stream.json_strict import refuse_twins

READ = frozenset(
    {
        "model",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "messages",
        "tools",
        "functions",
        "prompt",
        "n",
        "best_of",
    }
)
LIMITS = ("max_completion_tokens", "max_tokens")
SYSTEM_ROLES = ("system", "developer")
TOOL_ROLES = ("tool", "function")
# These refuse max_tokens; everyone else understands it, also the compatible ones.
_WANTS_COMPLETION_TOKENS = re.compile(r"(?:openai/)?(?:o\d|gpt-(?:[5-9]|\d\d))", re.IGNORECASE)


def read_request(doc: object, facts: RequestFacts) -> None:
    """Fills the body facts. Raises Malformed."""
    document = mapping(doc, "the body")
    refuse_twins(document, READ)
    facts.model = deployment(facts.path) or text(document.get("model"), "model")
    facts.stream = flag(document.get("stream"), "stream")
    limits = [limit for field in LIMITS if (limit := count(document.get(field), field)) is not None]
    facts.max_tokens = max(limits, default=None)
    facts.temperature = number(document.get("temperature"), "temperature")
    facts.choices = samplings(document)
    read_usage_wish(document, facts)
    facts.tools = [one.tool for one in offers(document)]
    _read_messages(document, facts)


def _read_messages(document: dict[str, object], facts: RequestFacts) -> None:
    messages, system, parts, results = [], [], 0, []
    called: dict[str, str] = {}  # the names of the calls so far, by id
    for item in listing(document.get("messages"), "messages"):
        message = mapping(item, "a message")
        role = text(message.get("role"), "the role of a message") or ""
        visible, others = _visible(message.get("content"))
        parts += others
        name = text(message.get("name"), "the name of a message")
        called |= _called(message)
        if role in TOOL_ROLES:
            role, id_ = "tool", text(message.get("tool_call_id"), "tool_call_id") or ""
            results.append(ToolResult(name or called.get(id_, ""), id_, visible))
        messages.append(Message(role, visible, name))
        if role in SYSTEM_ROLES:
            system.append(visible)
    if "messages" not in document and (prompt := text(document.get("prompt"), "prompt")):
        messages = [Message("user", prompt)]
    facts.messages, facts.tool_results = messages, results
    facts.system = "\n".join(system) if system else None
    said = segments(document)
    texts = [one.text for one in said]
    facts.text = with_runs(texts, said)
    tools = [document.get("tools"), document.get("functions"), document.get("response_format")]
    estimate_input(facts, texts, len(messages), parts, [tool for tool in tools if tool])


def _called(message: dict[str, object]) -> dict[str, str]:
    """The tools that a message of the assistant calls, by the ids of the calls."""
    found = {}
    for item in listing(message.get("tool_calls"), "tool_calls"):
        call = mapping(item, "a tool call")
        if isinstance(id_ := call.get("id"), str):
            found[id_] = openai_tool(call, ()).tool.name
    return found


def _visible(content: object) -> tuple[str, int]:
    """The text of a content, its parts joined with newlines, and how many parts are no text."""
    if content is None or isinstance(content, str):
        return content or "", 0
    parts = listing(content, "the content of a message")
    texts = [said for part in parts if (said := _part_text(part)) is not None]
    return "\n".join(texts), len(parts) - len(texts)


def _part_text(part: object) -> str | None:
    if isinstance(part, str):
        return part
    item = mapping(part, "a part of a message")
    for field in ("text", "refusal"):
        if field in item:
            return text(item[field], field)
    return said(item) or None


def offers(document: dict[str, object]) -> list[Offer]:
    """The ways to tools."""
    return [*openai_tools(document, "tools", "functions"), *side_doors(document)]


# ---- editable text ----------------------------------------------------------------------------------------------


def segments(document: dict[str, object]) -> list[Segment]:
    """Every text of the request; the channel's first number is the message, its second the part."""
    found: list[Segment] = []
    for index, item in enumerate(listing(document.get("messages"), "messages")):
        message = mapping(item, "a message")
        where: Path = ("messages", index)
        found += _content_segments(index, (*where, "content"), message.get("content"))
        for field in ("refusal", "reasoning_content", "reasoning", "reasoning_details"):
            found += _below(field, index, (*where, field), message.get(field))
        found += _call_segments(index, where, message)
    for field in ("prompt", "suffix"):  # Mistral's: no messages, but what stands before and after
        found += _plain("text", len(found), (field,), document.get(field))
    for field in ("documents", "chat_template"):  # vLLM's
        found += _below("text", len(found), (field,), document.get(field))
    prediction = document.get("prediction")
    if isinstance(prediction, dict):
        found += _content_segments(len(found), ("prediction", "content"), prediction.get("content"))
    return found


def _plain(kind: str, index: int, path: Path, value: object, part: int = 0) -> list[Segment]:
    return [Segment((kind, index, part), path, value)] if isinstance(value, str) and value else []


def _below(kind: str, index: int, path: Path, value: object) -> list[Segment]:
    return [Segment((kind, index, place), *one) for place, one in enumerate(said_below(path, value))]


def _content_segments(index: int, path: Path, content: object) -> Iterator[Segment]:
    if isinstance(content, str):
        yield from _plain("text", index, path, content)
        return
    for place, part in enumerate(content if isinstance(content, list) else []):
        if isinstance(part, str):
            yield from _plain("text", index, (*path, place), part, place)
            continue
        known = [field for field in ("text", "refusal") if isinstance(part, dict) and field in part]
        for field in known:
            yield from _plain("text", index, (*path, place, field), part[field], place)
        if not known:
            yield from (Segment(("text", index, place), *one) for one in said_below((*path, place), part))


def _call_segments(index: int, where: Path, message: dict[str, object]) -> Iterator[Segment]:
    for place, item in enumerate(listing(message.get("tool_calls"), "tool_calls")):
        call = mapping(item, "a tool call")
        for kind, field in (("function", "arguments"), ("custom", "input")):
            if isinstance(said := call.get(kind), dict):
                yield from _plain("args", index, (*where, "tool_calls", place, kind, field), said.get(field), place)
    if isinstance(legacy := message.get("function_call"), dict):
        yield from _plain("args", index, (*where, "function_call", "arguments"), legacy.get("arguments"), -1)


# ---- edits --------------------------------------------------------------------------------------------------------


def edits(doc: object, change: RequestChange) -> list[Edit]:
    """The change in this dialect's fields."""
    document = mapping(doc, "the body")
    out = set_edits(document, change.sets)
    document = with_sets(document, change.sets)
    if change.model:
        out.append(Edit(("model",), change.model))
        document["model"] = change.model
    for field, cap in change.caps:
        out += _cap(document, field, cap)
    out += _tool_edits(document, change)
    out += _inject(document, change.inject_system)
    if change.include_usage and document.get("stream") is True:
        out.append(Edit(("stream_options", "include_usage"), True))
    return out


def _cap(document: dict[str, object], field: str, cap: int) -> list[Edit]:
    if field not in LIMITS:
        return cap_edit(document, field, cap)
    present = [name for name in LIMITS if document.get(name) is not None]
    if not present:
        model = document.get("model")
        newer = isinstance(model, str) and _WANTS_COMPLETION_TOKENS.match(model)
        present = ["max_completion_tokens" if newer else "max_tokens"]
    return [edit for name in present for edit in cap_edit(document, name, cap)]


def _tool_edits(document: dict[str, object], change: RequestChange) -> list[Edit]:
    took = removal(document, offers(document), change)
    out = list(took.edits)
    for field, choice in (("tools", "tool_choice"), ("functions", "function_call")):
        if (field,) in took.emptied or _chosen(document.get(choice)) & took.gone:
            out.append(Edit((choice,), remove=True))
    if took.gone and not took.left("tools", "functions"):
        # OpenAI refuses it without tools.
        out.append(Edit(("parallel_tool_calls",), remove=True))
    return out


def _chosen(choice: object) -> set[str]:
    """The names that a tool_choice insists on."""
    if not isinstance(choice, dict):
        return set()
    allowed = choice.get("allowed_tools")
    tools = listing(allowed.get("tools"), "allowed_tools") if isinstance(allowed, dict) else [choice]
    return {name for tool in tools for name in openai_tool(tool, ()).identity.names}


def _inject(document: dict[str, object], injected: Sequence[str]) -> list[Edit]:
    """After the system messages that lead, in their own role: both roles in one request are refused."""
    if not injected:
        return []
    if "messages" not in document:
        raise Malformed("there are no messages to put a system prompt before")
    at, role = 0, "system"
    for item in listing(document.get("messages"), "messages"):
        said = item.get("role") if isinstance(item, dict) else None
        if said not in SYSTEM_ROLES:
            break
        at, role = at + 1, str(said)
    return [
        Edit(("messages", at + place), {"role": role, "content": words}, insert=True)
        for place, words in enumerate(injected)
    ]
