"""Usage of Anthropic Messages as the bill means it.

Rule 1: Anthropic's input_tokens leaves out what a cache gave or took; ours is all input.
Rule 2: a number that is missing or null leaves the one before it standing.
Rule 3: `iterations` names every sampling that the call caused: what compaction and advisors used stands in no other
        number, so where it is there it is the bill. Each is billed as its own model's, by the size of its own input. An
        attempt that was declined before any output, and that a fallback followed, is not billed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from policyd.core.model.prices import NONE, Usage
from policyd.core.stream.dialects.billing import classes, tier_of
from policyd.core.stream.dialects.shared import Bill, count, listing, mapping, section, text

_ATTEMPTS = frozenset({"message", "fallback_message"})
_FIELDS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")


@dataclass(slots=True)
class Counts:
    """Anthropic's own numbers, as far as they have come."""

    plain: int = 0
    read: int = 0
    written: int = 0
    output: int = 0
    thinking: int = 0
    hour: int = 0  # of `written`: what is to be kept for an hour
    searches: int = 0
    tier: str = ""
    parts: tuple[tuple[str, Usage], ...] = ()

    def update(self, usage: object, silent: int = 0) -> bool:
        """Takes the numbers of a usage object; whether its output was among them. `silent`: how many attempts were
        declined before they said anything. Raises Malformed."""
        said = mapping(usage, "usage")
        own = [count(said.get(field), field) for field in _FIELDS]
        rounds = [mapping(item, "an iteration") for item in listing(said.get("iterations"), "iterations")]
        rounds = _billed(rounds, silent)
        hour = _hour(said)
        if rounds:
            parts = tuple((text(one.get("model"), "model") or "", _part(one)) for one in rounds)
            own = [max(sum(column), mine or 0) for column, mine in zip(_columns(rounds), own, strict=True)]
            hour = max(hour or 0, sum(part.extra.get("cache_write_1h", 0) for _, part in parts))
            self.parts = parts if _add_up(parts, own) else ()
        self.plain, self.read, self.written, self.output, self.hour = (
            before if value is None else value
            for before, value in zip(
                (self.plain, self.read, self.written, self.output, self.hour), (*own, hour), strict=True
            )
        )
        self._beside(said)
        return own[3] is not None

    def _beside(self, said: dict[str, object]) -> None:
        details = section(said.get("output_tokens_details"), "output_tokens_details")
        thinking = count(details.get("thinking_tokens"), "thinking_tokens")
        self.thinking = self.thinking if thinking is None else thinking
        tools = section(said.get("server_tool_use"), "server_tool_use")
        searches = count(tools.get("web_search_requests"), "web_search_requests")
        self.searches = self.searches if searches is None else searches
        tier = tier_of(said.get("service_tier"))
        speed = tier_of(said.get("speed"))
        self.tier = speed if speed not in ("", "default") else tier or self.tier

    def bill(self) -> Bill:
        return Bill(
            self.plain + self.read + self.written,
            self.output,
            self.read,
            self.written,
            self.thinking,
            classes(cache_write_1h=self.hour, searches=self.searches) if self.hour or self.searches else NONE,
            self.tier,
            None,
            tuple((model, _with_tier(part, self.tier)) for model, part in self.parts),
        )


def _billed(rounds: list[dict[str, object]], silent: int) -> list[dict[str, object]]:
    """Without the attempts that were declined before any output, each of which a fallback followed: nobody pays for
    them."""
    attempts = [place for place, one in enumerate(rounds) if one.get("type") in _ATTEMPTS]
    declined = [
        place
        for number, (place, after) in enumerate(pairwise(attempts))
        if rounds[after].get("type") == "fallback_message"
        and (number < silent or not count(rounds[place].get("output_tokens"), "output_tokens"))
    ]
    return [one for place, one in enumerate(rounds) if place not in declined]


def _columns(rounds: list[dict[str, object]]) -> list[list[int]]:
    return [[count(one.get(field), field) or 0 for one in rounds] for field in _FIELDS]


def _hour(said: dict[str, object]) -> int | None:
    created = section(said.get("cache_creation"), "cache_creation")
    return count(created.get("ephemeral_1h_input_tokens"), "ephemeral_1h_input_tokens")


def _part(said: dict[str, object]) -> Usage:
    plain, read, written, output = (count(said.get(field), field) or 0 for field in _FIELDS)
    hour: Mapping[str, int] = classes(cache_write_1h=min(_hour(said) or 0, written))
    return Usage(plain + read + written, output, read, written, extra=hour)


def _with_tier(part: Usage, tier: str) -> Usage:
    if not tier:
        return part
    return Usage(
        part.input_tokens,
        part.output_tokens,
        part.cached_input_tokens,
        part.cache_write_tokens,
        extra=part.extra,
        service_tier=tier,
    )


def _add_up(parts: tuple[tuple[str, Usage], ...], own: Sequence[int | None]) -> bool:
    """Whether the samplings are the whole of it: where the sums say more, nobody knows whose that was."""
    given = sum(part.input_tokens for _, part in parts)
    return given == sum(one or 0 for one in own[:3]) and sum(part.output_tokens for _, part in parts) == own[3]
