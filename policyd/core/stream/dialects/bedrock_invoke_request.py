"""Requests of Bedrock's InvokeModel, each read by its family's own reader.

Rule 1: an obligation that a family has no known place for refuses the call.
"""

from __future__ import annotations

from collections.abc import Sequence

from policyd.core.errors import Malformed
from policyd.core.model.facts import Message, RequestFacts
from policyd.core.stream.dialects import (
    Edit,
    RequestChange,
    Segment,
    anthropic_request,
    cohere_request,
    openai_chat_request,
)
from policyd.core.stream.dialects import bedrock_converse_request as converse
from policyd.core.stream.dialects.answer import strings
from policyd.core.stream.dialects.asking import LIMIT_NAMES, Fields, Texts, at, fill, plain_edits
from policyd.core.stream.dialects.bedrock_families import EMBEDDING, family_of
from policyd.core.stream.dialects.offers import removal
from policyd.core.stream.dialects.shared import count, mapping, number, text

# Where the families that continue a prompt keep their limit.
LIMITS: tuple[tuple[str, ...], ...] = (
    ("textGenerationConfig", "maxTokenCount"),
    ("max_gen_len",),
    ("max_tokens_to_sample",),
    ("maxTokens",),
    ("max_tokens",),
)


def read_request(doc: object, facts: RequestFacts, model: str) -> None:
    """Fills the body facts. Raises Malformed."""
    document = mapping(doc, "the body")
    facts.shape = family_of(document, model)
    match facts.shape:
        case "claude":
            anthropic_request.read_request(doc, facts)
        case "chat":
            openai_chat_request.read_request(doc, facts)
        case "nova":
            converse.read_request(doc, facts)
        case "cohere":
            cohere_request.read_chat(doc, facts)
        case _:
            _read_text(document, facts)
    facts.wants_usage = True


def _read_text(document: dict[str, object], facts: RequestFacts) -> None:
    found = [count(at(document, path), path[-1]) for path in LIMITS]
    facts.max_tokens = max((one for one in found if one is not None), default=None)
    config = document.get("textGenerationConfig") or document
    facts.temperature = number(mapping(config, "textGenerationConfig").get("temperature"), "temperature")
    facts.tools = [one.tool for one in openai_chat_request.offers(document)]
    prompt = text(document.get("inputText") or document.get("prompt"), "prompt")
    messages = [Message("user", prompt)] if prompt and facts.shape != EMBEDDING else []
    fill(facts, messages, [], _text_segments(document), 0, None)


def _family(doc: object) -> str:
    """The family as far as the body tells: what differs by the model's name alone is edited alike."""
    document = mapping(doc, "the body")
    if not document.keys() & {"messages", "message", "prompt", "inputText"}:
        return EMBEDDING
    return family_of(document, "")


def segments(doc: object) -> Sequence[Segment]:
    """Every editable text of a request."""
    document = mapping(doc, "the body")
    match _family(doc):
        case "claude":
            return anthropic_request.segments(document)
        case "chat":
            return openai_chat_request.segments(document)
        case "nova":
            return converse.segments(document)
        case "cohere":
            return cohere_request.chat_segments(doc)
        case _:
            return _text_segments(document)


def _text_segments(document: dict[str, object]) -> list[Segment]:
    texts = Texts()
    for field in ("inputText", "prompt", "texts"):
        texts.add_all(strings((field,), document.get(field)))
    return texts.found


def edits(doc: object, change: RequestChange) -> Sequence[Edit]:
    """The change in the family's fields. Raises Malformed."""
    if change.model:
        raise Malformed("the model of this call stands in its path, where no edit of the body can change it")
    match _family(doc):
        case "claude":
            return anthropic_request.edits(doc, change)
        case "chat":
            return openai_chat_request.edits(doc, change)
        case "nova":
            return converse.edits(doc, change)
        case "cohere":
            return cohere_request.chat_edits(doc, change)
        case _:
            return _text_edits(mapping(doc, "the body"), change)


def _text_edits(document: dict[str, object], change: RequestChange) -> list[Edit]:
    titan = "inputText" in document
    known = [path for path in LIMITS if at(document, path) is not None]
    limit = LIMITS[0] if titan else known[0] if known else None
    wanted = any(field in LIMIT_NAMES for field, _ in change.caps)
    if wanted and limit is None and "prompt" in document:
        raise Malformed("the body has no limit to lower, and where this model keeps one cannot be told")
    temperature = ("textGenerationConfig", "temperature") if titan else ("temperature",)
    fields = Fields(limit=limit, temperature=temperature, model=None, system=False)
    took = removal(document, openai_chat_request.offers(document), change)
    return [*plain_edits(document, change, fields)[0], *took.edits]
