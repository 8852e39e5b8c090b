"""A policy document as its author writes it: the shape, its names and its bounds, and nothing of what it means.

Rule 1: one model, three uses: files, the command line, and the schema that Kubernetes gets.
Rule 2: every list, map and text has a bound; an unknown field is an error.
Rule 3: what needs more than one field to be judged is the compiler's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag
from pydantic.alias_generators import to_camel

API_VERSION = "policyd.dev/v1alpha1"
KINDS = ("LLMPolicy", "ClusterLLMPolicy")
DEFAULT_NAMESPACE = "default"
CAPS = ("max_tokens",)
ACTIONS = ("allow", "constrain", "reroute", "terminate")

MAX_COUNTERS = 16  # a call reserves that many in one round trip
MAX_RULES = 64
MAX_HOLD_BACK = 65_536  # characters

Expression = Annotated[str, Field(min_length=1, max_length=16_384)]
Text = Annotated[str, Field(max_length=16_384, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
Line = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[\x20-\x7e]*$")]
Name = Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?$")]
Identifier = Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"  # of a DNS name: what Kubernetes takes for the name of an object
PolicyName = Annotated[str, Field(max_length=253, pattern=rf"^{_LABEL}(\.{_LABEL})*$")]
Namespace = Annotated[str, Field(max_length=63, pattern=rf"^{_LABEL}$")]
Glob = Annotated[str, Field(min_length=1, max_length=256)]
Globs = Annotated[list[Glob], Field(max_length=256)]
HeaderName = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderValue = Annotated[str, Field(max_length=8_192, pattern=r"^[\t\x20-\x7e]*$")]
ToolNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=256)]
Duration = Annotated[str, Field(min_length=2, max_length=32)]
Amount = Annotated[str, Field(min_length=1, max_length=64)]

Literals = dict[Identifier, JsonValue]

# Tags of unions; they show up in an error's location, so nothing that an author writes may look like one.
TEXT, LIST, MAP = "~text", "~list", "~map"


def _shape(value: object) -> str:
    if isinstance(value, dict | BaseModel):
        return MAP
    return LIST if isinstance(value, list) else TEXT


class Strict(BaseModel):
    """No coercion, no unknown field, no change after reading; names as in YAML."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
    )


# ---- actions --------------------------------------------------------------------------------------------------------


class AllowSpec(Strict):
    """Exempts the call from the rules that it names, as `policy/rule`."""

    rules: list[Annotated[str, Field(max_length=330, pattern=r"^[^/\s]+/[^/\s]+$")]] = Field(
        min_length=1, max_length=64
    )


class HeaderEditSpec(Strict):
    """Changes to headers: `set` overwrites or adds, `remove` drops every occurrence."""

    set: Annotated[dict[HeaderName, HeaderValue], Field(max_length=32)] = {}
    remove: Annotated[list[HeaderName], Field(max_length=32)] = []


class HeadersSpec(Strict):
    """Header changes by direction."""

    request: HeaderEditSpec | None = None
    response: HeaderEditSpec | None = None


class ToolsSpec(Strict):
    """Which tools the model may be offered: only these, or all but these."""

    allow: ToolNames | None = None
    deny: ToolNames | None = None


class InjectSpec(Strict):
    """A system prompt put after the caller's own."""

    system: Annotated[Text, Field(min_length=1)]


class RedactSpec(Strict):
    """Replaces what detectors and RE2 patterns of finite reach find."""

    detectors: Annotated[list[Line], Field(max_length=32)] = []
    patterns: Annotated[list[Annotated[str, Field(min_length=1, max_length=1_024)]], Field(max_length=32)] = []
    in_: list[Literal["request", "response"]] | None = Field(default=None, alias="in", min_length=1, max_length=2)
    replacement: Annotated[Text, Field(max_length=256)] = "[redacted]"


class PaceSpec(Strict):
    """Slows the answer down."""

    tokens_per_second: float = Field(alias="tokens_per_second", gt=0, le=1_000_000)


class ConstrainSpec(Strict):
    """Changes the call and lets it run."""

    set: (
        Annotated[dict[Annotated[str, Field(min_length=1, max_length=256)], JsonValue], Field(max_length=32)] | None
    ) = None
    cap: Annotated[dict[str, Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1, max_length=8)] | None = (
        None
    )
    tools: ToolsSpec | None = None
    inject: InjectSpec | None = None
    headers: HeadersSpec | None = None
    redact: RedactSpec | None = None
    pace: PaceSpec | None = None


class RerouteSpec(Strict):
    """Sends the call to another model or another Envoy upstream."""

    model: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[\x21-\x7e]+$")] | None = None
    upstream: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$")] | None = (
        None
    )
    headers: HeaderEditSpec | None = None
    keep_credentials: bool = False


class TerminateSpec(Strict):
    """Refuses the call, or ends its answer properly."""

    status: int | None = None
    reason: Annotated[Line, Field(max_length=128)] | None = None
    message: Text | None = None
    message_expression: Expression | None = None
    fallback: Text | None = None
    fallback_expression: Expression | None = None
    finish: Literal["refusal", "length", "stop"] | None = None


# ---- the parts of a policy ------------------------------------------------------------------------------------------


class MatchSpec(Strict):
    """Which calls a policy is about: globs (`*`, `?`) over the whole string; an empty list means all."""

    operations: Globs = []
    models: Globs = []
    providers: Globs = []
    paths: Globs = []


