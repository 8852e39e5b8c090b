"""A rule with the policy that it belongs to, and what follows from it alone: worked out once, not once a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from policyd.core.compile.policyset import CompiledPolicy, CompiledRule, CounterRef
from policyd.core.decide.concern import Concern, concern_of
from policyd.core.model.decision import Allow, Mode, Outcome, RuleResult, RuleSeverity, lowest, verdict_of


def effective(rule: CompiledRule, process: Mode) -> Mode:
    """The mode that a rule runs in."""
    return lowest(rule.mode, process)


def enforceable(rule: CompiledRule, process: Mode) -> bool:
    """Whether a match of this rule would be acted on."""
    match effective(rule, process):
        case Mode.MONITOR:
            return False
        case Mode.SOFT:
            return isinstance(rule.action, Allow) or rule.severity is RuleSeverity.CRITICAL
        case Mode.FULL:
            return True


@dataclass(frozen=True, eq=False)
class BoundRule:
    """A rule with the policy that it belongs to."""

    rule: CompiledRule
    policy: CompiledPolicy

    @cached_property
    def counters(self) -> frozenset[CounterRef]:
        """Every counter that this rule reads anything of."""
        names = {read.split(".")[1] for read in self.rule.reads if read.startswith("counters.")}
        return frozenset((self.policy.qualified, name) for name in names)

    @cached_property
    def concern(self) -> Concern:
        """What of an answer concerns it."""
        return concern_of(self.rule)

    @cached_property
    def unmatched(self) -> Mapping[Mode, RuleResult]:
        """What a record says of it when it has not matched, by the mode of the process."""
        return {process: self.result(Outcome.NOT_MATCHED, process) for process in Mode}

    def result(self, outcome: Outcome, process: Mode, *, enforced: bool = False, reason: str = "") -> RuleResult:
        """What a record says of it."""
        rule = self.rule
        return RuleResult(
            policy=rule.policy,
            namespace=rule.namespace,
            rule=rule.name,
            action=verdict_of(rule.action),
            outcome=outcome,
            enforced=enforced,
            severity=rule.severity,
            mode=effective(rule, process),
            reason=reason,
        )
