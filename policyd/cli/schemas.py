"""The shapes of files as JSON Schema, so that editors complete and underline while a file is written.

Rule 1: written from the models that read the files; docs/schemas/ holds the same, and a test keeps them fresh.
Rule 2: a schema sees the shape alone. What needs more than one field to be judged is `policyd check`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

BASE = "https://policyd.dev/schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file. `file` is its name below docs/schemas/ and `BASE`."""

    file: str
    title: str
    make: Callable[[], Schema]


def _policy() -> Schema:
    from policyd.core.model.policy import ACTIONS, PolicyDocument

    schema = PolicyDocument.model_json_schema(by_alias=True)
    schema["$defs"]["RuleSpec"]["oneOf"] = [{"required": [action]} for action in ACTIONS]
    schema["$defs"]["WindowSpec"]["oneOf"] = [
        {"required": [kind]} for kind in ("lifetime", "idle", "sliding", "calendar")
    ]
    for place, words in _WORDS.items():
        owner, _, name = place.partition(".")
        schema["$defs"][owner]["properties"][name]["description"] = words
    return schema


def _test() -> Schema:
    from policyd.cli.cases.model import json_schema

    return json_schema()


KINDS = {
    "policy": Kind("policy.json", "A policy of policyd: LLMPolicy or ClusterLLMPolicy", _policy),
    "test": Kind("policytest.json", "Cases of policies, for `policyd test`", _test),
}

