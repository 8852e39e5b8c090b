"""What dialects share: typed access to documents, the running estimate of tokens, and how a half-open JSON text ends.

Rule 1: the estimate is additive: however a text is cut, its pieces add up to the same.
Rule 2: the provider's own numbers replace the estimate as soon as they come; they are final only when they say so.
Rule 3: numbers that the text contradicts are not believed: what was seen is estimated, and the source says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from policyd.core.errors import Malformed
from policyd.core.model.estimate import UNKNOWN, weigh
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.model.prices import NONE, PARENTS, Usage
from policyd.core.model.tokens import Running
from policyd.core.stream.dialects import Changed, Channel, Edit
from policyd.core.stream.json_strict import MAX_COUNT, dumps

CHANGES = tuple(Changed(bits) for bits in range(256))
"""Every combination ready made: putting flags together on the hot path costs more than reading the event."""

MESSAGE_TOKENS = 4  # what one message costs beside its text
PART_TOKENS = 1000  # an image, a file, a sound: about what the providers charge for one image of usual size


# ---- the estimate -------------------------------------------------------------------------------------------------


def milli_tokens(text: str) -> int:
    """About how many thousandths of a token a text is: a quarter of a token for an ASCII character, half a token for
    one of two bytes in UTF-8 (accents, Cyrillic, Arabic), one and a half for one of three (CJK), two and a half for
    one of four (emoji)."""
    if text.isascii():
        return 250 * len(text)
    plain = len(text.encode("ascii", "ignore"))
    other = len(text) - plain
    return 250 * plain + 1000 * (len(text.encode()) - plain) - 1500 * other


def estimate_tokens(text: str) -> int:
    """About how many tokens a text is; rounded up."""
    return -(-milli_tokens(text) // 1000)


def input_estimate(texts: Iterable[str], messages: int, parts: int, tools: object) -> int:
    """About how many tokens a request is: its texts, its other parts at PART_TOKENS each, its tool definitions."""
    milli = sum(map(milli_tokens, texts))
    if tools:
        milli += milli_tokens(dumps(tools))
    return -(-milli // 1000) + MESSAGE_TOKENS * messages + PART_TOKENS * parts


@dataclass(slots=True)
class Bill:
    """Tokens as a provider's usage says: input includes cached and written, output includes reasoning."""

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    extra: Mapping[str, int] = field(
        default_factory=lambda: NONE
    )  # classes that may be priced apart: see model/prices.py
    tier: str = ""  # service tier
    fee_nano: int | None = None  # nano-dollars: what the request as such cost
    parts: tuple[tuple[str, Usage], ...] = ()  # the samplings of the call, where each is named
    stated_nano: int | None = None  # nano-dollars: what the whole call cost, where the provider says so


def bounded(bill: Bill) -> Mapping[str, int]:
    """The bill's classes that may be priced apart. INVARIANT: those of one parent are no more than it has."""
    room = {
        "input": max(0, bill.input - bill.cached - bill.cache_write),
        "cached_input": bill.cached,
        "cache_write": bill.cache_write,
        "output": bill.output - bill.reasoning,
    }
    kept: dict[str, int] = {}
    for name, many in bill.extra.items():
        if parent := PARENTS[name]:
            many = min(many, room[parent])
            room[parent] -= many
        if many:
            kept[name] = many
    return kept


MOST_TOKENS = 1 << 40  # that a provider is believed
LEAST_SHOWN = 8  # tokens: so little text contradicts no claim
LEAST_ASKED = 512  # tokens: so short a request contradicts none
OVERRATED = 32  # how far above the truth the estimate of a request may be: blanks and pictures are worth little


