"""The answer's rules: which of them an event could change, and what follows when one matches.

Rule 1: a rule is judged again only when something that it reads has changed.
Rule 2: a match that is not enforced is recorded with its event, and the rule rests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policyd.core.compile.policyset import CompiledRule, Phase
from policyd.core.decide.combine import Decision, acting, combine
from policyd.core.decide.concern import INSPECTION
from policyd.core.decide.concern import Touch as Touch
from policyd.core.decide.evaluate import Judged, cannot_act, judge
from policyd.core.decide.plan import BoundRule, enforceable
from policyd.core.decide.roster import roster_of
from policyd.core.exchange.call import Call
from policyd.core.exchange.costing import tell_cost
from policyd.core.exchange.fates import seal_answer
from policyd.core.exchange.metering import usage_of
from policyd.core.model.decision import Outcome, Verdict

LOOK_AHEAD = 64  # tokens and events that a rule is first judged ahead
LOOK_AHEAD_MOST = 4096
LOOK_AHEAD_MS = 1000.0  # milliseconds ahead


class Bench:
    """The rules of one answer that may still match.

    A monotone rule that is false of the answer as it would be W tokens and events further on is false of everything
    up to there, so it is judged once for all of that: `_tokens`, `_events` and `_ms` are how far. What it reads beside
    growing numbers forces it earlier. So an event costs comparisons, and the event of a match is still exact.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self._undone: tuple[BoundRule, ...] = ()  # matched, and cannot be carried out on what cannot be read
        self._window = LOOK_AHEAD
        rules = self._rules()
        self._known = {bound.rule for bound in rules}
        self._begin(rules)

    def _rules(self) -> list[BoundRule]:
        call, plan = self.call, self.call.plan
        if plan is None:
            return []
        counting = (bound for bound in call.countable(plan.counting) if self._may_refuse(bound))
        return [*call.rules_of(Phase.RESPONSE), *counting]

    def _begin(self, rules: Sequence[BoundRule]) -> None:
        self._keep(rules)
        self.whole_texts = self.roster.whole_texts
        self._tokens = self._events = -1
        self._ms = -1.0

    def _keep(self, rules: Sequence[BoundRule]) -> None:
        """From now on these are the rules that may still match."""
        self.roster = roster_of(self.call.plan or self.call.ground.plans.of(()), rules)
        self._wakes, self._looks_ahead = self.roster.wakes, bool(self.roster.later)  # every event asks for these

    def follow(self) -> list[BoundRule]:
        """The call's plan has changed: what has left it is judged no more, what has come is judged from here on."""
        plan = self.call.plan
        there = {bound.rule for bound in plan.rules} if plan else set[CompiledRule]()
        new = [bound for bound in self.call.rules_of(Phase.RESPONSE) if bound.rule not in self._known]
        self._known.update(bound.rule for bound in new)
        self._begin([*(bound for bound in self.roster.rules if bound.rule in there), *new])
        return new

    def keep_joined(self) -> None:
        """Judge nothing but what has joined the call."""
        joined = {policy.identity for policy in self.call.joined}
        self._begin([bound for bound in self.roster.rules if bound.policy.identity in joined])

    def _may_refuse(self, bound: BoundRule) -> bool:
        """An implied rule that was exempted, or that a rule of the author's has answered, stays silent; so does one
        that has been heard: what was `exceeded` before the call left was judged then."""
        if not bound.rule.implied:
            return True
        gauge = next((g for g in self.call.meter.gauges if g.ref == (bound.policy.qualified, bound.rule.implied)), None)
        return gauge is not None and (gauge.refuses or not (gauge.holds or gauge.exceeded))

    def awake(self, touched: int) -> bool:
        """Whether any rule may be due after these changes: what most events are asked, and answer with no."""
        return bool(touched & self._wakes) or (self._looks_ahead and self._past())

    def due(self, touched: int, *, forced: bool = False) -> list[BoundRule]:
        """The rules that have to be judged after these changes. `forced`: whether or not they were judged ahead."""
        roster = self.roster
        rules = [bound for bound in roster.now if bound.concern.mask & touched] if touched & roster.mask else []
        if touched & INSPECTION and self.call.facts.unreadable_response:
            rules = [*self._redacting(), *rules] if not self._undone else rules
        if roster.later and (forced or touched & roster.force or self._past()):
            rules += roster.later
        return rules

    def _redacting(self) -> tuple[BoundRule, ...]:
        """Rules that have matched and cannot be carried out on what cannot be read: they err, once."""
        if self.call.plan is None:
            return ()
        done = {(r.namespace, r.policy, r.rule) for r in self.call.decision.results if r.outcome is Outcome.MATCHED}
        redacting = self.call.plan.redacting
        self._undone = tuple(b for b in redacting if (b.rule.namespace, b.rule.policy, b.rule.name) in done)
        return self._undone

    def _past(self) -> bool:
        response = self.call.facts.response
        return response.output_tokens > self._tokens or response.events > self._events or response.elapsed_ms > self._ms

    def judge(self, rules: Sequence[BoundRule], event: int | None) -> Decision:
        """Judge these over the answer so far and add what follows to the call's decision."""
        if not rules:
            return _QUIET
        call, ahead = self.call, self._ahead(rules)
        if ahead and len(rules) == len(self.roster.later) and self._clear():
            return _QUIET
        judged = self._judged(rules)
        if all(one.outcome is Outcome.NOT_MATCHED for one in judged):
            if ahead and len(rules) != len(self.roster.later):
                self._clear()
            return _QUIET
        decision = combine([*call.allows, *judged], call.options.mode, reroutes=False)
        self._rest(judged)
        seal_answer(call, judged, event)
        if event is not None and (call.event is None or decision.verdict is Verdict.TERMINATE):
            # A cut that is made says where, whatever a rule that is only watched would have cut before.
            call.event = event if decision.would is Verdict.TERMINATE else call.event
        call.add(decision)
        return decision

    def _judged(self, rules: Sequence[BoundRule]) -> list[Judged]:
        call = self.call
        assert call.plan is not None
        if self.roster.prices or self.roster.counts:
            usage = usage_of(call.facts.response)
            if self.roster.prices:
                tell_cost(call, usage)
            if self.roster.counts:
                call.meter.refresh(call.world, usage)
        judged = judge(call.plan, rules, call.world)
        return [self._as_done(one) for one in judged] if self._undone else judged

    def _as_done(self, judged: Judged) -> Judged:
        """A rule that has matched before does not have to match again to be one that cannot be carried out."""
        if judged.bound not in self._undone:
            return judged
        return Judged(judged.bound, Outcome.ERRORED, cannot_act(judged.bound, self.call.world))

    def _ahead(self, rules: Sequence[BoundRule]) -> bool:
        """Whether every rule that looks ahead is among these: only then it can be told how far they stay false."""
        later = self.roster.later
        return bool(later) and tuple(rules[-len(later) :]) == later

    def _clear(self) -> bool:
        """Find how far the rules that look ahead stay false; whether they do, from here on."""
        response, window = self.call.facts.response, self._window
        real = (response.output_tokens, response.events, response.elapsed_ms)
        response.output_tokens += window
        response.events += window
        response.elapsed_ms += LOOK_AHEAD_MS
        far = (response.output_tokens, response.events, response.elapsed_ms)
        clear = all(one.outcome is Outcome.NOT_MATCHED for one in self._judged(self.roster.later))
        if clear:
            self._tokens, self._events, self._ms = far
            self._window = min(window * 2, LOOK_AHEAD_MOST)
        else:
            self._tokens = self._events = -1
            self._window = max(window // 4, 4)
        response.output_tokens, response.events, response.elapsed_ms = real
        return clear

    def _rest(self, judged: Iterable[Judged]) -> None:
        done = {id(one.bound) for one in judged if one.outcome is Outcome.MATCHED or acting(one)}
        if done:
            self._keep([bound for bound in self.roster.rules if id(bound) not in done])

    def close(self) -> None:
        """The answer is over: the rules that never matched are recorded as such."""
        rest = [Judged(bound, Outcome.NOT_MATCHED) for bound in self.roster.rules]
        if rest:
            self.call.add(combine(rest, self.call.options.mode, reroutes=False))


_QUIET = Decision()


def redacts_answer(call: Call) -> bool:
    """Whether text is to be taken out of the answer."""
    return any(one.in_response for one in call.decision.obligations.redactions)


def may_change_answer(call: Call) -> bool:
    """Whether anything in force could still change the answer's bytes: if not, they pass as they come."""
    if redacts_answer(call) or call.decision.obligations.pace:
        return True
    if call.plan is None or not call.heard:
        return call.plan is not None and call.plan.changes_answer
    rules = (*call.rules_of(Phase.RESPONSE), *call.plan.counting)
    return any(enforceable(bound.rule, call.options.mode) for bound in rules)
