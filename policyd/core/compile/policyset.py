"""What the compiler makes: an immutable PolicySet, named by its digest.

Rule 1: nothing in here changes after the compiler has made it; a call pins the set it began with.
Rule 2: reads are dotted paths as POLICY.md writes them ("request.model", "counters.spend.exceeded"), counters scoped
        to the policy that declares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from policyd.core.model.counters import Charge, Window
from policyd.core.model.decision import Action, FailurePolicy, Mode, RuleSeverity
from policyd.core.model.facts import CounterFacts, Facts
from policyd.core.model.reach import Watcher as Watcher
from policyd.core.model.route import Route, Target


class Phase(IntEnum):
    """The earliest moment at which everything that a rule reads is known."""

    REQUEST = 1  # request facts (headers and body), caller, session, counters before this call's hold
    RESERVED = 2  # counters.NAME.exceeded: the hold has been tried
    RESPONSE_HEADERS = 3  # response.status, response.headers
    RESPONSE = 4  # the answer's body, event by event; elapsed_ms


CounterRef = tuple[str, str]
"""(qualified policy name, counter name)"""


@dataclass(frozen=True, slots=True)
class CelFailure:
    """An evaluation that gave no value; `reason` is safe to record. `missing`: the path of an unknown input that the
    value depends on."""

    reason: str
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Inputs that could not be had: facts by path, and counters, of which only `limit` and `available` are known. An
    expression fails where its value depends on one of them."""

    facts: frozenset[str] = frozenset()
    counters: frozenset[CounterRef] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.facts or self.counters)


ALL_KNOWN = Unknown()
KNOWN_OF_COUNTERS = frozenset({"limit", "available"})  # whether or not the store answers


class Program(Protocol):
    """One compiled expression. `slot` identifies it within its PolicySet."""

    @property
    def source(self) -> str: ...
    @property
    def reads(self) -> frozenset[str]: ...
    @property
    def policy(self) -> str: ...  # qualified name: the scope of counters.NAME
    @property
    def watchers(self) -> tuple[Watcher, ...]: ...
    @property
    def sought(self) -> tuple[Watcher, ...]: ...  # what its detectors look for in response.content
    @property
    def whole_texts(self) -> frozenset[str]: ...  # texts of the response (VIEWS), beside what is watched as they grow


class TextTruth(Protocol):
    """Tells whether a text condition is true of the response so far."""

    def truth(self, watcher: Watcher, facts: Facts) -> bool: ...
    def stays_true(self, watcher: Watcher, facts: Facts) -> bool:
        """Whether it is true, and more text cannot make it false."""
        ...


class Batch(Protocol):
    """Programs that are judged together over one activation; build once, evaluate often."""

    def evaluate(
        self,
        facts: Facts,
        counters: Mapping[CounterRef, CounterFacts],
        hits: TextTruth,
        unknown: Unknown = ALL_KNOWN,
    ) -> list[object]:
        """One value per program, in order: bool, str, int, float or list[str]; or a CelFailure. Never raises."""
        ...


class Engine(Protocol):
    """The one door to CEL at run time."""

    def batch(self, programs: Sequence[Program]) -> Batch: ...


@dataclass(frozen=True, slots=True)
class Rollout:
    """A stable share of the calls, by a key: `percent` of 0 to 100."""

    percent: float
    by: Program


@dataclass(frozen=True, slots=True, eq=False)
class CompiledRule:
    """One rule, ready to judge. Implied rules (`NAME.exceeded`) have `implied` set and `when` None."""

    policy: str  # metadata.name
    namespace: str  # empty for a ClusterLLMPolicy
    cluster: bool
    name: str
    position: int
    severity: RuleSeverity
    mode: Mode  # the lower of the policy's and the rule's own
    own_mode: Mode  # the rule's own; Full where it has none
    failure_policy: FailurePolicy
    action: Action
    when: Program | None  # None: always, or for an implied rule whenever its counter is exceeded
    phase: Phase
    reads: frozenset[str]  # of `when` and of what it needs to act
    reads_exceeded: frozenset[str]  # names of counters whose `exceeded` it reads
    implied: str | None = None  # the counter's name
    monotone: bool = False  # once true it stays true while the answer grows
    hold_back: int = 0  # characters of response text kept back until judged
    message_expression: Program | None = None
    fallback_expression: Program | None = None
    rollout: Rollout | None = None

    @property
    def qualified_policy(self) -> str:
        return f"{self.namespace}/{self.policy}" if not self.cluster else self.policy

    @property
    def id(self) -> str:
        return f"{self.qualified_policy}/{self.name}"


