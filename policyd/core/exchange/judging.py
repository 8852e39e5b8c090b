"""The answer's rules: which of them an event could change, and what follows when one matches.

Rule 1: a rule is judged again only when something that it reads has changed.
Rule 2: a match that is not enforced is recorded with its event, and the rule rests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntFlag

from policyd.core.compile.policyset import Phase
from policyd.core.decide.combine import Decision, acting, combine
from policyd.core.decide.evaluate import Judged, judge
from policyd.core.decide.plan import BoundRule, enforceable
from policyd.core.exchange.call import Call
from policyd.core.exchange.metering import usage_of
from policyd.core.model.decision import Outcome, Verdict
from policyd.core.stream.dialects import Changed


class Touch(IntFlag):
    """What can change for a rule between two events; the lower bits are those of `Changed`."""

    EVENT = 1 << 16  # another event came
    SPEND = 1 << 17  # tokens, cost, counters
    HITS = 1 << 18  # a watched text condition came true
    TIME = 1 << 19  # time has passed
    ALL = (1 << 20) - 1


_TOUCHES: dict[str, int] = {
    "response.text": Changed.TEXT,
    "response.delta": Changed.TEXT | Touch.EVENT,
    "response.events": Touch.EVENT,
    "response.tool_calls": Changed.TOOLS,
    "response.finish_reasons": Changed.FINISH,
    "response.model": Changed.MODEL,
    "response.refusal": Changed.REFUSAL,
    "response.inspection": Changed.INSPECTION,
    "response.elapsed_ms": Touch.TIME | Touch.EVENT,
    "response.ttft_ms": Changed.TEXT,
    "response.status": Touch.EVENT,
    "response.headers": Touch.EVENT,
}


def touches(bound: BoundRule) -> int:
    """The changes that this rule has to be judged again for."""
    mask = int(Changed.INSPECTION)  # what could not be read makes readers err
    rule = bound.rule
    if rule.implied:
        return mask | Touch.SPEND
    for read in rule.reads:
        if read.startswith("counters."):
            mask |= Touch.SPEND
        elif read.startswith("response."):
            mask |= _TOUCHES.get(".".join(read.split(".", 2)[:2]), int(Touch.SPEND))
    if rule.when is not None and rule.when.watchers:
        mask |= Touch.HITS
        if not rule.when.reads_text and "response.delta" not in rule.reads:
            mask &= ~int(Changed.TEXT)
    return mask


@dataclass(slots=True, eq=False)
class Live:
    """One rule that may still match, and the changes that concern it."""

    bound: BoundRule
    mask: int
    timed: bool


class Bench:
    """The rules of one answer that may still match."""

    def __init__(self, call: Call) -> None:
        self.call = call
        plan = call.plan
        rules: list[BoundRule] = []
        if plan is not None:
            rules = [*plan.of_phase(Phase.RESPONSE), *(bound for bound in plan.counting if self._may_refuse(bound))]
        self.live = [Live(bound, touches(bound), _reads_time(bound)) for bound in rules]
        self.mask = self._mask()

    def _may_refuse(self, bound: BoundRule) -> bool:
        """An implied rule that was exempted, or that a rule of the author's has answered, stays silent."""
        if not bound.rule.implied:
            return True
        gauge = next((g for g in self.call.meter.gauges if g.ref == (bound.policy.qualified, bound.rule.implied)), None)
        return gauge is not None and (gauge.refuses or not gauge.holds)

    def _mask(self) -> int:
        mask = 0
        for live in self.live:
            mask |= live.mask
        return mask

    @property
    def timed(self) -> bool:
        return any(live.timed for live in self.live)

    @property
    def reads_args(self) -> bool:
        """Whether a rule reads tool arguments: then a tool call leaves only when they are whole."""
        return any(
            read.startswith("response.tool_calls") and (read.endswith(".arguments") or read.count(".") == 1)
            for live in self.live
            if enforceable(live.bound.rule, self.call.options.mode)
            for read in live.bound.rule.reads
        )

    def due(self, touched: int) -> list[BoundRule]:
        return [live.bound for live in self.live if live.mask & touched]

    def judge(self, rules: Sequence[BoundRule], event: int | None) -> Decision:
        """Judge these over the answer so far and add what follows to the call's decision."""
        call = self.call
        assert call.plan is not None
        response = call.facts.response
        usage = usage_of(response)
        if call.price:
            response.cost_nano = call.price.cost_nano(usage)
        call.meter.refresh(call.world, usage)
        judged = judge(call.plan, rules, call.world)
        if all(one.outcome is Outcome.NOT_MATCHED for one in judged):
            return _QUIET
        decision = combine([*call.allows, *judged], call.options.mode, reroutes=False)
        self._rest(judged)
        if event is not None and call.event is None and decision.would is Verdict.TERMINATE:
            call.event = event
        call.add(decision)
        return decision

    def _rest(self, judged: Iterable[Judged]) -> None:
        done = {id(one.bound) for one in judged if one.outcome is Outcome.MATCHED or acting(one)}
        if done:
            self.live = [live for live in self.live if id(live.bound) not in done]
            self.mask = self._mask()

    def close(self) -> None:
        """The answer is over: the rules that never matched are recorded as such."""
        rest = [Judged(live.bound, Outcome.NOT_MATCHED) for live in self.live]
        if rest:
            self.call.add(combine(rest, self.call.options.mode, reroutes=False))


_QUIET = Decision()


def _reads_time(bound: BoundRule) -> bool:
    return any(read.startswith("response.elapsed_ms") for read in bound.rule.reads)


def may_change_answer(call: Call) -> bool:
    """Whether anything in force could still change the answer's bytes: if not, they pass as they come."""
    if call.decision.obligations.redactions or call.decision.obligations.pace:
        return True
    if call.plan is None:
        return False
    rules = (*call.plan.of_phase(Phase.RESPONSE), *call.plan.counting)
    return any(enforceable(bound.rule, call.options.mode) for bound in rules)