def shown(pieces: int, chars: int) -> int:
    """Tokens that output of so many pieces and characters is at least: no real vocabulary makes less of it. A piece is
    no token where somebody cuts text into characters, and many blanks are one token."""
    return max(min(pieces, chars // 16), chars // 256)


BLOCK = 96  # characters of text that are weighed at once: weighing costs by the call


class Tally:
    """Keeps an answer's token facts: the running estimate, then the provider's numbers.

    Of a model that nothing is known of, the estimate is what the characters suggest, and at least one token for each
    piece of text: a provider's stream never cuts a token in two events. Else its rate says what to go by: the pieces,
    or the text, weighed a block at a time; a tokenizer, where one counts along. INVARIANT: the estimate never falls.
    """

    __slots__ = (
        "_all_milli",
        "_all_pieces",
        "_asked",
        "_base",
        "_chars",
        "_contradicted",
        "_count",
        "_counted",
        "_milli",
        "_pending",
        "_pieces",
        "_rate",
        "_reasoning",
        "_running",
        "_waiting",
        "_weighs",
        "response",
        "seen",
    )

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        self.response = response
        self.seen = False  # the provider has named numbers
        self._asked = request.input_tokens  # the estimate of the request
        self._base = self._milli = self._pieces = 0
        self._all_milli = self._all_pieces = self._chars = 0  # of the whole output
        self._contradicted = False
        self._reasoning = 0
        self._rate = response.rate
        self._weighs = bool(request.stream) and response.rate.weighs
        self._pending: list[str] = []
        self._waiting = 0
        response.seen.weighed = self._weighs
        self._count, self._counted = response.count, 0
        self._running: dict[Channel | None, Running] = {}
        if self._count is not None:
            response.usage_source = "tokenizer" if request.exact else "estimate"
        if not response.input_tokens:
            response.input_tokens = request.input_tokens

    def add(self, text: str, channel: Channel | None = None) -> None:
        """Output text, visible or not; `channel`: which text it is more of."""
        self._pieces += 1
        self._all_pieces += 1
        self._chars += len(text)
        milli = 250 * len(text) if text.isascii() else milli_tokens(text)
        self._all_milli += milli
        self.response.seen.pieces += 1
        if self._weighs:
            self._pending.append(text)
            self._waiting += len(text)
            if self._waiting >= BLOCK:
                self.weigh()
        if self._count is not None:
            self._count_on(text, channel)
            return
        rate = self._rate
        if not rate.known:
            self._milli += milli
            estimate = -(-self._milli // 1000)
            self.response.output_tokens = self._base + (estimate if estimate > self._pieces else self._pieces)
            return
        if rate.by_pieces:
            estimate = self._base + int(rate.piece * self._pieces)
        else:  # of what is not weighed yet, no more than what it will surely be
            estimate = self._base + int((self._milli + 150 * self._waiting) / 1000)
        if estimate > self.response.output_tokens:
            self.response.output_tokens = estimate

    def _count_on(self, text: str, channel: Channel | None) -> None:
        running = self._running.get(channel)
        if running is None:
            assert self._count is not None
            running = self._running[channel] = Running(self._count)
        before = running.tokens
        more = running.add(text) - before
        self._counted += more
        self.response.seen.counted += more
        if (counted := self._base + self._counted) > self.response.output_tokens:
            self.response.output_tokens = counted

    @property
    def said(self) -> bool:
        """Whether there was any output so far."""
        return bool(self._all_pieces)

    def weigh(self) -> None:
        """Weigh what waits for it."""
        if not self._waiting:
            return
        plain, other = weigh("".join(self._pending))
        self._pending.clear()
        self._waiting = 0
        seen, rate = self.response.seen, self._rate
        seen.plain += plain
        seen.other += other
        if rate.known and not rate.by_pieces and self._count is None:
            self._milli += int(rate.plain * plain + rate.other * other)
            self.response.output_tokens = max(self.response.output_tokens, self._base + -(-self._milli // 1000))

    def add_reasoning(self, text: str, channel: Channel = ("reasoning", 0, 0)) -> None:
        """Output text that is reasoning."""
        self.add(text, channel)
        self._reasoning += milli_tokens(text)
        response = self.response
        response.seen.reasoned = True
        response.reasoning_tokens = min(-(-self._reasoning // 1000), response.output_tokens)

    def take(self, bill: Bill, *, final: bool) -> None:
        """The provider's numbers. INVARIANT: cached + written <= input, reasoning <= output."""
        response = self.response
        response.seen.before = (
            response.input_tokens,
            response.output_tokens,
            response.cached_input_tokens,
            response.cache_write_tokens,
        )
        self.weigh()
        self._contradicted = self._contradicts(bill)
        if self._contradicted:
            self._go_by_the_text()
            return
        response.input_tokens, response.output_tokens = bill.input, bill.output
        response.cached_input_tokens = min(bill.cached, bill.input)
        response.cache_write_tokens = min(bill.cache_write, bill.input - response.cached_input_tokens)
        response.reasoning_tokens = min(bill.reasoning, bill.output)
        response.usage_source = "provider" if final else "estimate"
        response.extra = bounded(bill) if bill.extra else NONE
        response.parts = bill.parts
        if bill.tier:
            response.service_tier = bill.tier
        if bill.fee_nano is not None:
            response.fee_nano = bill.fee_nano
        if bill.stated_nano is not None:
            response.stated_nano = bill.stated_nano
        self.seen = True
        self._base, self._milli, self._pieces, self._counted = bill.output, 0, 0, 0
        self._running.clear()
        self._reasoning = 1000 * response.reasoning_tokens

    def _contradicts(self, bill: Bill) -> bool:
        """Whether these numbers cannot be true of the text that was seen."""
        if self.response.is_error:
            return False
        least = shown(self._all_pieces, self._chars)
        if self._asked >= LEAST_ASKED and bill.input < self._asked // OVERRATED:
            return True
        return (least >= LEAST_SHOWN and bill.output < least // 2) or max(bill.input, bill.output) > MOST_TOKENS

    def _go_by_the_text(self) -> None:
        """The provider's numbers are not believed: the plain estimate of all text counts, and goes on."""
        response = self.response
        response.usage_source, response.stated_nano = "contradicted", None
        self._rate, self._count, self._weighs, self.seen = UNKNOWN, None, False, False
        self._base, self._milli, self._pieces = 0, self._all_milli, self._all_pieces
        estimate = max(-(-self._milli // 1000), self._pieces)
        response.output_tokens = max(response.output_tokens, estimate)
        response.input_tokens = max(response.input_tokens, self._asked)

    def start(self, bill: Bill) -> None:
        """Numbers that come before the answer: its input is known, its output is not."""
        so_far = self.response.output_tokens
        self.take(bill, final=False)
        self.seen = False
        self._base = 0
        self.response.output_tokens = max(so_far, bill.output)

    def settle(self) -> None:
        """The answer is over: numbers that nothing came after are the final ones."""
        if self._contradicted:
            self.response.usage_source = "contradicted"
        elif self.seen:
            self.response.usage_source = "estimate" if self._pieces else "provider"

    def later(self) -> None:
        """The response is still being made: what it costs is charged when it is fetched."""
        self.response.input_tokens = self.response.output_tokens = 0

    def nothing(self) -> None:
        """An error answer: nothing was used."""
        self.take(Bill(0, 0), final=False)
        self.response.fee_nano = 0


# ---- typed access -----------------------------------------------------------------------------------------------


def mapping(value: object, what: str) -> dict[str, object]:
    """`value` as an object. Raises Malformed."""
    if isinstance(value, dict):
        return value
    raise Malformed(f"{what} is not an object")


def section(value: object, what: str) -> dict[str, object]:
    """`value` as an object, null as an empty one. Raises Malformed."""
    return {} if value is None else mapping(value, what)


def listing(value: object, what: str) -> list[object]:
    """`value` as a list, null as an empty one. Raises Malformed."""
    if isinstance(value, list):
        return value
    if value is None:
        return []
    raise Malformed(f"{what} is not a list")


def text(value: object, what: str) -> str | None:
    """`value` as a string, or None for null. Raises Malformed."""
    if value is None or isinstance(value, str):
        return value
    raise Malformed(f"{what} is not a string")


def flag(value: object, what: str) -> bool | None:
    """`value` as a boolean, or None for null. Raises Malformed."""
    if value is None or isinstance(value, bool):
        return value
    raise Malformed(f"{what} is neither true nor false")


def number(value: object, what: str) -> float | None:
    """`value` as a number, or None for null. Raises Malformed."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_COUNT:
        return float(value)
    raise Malformed(f"{what} is not a number")


def count(value: object, what: str) -> int | None:
    """`value` as a whole number from 0 that every parser keeps, or None for null. Raises Malformed."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
        return value
    raise Malformed(f"{what} is not a whole number from 0 to 2^53-1")


def tokens(value: object, what: str) -> int | None:
    """As `count`, where some write whole numbers with a point: 28.0. Raises Malformed."""
    return count(int(value) if isinstance(value, float) and value.is_integer() else value, what)


def dumped(value: object) -> str:
    """Any value as JSON; a number that overflowed as the word that JavaScript has for it."""
    try:
        return dumps(value)
    except ValueError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def has_text(value: object) -> bool:
    """Whether any text stands in a value, however deep."""
    if isinstance(value, str):
        return bool(value)
    if isinstance(value, dict):
        return any(map(has_text, value.values()))
    return isinstance(value, list) and any(map(has_text, value))


def kind_of(request: RequestFacts, name: str, kind: str = "function") -> str:
    """The kind of a call: that of the tool which the request offers by this name, where the call does not tell."""
    if kind != "function":
        return kind
    return next((tool.kind for tool in request.tools if tool.name == name), kind)


def mark_partial(response: ResponseFacts, reason: str) -> None:
    """Something of the answer was not understood; the first reason stays."""
    if response.inspection == "full":
        response.inspection, response.partial_reason = "partial", reason


# ---- edits that every dialect makes alike ---------------------------------------------------------------------------


def set_edits(document: Mapping[str, object], sets: Iterable[tuple[tuple[str, ...], object]]) -> list[Edit]:
    """`set` by dotted path: a number names an element where the body has a list."""
    edits = []
    for dotted, value in sets:
        at: object = document
        path: list[str | int] = []
        for key in dotted:
            step = int(key) if isinstance(at, list) and key.isdecimal() else key
            path.append(step)
            at = _below(at, step)
        edits.append(Edit(tuple(path), value))
    return edits


def _below(at: object, step: str | int) -> object:
    if isinstance(at, dict):
        return at.get(step)
    return at[step] if isinstance(at, list) and isinstance(step, int) and step < len(at) else None


def with_sets(document: Mapping[str, object], sets: Iterable[tuple[tuple[str, ...], object]]) -> dict[str, object]:
    """The document as the top-level sets leave it, for what is derived from those fields."""
    return {**document, **{path[0]: value for path, value in sets if len(path) == 1}}


def cap_edit(document: Mapping[str, object], field: str, cap: int) -> list[Edit]:
    """Lowers a number, or sets it where it is missing; never raises it."""
    value = document.get(field)
    lower = value is None or (isinstance(value, int | float) and value > cap)
    return [Edit((field,), cap)] if lower else []