@dataclass(frozen=True, slots=True)
class Limit:
    """A fixed limit, or one looked up by a key; store units. `by` None: `default` is the limit."""

    default: int | None
    by: Program | None = None
    values: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CompiledCounter:
    """One counter, ready to count."""

    name: str
    key: tuple[Program, ...]
    charge: Charge
    amount: Program | None  # of a charge by expression: evaluated when the call is over
    window: Window
    limit: Limit | None
    clamp: bool
    denies: bool  # onExceeded: Terminate
    scope: str  # Tenant | Global
    keyed_by_session: bool = False  # its key reads a session id, which belongs to its caller
    on_missing: str = "Refuse"  # what an empty key means: Refuse | Share | Skip; empty: the counter cannot be judged
    on_unpriced: str = "Estimate"  # what a model without a price means: Refuse | Estimate | Skip
    value: Program | None = None  # of a charge by different values: evaluated when the call is held for
    missing: CompiledRule | None = None  # refuses a call whose key is empty; only with on_missing Refuse

    @property
    def counts(self) -> str:
        """What it counts, as its identity has it: the charge, and the source of its expression."""
        program = self.amount or self.value
        return f"{self.charge}:{program.source}" if program else self.charge.value


@dataclass(frozen=True, slots=True)
class Match:
    """The static part of a policy's match: globs over the whole string, empty = all."""

    operations: tuple[str, ...] = ()  # empty: all but unknown and other
    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MatchCondition:
    """A named CEL condition that must hold for the policy to apply."""

    name: str
    program: Program


@dataclass(frozen=True, slots=True, eq=False)
class CompiledPolicy:
    """One policy, ready to judge."""

    name: str
    namespace: str
    cluster: bool
    mode: Mode
    failure_policy: FailurePolicy
    match: Match
    conditions: tuple[MatchCondition, ...]
    counters: tuple[CompiledCounter, ...]
    rules: tuple[CompiledRule, ...]  # the implied ones last
    rollout: Rollout | None = None
    targets: tuple[Target, ...] = ()  # in Kubernetes: what it is attached to; none: every route of its namespace
    running: str = ""  # of one that calls in flight are judged by too: what it says, by digest; else empty

    @property
    def qualified(self) -> str:
        return f"{self.namespace}/{self.name}" if not self.cluster else self.name

    @property
    def identity(self) -> str:
        """Which policy in which wording: a call in flight may be judged by two wordings of one, its own and a later."""
        return f"{self.qualified}@{self.running}" if self.running else self.qualified


class PolicySet(Protocol):
    """Policies in force together. Selecting costs what the matching policies cost, not what is loaded."""

    @property
    def digest(self) -> str: ...
    @property
    def policies(self) -> tuple[CompiledPolicy, ...]: ...
    @property
    def running(self) -> tuple[CompiledPolicy, ...]:
        """Those of them that calls in flight are judged by too."""
        ...

    @property
    def engine(self) -> Engine: ...
    @property
    def reads(self) -> frozenset[str]: ...  # by any rule, or by any charge
    def select(
        self,
        operation: str,
        provider: str,
        path: str,
        model: str | tuple[str, ...] | None,
        route: Route | None = None,
    ) -> tuple[CompiledPolicy, ...]:
        """The policies whose static match fits, in a stable order. The same tuple object for the same answer, as far
        as a bounded cache reaches. Of several models any one fits. `model` None: not known yet, so every policy that
        some model could fit. `route` None: routes are no part of it, as where policies come from files."""
        ...
