"""Usage of Anthropic Messages as the bill means it.

Rule 1: Anthropic's input_tokens leaves out what a cache gave or took; ours is all input.
Rule 2: a number that is missing or null leaves the one before it standing.
Rule 3: `iterations` names every sampling that the call caused: what compaction and advisors used stands in no other
        number, so where it is there it is the bill.
"""

from __future__ import annotations

from dataclasses import dataclass

from policyd.core.stream.dialects.shared import Bill, count, listing, mapping

_FIELDS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")


@dataclass(slots=True)
class Counts:
    """Anthropic's own numbers, as far as they have come."""

    plain: int = 0
    read: int = 0
    written: int = 0
    output: int = 0
    thinking: int = 0

    def update(self, usage: object) -> bool:
        """Takes the numbers of a usage object; whether its output was among them. Raises Malformed."""
        said = mapping(usage, "usage")
        own = [count(said.get(field), field) for field in _FIELDS]
        rounds = [
            [count(mapping(item, "an iteration").get(field), field) or 0 for field in _FIELDS]
            for item in listing(said.get("iterations"), "iterations")
        ]
        if rounds:
            own = [max(sum(column), mine or 0) for column, mine in zip(zip(*rounds, strict=True), own, strict=True)]
        self.plain, self.read, self.written, self.output = (
            before if value is None else value
            for before, value in zip((self.plain, self.read, self.written, self.output), own, strict=True)
        )
        details = said.get("output_tokens_details")
        if details is not None:
            thinking = count(mapping(details, "output_tokens_details").get("thinking_tokens"), "thinking_tokens")
            self.thinking = self.thinking if thinking is None else thinking
        return own[3] is not None

    def bill(self) -> Bill:
        return Bill(self.plain + self.read + self.written, self.output, self.read, self.written, self.thinking)
