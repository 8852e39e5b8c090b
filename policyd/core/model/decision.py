"""Decisions: what the rules said, what follows from it, and the record of it.

Rule 1: strictness is a total order and lives here: terminate > escalate > reroute > constrain > allow.
Rule 2: actions are frozen data; what they do to bytes lives in exchange.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from policyd.core.model.headers import HeaderEdit


class Mode(StrEnum):
    """How far a rule is enforced. `rank` orders them; the lowest of process, policy and rule is in effect."""

    MONITOR = "Monitor"
    SOFT = "Soft"
    FULL = "Full"

    @property
    def rank(self) -> int:
        return _MODE_RANK[self]


_MODE_RANK = {Mode.MONITOR: 0, Mode.SOFT: 1, Mode.FULL: 2}


def lowest(one: Mode, other: Mode) -> Mode:
    """The more cautious of two modes."""
    return one if _MODE_RANK[one] <= _MODE_RANK[other] else other


class FailurePolicy(StrEnum):
    """What happens when a rule cannot be judged."""

    FAIL = "Fail"
    IGNORE = "Ignore"


class RuleSeverity(StrEnum):
    """How grave a match is; Soft mode enforces Critical alone."""

    INFO = "Info"
    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"
    CRITICAL = "Critical"

    @property
    def rank(self) -> int:
        return _SEVERITY_RANK[self]


_SEVERITY_RANK = {severity: rank for rank, severity in enumerate(RuleSeverity)}


class Verdict(StrEnum):
    """What becomes of the call; `rank` orders by strictness."""

    ALLOW = "allow"
    CONSTRAIN = "constrain"
    REROUTE = "reroute"
    ESCALATE = "escalate"
    TERMINATE = "terminate"

    @property
    def rank(self) -> int:
        return _VERDICT_RANK[self]


_VERDICT_RANK = {verdict: rank for rank, verdict in enumerate(Verdict)}


class Outcome(StrEnum):
    """What judging one rule gave."""

    MATCHED = "matched"
    NOT_MATCHED = "not_matched"
    ERRORED = "errored"
    EXEMPTED = "exempted"  # matched or errored, but an `allow` names it


# ---- actions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Allow:
    """Exempts the call from rules, named `policy/rule` (bare names)."""

    rules: frozenset[str]


@dataclass(frozen=True, slots=True)
class Redaction:
    """Replaces what its detectors and RE2 patterns find."""

    detectors: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    in_request: bool = True
    in_response: bool = True
    replacement: str = "[redacted]"


@dataclass(frozen=True, slots=True)
class Constrain:
    """Changes the call and lets it run."""

    set: tuple[tuple[tuple[str, ...], object], ...] = ()  # (path, JSON value)
    cap: tuple[tuple[str, int], ...] = ()  # (field, highest value); the dialect knows its own name of the field
    tools_allow: frozenset[str] | None = None
    tools_deny: frozenset[str] = frozenset()
    inject_system: str = ""
    request_headers: HeaderEdit = HeaderEdit()
    response_headers: HeaderEdit = HeaderEdit()
    redact: Redaction | None = None
    pace: float | None = None  # tokens a second

    @property
    def edits_request_body(self) -> bool:
        return bool(
            self.set
            or self.cap
            or self.tools_allow is not None
            or self.tools_deny
            or self.inject_system
            or (self.redact and self.redact.in_request)
        )

    @property
    def edits_response_body(self) -> bool:
        return bool((self.redact and self.redact.in_response) or self.pace)


@dataclass(frozen=True, slots=True)
class Reroute:
    """Sends the call to another model or another Envoy upstream."""

    model: str = ""
    upstream: str = ""
    headers: HeaderEdit = HeaderEdit()
    keep_credentials: bool = False


@dataclass(frozen=True, slots=True)
class Terminate:
    """Rejects the call, or ends its response. Texts here are plain; expressions live on the compiled rule. An empty
    `message` becomes a sentence that names the rule; an empty `fallback` becomes the message unless `silent`."""

    status: int = 403
    reason: str = ""
    message: str = ""
    fallback: str = ""
    finish: str = "refusal"  # refusal, length, stop: how a response that is cut, or a fallback, says that it ends
    silent: bool = False  # the author asked for an empty fallback


Action = Allow | Constrain | Reroute | Terminate


def verdict_of(action: Action) -> Verdict:
    """The verdict that an action stands for."""
    match action:
        case Allow():
            return Verdict.ALLOW
        case Constrain():
            return Verdict.CONSTRAIN
        case Reroute():
            return Verdict.REROUTE
        case Terminate():
            return Verdict.TERMINATE


# ---- the record -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule in a record: what it said, and whether that was enforced."""

    policy: str
    namespace: str
    rule: str
    action: str  # allow | constrain | reroute | terminate
    outcome: Outcome
    enforced: bool
    severity: str = "Medium"
    mode: str = "Full"
    reason: str = ""  # of an error: safe to record, quotes no content


@dataclass(frozen=True, slots=True)
class CounterResult:
    """One counter in a record; amounts in store units. Its key is a pseudonym."""

    policy: str
    namespace: str
    name: str
    key: str
    charge: str
    before: int
    spent: int
    limit: int | None
    exceeded: bool
    available: bool


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """How a policy in Monitor would have ended this call, had it been in Full."""

    policy: str
    namespace: str
    rule: str
    event: int | None  # the protocol event of the cut; None: refused before there was one


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One call as it was decided. Holds no prompt, no answer, no secret."""

    id: str
    time: float  # seconds since 1970, UTC, when the call began
    digest: str  # of the policy set in force
    verdict: Verdict
    would: Verdict  # what every rule, enforced or not, adds up to
    mode: Mode
    enforced: bool
    degraded: bool  # a rule that could not be judged was ignored
    reason: str  # why a call was refused; empty when it was not
    determined_by: tuple[str, ...]  # policy/rule
    rules: tuple[RuleResult, ...]
    counters: tuple[CounterResult, ...]
    event: int | None  # 0-based protocol event of the cut, would-be cuts included
    phase: str  # where it was decided: request, response
    operation: str
    dialect: str
    provider: str
    model: str
    served_model: str  # the model the call left with
    stream: bool
    inspection: str
    inspection_reason: str
    status: int  # what the client saw; 0 when it saw nothing
    usage: Mapping[str, object]
    cost_nano: int
    cost_source: str  # provider, tokenizer, estimate, unpriced
    finish_reasons: tuple[str, ...]
    tenant: str
    session: str  # a pseudonym
    session_source: str
    caller_key: str  # a pseudonym
    events: int
    duration_ms: float
    ended: str  # complete, cut, rejected, cancelled, broken
    conflicts: tuple[str, ...] = ()
    cost_confidence: float = 0.0  # 0..1
    estimate_error: float | None = None  # of the cost just before the provider's last numbers, as a part of it
    price_source: str = ""  # where the price comes from; empty when there is none
    price_digest: str = ""  # of the price table
    service_tier: str = ""  # batch, flex, priority, ...; empty when nobody named one
    labels: Mapping[str, str] = field(default_factory=dict)
    shadow: tuple[ShadowResult, ...] = ()
    identity_missing: tuple[str, ...] = ()  # fields of --identity without a value; `any`: the metadata told nothing
    detections: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # request, response: finds by detector
    joined_digest: str = ""  # of the later policy set whose policies joined while the call ran; empty when none did
