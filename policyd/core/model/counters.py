"""Counters as nouns: identity, window, what is asked of a store and what it answers.

Rule 1: amounts are integers: nano-dollars for Cost, tokens or requests for the rest, and millionths for a charge
        by expression. No amount or limit exceeds 2**53 - 1.
Rule 2: the identity of a counter leaves out its limit: raising a limit keeps what was counted.
Rule 3: a store answers every operation exactly once by its idempotency key, however often it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

MAX_AMOUNT = 2**53 - 1
NANO = 1_000_000_000  # nano-dollars in a dollar
MICRO = 1_000_000  # units of a charge by expression in one
DISTINCT_MOST = 1_000  # different values that one counter of them tells apart: beyond that its value stays there
CROWDED_S = 15.0  # when to look again for room that running calls hold; sooner where their leases are shorter


class Charge(StrEnum):
    """What a counter counts."""

    COST = "Cost"
    REQUESTS = "Requests"
    TOTAL_TOKENS = "TotalTokens"
    INPUT_TOKENS = "InputTokens"
    OUTPUT_TOKENS = "OutputTokens"
    CACHED_INPUT_TOKENS = "CachedInputTokens"
    REASONING_TOKENS = "ReasoningTokens"
    EXPRESSION = "Expression"
    ATTEMPTS = "Attempts"  # every call that reaches the counter, refused ones too
    REFUSALS = "Refusals"  # refused calls alone
    DISTINCT = "Distinct"  # different values of an expression

    @property
    def per_call(self) -> bool:
        """Whether what it counts is known when the call leaves: it does not grow while the call runs."""
        return self in (Charge.REQUESTS, Charge.ATTEMPTS, Charge.REFUSALS, Charge.DISTINCT)

    @property
    def scale(self) -> int:
        """Store units in one unit of CEL's double."""
        match self:
            case Charge.COST:
                return NANO
            case Charge.EXPRESSION:
                return MICRO
            case _:
                return 1


class WindowKind(StrEnum):
    """How a counter forgets."""

    LIFETIME = "lifetime"  # duration from the first charge
    IDLE = "idle"  # duration since the last charge
    SLIDING = "sliding"  # the last duration, 60 sub-windows
    CALENDAR = "calendar"  # Day, Week (Monday), Month, Year in a time zone


@dataclass(frozen=True, slots=True)
class Window:
    """The period a counter covers."""

    kind: WindowKind
    seconds: float = 0.0  # of lifetime, idle, sliding
    calendar: str = ""  # Day | Week | Month | Year
    time_zone: str = "UTC"

    def __str__(self) -> str:
        return f"{self.kind}:{self.calendar}@{self.time_zone}" if self.calendar else f"{self.kind}:{self.seconds:g}"


@dataclass(frozen=True, slots=True)
class CounterId:
    """Which counter: the limit is no part of it. `life` keeps a Monitor policy's counting apart."""

    policy: str  # namespace/name
    name: str
    key: tuple[str, ...]
    charge: str  # Charge; with ":" and the source for what an expression gives
    window: Window
    tenant: str = "default"
    scope: str = "Tenant"  # Tenant | Global
    life: str = "live"  # live | monitor
    owner: str = ""  # of the session that the key names: two callers may send the same session id
    # What this call adds to a counter of different values, as a digest. No part of which counter it is.
    member: str = field(default="", compare=False)
    _hash: int = field(init=False, repr=False, compare=False, default=0)  # stores look it up again and again

    def __post_init__(self) -> None:
        parts = (self.policy, self.name, self.key, self.charge, self.window, self.tenant, self.scope, self.life)
        object.__setattr__(self, "_hash", hash((parts, self.owner)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def is_own(self) -> bool:
        """Whether policyd keeps it for itself, and no policy does: names of Kubernetes have no underscores."""
        return self.policy.startswith("policyd/") and "_" in self.policy

    @property
    def full_key(self) -> str:
        """The key's parts and the owner of the session among them, as one text."""
        return "\0".join((*self.key, self.owner) if self.owner else self.key)


@dataclass(frozen=True, slots=True)
class Hold:
    """What one call asks of one counter. A store grants as much as fits between `least` and `most`; with `most` 0 there
    must be room for `least`, and nothing is taken.

    With a `member` the amounts are 1: it takes no room where it is counted already, or held by another call.
    """

    counter: CounterId
    least: int
    most: int
    limit: int | None  # None: never refuses

    @property
    def makes_sense(self) -> bool:
        """Whether its amounts are amounts, in order."""
        return 0 <= self.least <= MAX_AMOUNT and (self.most == 0 or self.least <= self.most <= MAX_AMOUNT)


@dataclass(frozen=True, slots=True)
class SessionId:
    """Whose finished calls `session.*` adds up."""

    tenant: str
    id: str
    owner: str = ""  # two callers may send the same session id


@dataclass(frozen=True, slots=True)
class Reading:
    """One counter as the store sees it, this call's own hold left out. Store units."""

    value: int = 0  # settled
    held: int = 0  # by other calls
    granted: int = 0  # held by this call, all its grants together
    available: bool = True  # the store answered
    # Beside a refusal only, of every counter that would not have had room by itself:
    retry_after_s: float | None = None  # until the window has freed `least`, if waiting can help
    # Beside a refusal only, of every counter with a limit:
    resets_s: float | None = None  # until all that is settled has left the window
    seen: bool = False  # the member that was asked about counts already


@dataclass(frozen=True, slots=True)
class SessionReading:
    """What a session's finished calls add up to."""

    calls: int = 0
    cost_nano: int = 0
    tokens: int = 0
    age_s: float = 0.0
    similarity: tuple[float, ...] = ()  # newest first


@dataclass(frozen=True, slots=True)
class SessionCharge:
    """What one finished call adds to its session."""

    session: SessionId
    cost_nano: int
    tokens: int
    said: str = ""  # what it answered, where somebody asks how alike answers are: no store gets it
    sketch: bytes = b""  # of what it answered, see core/model/sketch.py


@dataclass(frozen=True, slots=True)
class Readings:
    """A store's answer; `counters` stand in the order they were asked for."""

    counters: tuple[Reading, ...] = ()
    session: SessionReading | None = None
    refused: int | None = None  # index of the first hold that did not fit; then nothing at all was held
    failure: str = ""  # why the store could not answer: timeout, unavailable, ...
