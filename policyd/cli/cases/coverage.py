"""Which rules the cases have seen match, and not match.

Rule 1: a rule without `when` always matches: what can be seen instead is a call that its policy is not about.
Rule 2: a limit's own rule counts where no rule of the author's speaks for it.
Rule 3: a policy below the paths that no case is about counts as not seen, not as absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from policyd.cli.cases.running import CaseResult
from policyd.core.compile.policyset import CompiledPolicy, CompiledRule, Match, PolicySet
from policyd.core.model.decision import Outcome, RuleResult


class RuleKey(NamedTuple):
    """One rule: its namespace (empty for a ClusterLLMPolicy), policy and name."""

    namespace: str
    policy: str
    rule: str

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


@dataclass(slots=True)
class Seen:
    """What cases have seen of one rule; None: it cannot be seen."""

    matched: bool | None = False
    not_matched: bool | None = False

    @property
    def wanted(self) -> int:
        return (self.matched is not None) + (self.not_matched is not None)

    @property
    def met(self) -> int:
        return bool(self.matched) + bool(self.not_matched)


class Coverage:
    """Every rule, and what was seen of it."""

    def __init__(self, sets: Iterable[PolicySet]) -> None:
        self.rules: dict[RuleKey, Seen] = {}
        self._always: set[RuleKey] = set()
        for policies in sets:
            for policy in policies.policies:
                self._add(policy)

    def _add(self, policy: CompiledPolicy) -> None:
        for rule in policy.rules:
            key = RuleKey(rule.namespace, rule.policy, rule.name)
            if rule.implied and _spoken_for(rule, policy.rules):
                continue
            seen = self.rules.setdefault(key, Seen())
            if rule.when is None and not rule.implied:
                self._always.add(key)
                seen.not_matched = False if policy.conditions or policy.match != Match() else None

    def see(self, results: Iterable[CaseResult]) -> None:
        for result in results:
            for call in result.calls:
                self.call(call.rules)

    def call(self, rules: Sequence[RuleResult]) -> None:
        """What one call has shown."""
        outcomes = {RuleKey(one.namespace, one.policy, one.rule): one.outcome for one in rules}
        for key, outcome in outcomes.items():
            if (seen := self.rules.get(key)) is None:
                continue
            if outcome is Outcome.MATCHED and seen.matched is not None:
                seen.matched = True
            if outcome is Outcome.NOT_MATCHED and seen.not_matched is not None:
                seen.not_matched = True
        for key in self._always - outcomes.keys():
            if self.rules[key].not_matched is not None:
                self.rules[key].not_matched = True

    @property
    def percent(self) -> float:
        """Of what can be seen, 0 to 100."""
        wanted = sum(seen.wanted for seen in self.rules.values())
        return 100.0 * sum(seen.met for seen in self.rules.values()) / wanted if wanted else 100.0

    @property
    def missing(self) -> list[tuple[RuleKey, str]]:
        """What no case has seen, in words."""
        return [
            (key, word)
            for key, seen in sorted(self.rules.items())
            for word, state in (("matched", seen.matched), ("not matched", seen.not_matched))
            if state is False
        ]


def _spoken_for(implied: CompiledRule, rules: Sequence[CompiledRule]) -> bool:
    return any(not rule.implied and implied.implied in rule.reads_exceeded for rule in rules)
