"""Requests of Bedrock's Converse, and of the models that take the same body by InvokeModel (Nova).

Rule 1: reasoning is text of the request, but of no message: nobody said it.
Rule 2: a block of an unknown kind is kept, and counts as a part.
"""

from __future__ import annotations

from collections.abc import Iterator

from policyd.core.model.facts import Message, RequestFacts, ToolResult
from policyd.core.stream.dialects import Edit, Path, RequestChange, Segment, anthropic_request
from policyd.core.stream.dialects.answer import strings
from policyd.core.stream.dialects.asking import LIMIT_NAMES, Fields, Texts, at, fill, plain_edits, said_below
from policyd.core.stream.dialects.offers import Offer, function, hosted, removal
from policyd.core.stream.dialects.shared import count, listing, mapping, number, section, text
from policyd.core.stream.json_strict import refuse_twins

READ = frozenset({"messages", "system", "inferenceConfig", "toolConfig"})
FIELDS = Fields(limit=("inferenceConfig", "maxTokens"), temperature=("inferenceConfig", "temperature"), model=None)
LIMITS = ("maxTokens", "max_new_tokens")  # the second is Nova's other name for it
MORE = "additionalModelRequestFields"
MORE_LIMITS = (
    "max_tokens", "maxTokens", "max_new_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample",
    "max_gen_len",
)  # fmt: skip
TOOLS: Path = ("toolConfig", "tools")
_MEDIA = frozenset({"image", "document", "video", "audio"})


def read_request(doc: object, facts: RequestFacts) -> None:
    """Fills the body facts. Raises Malformed."""
    document = mapping(doc, "the body")
    refuse_twins(document, READ)
    config = section(document.get("inferenceConfig"), "inferenceConfig")
    limits = [limit for field in LIMITS if (limit := count(config.get(field), field)) is not None]
    limits += [limit for path in _more_limits(document) if (limit := count(at(document, path), path[-1])) is not None]
    facts.max_tokens = max(limits, default=None)
    facts.temperature = number(config.get("temperature"), "temperature")
    facts.wants_usage = True
    facts.tools = [one.tool for one in offers(document)]
    messages: list[Message] = []
    results: list[ToolResult] = []
    called: dict[str, str] = {}  # the names of the calls so far, by id
    parts = 0
    for _, message in _messages(document):
        role = text(message.get("role"), "the role of a message") or ""
        blocks = [mapping(block, "a block") for block in listing(message.get("content"), "content")]
        found = [result for block in blocks if (result := _result(block, called)) is not None]
        words = [words for block in blocks if "toolResult" not in block for _, words in _block((), block)]
        if words or not found:
            messages.append(Message(role, "\n".join(words)))
        messages += [Message("tool", result.text, result.name or None) for result in found]
        results += found
        parts += sum(bool(block.keys() & _MEDIA) for block in blocks)
    system = [words for _, words in _texts((), document.get("system"))]
    fill(facts, messages, system, segments(document), parts, at(document, TOOLS), results)


def _result(block: dict[str, object], called: dict[str, str]) -> ToolResult | None:
    """What a tool gave back, where a block is that; the name of a call is remembered."""
    use = block.get("toolUse")
    if isinstance(use, dict) and isinstance(id_ := use.get("toolUseId"), str) and isinstance(use.get("name"), str):
        called[id_] = str(use["name"])
    result = block.get("toolResult")
    if not isinstance(result, dict):
        return None
    id_ = text(result.get("toolUseId"), "toolUseId") or ""
    words = [words for _, words in _block((), block)]
    return ToolResult(called.get(id_, ""), id_, "\n".join(words), result.get("status") == "error")


def _more_limits(document: dict[str, object]) -> list[tuple[str, ...]]:
    """Limits among the model's own fields, where a cap must lower them, too."""
    paths = [(MORE, *below, name) for below in ((), ("inferenceConfig",)) for name in MORE_LIMITS]
    return [path for path in paths if at(document, path) is not None]


