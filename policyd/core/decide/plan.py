"""What the policies that match a call will need: which rules when, which bytes at all. Made once a selection.

Rule 1: a call pays for what its own rules read, and for nothing else.
Rule 2: a rule's answer is needed again only when something that it reads has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

from policyd.core.compile.cel_detections import FIELD
from policyd.core.compile.cel_facts import fields_of
from policyd.core.compile.cel_outlook import Outlook, outlook
from policyd.core.compile.policyset import (
    Batch,
    CompiledCounter,
    CompiledPolicy,
    CompiledRule,
    CounterRef,
    Engine,
    Phase,
    PolicySet,
    Program,
    Rollout,
)
from policyd.core.decide.bound import BoundRule as BoundRule
from policyd.core.decide.bound import effective as effective
from policyd.core.decide.bound import enforceable as enforceable
from policyd.core.model.counters import Charge
from policyd.core.model.decision import Allow, Constrain, Mode, Reroute, Terminate
from policyd.core.model.detectors import DETECTOR_NAMES
from policyd.core.model.reach import VIEWS
from policyd.core.stream.hits import may_cease

if TYPE_CHECKING:
    from policyd.core.decide.docket import Docket
    from policyd.core.decide.roster import Roster

Thing = TypeVar("Thing")

REQUEST_BODY_READS = frozenset(
    f"request.{name}"
    for name in (
        "model",
        "models",
        "stream",
        "max_tokens",
        "temperature",
        "messages",
        "system",
        "text",
        "tools",
        "input_tokens",
        "content",
        "tool_results",
        "detections",
        "estimated_cost_usd",
        "price",
    )
)
CONTENT_READS = frozenset({"request", "request.content"})
RESPONSE_HEADER_READS = frozenset({"response.status", "response.headers"})
SESSION_STORE_READS = frozenset(f"session.{name}" for name in ("calls", "cost_usd", "tokens", "age", "similarity"))
EARLY = (
    frozenset({*fields_of("request"), *fields_of("caller"), *fields_of("session"), "now"})
    - REQUEST_BODY_READS
    - SESSION_STORE_READS
)  # known from the request's headers

PRICE_READS = frozenset({"request.estimated_cost_usd", "request.price"})

SPENDING_READS = frozenset({"request.input_tokens", "request.estimated_cost_usd"}) | {
    f"response.{name}" for name in ("input_tokens", "output_tokens", "reasoning_tokens", "cost_usd", "cost_source")
}


def reads_request_body(reads: frozenset[str]) -> bool:
    return any(_root(read) in REQUEST_BODY_READS for read in reads)


def reads_response_body(reads: frozenset[str]) -> bool:
    return any(read.startswith("response.") and _root(read) not in RESPONSE_HEADER_READS for read in reads)


def reads_session(reads: frozenset[str]) -> bool:
    return any(_root(read) in SESSION_STORE_READS for read in reads)


def asks_session(policy: CompiledPolicy) -> bool:
    """Whether a rule or a charge of this policy needs to know what a session adds up to."""
    return any(reads_session(rule.reads) for rule in policy.rules) or any(
        counter.amount is not None and reads_session(counter.amount.reads) for counter in policy.counters
    )


def reads_likeness(reads: frozenset[str]) -> bool:
    """Whether it takes how alike a session's answers are."""
    return any(_root(read) == "session.similarity" for read in reads)


def counters_read(reads: frozenset[str]) -> frozenset[str]:
    """The names of the counters that these reads need an answer of the store for.

    `limit` and `available` are known without one.
    """
    names = (read.split(".") for read in reads if read.startswith("counters."))
    return frozenset(parts[1] for parts in names if len(parts) < 3 or parts[2] not in ("limit", "available"))


def _root(read: str) -> str:
    return ".".join(read.split(".", 2)[:2])


def reads_price(reads: frozenset[str]) -> bool:
    """Whether it takes what the call will cost before it leaves."""
    return any(_root(read) in PRICE_READS for read in reads)


def charges_money(counter: CompiledCounter) -> bool:
    """Whether what this counter charges depends on a price."""
    amount = counter.amount
    return counter.charge is Charge.COST or (amount is not None and "response.cost_usd" in amount.reads)


def needs_usage(counter: CompiledCounter) -> bool:
    """Whether the answer has to be read to know what to charge."""
    if counter.charge is Charge.EXPRESSION:
        return counter.amount is not None and reads_response_body(counter.amount.reads)
    return not counter.charge.per_call


class Made(Generic[Thing]):
    """What was made of some of a plan's parts, by their ids. INVARIANT: each keeps its parts alive, or the plan does,
    so that an id is never reused while it is remembered."""

    def __init__(self, bound: int = 256) -> None:  # not a tuning: few choices are ever live
        self._made: dict[tuple[int, ...], Thing] = {}
        self._bound = bound

    def of(self, key: tuple[int, ...], make: Callable[[], Thing]) -> Thing:
        """What is remembered of them, or else is made now."""
        found = self._made.get(key)
        if found is None:
            if len(self._made) >= self._bound:
                self._made.clear()
            found = self._made[key] = make()
        return found


