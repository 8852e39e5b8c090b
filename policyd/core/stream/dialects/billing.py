"""What providers call the tiers and classes that they bill apart."""

from __future__ import annotations

from collections.abc import Mapping

from policyd.core.model.prices import NONE

TIERS = {
    "default": "default", "standard": "default", "on_demand": "default", "batch": "batch", "flex": "flex",
    "on_demand_flex": "flex", "priority": "priority", "on_demand_priority": "priority", "fast": "fast",
}  # fmt: skip
"""What providers call their service tiers, in lower case, and what the price table calls them. Others are not known to
have a price of their own (`scale`, `reserved`, `provisioned_throughput`: bought beforehand) and keep their name."""

_NO_TIER = frozenset({"", "auto", "standard_only"})  # whoever asks for these learns from the answer what it was


def tier_of(value: object) -> str:
    """The service tier that a field of a request or an answer names; empty for none."""
    if isinstance(value, dict):  # Bedrock
        value = value.get("type")
    if not isinstance(value, str):
        return ""
    name = value.lower()[:64]
    return "" if name in _NO_TIER else TIERS.get(name, name)


_ASKED_IN = {
    "anthropic": ("service_tier", "speed"),
    "bedrock": ("serviceTier", "service_tier", "speed"),
    "gemini": ("serviceTier", "service_tier"),
}
"""Where the requests of a family of dialects ask for a service tier; all others in `service_tier`."""


def asked_tier(document: object, dialect: str) -> str:
    """The service tier that a request asks for in its dialect's own field; empty for the provider's own choice."""
    if not isinstance(document, dict):
        return ""
    fields = _ASKED_IN.get(dialect.partition(".")[0], ("service_tier",))
    found = (tier_of(document.get(field)) for field in fields)
    return next((tier for tier in found if tier), "")


def classes(**counts: int | None) -> Mapping[str, int]:
    """The classes of a bill that may be priced apart, without the empty ones."""
    if not any(counts.values()):
        return NONE
    return {name: many for name, many in counts.items() if many}
