"""Usage of OpenAI's dialects as the bill means it.

Rule 1: output includes reasoning. OpenAI counts it inside completion_tokens; xAI and Gemini's compatible door count it
        beside, and only total_tokens tells: what it has more than prompt and completion was reasoning. Perplexity's is
        always beside; it is known by its citations and searches, which no one else counts. Mistral counts sound that
        was sent beside the prompt, and says for how long it was.
Rule 2: input includes what was read from a cache.
Rule 3: sound is a part of the prompt, of what was cached of it, and of the completion.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from policyd.core.stream.dialects.billing import classes, tier_of
from policyd.core.stream.dialects.shared import Bill, count, mapping

MOST_FEE = 1000  # USD: nobody takes more for a request as such


def bill_of(usage: object, tier: object = None, stated: int | None = None) -> Bill | None:
    """The numbers of a usage object; None when it has none yet. `tier` is the answer's own word, `stated` what it says
    that the call cost, nano-dollars. Raises Malformed."""
    if not usage:
        return None
    said = mapping(usage, "usage")
    prompt, completion = _count(said, "prompt_tokens"), _count(said, "completion_tokens")
    if prompt is None and completion is None:
        return None
    prompt, completion = prompt or 0, completion or 0
    inputs, outputs = _details(said, "prompt_tokens_details"), _details(said, "completion_tokens_details")
    reasoning = _count(outputs, "reasoning_tokens") or _count(said, "reasoning_tokens") or 0
    beside = (_count(said, "total_tokens") or 0) - prompt - completion
    if beside > 0 and "prompt_audio_seconds" in said:  # Mistral: sound that was sent
        prompt += beside
    elif beside > 0 and reasoning in (0, beside):
        reasoning = beside
        completion += beside
    elif reasoning > completion or (reasoning and said.keys() & _PERPLEXITY):  # so it cannot be inside
        completion += reasoning
    cached = _first(
        _count(inputs, "cached_tokens"),
        *(_count(said, name) for name in ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens")),
    )
    written = _first(*(_count(inputs, name) for name in ("cache_write_tokens", "cache_creation_input_tokens")))
    extra = _classes(said, inputs, outputs)
    return Bill(prompt, completion, cached, written, reasoning, extra, tier_of(tier), _fee(said), stated_nano=stated)


_PERPLEXITY = frozenset({"citation_tokens", "num_search_queries", "search_context_size"})


def _classes(said: dict[str, object], inputs: dict[str, object], outputs: dict[str, object]) -> Mapping[str, int]:
    cached_sound = _count(_details(inputs, "cached_tokens_details"), "audio_tokens") or 0
    return classes(
        input_audio=(_count(inputs, "audio_tokens") or 0) - cached_sound,
        cached_audio=cached_sound,
        output_audio=_count(outputs, "audio_tokens"),
        citation=_count(said, "citation_tokens"),
        searches=_count(said, "num_search_queries"),
    )


def _fee(said: dict[str, object]) -> int | None:
    """What Perplexity says that it took for the request as such, nano-dollars: it depends on how much was searched."""
    cost = said.get("cost")
    fee = cost.get("request_cost") if isinstance(cost, dict) else None
    if isinstance(fee, bool) or not isinstance(fee, int | float) or not 0 <= fee <= MOST_FEE:
        return None
    return round(Fraction(repr(fee)) * 1_000_000_000)


def _details(usage: dict[str, object], field: str) -> dict[str, object]:
    value = usage.get(field)
    return mapping(value, field) if value is not None else {}


def _count(said: dict[str, object], field: str) -> int | None:
    return count(said.get(field), field)


def _first(*values: int | None) -> int:
    return next((value for value in values if value), 0)


def responses_bill(usage: object, tier: object = None, output: object = None, stated: int | None = None) -> Bill | None:
    """The same of Responses, which has words of its own; its output tells of searches. Raises Malformed."""
    if not usage:
        return None
    said = mapping(usage, "usage")
    given, made = _count(said, "input_tokens"), _count(said, "output_tokens")
    if given is None and made is None:
        return None
    inputs, outputs = _details(said, "input_tokens_details"), _details(said, "output_tokens_details")
    return Bill(
        given or 0,
        made or 0,
        _count(inputs, "cached_tokens") or 0,
        _count(inputs, "cache_write_tokens") or 0,
        _count(outputs, "reasoning_tokens") or 0,
        {**_classes({}, inputs, outputs), **classes(searches=_searches(output))},
        tier_of(tier),
        stated_nano=stated,
    )


def _searches(output: object) -> int:
    """Searches of the web: opening a page, or looking for a word in one, is none."""
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    actions = [item.get("action") for item in items if item.get("type") == "web_search_call"]
    return sum(not isinstance(action, dict) or action.get("type", "search") == "search" for action in actions)
