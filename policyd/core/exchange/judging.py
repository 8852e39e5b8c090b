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
from policyd.core.decide.evaluate import Judged, judge
from policyd.core.decide.plan import BoundRule, enforceable
from policyd.core.exchange.call import Call
from policyd.core.exchange.costing import COST_FACTS, tell_cost
from policyd.core.exchange.fates import seal_answer
from policyd.core.exchange.metering import usage_of
from policyd.core.model.decision import Outcome, Verdict
from policyd.core.stream.dialects import Changed

_USAGE, _SPEND = int(Changed.USAGE), int(Touch.SPEND)
_GROWING = int(Touch.EVENT | Touch.SPEND | Touch.TIME)
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
        self.live = self._rules()
        self._known = {bound.rule for bound in self.live}
        self._blind = False
        self._window = LOOK_AHEAD
        self._begin()

    def _rules(self) -> list[BoundRule]:
        call, plan = self.call, self.call.plan
        if plan is None:
            return []
        counting = (bound for bound in call.countable(plan.counting) if self._may_refuse(bound))
        return [*call.rules_of(Phase.RESPONSE), *counting]

    def _begin(self) -> None:
        self.reads_whole_text = any(live.rule.when is not None and live.rule.when.reads_text for live in self.live)
        self._tokens = self._events = -1
        self._ms = -1.0
        self._sort()

    def follow(self) -> list[BoundRule]:
        """The call's plan has changed: what has left it is judged no more, what has come is judged from here on."""
        plan = self.call.plan
        there = {bound.rule for bound in plan.rules} if plan else set[CompiledRule]()
        new = [bound for bound in self.call.rules_of(Phase.RESPONSE) if bound.rule not in self._known]
        self._known.update(bound.rule for bound in new)
        self.live = [*(live for live in self.live if live.rule in there), *new]
        self._begin()
        return new

    def keep_joined(self) -> None:
        """Judge nothing but what has joined the call."""
        joined = {policy.identity for policy in self.call.joined}
        self.live = [live for live in self.live if live.policy.identity in joined]
        self._begin()

    def _may_refuse(self, bound: BoundRule) -> bool:
        """An implied rule that was exempted, or that a rule of the author's has answered, stays silent; so does one
        that has been heard: what was `exceeded` before the call left was judged then."""
        if not bound.rule.implied:
            return True
        gauge = next((g for g in self.call.meter.gauges if g.ref == (bound.policy.qualified, bound.rule.implied)), None)
        return gauge is not None and (gauge.refuses or not (gauge.holds or gauge.exceeded))

    def _sort(self) -> None:
        self._now = [live for live in self.live if not live.concern.ahead]
        self._later = [live for live in self.live if live.concern.ahead]
        self._mask = self._force = 0
        for live in self._now:
            self._mask |= live.concern.mask
        for live in self._later:
            # INVARIANT: the provider's numbers are no growth: its input may leap where its output stays as it was.
            mask = live.concern.mask
            self._force |= mask & ~_GROWING | (_USAGE if mask & _SPEND else 0)
        self._wakes = self._mask | self._force | INSPECTION
        self._prices = any(COST_FACTS & live.rule.reads for live in self.live)
        self._counts = any(live.concern.counts for live in self.live)

    @property
    def timed(self) -> bool:
        return any(live.concern.timed for live in self.live)

    @property
    def reads_args(self) -> bool:
        """Whether a rule reads tool arguments: then a tool call leaves only when they are whole."""
        return any(
            read.startswith("response.tool_calls") and (read.endswith(".arguments") or read.count(".") == 1)
            for live in self.live
            if enforceable(live.rule, self.call.options.mode)
            for read in live.rule.reads
        )

    def awake(self, touched: int) -> bool:
        """Whether any rule may be due after these changes: what most events are asked, and answer with no."""
        return bool(touched & self._wakes) or (bool(self._later) and self._past())

    def due(self, touched: int, *, forced: bool = False) -> list[BoundRule]:
        """The rules that have to be judged after these changes. `forced`: whether or not they were judged ahead."""
        rules = [live for live in self._now if live.concern.mask & touched] if touched & self._mask else []
        if touched & INSPECTION and self.call.facts.unreadable_response:
            rules = [*self._redacting(), *rules]
        if self._later and (forced or touched & self._force or self._past()):
            rules += self._later
        return rules

    def _redacting(self) -> list[BoundRule]:
        """Rules that have matched and cannot be carried out on what cannot be read: judged anew, once."""
        if self._blind or self.call.plan is None:
            return []
        self._blind = True
        done = {(r.namespace, r.policy, r.rule) for r in self.call.decision.results if r.outcome is Outcome.MATCHED}
        return [b for b in self.call.plan.redacting if (b.rule.namespace, b.rule.policy, b.rule.name) in done]

    def _past(self) -> bool:
        response = self.call.facts.response
        return response.output_tokens > self._tokens or response.events > self._events or response.elapsed_ms > self._ms

    def judge(self, rules: Sequence[BoundRule], event: int | None) -> Decision:
        """Judge these over the answer so far and add what follows to the call's decision."""
        if not rules:
            return _QUIET
        call = self.call
        judged = self._judged(rules)
        if all(one.outcome is Outcome.NOT_MATCHED for one in judged):
            self._judge_ahead(rules)
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
        if self._prices or self._counts:
            usage = usage_of(call.facts.response)
            if self._prices:
                tell_cost(call, usage)
            if self._counts:
                call.meter.refresh(call.world, usage)
        return judge(call.plan, rules, call.world)

    def _judge_ahead(self, judged: Sequence[BoundRule]) -> None:
        """Find how far these rules stay false; INVARIANT: only when every rule that looks ahead is among them."""
        later = self._later
        if not later or len(judged) < len(later) or judged[-len(later) :] != later:
            return
        response, window = self.call.facts.response, self._window
        real = (response.output_tokens, response.events, response.elapsed_ms)
        response.output_tokens += window
        response.events += window
        response.elapsed_ms += LOOK_AHEAD_MS
        far = (response.output_tokens, response.events, response.elapsed_ms)
        if all(one.outcome is Outcome.NOT_MATCHED for one in self._judged(later)):
            self._tokens, self._events, self._ms = far
            self._window = min(window * 2, LOOK_AHEAD_MOST)
        else:
            self._tokens = self._events = -1
            self._window = max(window // 4, 4)
        response.output_tokens, response.events, response.elapsed_ms = real

    def _rest(self, judged: Iterable[Judged]) -> None:
        done = {id(one.bound) for one in judged if one.outcome is Outcome.MATCHED or acting(one)}
        if done:
            self.live = [live for live in self.live if id(live) not in done]
            self._sort()

    def close(self) -> None:
        """The answer is over: the rules that never matched are recorded as such."""
        rest = [Judged(live, Outcome.NOT_MATCHED) for live in self.live]
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


def kept_blind(rule: CompiledRule) -> int:
    """What a rule keeps back beyond what the texts that it watches for can span: nobody knows which of it matters."""
    reach = max((watcher.reach or 0 for watcher in rule.when.watchers), default=0) if rule.when else 0
    return rule.hold_back if rule.hold_back >= max(reach, 1) else 0