@dataclass(eq=False)
class Plan:
    """The rules of one selection of policies, sorted by when they can be judged."""

    policies: tuple[CompiledPolicy, ...]
    engine: Engine
    process: Mode
    also_reads: frozenset[str] = frozenset()  # by whoever looks at calls that are over
    _batches: Made[Batch] = field(default_factory=Made)
    _outlooks: Made[Outlook] = field(default_factory=Made)
    dockets: Made[Docket] = field(default_factory=Made)  # docket.py's
    rosters: Made[Roster] = field(default_factory=Made)  # roster.py's

    def outlook(self, program: Program) -> Outlook:
        """What can be said of this condition before the response comes, made once."""
        return self._outlooks.of((id(program),), lambda: outlook(program, EARLY))

    @cached_property
    def usage_counters(self) -> frozenset[CounterRef]:
        """The counters whose charge only the response can tell."""
        return frozenset((policy.qualified, one.name) for policy, one in self.counters if needs_usage(one))

    @cached_property
    def conditions_read_body(self) -> bool:
        """Whether a match condition of these policies reads the request's body."""
        return any(reads_request_body(one.program.reads) for policy in self.policies for one in policy.conditions)

    @cached_property
    def rules(self) -> tuple[BoundRule, ...]:
        return tuple(BoundRule(rule, policy) for policy in self.policies for rule in policy.rules)

    def of_phase(self, phase: Phase) -> tuple[BoundRule, ...]:
        return self._by_phase[phase]

    @cached_property
    def _by_phase(self) -> dict[Phase, tuple[BoundRule, ...]]:
        return {phase: tuple(b for b in self.rules if b.rule.phase is phase) for phase in Phase}

    @cached_property
    def early(self) -> tuple[BoundRule, ...]:
        """The rules of the request that are judged before the store is asked."""
        return tuple(bound for bound in self.of_phase(Phase.REQUEST) if not _asks_store(bound))

    @cached_property
    def late(self) -> tuple[BoundRule, ...]:
        """The rules of the request that wait for the store."""
        return tuple(bound for bound in self.of_phase(Phase.REQUEST) if _asks_store(bound))

    @cached_property
    def foreseen(self) -> tuple[BoundRule, ...]:
        """Terminate rules over the response that may be true whatever the response is: the request tells."""
        rules = [
            one for one in self.rules if one.rule.phase > Phase.RESERVED and isinstance(one.rule.action, Terminate)
        ]
        return tuple(one for one in rules if one.rule.when is not None and self.outlook(one.rule.when).may_hold)

    @cached_property
    def foreseen_early(self) -> tuple[BoundRule, ...]:
        """Those that are judged before the store is asked."""
        return tuple(one for one in self.foreseen if not _asks_store(one))

    @cached_property
    def foreseen_late(self) -> tuple[BoundRule, ...]:
        """Those that wait for the store."""
        return tuple(one for one in self.foreseen if _asks_store(one))

    @cached_property
    def counters(self) -> tuple[tuple[CompiledPolicy, CompiledCounter], ...]:
        return tuple((policy, counter) for policy in self.policies for counter in policy.counters)

    @cached_property
    def counting(self) -> tuple[BoundRule, ...]:
        """Terminate rules of the request that counters may make true later: judged again as the call spends. What
        counts calls does not grow while one runs."""
        early = (*self.of_phase(Phase.REQUEST), *self.of_phase(Phase.RESERVED), *self.of_phase(Phase.RESPONSE_HEADERS))
        return tuple(
            bound
            for bound in early
            if isinstance(bound.rule.action, Terminate) and counters_read(bound.rule.reads) & _growing(bound.policy)
        )

    @cached_property
    def needs_request_body(self) -> bool:
        return (
            any(policy.match.models for policy in self.policies)
            or any(reads_request_body(condition.program.reads) for p in self.policies for condition in p.conditions)
            or any(_needs_body(bound.rule) for bound in self.rules)
            or any(reads_request_body(share.by.reads) for _, _, share in self.rollouts)
            or any(_counter_needs_body(counter) for _, counter in self.counters)
            or self.reads_session
            or any(reads_response_body(bound.rule.reads) for bound in self.rules)
            or bool(self.redacting)  # in what words the answer comes only the request tells
        )

    @cached_property
    def reads_content(self) -> bool:
        """Whether any expression of this selection reads `request.content`."""
        reads = {read for reads in self._all_reads() for read in reads}
        return not reads.isdisjoint(CONTENT_READS) or bool(self.detectors("request"))

    def detectors(self, root: str) -> frozenset[str]:
        """The detectors whose finds in the request, or in the response, any expression of this selection reads."""
        return self._detectors[root]

    @cached_property
    def _detectors(self) -> dict[str, frozenset[str]]:
        reads = {read for reads in self._all_reads() for read in reads}
        return {root: frozenset(_detectors_of(root, reads)) for root in ("request", "response")}

    def _all_reads(self) -> Iterator[frozenset[str]]:
        yield self.also_reads
        yield from (bound.rule.reads for bound in self.rules)
        for bound in self.rules:
            texts = (bound.rule.message_expression, bound.rule.fallback_expression)
            yield from (program.reads for program in texts if program)
        yield from (condition.program.reads for policy in self.policies for condition in policy.conditions)
        yield from (share.by.reads for _, _, share in self.rollouts)
        yield from (program.reads for _, counter in self.counters for program in programs_of(counter))

    @cached_property
    def needs_response_body(self) -> bool:
        """Whether the answer's bytes must be read at all."""
        return (
            any(bound.rule.phase is Phase.RESPONSE for bound in self.rules)
            or any(reads_response_body(bound.rule.reads) for bound in self.rules)
            or any(needs_usage(counter) for _, counter in self.counters)
            or self.reads_session
        )

    @cached_property
    def reads_tokens(self) -> bool:
        """Whether it makes a difference, while a call runs, how many tokens it is: to a rule, a counter or a pace."""
        rules = [bound.rule for bound in self.rules]
        return (
            any(read in SPENDING_READS for rule in rules for read in rule.reads)
            or any(needs_usage(counter) for _, counter in self.counters)
            or any(isinstance(rule.action, Constrain) and rule.action.pace for rule in rules)
        )

    @cached_property
    def texts_read(self) -> frozenset[str]:
        """The texts of the response (see VIEWS) that anything of this selection reads."""
        return frozenset(view for view in VIEWS if any(f"response.{view}" in reads for reads in self._every_reads()))

    @cached_property
    def texts_kept(self) -> frozenset[str]:
        """Those that have to be kept while the response streams, beside what is watched as they grow."""
        conditions = [bound.rule.when for bound in self.rules if bound.rule.when is not None]
        watched = {one.of for when in conditions for one in when.watchers if may_cease(one)}
        whole = {view for when in conditions for view in when.whole_texts}
        other = {view for view in VIEWS for reads in self._other_reads() if f"response.{view}" in reads}
        return frozenset(watched | whole | other)

    @cached_property
    def wants_content(self) -> bool:
        """Whether anything of this selection needs every string of the response."""
        return bool(self.detectors("response")) or "content" in self.texts_read or bool(self.redacting)

    @cached_property
    def reads_calls(self) -> bool:
        """Whether anything of this selection reads the tool calls of the response."""
        return any(read.startswith("response.tool_calls") for reads in self._every_reads() for read in reads)

    def _every_reads(self) -> Iterator[frozenset[str]]:
        yield from (bound.rule.reads for bound in self.rules)
        yield from self._other_reads()

    def _other_reads(self) -> Iterable[frozenset[str]]:
        """What is read by expressions that are not conditions of rules."""
        rules = [bound.rule for bound in self.rules]
        texts = [one for rule in rules for one in (rule.message_expression, rule.fallback_expression)]
        programs = [*texts, *(counter.amount for _, counter in self.counters)]
        return (self.also_reads, *(program.reads for program in programs if program is not None))

    @cached_property
    def reads_price(self) -> bool:
        """Whether anything that is evaluated for this selection reads the price before the call."""
        conditions = (condition.program for policy in self.policies for condition in policy.conditions)
        programs = [*conditions, *(program for _, counter in self.counters for program in programs_of(counter))]
        programs += [share.by for _, _, share in self.rollouts]
        return any(reads_price(one.reads) for one in programs) or any(reads_price(b.rule.reads) for b in self.rules)

    @cached_property
    def guesses_price(self) -> bool:
        """Whether a counter charges a model without a price by an estimate."""
        return any(charges_money(counter) and counter.on_unpriced == "Estimate" for _, counter in self.counters)

    @cached_property
    def redacting(self) -> tuple[BoundRule, ...]:
        """The rules that take text out of the answer."""
        return tuple(bound for bound in self.rules if redacts_response(bound.rule))

    @cached_property
    def rollouts(self) -> tuple[tuple[CompiledPolicy, int | None, Rollout], ...]:
        """The shares that this selection is enforced for: of a policy, or of its rule at a position."""
        whole = [(policy, None, policy.rollout) for policy in self.policies if policy.rollout]
        some = [(b.policy, b.rule.position, b.rule.rollout) for b in self.rules if b.rule.rollout]
        return (*whole, *some)

    @cached_property
    def reroutes(self) -> bool:
        """Whether any rule of this selection could send the call elsewhere."""
        return any(
            isinstance(bound.rule.action, Reroute) and enforceable(bound.rule, self.process) for bound in self.rules
        )

    @cached_property
    def enforces(self) -> bool:
        """Whether any rule of this selection could be acted on: if not, not a header of the answer changes."""
        return any(enforceable(bound.rule, self.process) for bound in self.rules)

    @cached_property
    def changes_answer(self) -> bool:
        """Whether a rule of this selection could be acted on while the answer runs: if not, it passes as it comes."""
        rules = (*self.of_phase(Phase.RESPONSE), *self.counting)
        return any(enforceable(bound.rule, self.process) for bound in rules)

    @cached_property
    def reads_session(self) -> bool:
        return any(asks_session(policy) for policy in self.policies)

    def batch(self, programs: Sequence[Program]) -> Batch:
        """The batch of these programs, made once. The programs must be this selection's own."""
        return self._batches.of(tuple(map(id, programs)), lambda: self.engine.batch(programs))


