"""Everything one call carries from its first byte to its record. Data only; what happens to it stands beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from policyd.core.compile.policyset import CompiledPolicy, CompiledRule, Phase, PolicySet
from policyd.core.decide.combine import Decision, join
from policyd.core.decide.evaluate import Judged, World
from policyd.core.decide.plan import BoundRule, Plan, Plans, enforceable
from policyd.core.decide.rollout import Variants
from policyd.core.exchange.counted import count_along
from policyd.core.exchange.metering import Meter
from policyd.core.model.decision import FailurePolicy
from policyd.core.model.deployment import UNDECLARED, Deployment, Deployments
from policyd.core.model.estimate import UNKNOWN as UNKNOWN_RATE
from policyd.core.model.estimate import Estimates, Rate
from policyd.core.model.facts import Facts, RequestFacts
from policyd.core.model.options import Options
from policyd.core.model.prices import FREE, Price, PriceTable
from policyd.core.model.route import Route
from policyd.core.model.steps import RequestHeaders, Settle
from policyd.core.model.tokens import NoVocabularies, Vocabularies
from policyd.core.stream.detections import count_in_parts
from policyd.core.stream.dialects import Dialect
from policyd.core.stream.dialects.billing import asked_tier
from policyd.core.stream.dialects.generic import UNKNOWN
from policyd.core.stream.dialects.parts import contents
from policyd.core.stream.dialects.providers import seller
from policyd.core.stream.dialects.request_fields import request_structure


@dataclass(frozen=True, slots=True)
class Ground:
    """What every call under one policy set shares. INVARIANT: pinned when the call begins, never looked up again."""

    policies: PolicySet
    plans: Plans
    prices: PriceTable
    options: Options
    variants: Variants = field(default_factory=Variants)
    estimates: Estimates = field(default_factory=Estimates)  # the one part of it that grows with the calls
    vocabularies: Vocabularies = field(default_factory=NoVocabularies)


@dataclass(frozen=True, slots=True)
class Fate:
    """How a policy that is only watched would have ended a call: by which rule, at which protocol event (None: before
    there was one), and what its counters would have charged by then, in store units."""

    policy: CompiledPolicy
    rule: str
    event: int | None
    charges: Mapping[str, int | None]


@dataclass(slots=True, eq=False)
class Call:
    """One call."""

    ground: Ground
    id: str
    began: float  # monotonic seconds
    facts: Facts = field(default_factory=Facts)
    route: Route | None = None  # None: policies are about every call, whatever its route
    dialect: Dialect | None = None
    deployment: Deployment = UNDECLARED
    upstreams: Deployments = field(default_factory=dict)  # where it could be sent instead, by name
    world: World = field(default_factory=lambda: World(Facts()))
    plan: Plan | None = None  # of the policies in force for this call
    decision: Decision = field(default_factory=Decision)
    allows: list[Judged] = field(default_factory=list)  # matched exemptions: they hold for the whole call
    meter: Meter = field(default_factory=Meter)
    price: Price | None = None
    pinned: Mapping[str, Rate] | None = None  # by model: what a recording was estimated by
    rates: dict[str, Rate] = field(default_factory=dict)  # by model: what this call was estimated by
    asked_model: str = ""  # by the sender
    served_model: str = ""
    priced_by: str = ""  # the model of the response that the price has been looked up for
    fetched_before: bool = False  # the response that it fetches has been charged already
    recorded: bool = False  # the response was recorded earlier: it is that of the model that was asked for
    priced_at: float | None = None  # seconds since 1970, where it is not `facts.now` whose prices hold
    sent_path: str = ""  # with its query, as it is forwarded
    body: bytes | None = None  # the request's, as it came, or without its encoding
    bodiless: bool = False  # the request has no body, and needs none
    decoded: bool = False  # the request's body came encoded and could be decoded
    document: object = None  # the request's, parsed
    event: int | None = None  # of the cut
    phase: str = "request"
    status: int = 0  # what the client sees
    reason: str = ""  # why it was refused
    message: str = ""
    degraded: bool = False
    before: dict[tuple[str, str], int] = field(default_factory=dict)  # settled values when the call began
    releases: list[Settle] = field(default_factory=list)
    operations: int = 0
    holder: str = ""  # whose holds the settlement drops
    holding: set[str] = field(default_factory=set)  # holders for whom the store may hold something
    failed_closed: bool = False  # refused or broken because it could not be judged, by no rule's own word
    left: bool = False  # the request has gone to the upstream
    unseen: bool = False  # it ended before anything of its output was seen
    fetches_unbilled: bool = False  # a response that was begun in the background, and is not charged yet
    redacted: dict[str, Counter[str]] = field(default_factory=lambda: {"request": Counter(), "response": Counter()})
    asked_usage: bool = False  # in the caller's place: what comes of it alone is not for the caller
    trimmed: bool = False  # the client did not get all of the response that the provider made
    effects: set[str] = field(default_factory=set)  # ids of the constrains that have changed something
    answered: bool = False  # the answer's headers have gone to the client
    fates: dict[str, Fate] = field(default_factory=dict)  # qualified policies that would have ended the call
    latest: Ground | None = None  # of the set that has come into force since
    joined: tuple[CompiledPolicy, ...] = ()  # of its policies for calls in flight those that are not this call's own
    joined_digest: str = ""  # of the last set by whose policies the call was judged beside its own
    heard: set[CompiledRule] = field(default_factory=set)  # of them the rules that are not to be judged again

    @property
    def options(self) -> Options:
        return self.ground.options

    def opens(self, facts: Facts, dialect: Dialect | None, event: RequestHeaders) -> None:
        """What its headers tell. INVARIANT: the route is pinned here, wherever a reroute sends the call."""
        self.facts = self.world.facts = facts
        facts.bounds = self.options.bounds
        self.dialect = dialect
        self.deployment, self.upstreams = event.deployment, event.upstreams
        home = self.options.home
        self.route = None if home is None else event.route or Route(home)

    @property
    def understood(self) -> bool:
        """Whether the call's endpoint is known. One that is not is read by its strings."""
        return self.dialect is not None and self.dialect is not UNKNOWN

    def elapsed_ms(self, now: float) -> float:
        """Milliseconds from the call's beginning to `now`, to the microsecond: a clock that counts from 1970 is off by
        a part of one, by which `elapsed_ms >= 100` would miss what came after 100 ms sharp."""
        return round((now - self.began) * 1000, 3)

    def policies_for(
        self, model: str | None, operation: str = "", request: RequestFacts | None = None
    ) -> tuple[CompiledPolicy, ...]:
        """The policies whose static match fits this call with this model; None: not known yet. `operation`: what the
        call may yet turn out to be; `request`: as a reroute would change it."""
        request = request or self.facts.request
        operation = operation or request.operation
        known = (model, *request.models) if model is not None else None
        selected = self.ground.policies.select(operation, request.provider, request.path, known, self.route)
        space = self.options.namespace
        if space is not None and not all(policy.cluster or policy.namespace == space for policy in selected):
            selected = tuple(policy for policy in selected if policy.cluster or policy.namespace == space)
        return (*selected, *self.joining(self.joined, model)) if self.joined else selected

    def joining(self, policies: Sequence[CompiledPolicy], model: str | None) -> tuple[CompiledPolicy, ...]:
        """Of these policies for calls in flight, of the set in force now, those whose static match fits this call."""
        wanted, request = {policy.identity for policy in policies}, self.facts.request
        latest = (self.latest or self.ground).policies
        known = (model, *request.models) if model is not None else None
        found = latest.select(request.operation, request.provider, request.path, known, self.route)
        return tuple(policy for policy in found if policy.running and policy.identity in wanted)

    def note_joined(self, judged: Sequence[CompiledPolicy]) -> None:
        """The call has been judged by these: remember which set those that joined it come from."""
        joined = {policy.identity for policy in self.joined}
        if self.latest is not None and any(policy.identity in joined for policy in judged):
            self.joined_digest = self.latest.policies.digest

    def price_of(self, model: str | None, provider: str = "") -> Price | None:
        if self.facts.response.unbilled:
            return FREE
        if not model:
            return None
        request = self.facts.request
        prices, now = self.ground.prices, self._price_time
        provider = seller(provider or request.provider, request.path, self.facts.response.headers)

        def look_up(name: str) -> Price | None:
            return prices.price(provider, name, now)

        price = look_up(model)
        if price is None or request.dialect not in (
            "anthropic.messages",
            "batch.results",
        ):  # the one that names other models in its bill
            return price.asked(request.service_tier) if price and request.service_tier else price
        return replace(price.asked(request.service_tier), other=look_up)

    def guess_price(self, provider: str) -> Price | None:
        """What a model without a price is taken to cost, at most."""
        return self.ground.prices.dearest(provider, self._price_time)

    @property
    def elsewhere(self) -> bool:
        """Whether the response is a recorded one of another model than the call is rerouted to now."""
        return self.recorded and self.served_model != self.asked_model

    @property
    def _price_time(self) -> float:
        return self.facts.now if self.priced_at is None else self.priced_at

    @property
    def rate_place(self) -> str:
        """Where rates are learned: one upstream's responses never change what is estimated of another's. The caller's
        Host header has no part in it."""
        request = self.facts.request
        place = request.upstream or self.deployment.host
        return f"{request.provider}@{place}" if place else request.provider

    def was_read(self) -> None:
        """The request's body has been read: what is billed by it is known, and what is to be estimated."""
        request = self.facts.request
        request.service_tier = asked_tier(self.document, request.dialect)
        request.plain_input = request.input_tokens
        self.estimate_by(request.model)
        self.tell_content(self.ground.plans.of(self.policies_for(None)))

    def tell_content(self, plan: Plan) -> None:
        """`request.content`, where an expression of this plan reads it. Raises Malformed when it is too long."""
        request = self.facts.request
        new = plan.detectors("request") - request.detections.keys()
        if self.document is None or not plan.reads_content or (request.content is not None and not new):
            return
        content = contents(self.document, request_structure(request.dialect), self.options.bounds)
        request.content = content.text
        request.detections.update(count_in_parts(content.plain, [run.near for run in content.runs], new))

    def estimate_by(self, model: str | None) -> None:
        """Pin what is known of this model now: the input is estimated by it, and what it will answer."""
        request = self.facts.request
        known = self._rate_of(model or "")
        self.facts.response.rate = known
        if request.plain_input:
            request.input_tokens = known.input_tokens(request.plain_input, tools=bool(request.tools))
        live = known.tokenizer and self.ground.plans.of(self.policies_for(model or "")).reads_tokens
        count_along(self.facts, self.ground.vocabularies.count(known.tokenizer) if live else None)

    def _rate_of(self, model: str) -> Rate:
        pinned = self.pinned
        known = pinned.get(model) if pinned is not None else None
        if known is None:
            known = self.ground.estimates.rate(self.rate_place, model) if pinned is None else UNKNOWN_RATE
            if not known.miscounted and (name := self.ground.vocabularies.of(model)):
                known = replace(known, tokenizer=name)
        self.rates[model] = known
        return known

    def next_op(self, what: str) -> str:
        """An idempotency key that no other operation of any call has."""
        self.operations += 1
        return f"{self.id}:{what}:{self.operations}"

    def add(self, decision: Decision) -> None:
        """Join a later judging to what has been decided."""
        self.decision = join(self.decision, decision)
        self.degraded = self.degraded or decision.degraded

    def release(self, holder: str) -> None:
        """Give back whatever this holder holds."""
        if holder in self.holding:
            self.holding.discard(holder)
            self.releases.append(Settle(self.next_op("release"), holder, ()))

    def releases_now(self) -> list[Settle]:
        """The holds to give back before the call goes on."""
        releases, self.releases = self.releases, []
        return releases

    def fails_closed(self, *, known: bool) -> bool:
        """Whether a rule that may concern this call is enforced and fails closed. `known`: its headers were read; if
        not, every rule may concern it."""
        if not known:
            rules = tuple(rule for policy in self.ground.policies.policies for rule in policy.rules)
        else:
            rules = tuple(bound.rule for bound in (self.plan or self.ground.plans.of(self.policies_for(None))).rules)
        return any(rule.failure_policy is FailurePolicy.FAIL and enforceable(rule, self.options.mode) for rule in rules)

    def rules_of(self, phase: Phase) -> tuple[BoundRule, ...]:
        if self.plan is None:
            return ()
        rules = self.countable(self.plan.of_phase(phase))
        return tuple(bound for bound in rules if bound.rule not in self.heard) if self.heard else rules

    def countable(self, rules: tuple[BoundRule, ...]) -> tuple[BoundRule, ...]:
        """Without those that read a counter which this call does not have: rerouted, it is no more about a policy for
        the model asked for alone, so that nothing is reserved or charged there, and its counters say nothing."""
        if self.decision.reroute is None:
            return rules
        known = {gauge.ref for gauge in self.meter.gauges}
        return tuple(bound for bound in rules if known.issuperset(bound.counters))
