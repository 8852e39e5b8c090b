"""`--fail-on`: the calls that a dry run must not find.

Rule 1: a rule's name asks for calls that it matches, whether that is enforced or not; anything else is CEL over the
        facts of a call that is over.
Rule 2: what cannot be judged is found: whoever asked for it wants to look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import typer

from policyd.cli.dry_run import Played
from policyd.core.compile.cel import CompiledProgram, Scope
from policyd.core.compile.cel_problems import Want
from policyd.core.compile.expressions import ANSWERED, is_below
from policyd.core.compile.policyset import Batch, CompiledRule, PolicySet, Unknown
from policyd.core.decide.plan import SESSION_STORE_READS
from policyd.core.decide.unknown import unknown_facts
from policyd.core.model.decision import Outcome, RuleResult
from policyd.core.stream.hits import Hits

Finds = Callable[[Played], bool]


@dataclass(slots=True)
class Condition:
    """One `--fail-on`, and what it has found."""

    text: str
    finds: Finds
    reads: frozenset[str] = frozenset()  # the facts that it looks at
    calls: int = 0
    first: str = ""  # the first call that it found

    def look_at(self, played: Played) -> None:
        if not self.finds(played):
            return
        self.first = self.first or played.recording.source
        self.calls += 1

    def fields(self) -> dict[str, object]:
        return {"condition": self.text, "calls": self.calls, "first": self.first or None}


def conditions(texts: Sequence[str], policies: PolicySet) -> list[Condition]:
    """What was asked for. Raises BadParameter for what is neither a rule of these policies nor CEL."""
    return [_condition(text, policies) for text in texts]


def _condition(text: str, policies: PolicySet) -> Condition:
    rules = [rule for policy in policies.policies for rule in policy.rules if text.strip() in _names(rule)]
    return Condition(text, _of_rules(rules)) if rules else _of_cel(text, policies)


def _names(rule: CompiledRule) -> tuple[str, ...]:
    return rule.name, f"{rule.policy}/{rule.name}", rule.id


def _of_rules(rules: Sequence[CompiledRule]) -> Finds:
    wanted = {(rule.namespace, rule.policy, rule.name) for rule in rules}

    def finds(played: Played) -> bool:
        return any(_acts(one) and (one.namespace, one.policy, one.rule) in wanted for one in played.record.rules)

    return finds


def _acts(result: RuleResult) -> bool:
    return result.outcome is Outcome.MATCHED or (result.outcome is Outcome.ERRORED and result.enforced)


def _of_cel(text: str, policies: PolicySet) -> Condition:
    program = _program(text.strip())
    batch = policies.engine.batch([program])
    return Condition(text, lambda played: _judge(batch, played), program.reads)


def _program(text: str) -> CompiledProgram:
    compiled = Scope(policy="", counters=(), params={}, variables=()).compile(text, Want.BOOL)
    if not isinstance(compiled, CompiledProgram):
        problem = compiled[0]
        words = f"no rule is called {text!r}, and as CEL: {problem.message}"
        raise typer.BadParameter(f"{words} ({problem.hint})" if problem.hint else words, param_hint="--fail-on")
    unknown = sorted(
        read for read in compiled.reads if read in SESSION_STORE_READS or not is_below(read, (*ANSWERED, "now"))
    )
    if unknown:
        words = f"`{unknown[0]}` is known only to a policy; name one of its rules"
        raise typer.BadParameter(words, param_hint="--fail-on")
    return compiled


def _judge(batch: Batch, played: Played) -> bool:
    facts = played.facts
    facts.response.cost_nano = played.record.cost_nano  # what rules saw last of it may be older than the answer
    return batch.evaluate(facts, {}, Hits(), Unknown(unknown_facts(facts)))[0] is not False