def _asks_store(bound: BoundRule) -> bool:
    """Whether it waits for the store: a counter is not bound before, and `available` is what the store's answer is."""
    reads = bound.rule.reads
    return any(read.startswith("counters.") for read in reads) or reads_session(reads)


def _growing(policy: CompiledPolicy) -> set[str]:
    """The counters that a running call can change. What an expression gives is charged at its end: before, the call can
    only exceed a limit."""
    return {
        counter.name
        for counter in policy.counters
        if not counter.charge.per_call and (counter.charge is not Charge.EXPRESSION or counter.limit is not None)
    }


def _needs_body(rule: CompiledRule) -> bool:
    return reads_request_body(rule.reads) or edits_request_body(rule) or _answers(rule)


def _answers(rule: CompiledRule) -> bool:
    """Whether it may answer in the model's place: whether a stream was asked for stands in the body."""
    return isinstance(rule.action, Terminate) and rule.action.status == 200


def _detectors_of(root: str, reads: Iterable[str]) -> Iterator[str]:
    path = f"{root}.{FIELD}"
    for read in reads:
        if read == path:  # read whole, as a part of its root
            yield from DETECTOR_NAMES
        elif read.startswith(f"{path}."):
            yield read.removeprefix(f"{path}.")


def edits_request_body(rule: CompiledRule) -> bool:
    """Whether acting on this rule would change the request's body: what cannot be read cannot be changed either."""
    match rule.action:
        case Constrain() as constrain:
            return constrain.edits_request_body
        case Reroute() as reroute:
            return bool(reroute.model)
        case Terminate() | Allow():
            return False