_WORDS = {
    "PolicySpec.mode": "Monitor records what it would have done (default), Soft enforces Critical rules, Full all.",
    "PolicySpec.failurePolicy": "When a rule cannot be judged: Fail refuses (default), Ignore lets pass, marked.",
    "PolicySpec.match": "Which calls it is about: globs over the whole string. An empty list means all.",
    "PolicySpec.matchConditions": "CEL over the request that must hold for the policy to apply.",
    "PolicySpec.params": "Typed literals, read as params.NAME.",
    "PolicySpec.variables": "CEL, in order; read as variables.NAME.",
    "PolicySpec.counters": "Sums that live across calls; read as counters.NAME.",
    "PolicySpec.rules": "All are judged; the strictest that matches wins.",
    "CounterSpec.key": "CEL string, or a list of them: whose counter it is, such as session.id or caller.key.",
    "CounterSpec.charge": "Cost, Requests, Attempts, Refusals, tokens of a kind, {expression: …} or {distinct: …}.",
    "CounterSpec.window": "One of lifetime, idle, sliding (durations such as 24h) or calendar.",
    "CounterSpec.limit": "Such as 2.00 USD, 100000 tokens or 60 requests; or {by: CEL, default: …, values: {…}}.",
    "CounterSpec.clamp": "Lower the request's max_tokens to what the limit still allows.",
    "CounterSpec.onExceeded": "Terminate (default): the limit denies by itself. Continue: rules decide.",
    "RuleSpec.when": "CEL; true means act. Without it the rule always acts.",
    "RuleSpec.severity": "Soft enforces Critical alone; among rules of equal strictness the graver wins.",
    "RuleSpec.mode": "Never further than the policy's own.",
    "RuleSpec.holdBack": "Characters of the answer that wait until they are judged.",
    "RuleSpec.allow": "Exempts the call from the rules it names.",
    "RuleSpec.constrain": "Changes the call and lets it run.",
    "RuleSpec.reroute": "Another model or upstream, before the request leaves.",
    "RuleSpec.terminate": "Refuses the call, or ends its answer properly.",
    "RuleSpec.name": "What it is called in records, as policy/rule.",
    "AllowSpec.rules": "Rules of policies of the same namespace, as policy/rule.",
    "ConstrainSpec.set": "Fields of the request's body, by dotted path.",
    "ConstrainSpec.cap": "Lowers max_tokens, or sets it where the caller sent none.",
    "RerouteSpec.model": "The model to ask instead.",
    "RerouteSpec.upstream": "The upstream to ask instead, by the name that Envoy was given.",
    "RerouteSpec.keepCredentials": "Whether another upstream gets the caller's credentials.",
    "TerminateSpec.status": "200 answers with the fallback, 400 to 599 with an error (403).",
    "TerminateSpec.reason": "A word for programs (the rule's name).",
    "TerminateSpec.message": "The error's text (the reason).",
    "TerminateSpec.messageExpression": "CEL text for the message; where it fails, the message stands.",
    "TerminateSpec.fallback": "What ends an answer that runs, or is the answer with status 200 (the message).",
    "TerminateSpec.fallbackExpression": "CEL text for the fallback; where it fails, the fallback stands.",
    "TerminateSpec.finish": "How the response ends, in the dialect's own words: refusal (default), length, stop.",
    "RedactSpec.detectors": "Kinds of things that are found by name.",
    "RedactSpec.patterns": "RE2, of finite reach.",
    "RedactSpec.in": "Where to look; without it wherever it is still possible.",
    "PaceSpec.tokens_per_second": "The highest rate of the answer.",
    "CounterSpec.name": "Read as counters.NAME.",
    "CounterSpec.onMissing": "What an empty key means: the call is refused, shares one count, or is not counted.",
    "CounterSpec.onUnpriced": "What a model without a price means: refused, estimated by the dearest, or not counted.",
    "CounterSpec.scope": "Tenant (default): each tenant's own. Global: across tenants.",
    "LimitBySpec.by": "CEL text: whose limit it is.",
    "LimitBySpec.default": "For those that are not listed; without it they have none.",
    "LimitBySpec.values": "Limits by what `by` gives.",
    "RolloutSpec.percent": "Of the calls, 0 to 100.",
    "RolloutSpec.by": "CEL text: calls alike in it share one fate (session.id).",
    "PolicySpec.description": "For people.",
    "PolicySpec.runningCalls": "Of a ClusterLLMPolicy: when it comes into force, calls in flight are judged too.",
    "PolicySpec.targetRefs": "Gateways and HTTPRoutes of its namespace; without any, every route there.",
    "TargetRef.group": "gateway.networking.k8s.io.",
    "TargetRef.kind": "Gateway or HTTPRoute.",
    "TargetRef.name": "Its name, in the policy's own namespace.",
    "MatchSpec.operations": "chat, completion, embedding, tool_call, batch, image, audio, realtime, rerank, moderation,"
    " token_count, storage, retrieval, unknown, other; none: all but the last two.",
    "MatchSpec.models": "Such as gpt-4o*: what the caller asks for.",
    "MatchSpec.providers": "Such as openai, anthropic.",
    "MatchSpec.paths": "Of the request, without its query.",
    "NamedExpression.name": "What it is called where it is told.",
    "NamedExpression.expression": "CEL over request, caller and params that gives true or false.",
    "VariableSpec.name": "Read as variables.NAME.",
    "VariableSpec.expression": "CEL; it sees the variables before it.",
    "ExpressionCharge.expression": "CEL number: what a call counts for.",
    "ExpressionCharge.distinct": "CEL value: the counter is how many different ones there were, up to 1,000.",
    "WindowSpec.lifetime": "How long from the first charge, such as 24h.",
    "WindowSpec.idle": "How long since the last charge, such as 30m.",
    "WindowSpec.sliding": "What was charged within so long before now, such as 1h.",
    "WindowSpec.calendar": "Begins anew with each one, in timeZone.",
    "WindowSpec.timeZone": "Of the calendar, such as Europe/Berlin (UTC).",
    "ToolsSpec.allow": "The tools that stay; all others are taken out of the request.",
    "ToolsSpec.deny": "The tools that are taken out of the request.",
    "InjectSpec.system": "Text that is added to the system prompt.",
    "HeaderEditSpec.set": "Headers by name; one that is there is replaced.",
    "HeaderEditSpec.remove": "Names of headers that go.",
    "RedactSpec.replacement": "What stands there instead.",
}


def schema(name: str) -> Schema:
    """The schema of one kind of file."""
    kind = KINDS[name]
    made = _untitled(kind.make())
    return {"$schema": DIALECT, "$id": f"{BASE}/{kind.file}", "title": kind.title, **made}


def _untitled(node: Any) -> Any:
    """Without the titles that only repeat names: `title` as a keyword is a text, as a property it is a schema. Where
    names have a pattern, there are no others."""
    match node:
        case dict():
            closed = {"additionalProperties": False} if "patternProperties" in node else {}
            kept = {key: value for key, value in node.items() if not (key == "title" and isinstance(value, str))}
            return {key: _untitled(value) for key, value in kept.items()} | closed
        case list():
            return [_untitled(item) for item in node]
        case _:
            return node


def text(name: str) -> str:
    """The schema as it stands in docs/schemas/."""
    return json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n"
