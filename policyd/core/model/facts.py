"""What a rule may read. Field names are those of POLICY.md and of proto/policyd/facts/v1/facts.proto.

Rule 1: `None` means "was not sent": it reads as the type's empty value, and `has()` is false.
Rule 2: these are plain, mutable while a call runs, and owned by one exchange; CEL never sees them directly:
        compile/cel.py copies the few fields that a batch of rules reads into narrow messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from policyd.core.model.bounds import USUAL, Bounds
from policyd.core.model.counters import SessionId
from policyd.core.model.estimate import UNKNOWN, Rate, Seen
from policyd.core.model.growing import Growing
from policyd.core.model.prices import Usage
from policyd.core.model.texts import Texts
from policyd.core.model.tokens import Asked, Count


@dataclass(slots=True)
class Message:
    """One message of the request: its visible text, parts joined with newlines."""

    role: str
    text: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool that the request offers. `kind`: function, hosted, mcp, shell, computer, search, ..."""

    name: str
    kind: str = "function"


def functions(names: Iterable[str]) -> list[Tool]:
    """Tools of kind `function`, by name."""
    return [Tool(name) for name in names]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """One tool result that the request carries; `text` is its visible text, parts joined with newlines, and
    what JSON text and base64 in it say decoded."""

    name: str = ""
    call_id: str = ""
    text: str = ""
    is_error: bool = False


class ToolCall:
    """One tool call of the response. `open`: it is not complete. Rules see the arguments of complete calls only.

    `said` is the JSON text so far, in pieces; `arguments` is the same as one string, so it is not read at every event.
    `strings` are its string leaves, decoded.
    """

    __slots__ = ("kind", "name", "open", "said", "strings")

    def __init__(
        self, name: str, arguments: str = "", kind: str = "function", strings: list[str] | None = None
    ) -> None:
        self.name, self.kind, self.open = name, kind, False
        self.said = Growing(arguments)
        self.strings = strings or []

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ToolCall) and self._values() == other._values()

    def __repr__(self) -> str:
        return f"ToolCall{self._values()}"

    def _values(self) -> tuple[object, ...]:
        return self.name, self.arguments, self.kind, self.strings

    @property
    def arguments(self) -> str:
        """The JSON text so far."""
        return self.said.text()

    @arguments.setter
    def arguments(self, text: str) -> None:
        self.said = Growing(text)


@dataclass(frozen=True, slots=True)
class PriceFacts:
    """A model's price before the call: USD per million tokens, and where it comes from."""

    input: float
    output: float
    source: str


@dataclass(slots=True)
class RequestFacts:
    """The call as its sender sent it."""

    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    operation: str = "unknown"  # see model/operations.py
    dialect: str = ""  # openai.chat, anthropic.messages; empty when not understood
    provider: str = ""  # openai, anthropic, ...
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    messages: list[Message] = field(default_factory=list)
    system: str | None = None
    text: str | None = None  # every text of the request, system included, joined with newlines
    content: str | None = None  # every string of the body that is content, joined with newlines
    tools: list[Tool] = field(default_factory=list)
    tool_results: list[ToolResult] = field(default_factory=list)
    models: list[str] = field(default_factory=list)  # every model that may serve, the first one first
    detections: dict[str, int] = field(default_factory=dict)  # by detector: finds in the content
    host: str = ""  # the place that the call goes to, as the deployment declares it
    region: str = ""
    upstream: str = ""
    estimated_cost_usd: float | None = None  # USD; None without a price
    price: PriceFacts | None = None
    input_tokens: int = 0  # an estimate, tokens
    plain_input: int = 0  # the same before what is known of the model; no rule reads this
    exact: bool = False  # its input was counted by a tokenizer; no rule reads this
    asked: Asked | None = None  # what can be counted of it, where a tokenizer may; no rule reads this
    choices: int = 1  # how many answers were asked for
    wants_usage: bool = False  # the caller asked for usage at the end of the stream; no rule reads this
    usage_on_request: bool = False  # nobody asked for the stream's usage, and it comes only to who asks
    query: str = ""  # of the path; no rule reads this, and no record holds it: it may be a credential
    service_tier: str = ""  # batch, flex, priority, fast, where asked for; no rule reads this
    shape: str = ""  # of the body, where one path carries bodies of several kinds; no rule reads this
    rpc_id: str | int | None = None  # what a JSON-RPC answer must name; no rule reads this


@dataclass(slots=True)
class CallerFacts:
    """Who is calling, as far as the identity source tells."""

    user: str = ""
    team: str = ""
    tenant: str = ""
    key: str = ""  # stable pseudonym of the credential that the provider checks
    keys: list[str] = field(default_factory=list)  # pseudonyms of every credential that the call carries
    labels: dict[str, str] = field(default_factory=dict)
    source: str = "headers"
    partition: str = "default"  # of counters and sessions: the tenant, where it is authenticated; no rule reads this
    owner: str = ""  # of sessions: who the caller is, in a fixed alphabet; no rule reads this
    conflict: str = ""  # why it has no key: different credentials where one counts; no rule reads this
    missing: tuple[str, ...] = ()  # the fields of the identity's mapping that have no value; no rule reads this
    claimed: str = ""  # the tenant that a header claims, as its pseudonym: it parts sessions only; no rule reads this

    def session_owner(self, *, everywhere: bool = False) -> str:
        """Whose a session id is. `everywhere`: across tenants."""
        return f"{self.owner}@{self.claimed}" if self.claimed and not everywhere else self.owner


