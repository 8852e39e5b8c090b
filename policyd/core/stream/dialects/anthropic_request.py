"""Requests of Anthropic Messages: facts, editable text, edits.

Rule 1: a block of an unknown type is kept, and counts as a part.
Rule 2: thinking is text of the request, but of no message: nobody said it.
Rule 3: an MCP server is one tool: what it offers cannot be seen from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policyd.core.errors import Malformed
from policyd.core.model.facts import Message, RequestFacts, ToolResult
from policyd.core.stream.dialects import Edit, Path, RequestChange, Segment
from policyd.core.stream.dialects.asking import said, said_below
from policyd.core.stream.dialects.offers import Offer, function, hosted, mcp_server, removal, side_doors
from policyd.core.stream.dialects.parts import with_runs
from policyd.core.stream.dialects.shared import (
    cap_edit,
    count,
    flag,
    input_estimate,
    listing,
    mapping,
    number,
    set_edits,
    text,
    with_sets,
)
from policyd.core.stream.json_strict import refuse_twins

READ = frozenset({"model", "stream", "max_tokens", "temperature", "system", "messages", "tools", "mcp_servers"})
_HIDDEN = frozenset({"thinking", "redacted_thinking"})
_UNCOUNTED = _HIDDEN | {"compaction", "tool_use", "server_tool_use", "mcp_tool_use", "tool_result", "search_result"}


def read_request(doc: object, facts: RequestFacts) -> None:
    """Fills the body facts. Raises Malformed."""
    document = mapping(doc, "the body")
    refuse_twins(document, READ)
    facts.model = text(document.get("model"), "model")
    facts.stream = flag(document.get("stream"), "stream")
    facts.max_tokens = count(document.get("max_tokens"), "max_tokens")
    facts.temperature = number(document.get("temperature"), "temperature")
    facts.choices = 1
    facts.wants_usage = True
    facts.tools = [one.tool for one in offers(document)]
    _read_messages(document, facts)


def _read_messages(document: dict[str, object], facts: RequestFacts) -> None:
    system = _texts(document.get("system"), "system") if document.get("system") is not None else None
    messages: list[Message] = []
    results: list[ToolResult] = []
    parts = count_ = 0
    called: dict[str, str] = {}  # the names of the calls so far, by id
    for item in listing(document.get("messages"), "messages"):
        message = mapping(item, "a message")
        role = text(message.get("role"), "the role of a message") or ""
        spoken = _spoken(role, message.get("content"), called, results)
        messages += spoken
        parts += _others(message.get("content"))
        count_ += 1
        if role == "system":
            system = [*(system or []), *(one.text for one in spoken)]
    facts.messages, facts.tool_results = messages, results
    facts.system = "\n".join(system) if system is not None else None
    said = segments(document)
    texts = [one.text for one in said]
    facts.text = with_runs(texts, said)
    facts.input_tokens = input_estimate(texts, count_, parts, document.get("tools"))


def _spoken(role: str, content: object, called: dict[str, str], results: list[ToolResult]) -> list[Message]:
    """What a message says, and as messages of role `tool` the tool results in it, in order."""
    if content is None or isinstance(content, str):
        return [Message(role, content or "")]
    found: list[Message] = []
    for item in listing(content, "the content of a message"):
        block = mapping(item, "a content block")
        if _is_result(block):
            result = _result(block, called)
            results.append(result)
            found.append(Message("tool", result.text, result.name or None))
            continue
        if isinstance(id_ := block.get("id"), str) and isinstance(name := block.get("name"), str):
            called[id_] = name
        texts = _block_texts(block)
        if found and found[-1].role == role:
            found[-1].text = "\n".join([*([found[-1].text] if found[-1].text else []), *texts])
        else:
            found.append(Message(role, "\n".join(texts)))
    return found or [Message(role, "")]


def _is_result(block: dict[str, object]) -> bool:
    return (_kind(block) or "").endswith("tool_result")


def _result(block: dict[str, object], called: dict[str, str]) -> ToolResult:
    id_ = text(block.get("tool_use_id"), "tool_use_id") or ""
    content = block.get("content")
    failed = isinstance(content, dict) and str(content.get("type", "")).endswith("_error")
    name = called.get(id_) or (_kind(block) or "").removesuffix("_result").removesuffix("_tool")
    return ToolResult("" if name == "tool" else name, id_, said(content), failed or block.get("is_error") is True)


def _texts(content: object, what: str) -> list[str]:
    """The visible texts of a content, those within its blocks included."""
    if content is None or isinstance(content, str):
        return [content] if content else []
    return [words for block in listing(content, what) for words in _block_texts(block)]


def _block_texts(block: object) -> list[str]:
    item = mapping(block, "a content block")
    if _kind(item) in _HIDDEN:
        return []
    found = []
    if (words := text(item.get("text"), "text")) is not None:
        found.append(words)
    if isinstance(inner := item.get("content"), str | list):
        found += _texts(inner, "content")
    return found


def _kind(block: dict[str, object]) -> str | None:
    return text(block.get("type"), "the type of a content block")


def _others(content: object) -> int:
    """How many blocks of a content are no text, nested ones included."""
    if not isinstance(content, list):
        return 0
    total = 0
    for item in content:
        block = mapping(item, "a content block")
        total += "text" not in block and _kind(block) not in _UNCOUNTED
        total += _others(block.get("content"))
    return total


def offers(document: dict[str, object], below: Path = ()) -> list[Offer]:
    """The ways to tools: those offered, MCP servers, skills."""
    tools = enumerate(listing(document.get("tools"), "tools"))
    found = [_offered(document, mapping(tool, "a tool"), (*below, "tools", place)) for place, tool in tools]
    return [*found, *side_doors(document, below), *_skills(document, below)]


def _offered(document: dict[str, object], tool: dict[str, object], path: Path) -> Offer:
    type_, name = text(tool.get("type"), "the type of a tool") or "", text(tool.get("name"), "the name of a tool") or ""
    if type_ == "mcp_toolset":
        called = tool.get("mcp_server_name")
        servers = [mapping(one, "an MCP server") for one in listing(document.get("mcp_servers"), "mcp_servers")]
        return mcp_server({**tool, **next((one for one in servers if one.get("name") == called), {})}, path)
    if type_ in ("", "custom"):
        return function(name, path)
    return hosted(type_, path, name, name=name)


def _skills(document: dict[str, object], below: Path) -> Iterator[Offer]:
    container = document.get("container")
    skills = listing(container.get("skills"), "skills") if isinstance(container, dict) else []
    alone = isinstance(container, dict) and container.keys() == {"skills"}
    for place, item in enumerate(skills):
        name = text(mapping(item, "a skill").get("skill_id"), "skill_id") or ""
        holder = (*below, "container") if alone else None
        yield hosted(name, (*below, "container", "skills", place), "skills", holder=holder)


# ---- editable text ----------------------------------------------------------------------------------------------


def segments(document: dict[str, object]) -> list[Segment]:
    """Every text of the request; the channel's first number is the message (-1: the system prompt), its second the
    text's place among all."""
    found: list[Segment] = []
    _add(found, -1, "text", _content(("system",), document.get("system")))
    for index, item in enumerate(listing(document.get("messages"), "messages")):
        content = mapping(item, "a message").get("content")
        where: Path = ("messages", index, "content")
        _add(found, index, "text", _content(where, content))
        _add(found, index, "args", _inputs(where, content))
    return found


