"""May this call leave, and as what: every rule of the request, the reroute's second pass, one reservation.

Rule 1: a reservation is made for the call as it will leave; whoever does not leave holds nothing.
Rule 2: a generator that yields a Need is sent its Readings. It never sees an exception of a store.
Rule 3: at most one reroute a call; a refusal in either pass refuses.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from policyd.core.compile.policyset import CompiledPolicy, Phase
from policyd.core.decide.combine import Decision, combine, exempted_counters, join
from policyd.core.decide.evaluate import Judged, World, applies, foreseen, hopeless, judge
from policyd.core.decide.plan import BoundRule, Plan
from policyd.core.decide.rollout import rolled_out
from policyd.core.exchange.call import Call
from policyd.core.exchange.costing import begin_cost, tell_price
from policyd.core.exchange.fates import seal_request
from policyd.core.exchange.gauge import FOREVER
from policyd.core.exchange.metering import Meter, gauges_of
from policyd.core.exchange.missing import refusals
from policyd.core.exchange.place import rerouted
from policyd.core.model.counters import Readings, SessionId
from policyd.core.model.decision import Allow, Outcome, Verdict
from policyd.core.model.facts import RequestFacts
from policyd.core.model.prices import Usage
from policyd.core.model.steps import Need, Read, Reserve, Settle

Asking = Generator[Need, Readings, Decision]


def admit(call: Call) -> Generator[Need, Readings, None]:
    """Judge the request; afterwards `call.decision` says what becomes of it, and its holds are taken."""
    call.asked_model = call.facts.request.model or ""
    first = _Pass(call, call.facts.request, reroutes=True)
    decision = yield from first.run()
    last = first
    if decision.reroute is not None:
        last = _Pass(call, rerouted(call, decision.reroute), reroutes=False)
        decision = join(decision, (yield from last.run()))
    _adopt(call, decision, [first, last])


def _adopt(call: Call, decision: Decision, passes: Sequence[_Pass]) -> None:
    last = passes[-1]
    policies = tuple(dict.fromkeys(policy for one in passes for policy in one.plan.policies))
    call.plan = call.ground.plans.of(policies)
    call.note_joined(policies)
    # The answer is that of the model the call leaves for: its rules are judged as those of the last pass were.
    call.facts.request = last.world.facts.request
    call.allows = [judged for judged in last.judged if _exempts(judged)]
    call.meter, call.price, call.served_model = last.meter, last.price, last.model or ""
    if last is not passes[0]:
        call.estimate_by(last.model)
    begin_cost(call)
    call.holder = last.holder
    call.world = replace(last.world, facts=call.facts, blind=_blind(passes))
    call.add(decision)
    seal_request(call, last.judged)


def _blind(passes: Sequence[_Pass]) -> dict[str, str]:
    """What cannot be judged of the answer: what the last pass could not tell, and of policies for the model asked for
    alone what the first could not."""
    first, last = passes[0].world.blind, passes[-1].world.blind
    told = {policy.identity for policy in passes[-1].plan.policies}
    return last if first is last else {**{name: why for name, why in first.items() if name not in told}, **last}


def _exempts(judged: Judged) -> bool:
    return judged.outcome is Outcome.MATCHED and isinstance(judged.bound.rule.action, Allow)


def count_unjudged(call: Call) -> None:
    """The counters of a call that ends before its rules were judged: an attempt is one all the same."""
    unjudged = _Pass(call, call.facts.request, reroutes=True)
    call.meter = unjudged.metered(Decision())


class _Pass:
    """The request's rules once, over one model and one place."""

    def __init__(self, call: Call, request: RequestFacts, *, reroutes: bool) -> None:
        model = request.model
        self.call, self.model, self.reroutes = call, model, reroutes
        # The first pass judges the call as it came, the second one a copy of it with the reroute's target.
        facts = call.facts if reroutes else replace(call.facts, request=request)
        self.world = World(facts)
        selected = call.policies_for(None if facts.unreadable_request else model or "", request=request)
        self._blind(selected)
        self.plan: Plan = call.ground.plans.of(selected)
        self.price = call.price_of(model, request.provider)
        if self.plan.reads_price:
            tell_price(facts.request, self.price, call.options)
        self.plan = call.ground.plans.of(applies(self.plan, self.world))
        self.plan = call.ground.plans.of(rolled_out(self.plan, call.facts, call.ground.variants))
        self.judged: list[Judged] = []
        self.meter = Meter()
        # Each pass holds under a name of its own, so that giving back the first never touches the second.
        self.holder = call.id if reroutes else f"{call.id}:rerouted"

    def _blind(self, policies: Sequence[CompiledPolicy]) -> None:
        """A policy for certain models cannot tell whether it applies to a request that could not be read."""
        if why := self.world.facts.unreadable_request:
            for policy in policies:
                if policy.match.models:
                    self.world.blind[policy.identity] = f"request not readable: {why}"

    def run(self) -> Asking:
        late = self.plan.late
        decision = self._judge((*self.plan.early, *self._hopeless()), self.plan.foreseen_early)
        self.meter = self.metered(decision)
        if missing := refusals(self.meter.gauges, self.judged, self.call.options.identity):
            self.judged += missing
            decision = combine(self.judged, self.call.options.mode, reroutes=self.reroutes)
        leaves = decision.verdict is not Verdict.TERMINATE and decision.reroute is None
        if leaves and self.meter.counted:
            return (yield from self._reserve(late))
        if decision.verdict is Verdict.TERMINATE and any(gauge.counts_refused for gauge in self.meter.counted):
            return (yield from self._probe(late))
        if late or (leaves and self._session_id):
            yield from self._read()
        self.meter.refresh(self.world, None)
        return self._judge_held(late) if leaves else self._judge(late)

    def _hopeless(self) -> list[BoundRule]:
        """Rules about the answer of which it is known before the request leaves that they cannot be judged."""
        if not self.world.facts.unreadable_request and not self.world.blind:
            return []
        late = [bound for bound in self.plan.rules if bound.rule.phase > Phase.RESERVED]
        return hopeless(self.plan, late, self.world)

    def _judge(self, rules: Sequence[BoundRule], ahead: Sequence[BoundRule] = ()) -> Decision:
        """Judge these rules of the request, and those over the response of which `ahead` are true of any response."""
        self.judged += judge(self.plan, rules, self.world)
        self.judged += foreseen(self.plan, ahead, self.world) if ahead else []
        return combine(self.judged, self.call.options.mode, reroutes=self.reroutes)

    def metered(self, decision: Decision) -> Meter:
        """The counters of this pass."""
        call = self.call
        if self.price is None and self.model and self.plan.guesses_price:
            self.price = call.guess_price(self.world.facts.request.provider)
        gauges = gauges_of(self.plan, self.plan.policies, self.world, self.price, call.options.mode, self.model or "")
        implied = [bound for bound in self.plan.of_phase(Phase.RESERVED) if bound.rule.implied]
        exempt = exempted_counters(self.judged, call.options.mode, implied)
        for gauge in gauges:
            gauge.refuses = gauge.refuses and gauge.ref not in exempt
        asked = self._most(decision)
        return Meter(gauges, self.price, self._slice(asked), FOREVER if asked is None else asked)

    def _most(self, decision: Decision) -> int | None:
        """Output tokens that the answer may have, where that is known."""
        request = self.world.facts.request
        most = [value for name, value in decision.obligations.caps if name == "max_tokens"]
        most += [request.max_tokens] if request.max_tokens else []
        return min(most) * request.choices if most else None

    def _slice(self, asked: int | None) -> int:
        """Output tokens that the first hold covers. What does not stream cannot be extended, so there it is all that
        was asked for, where that is known."""
        request, options = self.world.facts.request, self.call.options
        if not request.stream:
            return max(1, asked if asked is not None else options.whole_tokens * request.choices)
        return max(1, options.slice_tokens if asked is None else min(options.slice_tokens, asked))

    @property
    def _usage(self) -> Usage:
        return Usage(input_tokens=self.world.facts.request.input_tokens)

    @property
    def _session_id(self) -> SessionId | None:
        if not self.plan.reads_session:
            return None
        return self.world.facts.session_id

    def _read(self) -> Generator[Need, Readings, None]:
        counters = tuple(gauge.id for gauge in self.meter.counted if gauge.id)
        if not counters and not self._session_id:
            return
        self._take((yield Read(counters, self._session_id)), held=False)

    def _reserve(self, late: Sequence[BoundRule]) -> Asking:
        """Hold, then judge what the readings and `exceeded` tell. A counter whose refusal a rule of the author's has
        answered in another way than by refusing is asked once more, as one that counts and refuses nothing."""
        known = list(self.judged)
        for _ in range(len(self.meter.gauges) + 1):
            op = self.call.next_op("reserve")
            # INVARIANT: what may be held is given back, also where the answer never came: it may have been done.
            self.call.holding.add(self.holder)
            readings = yield Reserve(
                op, self.holder, self.meter.holds(self._usage), self.call.options.lease_s, self._session_id
            )
            if readings.refused is not None:
                self.call.holding.discard(self.holder)
            self._take(readings, held=True)
            self.meter.refresh(self.world, None)
            self.judged = list(known)
            decision = self._judge_held(late)
            if readings.refused is None or decision.reroute or self._refuses(decision):
                break
            self.meter.counted[readings.refused].refuses = False
        if decision.reroute is not None and self.holder in self.call.holding:
            # Given back before the second pass asks: it may need the very room that this one takes.
            self.call.holding.discard(self.holder)
            yield Settle(self.call.next_op("release"), self.holder, ())
        return decision

    def _probe(self, late: Sequence[BoundRule]) -> Asking:
        """The call is refused already: ask whether it is one attempt, or one refusal, too many, and hold nothing."""
        counted = {gauge.ref for gauge in self.meter.counted if gauge.counts_refused}
        over = [bound for bound in self.plan.of_phase(Phase.RESERVED) if counted.issuperset(bound.counters)]
        holds = tuple(gauge.probe() for gauge in self.meter.counted)
        self.call.holding.add(self.holder)
        op = self.call.next_op("probe")
        self._take((yield Reserve(op, self.holder, holds, self.call.options.lease_s, self._session_id)), held=True)
        self.meter.refresh(self.world, None)
        return self._judge((*late, *over))

    def _judge_held(self, late: Sequence[BoundRule]) -> Decision:
        """INVARIANT: what a late rule sends elsewhere or refuses does not leave as it was held for, so `exceeded` is
        not asked about: holding and reading in one round trip must not refuse what the target's price would let pass.
        """
        if late or self.plan.foreseen_late:
            decision = self._judge(late, self.plan.foreseen_late)
            if decision.verdict is Verdict.TERMINATE or decision.reroute is not None:
                return decision
        seal_request(self.call, self.judged)  # what would not leave by now would not have asked for room
        return self._judge(self.plan.of_phase(Phase.RESERVED))

    def _refuses(self, decision: Decision) -> bool:
        """Whether this is a refusal, and the store has said when to come back: it does so of one counter at a time."""
        winner = decision.winner
        if winner is None or decision.verdict is not Verdict.TERMINATE:
            return False
        if winner.outcome is not Outcome.MATCHED or not winner.bound.rule.reads_exceeded:
            return True
        return any(gauge.refused for gauge in self.meter.gauges if gauge.read_by(winner.bound))

    def _take(self, readings: Readings, *, held: bool) -> None:
        self.meter.take(readings, self._usage, held=held)
        if not self._session_id:
            return
        if readings.failure or readings.session is None:
            self.world.session_failure = readings.failure or "the store did not answer"
            return
        session = self.call.facts.session
        session.calls, session.cost_nano = readings.session.calls, readings.session.cost_nano
        session.tokens, session.age_s = readings.session.tokens, readings.session.age_s
        session.similarity = list(readings.session.similarity)
