"""Requests of OpenAI Responses: facts, editable text, edits.

Rule 1: the instructions are the system prompt, with the system and developer messages of the input.
Rule 2: what tools gave back is a message of role "tool"; what a model thought goes back as it came.
Rule 3: a namespace is no tool: it goes with the last tool in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from policyd.core.model.facts import Message, RequestFacts, ToolResult
from policyd.core.stream.dialects import Edit, Path, RequestChange, Segment
from policyd.core.stream.dialects.asking import said, said_below
from policyd.core.stream.dialects.offers import Offer, openai_tool, removal, side_doors
from policyd.core.stream.dialects.openai_responses_items import known_part, said_in
from policyd.core.stream.dialects.openai_shared import deployment, estimate_input
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

READ = frozenset({"model", "stream", "max_output_tokens", "temperature", "instructions", "input", "tools"})
LIMITS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
SYSTEM_ROLES = ("system", "developer")
# Calls of hosted tools, and the fields in which they carry what came back.
RESULTS = {
    "mcp_call": frozenset({"output", "error"}),
    "mcp_list_tools": frozenset({"tools"}),
    "file_search_call": frozenset({"results"}),
    "web_search_call": frozenset({"results"}),
    "code_interpreter_call": frozenset({"outputs"}),
}
_TEXTLESS = frozenset({"input_image", "input_file", "input_audio"})


def read_request(doc: object, facts: RequestFacts) -> None:
    """Fills the body facts. Raises Malformed."""
    document = mapping(doc, "the body")
    refuse_twins(document, READ)
    facts.model = deployment(facts.path) or text(document.get("model"), "model")
    facts.stream = flag(document.get("stream"), "stream")
    facts.max_tokens = count(document.get("max_output_tokens"), "max_output_tokens")
    facts.temperature = number(document.get("temperature"), "temperature")
    facts.choices = 1
    facts.wants_usage = True
    facts.tools = [one.tool for one in offers(document)]
    _read_input(document, facts)


def _read_input(document: dict[str, object], facts: RequestFacts) -> None:
    instructions = text(document.get("instructions"), "instructions")
    system = [instructions] if instructions is not None else []
    facts.messages, facts.tool_results, parts = [], [], 0
    called: dict[str, str] = {}  # the names of the calls so far, by id
    for item in _items(document.get("input")):
        content = item.get("content")
        parts += sum(_textless(part) for part in content) if isinstance(content, list) else 0
        if isinstance(id_ := item.get("call_id"), str) and isinstance(name := item.get("name"), str):
            called[id_] = name
        if (result := _result(item, called)) is not None:
            facts.tool_results.append(result)
            facts.messages.append(Message("tool", result.text, result.name or None))
        elif (message := _message(item)) is not None:
            facts.messages.append(message)
            if message.role in SYSTEM_ROLES:
                system.append(message.text)
    facts.system = "\n".join(system) if system else None
    said = segments(document)
    texts = [one.text for one in said]
    facts.text = with_runs(texts, said)
    tools = [document.get("tools"), document.get("text")]
    estimate_input(facts, texts, len(facts.messages), parts, [tool for tool in tools if tool])


def _items(given: object) -> list[dict[str, object]]:
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return [mapping(item, "an item of the input") for item in listing(given, "input")]


def _result(item: dict[str, object], called: dict[str, str]) -> ToolResult | None:
    """What a tool gave back: an output of the caller's, or what a hosted tool's call brought; None for other items."""
    kind = text(item.get("type"), "the type of an item") or ""
    if not kind.endswith("_output") and not item.keys() & RESULTS.get(kind, frozenset()):
        return None
    id_ = text(item.get("call_id"), "call_id") or text(item.get("id"), "id") or ""
    name = text(item.get("name"), "name") or called.get(id_) or kind.removesuffix("_output").removesuffix("_call")
    words = [said(item.get(field)) for field in ("output", "outputs", "results", "error", "tools") if field in item]
    failed = bool(item.get("error")) or item.get("status") == "failed"
    return ToolResult(name, id_, "\n".join(filter(None, words)), failed)


def _message(item: dict[str, object]) -> Message | None:
    """What an item of the input says; None for a call, for what a model thought, for a reference."""
    kind = text(item.get("type"), "the type of an item") or "message"
    if kind == "message":
        role = text(item.get("role"), "the role of a message") or ""
        return Message(role, "\n".join(words for _, words in _item_texts({**item, "type": kind})))
    if kind == "compaction" and (words := said(item)):
        return Message("user", words)
    return None


def _textless(part: object) -> bool:
    return isinstance(part, dict) and isinstance(kind := part.get("type"), str) and kind in _TEXTLESS


# ---- editable text ----------------------------------------------------------------------------------------------


def segments(document: dict[str, object]) -> list[Segment]:
    """Every text of the request; each a channel of its own."""
    return [Segment(("text", place, 0), *one) for place, one in enumerate(_texts(document))]


def _texts(document: dict[str, object]) -> Iterator[tuple[Path, str]]:
    for field in ("instructions", "input"):
        if isinstance(words := document.get(field), str) and words:
            yield (field,), words
    if isinstance(given := document.get("input"), list):
        for place, item in enumerate(given):
            for path, words in _item_texts(mapping(item, "an item of the input")):
                yield ("input", place, *path), words
    prompt = document.get("prompt")
    if isinstance(prompt, dict):
        yield from said_below(("prompt", "variables"), prompt.get("variables"))


def _item_texts(item: dict[str, object]) -> Iterator[tuple[Path, str]]:
    """The texts of an item, those of parts that nobody knows included."""
    for one in said_in(item):
        if one.text:
            yield one.path, one.text
    if item.get("type") == "mcp_list_tools":  # a server's words, not the caller's
        yield from said_below(("tools",), item.get("tools"))
    content = item.get("content")
    if (item.get("type") or ("message" if "role" in item else None)) == "message" and isinstance(content, list):
        for place, part in enumerate(content):
            if isinstance(part, dict) and not known_part(part):
                yield from said_below(("content", place), part)


# ---- tools --------------------------------------------------------------------------------------------------------


def toolboxes(document: dict[str, object]) -> Iterator[tuple[Path, list[object]]]:
    """Every list of tools in a request, and where it stands: an item of the input may bring some."""
    yield ("tools",), listing(document.get("tools"), "tools")
    given = document.get("input")
    for place, item in enumerate(given if isinstance(given, list) else []):
        if isinstance(item, dict) and item.get("type") in ("additional_tools", "tool_search_output"):
            yield ("input", place, "tools"), listing(item.get("tools"), "tools")


def offers(document: dict[str, object]) -> list[Offer]:
    """The ways to tools."""
    found: list[Offer] = []
    for path, tools in toolboxes(document):
        for place, tool in enumerate(tools):
            found += _offered(mapping(tool, "a tool"), (*path, place))
    return [*found, *side_doors(document)]


def _offered(tool: dict[str, object], path: Path) -> Iterator[Offer]:
    if tool.get("type") != "namespace":
        yield openai_tool(tool, path)
        return
    name = text(tool.get("name"), "the name of a namespace") or ""
    for place, inner in enumerate(listing(tool.get("tools"), "tools")):
        one = openai_tool(inner, (*path, "tools", place), holder=path)
        aliases = (*one.identity.aliases, name, f"{name}.{one.tool.name}")
        yield replace(one, identity=replace(one.identity, aliases=aliases))


def _tool_edits(document: dict[str, object], change: RequestChange) -> list[Edit]:
    took = removal(document, offers(document), change, keep="input")
    left = took.left("tools", "input")
    out = list(took.edits)
    if took.gone and (not left or _chosen(document.get("tool_choice")) & took.gone):
        out.append(Edit(("tool_choice",), remove=True))
    if took.gone and not left:
        out.append(Edit(("parallel_tool_calls",), remove=True))
    return out


def _chosen(choice: object) -> set[str]:
    """The names that a tool_choice insists on."""
    if not isinstance(choice, dict):
        return set()
    listed = choice.get("type") == "allowed_tools"
    tools = listing(choice.get("tools"), "allowed_tools") if listed else [choice]
    return {name for tool in tools for name in openai_tool(tool, ()).identity.names}


# ---- edits --------------------------------------------------------------------------------------------------------


def edits(doc: object, change: RequestChange) -> list[Edit]:
    """The change in this dialect's fields."""
    document = mapping(doc, "the body")
    out = set_edits(document, change.sets)
    document = with_sets(document, change.sets)
    if change.model:
        out.append(Edit(("model",), change.model))
    for field, cap in change.caps:
        out += cap_edit(document, "max_output_tokens" if field in LIMITS else field, cap)
    out += _tool_edits(document, change)
    return out + _inject(document.get("instructions"), change.inject_system)


def _inject(instructions: object, injected: Sequence[str]) -> list[Edit]:
    """After the caller's own instructions."""
    if not injected:
        return []
    before = [instructions] if isinstance(instructions, str) and instructions else []
    return [Edit(("instructions",), "\n\n".join([*before, *injected]))]