class NamedExpression(Strict):
    """A CEL expression with a name."""

    name: Name
    expression: Expression


class VariableSpec(Strict):
    """A CEL expression that rules read as `variables.NAME`."""

    name: Identifier
    expression: Expression


class ExpressionCharge(Strict):
    """What one call counts for: a CEL number, or how many different values a CEL expression has had."""

    expression: Expression | None = None
    distinct: Expression | None = None


class WindowSpec(Strict):
    """The period that a counter covers: exactly one kind."""

    lifetime: Duration | None = None
    idle: Duration | None = None
    sliding: Duration | None = None
    calendar: Literal["Day", "Week", "Month", "Year"] | None = None
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class LimitBySpec(Strict):
    """A limit looked up by a CEL string."""

    by: Expression
    default: Amount | None = None
    values: Annotated[dict[Annotated[str, Field(max_length=256)], Amount], Field(max_length=1_024)] = {}


ChargeName = Literal[
    "Cost",
    "Requests",
    "TotalTokens",
    "InputTokens",
    "OutputTokens",
    "CachedInputTokens",
    "ReasoningTokens",
    "Attempts",
    "Refusals",
]
ChargeSpec = Annotated[Annotated[ChargeName, Tag(TEXT)] | Annotated[ExpressionCharge, Tag(MAP)], Discriminator(_shape)]
LimitSpec = Annotated[Annotated[Amount, Tag(TEXT)] | Annotated[LimitBySpec, Tag(MAP)], Discriminator(_shape)]
KeySpec = Annotated[
    Annotated[Expression, Tag(TEXT)] | Annotated[list[Expression], Field(min_length=1, max_length=8), Tag(LIST)],
    Discriminator(_shape),
]


class CounterSpec(Strict):
    """A sum that lives across calls."""

    name: Identifier
    key: KeySpec
    charge: ChargeSpec
    window: WindowSpec
    limit: LimitSpec | None = None
    clamp: Literal["MaxTokens"] | None = None
    on_exceeded: Literal["Terminate", "Continue"] = "Terminate"
    on_missing: Literal["Refuse", "Share", "Skip"] = "Refuse"
    on_unpriced: Literal["Refuse", "Estimate", "Skip"] = "Estimate"
    scope: Literal["Tenant", "Global"] = "Tenant"


ModeName = Literal["Monitor", "Soft", "Full"]


class RolloutSpec(Strict):
    """A share of the calls that it is enforced for; the others are judged as under Monitor."""

    percent: Annotated[float, Field(ge=0, le=100)]
    by: Expression = "session.id"


class RuleSpec(Strict):
    """One condition, and exactly one action for when it holds."""

    name: Name
    severity: Literal["Info", "Low", "Medium", "High", "Critical"] = "Medium"
    mode: ModeName | None = None
    rollout: RolloutSpec | None = None
    when: Expression | None = None
    hold_back: Annotated[int, Field(ge=0, le=MAX_HOLD_BACK)] | None = None
    allow: AllowSpec | None = None
    constrain: ConstrainSpec | None = None
    reroute: RerouteSpec | None = None
    terminate: TerminateSpec | None = None


class TargetRef(Strict):
    """What a policy in Kubernetes is attached to, in its own namespace."""

    group: Literal["gateway.networking.k8s.io"] = "gateway.networking.k8s.io"
    kind: Literal["Gateway", "HTTPRoute"]
    name: PolicyName


class PolicySpec(Strict):
    """What a policy says."""

    description: Annotated[Text, Field(max_length=4_096)] = ""
    mode: ModeName = "Monitor"
    rollout: RolloutSpec | None = None
    failure_policy: Literal["Fail", "Ignore"] = "Fail"
    target_refs: Annotated[list[TargetRef], Field(max_length=16)] = []
    running_calls: bool = False
    match: MatchSpec = MatchSpec()
    match_conditions: Annotated[list[NamedExpression], Field(max_length=64)] = []
    params: Annotated[Literals, Field(max_length=64)] = {}
    variables: Annotated[list[VariableSpec], Field(max_length=64)] = []
    counters: Annotated[list[CounterSpec], Field(max_length=MAX_COUNTERS)] = []
    rules: Annotated[list[RuleSpec], Field(max_length=MAX_RULES)] = []


class Metadata(Strict):
    """What a policy is called."""

    name: PolicyName
    namespace: Namespace | None = None
    labels: Annotated[dict[str, str], Field(max_length=64)] = {}
    annotations: Annotated[dict[str, str], Field(max_length=64)] = {}


class PolicyDocument(Strict):
    """One LLMPolicy or ClusterLLMPolicy."""

    api_version: Literal["policyd.dev/v1alpha1"]
    kind: Literal["LLMPolicy", "ClusterLLMPolicy"]
    metadata: Metadata
    spec: PolicySpec

    @property
    def cluster(self) -> bool:
        return self.kind == "ClusterLLMPolicy"

    @property
    def namespace(self) -> str:
        """Empty for a ClusterLLMPolicy."""
        return "" if self.cluster else self.metadata.namespace or DEFAULT_NAMESPACE

    @property
    def qualified(self) -> str:
        return self.metadata.name if self.cluster else f"{self.namespace}/{self.metadata.name}"
