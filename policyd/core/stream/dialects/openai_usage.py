"""Usage of OpenAI's dialects as the bill means it.

Rule 1: output includes reasoning. OpenAI counts it inside completion_tokens; xAI and Gemini's compatible door count it
        beside, and only total_tokens tells: what it has more than prompt and completion was reasoning. Perplexity's is
        beside where it is more than all of completion_tokens.
Rule 2: input includes what was read from a cache.
"""

from __future__ import annotations

from policyd.core.stream.dialects.shared import Bill, count, mapping


def bill_of(usage: object) -> Bill | None:
    """The numbers of a usage object; None when it has none yet. Raises Malformed."""
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
    if beside > 0 and reasoning in (0, beside):
        reasoning = beside
        completion += beside
    elif reasoning > completion:  # so it cannot be inside
        completion += reasoning
    cached = _first(
        _count(inputs, "cached_tokens"),
        *(_count(said, name) for name in ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens")),
    )
    written = _first(*(_count(inputs, name) for name in ("cache_write_tokens", "cache_creation_input_tokens")))
    return Bill(prompt, completion, cached, written, reasoning)


def _details(usage: dict[str, object], field: str) -> dict[str, object]:
    value = usage.get(field)
    return mapping(value, field) if value is not None else {}


def _count(said: dict[str, object], field: str) -> int | None:
    return count(said.get(field), field)


def _first(*values: int | None) -> int:
    return next((value for value in values if value), 0)


def responses_bill(usage: object) -> Bill | None:
    """The same of Responses, which has words of its own. Raises Malformed."""
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
    )
