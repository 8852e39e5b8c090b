"""How much one call may make policyd do. Over a bound a call cannot be judged, and the record names the bound.

Rule 1: a bound is checked before the work that it bounds.
Rule 2: the reason of a failure ends with "(bound NAME)", and quotes nothing of the call.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields
from typing import Any

from policyd.core.errors import Malformed

MOST = 1 << 40
DEEPEST = 200  # levels that the JSON parser reads


MAX_EVENT = 1 << 20  # bytes


MEMORY = "the calls in flight take all the memory that they may (bound memory)"


class BadBound(ValueError):  # noqa: N818 - the operator's, an ordinary value to us
    """A bound that does not exist, or a value that it cannot have."""


def _bound(default: int, counts: str, unit: str, most: int = MOST) -> Any:
    """`counts` says in the documentation what is counted, `unit` in a reason what there is too much of."""
    return field(default=default, metadata={"counts": counts, "unit": unit, "most": most})


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one call."""

    json_nodes: int = _bound(
        100_000, "objects, lists, strings and names of one JSON body or event", "objects, lists and strings"
    )
    json_numbers: int = _bound(
        400_000,
        "numbers, `true`, `false` and `null` of one JSON body or event; one for 8 bytes if that is more",
        "numbers in a JSON document",
    )
    json_depth: int = _bound(DEEPEST, "levels of one JSON body", "levels of JSON", DEEPEST)
    messages: int = _bound(10_000, "messages of one request, inputs of an embedding included", "messages")
    parts: int = _bound(20_000, "parts of all messages of one request: content, tool calls, tool results", "parts")
    tools: int = _bound(1_000, "tools that one request offers", "tools")
    request_content: int = _bound(
        8 << 20, "characters of `request.content`, where a policy reads it", "characters of content"
    )
    response_text: int = _bound(
        1 << 20, "characters of a response that an expression reads as a whole", "characters of text that a rule reads"
    )
    event_bytes: int = _bound(
        MAX_EVENT, "bytes of one event of a stream: an SSE event, an NDJSON line, a message", "bytes of one event"
    )
    blank_lines: int = _bound(
        100_000, "blank lines and comments of one stream that belong to no event", "blank lines and comments"
    )
    tool_calls: int = _bound(256, "tool calls of one response", "tool calls")
    argument_chars: int = _bound(
        4 << 20,
        "characters of the arguments of one tool call of a response",
        "characters of a tool call's arguments",
    )
    held_text: int = _bound(
        8 << 20, "bytes of one response that wait to be judged", "bytes of the response that wait to be judged"
    )

    cel_cost: int = _bound(
        100_000,
        "steps of one expression, estimated from the sizes of the lists and texts that it reads: a loop within a loop "
        "is the product, a pattern is 100 steps",
        "steps of one expression",
    )

    def over(self, name: str) -> str:
        """The reason for which a call that is over this bound cannot be judged."""
        return f"more than {getattr(self, name)} {_FIELDS[name].metadata['unit']} (bound {name})"

    def check(self, name: str, count: int) -> None:
        """Raises Malformed if there is more than this bound allows."""
        if count > getattr(self, name):
            raise Malformed(self.over(name))


USUAL = Bounds()
_FIELDS: dict[str, Field[Any]] = {one.name: one for one in fields(Bounds)}


def table() -> list[tuple[str, int, str]]:
    """Name, default and what is counted, for the documentation."""
    return [(name, getattr(USUAL, name), one.metadata["counts"]) for name, one in _FIELDS.items()]


def parse_bound(text: str) -> tuple[str, int]:
    """One bound as an option writes it: NAME=VALUE. Raises BadBound."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise BadBound(f"`{text}`: write NAME=VALUE")
    if name not in _FIELDS:
        raise BadBound(f"no bound is called `{name}`; the bounds are {', '.join(_FIELDS)}")
    most = _FIELDS[name].metadata["most"]
    if not (value.isascii() and value.isdecimal()) or not 1 <= int(value[:20]) <= most:
        raise BadBound(f"`{name}` takes a whole number from 1 to {most}, not `{value}`")
    return name, int(value)


def bounds_of(texts: Iterable[str]) -> Bounds:
    """The bounds that these options set; the others keep their defaults. Raises BadBound."""
    return Bounds(**dict(map(parse_bound, texts)))


def bound_in(reason: str) -> str:
    """The bound that a reason names; empty where it names none."""
    name = reason.rpartition("(bound ")[2].partition(")")[0] if "(bound " in reason else ""
    return name if name in _FIELDS else ""
