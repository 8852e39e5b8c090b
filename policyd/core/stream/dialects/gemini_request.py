"""Requests of Google Gemini: facts, editable text, edits.

Rule 1: a part of an unknown kind is kept, and counts as a part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from policyd.core.errors import Malformed
from policyd.core.model.facts import Message, RequestFacts, ToolResult
from policyd.core.stream.dialects import Edit, Path, RequestChange, Segment
from policyd.core.stream.dialects.answer import strings
from policyd.core.stream.dialects.asking import Fields, Texts, fill, plain_edits, said
from policyd.core.stream.dialects.offers import Offer, function, hosted, mcp_server, removal
from policyd.core.stream.dialects.shared import count, listing, mapping, number, section, text
from policyd.core.stream.json_strict import refuse_twins

READ = frozenset({"contents", "systemInstruction", "generationConfig", "tools", "toolConfig", "content", "requests"})
_SNAKE = re.compile(r"_([a-z])")
# What a part may be beside text, and which of it is no text.
_ARGUMENTS = ("functionCall", "function_call")
_RESULTS = ("functionResponse", "function_response", "executableCode", "executable_code", "codeExecutionResult")
_MEDIA = frozenset({"inlineData", "inline_data", "fileData", "file_data"})


def named(document: dict[str, object], name: str) -> tuple[str, object]:
    """A field in camelCase or snake_case, and the name that it has. Raises Malformed when it is there twice."""
    snake = re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", name)
    if snake != name and snake in document:
        if name in document:
            raise Malformed("a field stands there twice, in camelCase and in snake_case")
        return snake, document[snake]
    return name, document.get(name)


def read_request(doc: object, facts: RequestFacts) -> None:
    """Fills the body facts. Raises Malformed."""
    document = mapping(doc, "the body")
    refuse_twins(document, READ)
    config = section(named(document, "generationConfig")[1], "generationConfig")
    facts.max_tokens = count(named(config, "maxOutputTokens")[1], "maxOutputTokens")
    facts.temperature = number(config.get("temperature"), "temperature")
    facts.choices = max(1, min(count(named(config, "candidateCount")[1], "candidateCount") or 1, 1024))
    facts.wants_usage = True
    facts.tools = [one.tool for one in offers(document)]
    messages: list[Message] = []
    results: list[ToolResult] = []
    parts = 0
    for _, content in _contents(document):
        role = text(content.get("role"), "the role of a content") or "user"
        found = [result for _, part in _parts((), content) if (result := _result(part)) is not None]
        words = [words for _, words in _plain((), content)]
        if words or not found:
            messages.append(Message(role, "\n".join(words)))
        messages += [Message("tool", result.text, result.name or None) for result in found]
        results += found
        parts += _others(content)
    system = [words for _, words in _system(document)]
    fill(facts, messages, system, segments(document), parts, document.get("tools"), results)


def _result(part: dict[str, object]) -> ToolResult | None:
    """What a tool gave back, where a part is that."""
    given = named(part, "functionResponse")[1]
    if isinstance(given, dict):
        response = given.get("response")
        failed = isinstance(response, dict) and bool(response.get("error"))
        words = [*(words for _, words in strings((), response)), said(given.get("parts"))]
        name, id_ = text(given.get("name"), "the name of a function"), text(given.get("id"), "the id of a call")
        return ToolResult(name or "", id_ or "", "\n".join(filter(None, words)), failed)
    given = named(part, "codeExecutionResult")[1]
    if isinstance(given, dict):
        outcome = given.get("outcome") or "OUTCOME_OK"
        return ToolResult("codeExecution", "", said(given.get("output")), outcome != "OUTCOME_OK")
    return None


def _contents(document: dict[str, object]) -> Iterator[tuple[Path, dict[str, object]]]:
    said = document.get("contents")
    if isinstance(said, dict):
        yield ("contents",), said
        return
    for index, item in enumerate(listing(said, "contents")):
        yield ("contents", index), mapping(item, "a content")


def _parts(path: Path, content: dict[str, object]) -> Iterator[tuple[Path, dict[str, object]]]:
    said = content.get("parts")
    if isinstance(said, dict):
        yield (*path, "parts"), said
        return
    for index, item in enumerate(listing(said, "parts")):
        yield (*path, "parts", index), mapping(item, "a part")


def _plain(path: Path, content: dict[str, object], *, thoughts: bool = False) -> Iterator[tuple[Path, str]]:
    """The texts of a content; those that are thoughts too, where asked for."""
    for where, part in _parts(path, content):
        words = text(part.get("text"), "text")
        if words and (thoughts or part.get("thought") is not True):
            yield (*where, "text"), words


def _others(content: dict[str, object]) -> int:
    return sum(bool(part.keys() & _MEDIA) for _, part in _parts((), content))


def _system(document: dict[str, object]) -> Iterator[tuple[Path, str]]:
    name, given = named(document, "systemInstruction")
    if isinstance(given, str):
        yield (name,), given
    elif given is not None:
        yield from _plain((name,), mapping(given, "systemInstruction"), thoughts=True)


def offers(document: dict[str, object]) -> list[Offer]:
    """The ways to tools: each function by its name, one of Google's own by its field."""
    found: list[Offer] = []
    for holder, item in _each(("tools",), document.get("tools")):
        tool = mapping(item, "a tool")
        field, functions = named(tool, "functionDeclarations")
        for where, one in _each((*holder, field), functions):
            name = text(mapping(one, "a function").get("name"), "the name of a function") or ""
            found.append(function(name, where, holder=holder))
        servers, given = named(tool, "mcpServers")
        for where, one in _each((*holder, servers), given):
            server = mapping(one, "an MCP server")
            found.append(replace(mcp_server(server, where), holder=holder))
        for key in (key for key in tool if key not in (field, servers)):
            found.append(hosted(_SNAKE.sub(lambda one: one[1].upper(), key), (*holder, key), key, holder=holder))
    return found


