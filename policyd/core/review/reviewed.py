"""One policy as it is reviewed: what is written, what came of it, and what holds of every call that it applies to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from policyd.core.compile.cel import CompiledProgram
from policyd.core.compile.cel_tree import Ident, Node, walk
from policyd.core.compile.compiler import Written
from policyd.core.compile.findings import Findings
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledPolicy, CompiledRule, Match, Phase, Program
from policyd.core.compile.select import NOT_BY_DEFAULT, glob_matches
from policyd.core.model.operations import OPERATIONS
from policyd.core.model.policy import PolicyDocument
from policyd.core.review.assume import Assumption, Case, Effort
from policyd.core.review.ranges import leaves_of

MODEL = Ident("request.model")


@dataclass(slots=True)
class Reviewed:
    """One policy; `findings` takes what is to be said of it."""

    document: PolicyDocument
    findings: Findings
    policy: CompiledPolicy
    own: list[CompiledRule] = field(default_factory=list)  # the author's rules
    effort: Effort = field(default_factory=Effort)  # shared by all of a review

    def path(self, rule: CompiledRule, *below: str) -> Path:
        """Where a rule stands in its document."""
        return ("spec", "rules", rule.position, *below)


def reviewed(written: Iterable[Written], effort: Effort) -> list[Reviewed]:
    """The policies, each with nothing found yet."""
    return [Reviewed(one.document, one.findings.again(), one.policy, _own(one.policy), effort) for one in written]


def _own(policy: CompiledPolicy) -> list[CompiledRule]:
    return [rule for rule in policy.rules if not rule.implied]


def program_of(program: Program) -> CompiledProgram:
    """The program with its tree."""
    assert isinstance(program, CompiledProgram), "INVARIANT: the compiler makes no other"
    return program


def assumption(one: Reviewed, policies: Iterable[CompiledPolicy], programs: Iterable[Program]) -> Assumption:
    """Assumes conditions of these policies, over what these programs read."""
    leaves = leaves_of(policies)
    leaves.add(one for program in programs for one in program_of(program).inputs)
    return Assumption(leaves, one.effort)


# ---- what holds of the calls of a policy ----------------------------------------------------------------------------


def matched_cases(assume: Assumption, match: Match, *, models: bool) -> list[Case]:
    """What the static match says of the call. `models`: whether the rule is judged with the model that was selected."""
    case: dict[Node, frozenset[str]] = {}
    operations = [name for name in OPERATIONS if _operates(match, name)]
    case[Ident("request.operation")] = frozenset(operations)
    listed = {"request.provider": match.providers, "request.path": match.paths}
    if models:
        listed["request.model"] = match.models
    for name, patterns in listed.items():
        if patterns and not any("*" in pattern or "?" in pattern for pattern in patterns):
            case[Ident(name)] = frozenset(patterns)
    return [{leaf: assume.known(leaf, {}).among(values) for leaf, values in case.items()}]


def _operates(match: Match, operation: str) -> bool:
    if not match.operations:
        return operation not in NOT_BY_DEFAULT
    return any(glob_matches(pattern)(operation) for pattern in match.operations)


def sees_asked_model(rule: CompiledRule) -> bool:
    """Whether a rule is judged with the very model that its policy was selected by. One that is judged while the answer
    runs sees the model of a reroute, and one that counts may be judged again then."""
    return rule.phase <= Phase.RESERVED and not any(read.startswith("counters.") for read in rule.reads)


def conditioned(assume: Assumption, policy: CompiledPolicy, given: Sequence[Case], *, models: bool) -> list[Case]:
    """The cases in which every match condition holds."""
    cases = list(given)
    for tree in condition_trees(policy):
        if models or not mentions(tree, MODEL.name):
            cases = assume.cases(tree, True, cases)
    return cases


def condition_trees(policy: CompiledPolicy) -> Iterator[Node]:
    for condition in policy.conditions:
        yield program_of(condition.program).tree


def mentions(tree: Node, name: str) -> bool:
    """Whether a tree reads this leaf, or asks if it is there."""
    return any(isinstance(node, Ident) and node.name.removesuffix("?") == name for node in walk(tree))


def applicable(assume: Assumption, policy: CompiledPolicy, *, models: bool) -> list[Case]:
    """What holds of every call that the policy applies to."""
    return conditioned(assume, policy, matched_cases(assume, policy.match, models=models), models=models)


def programs_of(policy: CompiledPolicy, *rules: CompiledRule) -> list[Program]:
    """The conditions of a policy, and of these rules."""
    return [condition.program for condition in policy.conditions] + [rule.when for rule in rules if rule.when]