@dataclass(slots=True)
class SessionFacts:
    """What the finished calls of this session add up to."""

    id: str = ""
    source: str = ""  # header, key, ...
    calls: int = 0
    cost_nano: int = 0  # nano-dollars; CEL reads cost_usd
    tokens: int = 0
    age_s: float = 0.0  # seconds since the first call; CEL reads age (duration)
    similarity: list[float] = field(default_factory=list)


@dataclass(slots=True)
class CounterFacts:
    """One counter as a rule sees it; doubles in USD, tokens or requests."""

    value: float = 0.0
    held: float = 0.0
    limit: float | None = None
    remaining: float | None = None
    used: float = 0.0
    exceeded: bool = False
    available: bool = True


@dataclass(slots=True)
class ResponseFacts:
    """The answer so far. Token counts include the running estimate until the provider's own numbers arrive."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    texts: dict[int, list[str]] = field(default_factory=dict)  # choice -> pieces, see `text`
    text_chars: int = 0  # over all choices
    delta: str = ""  # visible text of the newest event, all choices
    events: int = 0  # protocol events seen, this one included
    input_tokens: int = 0  # all input, cached included
    output_tokens: int = 0  # reasoning included
    cached_input_tokens: int = 0  # read from the provider's cache
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    usage_source: str = "estimate"  # provider, tokenizer, estimate
    extra: Mapping[str, int] = field(default_factory=dict)  # classes that may be priced apart: see model/prices.py
    service_tier: str = ""  # that the answer names: default, batch, flex, priority, fast
    fee_nano: int | None = None  # nano-dollars: what the provider says the request as such cost
    stated_nano: int | None = None  # nano-dollars: what the provider says the whole call cost
    rate: Rate = UNKNOWN  # by which the output is estimated until the provider says
    seen: Seen = field(default_factory=Seen)  # what the estimate rests on
    count: Count | None = None  # counts the tokens as they come, where a tokenizer is at hand and a rule reads them
    parts: tuple[tuple[str, Usage], ...] = ()  # the samplings that the call caused, where the provider names each
    cost_nano: int = 0  # nano-dollars; CEL reads cost_usd
    cost_source: str = "unpriced"  # provider, tokenizer, estimate, unpriced
    cost_confidence: float = 0.0  # 0..1
    price_source: str = ""  # where the price comes from; empty when there is none
    price_digest: str = ""  # of the price table
    elapsed_ms: float = 0.0
    ttft_ms: float | None = None
    finish_reasons: list[str] = field(default_factory=list)  # verbatim, one a choice, in choice order
    tool_calls: list[ToolCall] = field(default_factory=list)  # in order of appearance
    contents: Texts = field(
        default_factory=Texts
    )  # every string of the body that is content, by channel: see `content`
    thoughts: Texts = field(default_factory=Texts)  # the thinking that the response shows, by channel: see `reasoning`
    detections: dict[str, int] = field(default_factory=dict)  # by detector: finds in the content
    refusal: str | None = None
    inspection: str = "full"  # full, partial, none
    partial_reason: str = ""  # why inspection is not full; safe to record
    unread_calls: str = ""  # why it is not known which tool calls the response holds; no rule reads this
    unreadable: str = ""  # why the events of a stream cannot be judged, though each was read; no rule reads this
    is_error: bool = False  # an error answer of the provider
    id: str = ""  # by which the provider may keep it; no rule reads this
    fetched: str = ""  # the id of a response that is charged when it is fetched, and has its usage; no rule reads this
    unbilled: bool = False  # the provider does not bill this kind of call; no rule reads this
    pending: bool = False  # it says of itself that it is not complete; no rule reads this

    @property
    def content(self) -> str:
        """Every string of the body that is content, joined with newlines; kept only where a rule reads it whole."""
        return self.contents.text()

    @property
    def reasoning(self) -> str:
        """The thinking that the response shows, joined with newlines; kept only where a rule reads it whole."""
        return self.thoughts.text()

    def text(self, choice: int = 0) -> str:
        """The visible text of one choice so far."""
        pieces = self.texts.get(choice)
        if not pieces:
            return ""
        if len(pieces) > 1:
            pieces[:] = ["".join(pieces)]
        return pieces[0]

    def all_text(self) -> str:
        """The visible text of every choice, joined with newlines: what `response.text` reads."""
        if len(self.texts) <= 1:
            return self.text(next(iter(self.texts), 0))
        return "\n".join(self.text(choice) for choice in sorted(self.texts))


@dataclass(slots=True)
class Facts:
    """Everything that the rules of one call may read."""

    request: RequestFacts = field(default_factory=RequestFacts)
    caller: CallerFacts = field(default_factory=CallerFacts)
    session: SessionFacts = field(default_factory=SessionFacts)
    response: ResponseFacts = field(default_factory=ResponseFacts)
    now: float = 0.0  # seconds since 1970, UTC, when the call began
    unreadable_request: str = ""  # why the body facts of a known operation could not be read; empty = readable
    unreadable_response: str = ""
    bounds: Bounds = USUAL  # of the expressions that read this; no rule reads it
    unmetered: str = ""  # why not even the answer's usage could be read: what it spends is not known

    @property
    def session_id(self) -> SessionId:
        """Under which name a store keeps this call's session. INVARIANT: two callers never share one."""
        return SessionId(self.caller.partition, self.session.id, self.caller.session_owner())