def _messages(document: dict[str, object]) -> Iterator[tuple[Path, dict[str, object]]]:
    for index, item in enumerate(listing(document.get("messages"), "messages")):
        yield ("messages", index, "content"), mapping(item, "a message")


def offers(document: dict[str, object]) -> list[Offer]:
    """The ways to tools, those of the model's own fields included. A cache point among them is none."""
    found: list[Offer] = []
    for place, item in enumerate(listing(at(document, TOOLS), "tools")):
        for kind, value in mapping(item, "a tool").items():
            if kind == "cachePoint":
                continue
            name = text(mapping(value, "a tool").get("name"), "the name of a tool") or ""
            path = (*TOOLS, place)
            found.append(function(name, path) if kind == "toolSpec" else hosted(name or kind, path, kind))
    more = document.get(MORE)
    return [*found, *(anthropic_request.offers(more, (MORE,)) if isinstance(more, dict) else [])]


def _texts(path: Path, content: object) -> Iterator[tuple[Path, str]]:
    """The visible texts of blocks, those within tool results included."""
    for place, item in enumerate(listing(content, "content")):
        yield from _block((*path, place), mapping(item, "a block"))


def _block(where: Path, block: dict[str, object]) -> Iterator[tuple[Path, str]]:
    if (words := text(block.get("text"), "text")) is not None:
        yield (*where, "text"), words
    if isinstance(inner := at(block, ("guardContent", "text", "text")), str):
        yield (*where, "guardContent", "text", "text"), inner
    for field in ("document", "searchResult", "citationsContent"):
        yield from said_below((*where, field), block.get(field))
    result = at(block, ("toolResult", "content"))
    for place, one in enumerate(result if isinstance(result, list) else []):
        inside = (*where, "toolResult", "content", place)
        yield from _block(inside, mapping(one, "a block"))
        yield from strings((*inside, "json"), at(one, ("json",)))


# ---- editable text ----------------------------------------------------------------------------------------------


def segments(document: dict[str, object]) -> list[Segment]:
    """Every text of the request."""
    texts = Texts()
    texts.add_all(_texts(("system",), document.get("system")))
    for path, message in _messages(document):
        texts.add_all(_texts(path, message.get("content")))
        for place, block in enumerate(listing(message.get("content"), "content")):
            texts.add_all(strings((*path, place, "toolUse", "input"), at(block, ("toolUse", "input"))), "args")
            texts.add_all(said_below((*path, place, "reasoningContent"), at(block, ("reasoningContent",))))
    variables = document.get("promptVariables")
    texts.add_all(strings(("promptVariables",), variables))
    return texts.found


# ---- edits --------------------------------------------------------------------------------------------------------


def edits(doc: object, change: RequestChange) -> list[Edit]:
    """The change in this dialect's fields."""
    other = at(doc, ("inferenceConfig", LIMITS[1])) is not None
    fields = Fields(limit=("inferenceConfig", LIMITS[other]), temperature=FIELDS.temperature, model=None)
    out, document = plain_edits(doc, change, fields)
    for cap in (cap for field, cap in change.caps if field in LIMIT_NAMES):
        for path in _more_limits(document):
            limit = count(at(document, path), path[-1])
            out += [Edit(path, cap)] if limit is not None and limit > cap else []
    took = removal(document, offers(document), change)
    chosen = at(document, ("toolConfig", "toolChoice", "tool", "name"))
    if took.gone and not took.left("toolConfig"):  # AWS refuses a toolConfig without tools
        out += [edit for edit in took.edits if edit.path[0] != "toolConfig"]
        out.append(Edit(("toolConfig",), remove=True))
    else:
        out += took.edits
        out += (
            [Edit(("toolConfig", "toolChoice"), remove=True)] if isinstance(chosen, str) and chosen in took.gone else []
        )
    before = len(listing(document.get("system"), "system"))
    if before:
        out += [
            Edit(("system", before + place), {"text": words}, insert=True)
            for place, words in enumerate(change.inject_system)
        ]
    elif change.inject_system:
        out.append(Edit(("system",), [{"text": words} for words in change.inject_system]))
    return out