def _each(path: Path, said: object) -> Iterator[tuple[Path, object]]:
    """The elements of a list, which Google also takes as the one element itself. Raises Malformed."""
    if isinstance(said, dict):
        yield path, said
        return
    for place, one in enumerate(listing(said, str(path[-1]))):
        yield (*path, place), one


# ---- editable text ----------------------------------------------------------------------------------------------


def segments(document: dict[str, object]) -> list[Segment]:
    """Every text of the request."""
    texts = Texts()
    texts.add_all(_system(document))
    for path, content in _contents(document):
        _content(texts, path, content)
    return texts.found


def _content(texts: Texts, path: Path, content: dict[str, object]) -> None:
    texts.add_all(_plain(path, content, thoughts=True))
    for where, part in _parts(path, content):
        for field in _ARGUMENTS:
            call = part.get(field)
            args = call.get("args") if isinstance(call, dict) else None
            texts.add_all(strings((*where, field, "args"), args), "args")
        for field in (*_RESULTS, "code_execution_result"):
            said = part.get(field)
            told = (
                {key: value for key, value in said.items() if key not in ("id", "name")}
                if isinstance(said, dict)
                else None
            )
            texts.add_all(strings((*where, field), told))


# ---- edits --------------------------------------------------------------------------------------------------------


def plain(doc: object, change: RequestChange) -> list[Edit]:
    """The change of a request for vectors: sets."""
    return plain_edits(doc, change, Fields(limit=None, model=None, system=False))[0]


def _fielded(doc: object, change: RequestChange) -> tuple[list[Edit], dict[str, object]]:
    document = mapping(doc, "the body")
    config, said = named(document, "generationConfig")
    limit = named(mapping(said or {}, config), "maxOutputTokens")[0]
    return plain_edits(doc, change, Fields(limit=(config, limit), temperature=(config, "temperature"), model=None))


def edits(doc: object, change: RequestChange) -> list[Edit]:
    """The change in this dialect's fields."""
    out, document = _fielded(doc, change)
    out += _tool_edits(document, change)
    if change.inject_system:
        out += _inject(document, change.inject_system)
    return out


def _tool_edits(document: dict[str, object], change: RequestChange) -> list[Edit]:
    took = removal(document, offers(document), change)
    if took.gone and (not took.stay or _insists(document)):
        return [*took.edits, Edit((named(document, "toolConfig")[0],), remove=True)]
    return list(took.edits)


def _insists(document: dict[str, object]) -> bool:
    """Whether the request insists on certain functions: one of them may be gone."""
    config = named(document, "toolConfig")[1]
    calling = named(config, "functionCallingConfig")[1] if isinstance(config, dict) else None
    return isinstance(calling, dict) and bool(named(calling, "allowedFunctionNames")[1])


def _inject(document: dict[str, object], injected: tuple[str, ...]) -> list[Edit]:
    name, said = named(document, "systemInstruction")
    if isinstance(said, str):
        return [Edit((name,), "\n\n".join([said, *injected]))]
    parts = said.get("parts") if isinstance(said, dict) else None
    if isinstance(parts, list):
        return [
            Edit((name, "parts", len(parts) + place), {"text": words}, insert=True)
            for place, words in enumerate(injected)
        ]
    before = [parts] if isinstance(parts, dict) else []
    return [Edit((name,), {"parts": [*before, *({"text": words} for words in injected)]})]


# ---- embeddings -----------------------------------------------------------------------------------------------------


def read_embedding(doc: object, facts: RequestFacts) -> None:
    """Fills the body facts. Raises Malformed."""
    document = mapping(doc, "the body")
    refuse_twins(document, READ)
    fill(facts, [], [], embedding_segments(document), 0, None)


def embedding_segments(document: dict[str, object]) -> list[Segment]:
    """Every text of the request."""
    texts = Texts()
    if document.get("content") is not None:
        texts.add_all(_plain(("content",), mapping(document["content"], "content"), thoughts=True))
    for index, item in enumerate(listing(document.get("requests"), "requests")):
        content = section(mapping(item, "a request").get("content"), "content")
        texts.add_all(_plain(("requests", index, "content"), content, thoughts=True))
    return texts.found
