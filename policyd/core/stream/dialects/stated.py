"""What providers say a call cost, in their own responses.

Rule 1: it is believed of the providers below alone, at the place where each of them says it: another upstream's number
        of the same name is no bill.
Rule 2: what is no amount of money is not read; the price table stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction

MOST_COST = 10_000  # USD: no call costs more
NANO = 1_000_000_000
_TICKS = 10_000_000_000  # xAI: one is this part of a USD
_DECIMAL = re.compile(r"\d{1,9}(?:\.\d{1,18})?(?:[eE]-?\d{1,2})?")


def amount(value: object, units: int = 1) -> int | None:
    """An amount of money in nano-dollars, where so many units are a USD; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    said = value if isinstance(value, str) else repr(value)
    if not _DECIMAL.fullmatch(said):
        return None
    usd = Fraction(said) / units
    return round(usd * NANO) if usd <= MOST_COST else None


def _at(document: object, *path: str | int) -> object:
    for step in path:
        if isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        elif isinstance(document, dict):
            document = document.get(step)
        else:
            return None
    return document


def _openrouter(document: Mapping[str, object]) -> int | None:
    """With a key of the caller's own at the provider (`is_byok`), OpenRouter's `cost` is its fee, and what the provider
    takes stands beside it."""
    own = amount(_at(document, "usage", "cost"))
    if own is None or _at(document, "usage", "is_byok") is not True:
        return own
    beside = amount(_at(document, "usage", "cost_details", "upstream_inference_cost"))
    return None if beside is None else own + beside


def _vercel(document: Mapping[str, object]) -> int | None:
    places: tuple[tuple[str | int, ...], ...] = (
        ("provider_metadata", "gateway", "cost"),
        ("providerMetadata", "gateway", "cost"),
        ("choices", 0, "message", "provider_metadata", "gateway", "cost"),
        ("choices", 0, "delta", "provider_metadata", "gateway", "cost"),
        ("usage", "cost"),
    )
    found = (amount(_at(document, *place)) for place in places)
    return next((one for one in found if one is not None), None)


_STATED: Mapping[str, Callable[[Mapping[str, object]], int | None]] = {
    "deepinfra": lambda document: amount(_at(document, "usage", "estimated_cost")),
    "exa": lambda document: amount(_at(document, "costDollars", "total")),
    "openrouter": _openrouter,
    "perplexity": lambda document: amount(_at(document, "usage", "cost", "total_cost")),
    "requesty": lambda document: amount(_at(document, "usage", "cost")),
    "vercel": _vercel,
    "xai": lambda document: amount(_at(document, "usage", "cost_in_usd_ticks"), _TICKS),
}


def stated_nano(provider: str, document: Mapping[str, object]) -> int | None:
    """What this provider's response (or event) says that the call cost so far, nano-dollars; None where it says
    nothing."""
    stated = _STATED.get(provider)
    return stated(document) if stated is not None else None


def header_nano(provider: str, headers: Mapping[str, str]) -> int | None:
    """The same of a response's headers. LiteLLM states its cost there; a route must declare that it is LiteLLM's."""
    if provider != "litellm":
        return None
    return amount(headers.get("x-litellm-response-cost", ""))
