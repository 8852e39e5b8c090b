"""What a policy set comes to as an EnvoyExtensionPolicy of Envoy AI Gateway, where policyd is asked behind its filter.

Rule 1: what is said here was seen with a real gateway, and tests/aigw holds it to that: version 1.0.0.
Rule 2: nothing in it is impossible in every call: it depends on the backend that a call reaches. So nothing is an
        error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policyd.adapters.envoy.config import UPSTREAM_HEADER
from policyd.core.compile.places import Path
from policyd.core.compile.policyset import CompiledPolicy, CompiledRule
from policyd.core.decide.plan import needs_usage, reads_response_body
from policyd.core.model.decision import Constrain, Reroute

IN_FRONT = "put policyd's own Envoy in front (docs/ai-gateway.md)"
MODEL_HEADER = "x-ai-eg-model"  # what the gateway's routes match


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is not as it is written, there: what the author wants, and what becomes of it."""

    code: str
    wants: str
    fate: str
    hint: str = IN_FRONT


CHANGED_BODY = Doubt(
    "AIG001",
    "changes the request's body",
    "the change is lost where the gateway translates, renames the model, retries, or asks a stream for its usage",
)
ANOTHER_MODEL = Doubt(
    "AIG002",
    "sends calls to another model",
    "the backend is chosen before policyd is asked, and the new name is lost wherever a changed body is",
)
ANOTHER_UPSTREAM = Doubt(
    "AIG003",
    "sends calls to another upstream",
    f"a call gets there only by a rule of its AIGatewayRoute that matches {UPSTREAM_HEADER}",
    f"let that rule match {MODEL_HEADER} too and remove {UPSTREAM_HEADER}, or {IN_FRONT}",
)
READS_ANSWER = Doubt(
    "AIG004",
    "is about the answer",
    "where the gateway translates, the provider's words are not understood: a stream passes, a whole answer errs; and "
    "Envoy before 1.40 loses some streams that arrive in one burst",
    f'{IN_FRONT}, or refuse what is not understood: response.inspection == "partial"',
)
COUNTS_ANSWER = Doubt(
    "AIG005",
    "counts what an answer used",
    "where the gateway translates, the provider's words are not understood, and little or nothing is counted",
)

Found = tuple[Path, str, Doubt]
"""Where it stands in the policy's document, what is called so, and the doubt."""


def doubts(policy: CompiledPolicy) -> Iterator[Found]:
    """What of this policy will not do everywhere what it says."""
    for rule in policy.rules:
        if rule.implied is None:
            for below, doubt in _of_rule(rule):
                yield ("spec", "rules", rule.position, *below), f"rule `{rule.name}`", doubt
    for at, counter in enumerate(policy.counters):
        if needs_usage(counter):
            yield ("spec", "counters", at, "name"), f"counter `{counter.name}`", COUNTS_ANSWER


def _of_rule(rule: CompiledRule) -> Iterator[tuple[Path, Doubt]]:
    match rule.action:
        case Constrain() as action:
            if action.edits_request_body:
                yield ("constrain",), CHANGED_BODY
            if action.edits_response_body:
                yield ("constrain",), READS_ANSWER
                return
        case Reroute() as action:
            if action.model:
                yield ("reroute",), ANOTHER_MODEL
            if action.upstream:
                yield ("reroute",), ANOTHER_UPSTREAM
        case _:
            pass
    if reads_response_body(rule.reads) and "response.inspection" not in rule.reads:
        yield ("when" if rule.when else "name",), READS_ANSWER