def programs_of(counter: CompiledCounter) -> list[Program]:
    """Every expression of a counter."""
    programs: list[Program] = list(counter.key)
    if counter.limit and counter.limit.by:
        programs.append(counter.limit.by)
    programs += [program for program in (counter.amount, counter.value) if program]
    return programs


def _counter_needs_body(counter: CompiledCounter) -> bool:
    return needs_usage(counter) or any(reads_request_body(program.reads) for program in programs_of(counter))


def redacts_response(rule: CompiledRule) -> bool:
    """Whether acting on this rule would take text out of the answer: what cannot be read cannot be redacted either."""
    action = rule.action
    return isinstance(action, Constrain) and action.redact is not None and action.redact.in_response


class Plans:
    """Plans by selection. INVARIANT: an entry keeps its policies alive, so an id is never reused while cached."""

    def __init__(
        self,
        engine: Engine,
        process: Mode,
        session_readers: bool,
        bound: int = 4096,
        *,
        likeness_readers: bool = False,
        also_reads: frozenset[str] = frozenset(),
    ) -> None:
        self._engine, self._process, self._bound = engine, process, bound
        self._plans: dict[tuple[int, ...], Plan] = {}
        self._newest: Plan | None = None
        self.session_readers, self._also_reads = session_readers, also_reads
        self.likeness_readers = likeness_readers
        self._enforces: bool | None = None

    def enforces(self, policies: PolicySet) -> bool:
        """Whether any rule of this set, which these plans are for, is enforced."""
        if self._enforces is None:
            rules = (rule for policy in policies.policies for rule in policy.rules)
            self._enforces = any(enforceable(rule, self._process) for rule in rules)
        return self._enforces

    def of(self, policies: tuple[CompiledPolicy, ...]) -> Plan:
        if self._newest is not None and self._newest.policies is policies:
            return self._newest  # a call asks for one selection several times
        key = tuple(map(id, policies))
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= self._bound:
                self._plans.clear()
            plan = self._plans[key] = Plan(policies, self._engine, self._process, self._also_reads)
        self._newest = plan
        return plan


PlanOf = Callable[[tuple[CompiledPolicy, ...]], Plan]