def _add(found: list[Segment], message: int, kind: str, texts: Iterator[tuple[Path, str]]) -> None:
    for path, words in texts:
        if words:
            found.append(Segment((kind, message, len(found)), path, words))


def _content(path: Path, content: object) -> Iterator[tuple[Path, str]]:
    if isinstance(content, str):
        yield path, content
    for place, block in enumerate(content if isinstance(content, list) else []):
        if isinstance(block, dict):
            yield from _block((*path, place), block)


def _block(path: Path, block: dict[str, object]) -> Iterator[tuple[Path, str]]:
    if _is_result(block):
        yield from said_below((*path, "content"), block.get("content"))
        return
    for field in ("text", "thinking", "title", "context"):
        if isinstance(words := block.get(field), str):
            yield (*path, field), words
    yield from _content((*path, "content"), block.get("content"))
    source = block.get("source")
    if isinstance(source, dict):
        if source.get("type") == "text" and isinstance(data := source.get("data"), str):
            yield (*path, "source", "data"), data
        yield from _content((*path, "source", "content"), source.get("content"))


def _inputs(path: Path, content: object) -> Iterator[tuple[Path, str]]:
    """The strings within the inputs of tool calls."""
    for place, block in enumerate(content if isinstance(content, list) else []):
        if isinstance(block, dict) and "input" in block:
            yield from _strings((*path, place, "input"), block["input"])


def _strings(path: Path, value: object) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from _strings((*path, key), inner)


# ---- edits --------------------------------------------------------------------------------------------------------


def edits(doc: object, change: RequestChange) -> list[Edit]:
    """The change in this dialect's fields."""
    document = mapping(doc, "the body")
    out = set_edits(document, change.sets)
    document = with_sets(document, change.sets)
    if change.model:
        if "model" not in document and "anthropic_version" in document:  # Vertex
            raise Malformed("the model of this call stands in its path, where no edit of the body can change it")
        out.append(Edit(("model",), change.model))
    for field, cap in change.caps:
        out += cap_edit(document, "max_tokens" if field == "max_completion_tokens" else field, cap)
    out += _tool_edits(document, change)
    out += _inject(document.get("system"), change.inject_system)
    return out


def _tool_edits(document: dict[str, object], change: RequestChange) -> list[Edit]:
    took = removal(document, offers(document), change)
    choice = document.get("tool_choice")
    chosen = choice.get("name") if isinstance(choice, dict) else None
    insists = isinstance(chosen, str) and chosen in took.gone
    if took.gone and (insists or not took.left("tools", "mcp_servers")):
        return [*took.edits, Edit(("tool_choice",), remove=True)]
    return list(took.edits)


def _inject(system: object, injected: Sequence[str]) -> list[Edit]:
    """At the end of the system prompt."""
    if not injected:
        return []
    if isinstance(system, list):
        return [
            Edit(("system", len(system) + place), {"type": "text", "text": words}, insert=True)
            for place, words in enumerate(injected)
        ]
    before = [system] if isinstance(system, str) and system else []
    return [Edit(("system",), "\n\n".join([*before, *injected]))]
