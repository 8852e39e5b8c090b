"""What a schema can say beyond types: rules of the API server, bounds and words, by the model they belong to.

Rule 1: each says what `policyd check` says too; a refusal here comes sooner, never other than there.
Rule 2: the API server bounds the cost of a rule by the sizes around it, so a rule reads short texts alone.
Rule 3: CEL of the author's, and what two fields mean together, is the compiler's: it tells line and column.
"""

from __future__ import annotations

from typing import Any

from policyd.core.compile.actions import UNTOUCHABLE
from policyd.core.compile.unique import RESERVED
from policyd.core.model.detectors import DETECTOR_NAMES
from policyd.core.model.policy import ACTIONS, CAPS

Schema = dict[str, Any]

_WINDOWS = ("lifetime", "idle", "sliding", "calendar")
_DURATION = r"^([0-9]{1,12}(\.[0-9]{1,9})?(ms|s|m|h|d|w))+$"
_AMOUNT = r"^\s*[0-9]{1,20}(\.[0-9]{1,12})?[ ]*([A-Za-z]+)?\s*$"
_NAMED_LISTS = ("matchConditions", "variables", "counters", "rules")


def _exactly_one(names: tuple[str, ...]) -> str:
    return " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names) + " == 1"


def _words(names: object) -> str:
    assert isinstance(names, tuple | frozenset)
    return "[" + ", ".join(f"'{name}'" for name in sorted(names)) + "]"


def _rule(rule: str, message: str) -> Schema:
    return {"rule": rule, "message": message}


_NO_WORD_OF_CEL = _rule(f"!(self.name in {_words(RESERVED)})", "the name is a word of CEL, and cannot be read by it")

_HEADER = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
_SPELLING = "a header's name has no spaces, and at most 128 characters"
_CHANGEABLE = f"!(name.lowerAscii() in {_words(UNTOUCHABLE)}) && !name.lowerAscii().startsWith('x-policyd-')"
_OURS = "policyd and Envoy keep the framing and the x-policyd- headers to themselves"

RULES: dict[str, list[Schema]] = {
    "RuleSpec": [
        _rule(_exactly_one(ACTIONS), "a rule has exactly one action: allow, constrain, reroute or terminate"),
        _rule("!has(self.holdBack) || has(self.when)", "holdBack belongs to a rule whose `when` reads response.text"),
    ],
    "WindowSpec": [
        _rule(_exactly_one(_WINDOWS), "a window is exactly one of lifetime, idle, sliding or calendar"),
        _rule("!has(self.timeZone) || has(self.calendar)", "timeZone belongs to a calendar window only"),
    ],
    "ToolsSpec": [_rule("has(self.allow) != has(self.deny)", "tools takes exactly one of allow and deny")],
    "RerouteSpec": [_rule("has(self.model) || has(self.upstream)", "reroute says neither model nor upstream")],
    "RedactSpec": [
        _rule(
            "(has(self.detectors) && size(self.detectors) > 0) || (has(self.patterns) && size(self.patterns) > 0)",
            "redact has nothing to look for: name detectors or patterns",
        )
    ],
    "CounterSpec": [_NO_WORD_OF_CEL],
    "ExpressionCharge": [
        _rule(_exactly_one(("expression", "distinct")), "a charge is exactly one of expression and distinct")
    ],
    "VariableSpec": [_NO_WORD_OF_CEL],
    "HeaderEditSpec": [
        _rule(f'!has(self.set) || self.set.all(name, size(name) <= 128 && name.matches("{_HEADER}"))', _SPELLING),
        *(_rule(f"!has(self.{part}) || self.{part}.all(name, {_CHANGEABLE})", _OURS) for part in ("set", "remove")),
    ],
}
_LEFT_ALONE = "!has(self.runningCalls) || !self.runningCalls"
CLUSTER = [
    _rule("!has(self.targetRefs) || size(self.targetRefs) == 0", "a ClusterLLMPolicy applies to everything"),
    _rule(
        f"{_LEFT_ALONE} || !has(self.counters) || size(self.counters) == 0",
        "calls in flight hold nothing in counters of a policy with runningCalls: put them into a policy of their own",
    ),
    _rule(
        f"{_LEFT_ALONE} || !has(self.rules) || self.rules.all(rule, !has(rule.allow))",
        "a policy with runningCalls cannot exempt: name who is spared in its matchConditions",
    ),
]
NAMESPACED = [_rule(_LEFT_ALONE, "calls in flight are judged by a ClusterLLMPolicy alone")]
_STATUS = _rule("self == 200 || self >= 400", "200 answers with the fallback, 400 to 599 with an error")
_CAPPED = _rule(f"self.all(name, name in {_words(CAPS)})", f"what can be capped is {', '.join(CAPS)}")

# What a field is beyond the model's own word for it.
FIELDS: dict[str, Schema] = {
    **{f"WindowSpec.{kind}": {"pattern": _DURATION} for kind in _WINDOWS[:3]},
    "TerminateSpec.status": {"minimum": 200, "maximum": 599, "x-kubernetes-validations": [_STATUS]},
    "ConstrainSpec.cap": {"x-kubernetes-validations": [_CAPPED]},
    **{
        f"PolicySpec.{name}": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
        for name in _NAMED_LISTS
    },
}
_BESIDE: dict[str, Schema] = {
    "ConstrainSpec": {"minProperties": 1},
    "CounterSpec": {"anyOf": [{"not": {"required": ["clamp"]}}, {"required": ["limit"]}]},
}


def finish(name: str, made: Schema) -> None:
    """Adds what belongs to the model of this name."""
    made |= _BESIDE.get(name, {})
    if name in RULES:
        made["x-kubernetes-validations"] = list(RULES[name])
    for place, more in FIELDS.items():
        owner, _, field = place.partition(".")
        if owner == name:
            made["properties"][field] |= more
    if name == "RedactSpec":
        made["properties"]["detectors"]["items"] = {"type": "string", "enum": list(DETECTOR_NAMES)}
    if name == "CounterSpec":
        made["properties"]["limit"]["anyOf"][0]["pattern"] = _AMOUNT
