"""The facts that expressions may read, and how each becomes a value of CEL. docs/facts.md is written from this table.

Rule 1: the paths and types are those of proto/policyd/facts/v1/facts.proto (a test compares them).
Rule 2: a getter never gives None: what was not sent reads as its type's empty value; `present` tells the difference.
Rule 3: `grows` means: while an answer runs the value only grows (numbers, lists, text) or turns true.
        `fixed` means: it does not change any more once the answer has begun. The rest may do anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as PbMessage
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from policyd.core.compile._pb import facts_pb2 as pb
from policyd.core.model.facts import CounterFacts, Facts, PriceFacts
from policyd.core.model.operations import OPERATIONS

GROWS, FIXED, VARIES = "grows", "fixed", "varies"
PACKAGE = pb.DESCRIPTOR.package
ROOTS = ("request", "caller", "session", "response")


@dataclass(frozen=True, slots=True)
class Fact:
    """One path that may be read; `get` and `present` take Facts, or for a counter's field its CounterFacts."""

    path: str
    type: str
    doc: str
    get: Callable[[Any], object]
    present: Callable[[Any], bool]
    trend: str = FIXED
    optional_number: bool = False  # a number of the request that need not be sent


# ---- values ---------------------------------------------------------------------------------------------------------

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_SECONDS_MAX = 315_576_000_000.0  # ten thousand years: what a protobuf Duration holds
_LAST_SECOND = 253_402_300_799.0  # 9999-12-31: what a protobuf Timestamp holds
_NANOS = 1_000_000_000


def text(value: str | None) -> object:
    """A string. INVARIANT: one with a NUL goes in as a message: the runtime cuts a Python string off at its first."""
    if not value:
        return ""
    return StringValue(value=well_formed(value)) if "\0" in value else value


def well_formed(value: str) -> str:
    """The string with halves of surrogate pairs replaced: CEL's strings are Unicode text."""
    if value.isascii():
        return value
    return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def integer(value: int | None) -> int:
    """An int as CEL holds it: what does not fit into 64 bits reads as the largest or smallest that does."""
    if not value:
        return 0
    return value if _INT_MIN <= value <= _INT_MAX else min(max(value, _INT_MIN), _INT_MAX)


def number(value: float | None) -> float:
    return float(value or 0)


def strings(values: Iterable[str]) -> list[object]:
    return [text(value) for value in values]


def table(values: Mapping[str, str]) -> Mapping[str, object]:
    """A map of strings; almost always the very same object."""
    if not values:
        return values
    if "\0" not in "".join(values) and "\0" not in "".join(values.values()):
        return values
    return {key.replace("\0", "\ufffd"): text(value) for key, value in values.items()}


def seconds(value: float) -> Duration:
    """A duration from seconds."""
    whole, nanos = _split(min(max(value, 0.0), _SECONDS_MAX))
    return Duration(seconds=whole, nanos=nanos)


def moment(value: float) -> Timestamp:
    """A timestamp from seconds since 1970, UTC."""
    whole, nanos = _split(min(max(value, 0.0), _LAST_SECOND))
    return Timestamp(seconds=whole, nanos=nanos)


def _split(value: float) -> tuple[int, int]:
    whole = int(value)
    return whole, min(int((value - whole) * _NANOS), _NANOS - 1)


INCOMPLETE = frozenset({"arguments", "strings"})
"""Fields of a tool call that rules read once the call is complete."""


def _sent(item: object, fields: Iterable[str]) -> Iterable[tuple[str, object]]:
    if getattr(item, "open", False):  # a tool call that is not complete
        fields = [name for name in fields if name not in INCOMPLETE]
    for name in fields:
        value = getattr(item, name)
        if isinstance(value, list):
            yield name, [well_formed(one) for one in value]
        elif value is not None:
            yield name, well_formed(value) if isinstance(value, str) else value


def price_message(price: PriceFacts | None) -> pb.Price | None:
    """A price as a message of CEL."""
    return None if price is None else pb.Price(input=price.input, output=price.output, source=price.source)


# ---- the table ------------------------------------------------------------------------------------------------------

_S, _I, _D, _B, _M = "string", "int", "double", "bool", "map(string, string)"
_COUNTS = "map(string, int)"


def _getter(type_: str, read: Callable[[Any], Any]) -> Callable[[Any], object]:
    match type_:
        case "string":
            return lambda facts: text(read(facts))
        case "int":
            return lambda facts: integer(read(facts))
        case "double":
            return lambda facts: number(read(facts))
        case "bool":
            return lambda facts: bool(read(facts))
        case "list(string)":
            return lambda facts: strings(read(facts))
        case "map(string, string)":
            return lambda facts: table(read(facts))
        case "Price":
            return lambda facts: read(facts) or pb.Price()
        case _:
            return read


def _fact(
    path: str,
    type_: str,
    doc: str,
    trend: str = FIXED,
    read: Callable[[Any], Any] | None = None,
    optional: bool = False,
    even_empty: bool = False,
) -> Fact:
    """Present when it is not None and not empty; a number or truth that is never None is always there. `even_empty`: a
    text that is known to have been sent is there when it is empty, too."""
    read = read or attrgetter(path)
    present = (lambda facts: read(facts) is not None) if even_empty else _presence(read)
    return Fact(path, type_, doc, _getter(type_, read), present, trend, optional)


def _presence(read: Callable[[Any], Any]) -> Callable[[Any], bool]:
    def present(facts: Any) -> bool:
        value = read(facts)
        return value is not None and (isinstance(value, bool | int | float) or bool(value))

    return present


_REQUEST = (
    _fact("request.operation", _S, f"one of {', '.join(f'`{one}`' for one in OPERATIONS)}"),
    _fact("request.dialect", _S, "the wire format, such as `openai.chat` or `anthropic.messages`"),
    _fact("request.provider", _S, "`openai`, `anthropic`, …"),
    _fact("request.model", _S, "the model asked for, verbatim"),
    _fact("request.method", _S, "HTTP method"),
    _fact("request.path", _S, "HTTP path, without the query"),
    _fact("request.headers", _M, "HTTP headers, names in lower case"),
    _fact("request.stream", _B, "whether a streamed answer was asked for"),
    _fact("request.max_tokens", _I, "the cap on output that was sent, tokens", optional=True),
    _fact("request.temperature", _D, "the sampling temperature that was sent", optional=True),
    _fact("request.messages", "list(Message)", "the conversation in order: `role`, `text`, `name`"),
    _fact("request.system", _S, "the system prompt", even_empty=True),
    _fact("request.text", _S, "every text of the request, joined with newlines; the parts of a message also directly"),
    _fact("request.tools", "list(Tool)", "the tools offered: `name`, `kind`"),
    _fact("request.input_tokens", _I, "tokens, an estimate"),
    _fact("request.tags", _M, "what the caller says the call is for"),
    _fact("request.models", "list(string)", "every model that the request can make the provider run, the first first"),
    _fact("request.content", _S, "every string of the body that is content, decoded, joined like `request.text`"),
    _fact("request.tool_results", "list(ToolResult)",
          "results of tools in the request, in order: `name`, `call_id`, `text`, `is_error`"),
    _fact("request.detections", _COUNTS, "detector name to number of finds in `request.content`; 0 for none"),
    _fact("request.host", _S, "the host that the call goes to, as the deployment declares it"),
    _fact("request.region", _S, "the region that the call goes to, as the deployment declares it"),
    _fact("request.upstream", _S, "the upstream that the call goes to, as the deployment names it"),
    _fact("request.estimated_cost_usd", _D, "USD: the estimated input plus the largest permitted output"),
    _fact("request.price", "Price",
          "price of the model that will serve: `input` and `output` in USD per million tokens, `source`",
          read=lambda f: price_message(f.request.price)),
)  # fmt: skip

_CALLER = (
    _fact("caller.user", _S, "who; empty when not known"),
    _fact("caller.team", _S, "whose; empty when not known"),
    _fact("caller.tenant", _S, "of which tenant; empty when not known"),
    _fact("caller.key", _S, "a stable pseudonym of the credential that the provider checks; empty without one"),
    _fact("caller.keys", "list(string)", "pseudonyms of every credential that the call carries, at most 32"),
    _fact("caller.labels", _M, "what else the identity source says"),
    _fact("caller.source", _S, "where the identity comes from: `headers`, …"),
)

_SESSION = (
    _fact("session.id", _S, "never empty: derived when the client sends none"),
    _fact("session.source", _S, "how the id was found"),
    _fact("session.calls", _I, "finished calls"),
    _fact("session.cost_usd", _D, "what they cost, USD", read=lambda f: f.session.cost_nano / _NANOS),
    _fact("session.tokens", _I, "their tokens, input and output"),
    _fact("session.age", "duration", "since the first call", read=lambda f: seconds(f.session.age_s)),
    _fact("session.similarity", "list(double)", "i-th newest finished answer against the one before, 0..1, at most 8"),
)

_RESPONSE = (
    _fact("response.status", _I, "HTTP status", read=lambda f: f.response.status or None),
    _fact("response.headers", _M, "HTTP headers, names in lower case"),
    _fact("response.model", _S, "the model that answered, verbatim", VARIES),
    _fact("response.text", _S, "visible text so far, every choice, joined with newlines", GROWS,
          lambda f: f.response.all_text()),
    _fact("response.delta", _S, "visible text of the newest event", VARIES),
    _fact("response.events", _I, "protocol events so far, this one included", GROWS),
    _fact("response.input_tokens", _I, "tokens, cached ones included", VARIES),
    _fact("response.output_tokens", _I, "tokens, reasoning included; an estimate until the provider's number", GROWS),
    _fact("response.cached_input_tokens", _I, "tokens read from the provider's cache", VARIES),
    _fact("response.reasoning_tokens", _I, "tokens", VARIES),
    _fact("response.cost_usd", _D, "USD so far", GROWS, lambda f: f.response.cost_nano / _NANOS),
    _fact("response.cost_source", _S, "what it rests on: `provider`, `tokenizer`, `estimate`, `unpriced`", VARIES),
    _fact("response.cost_confidence", _D, "how sure the cost is, 0..1; 0 without a price", VARIES),
    _fact("response.price_source", _S, "where the price comes from; empty when there is none"),
    _fact("response.price_digest", _S, "the digest of the price table; empty when there is no price"),
    _fact("response.elapsed_ms", _D, "milliseconds since the request left", GROWS),
    _fact("response.ttft_ms", _D, "milliseconds to the first token; not there before it", GROWS),
    _fact("response.finish_reasons", "list(string)", "verbatim, one a choice", GROWS),
    _fact("response.tool_calls", "list(ToolCall)",
          "in order: `name`, `kind`, `arguments` (normalised JSON text), `strings` (string leaves, decoded)", GROWS),
    _fact("response.refusal", _S, "the model's own refusal", VARIES),
    _fact("response.inspection", _S, "`full`, `partial`, `none`: how much of the answer was understood", VARIES),
    _fact("response.content", _S, "every string of the body that is content, decoded, joined with newlines", GROWS),
    _fact("response.reasoning", _S, "the thinking that the response shows, so far", GROWS),
    _fact("response.detections", _COUNTS, "detector name to number of finds in `response.content`; 0 for none", GROWS),
)  # fmt: skip

NOW = _fact("now", "timestamp", "when the call began, UTC", read=lambda f: moment(f.now))

FACTS: Mapping[str, Fact] = {fact.path: fact for fact in (*_REQUEST, *_CALLER, *_SESSION, *_RESPONSE, NOW)}

COUNTER_FACTS: Mapping[str, Fact] = {
    fact.path: fact
    for fact in (
        _fact("value", _D, "settled, plus what this call has spent so far", GROWS),
        _fact("held", _D, "reserved by calls that are still running", VARIES),
        _fact("limit", _D, "the limit in force; not there when there is none"),
        _fact("remaining", _D, "what the limit still allows; not there without a limit", VARIES),
        _fact("used", _D, "value/limit", GROWS),
        _fact("exceeded", _B, "the next hold did not fit", GROWS),
        _fact("available", _B, "the counter store answered", VARIES),
    )
}

TEXT_SIZES: Mapping[str, Fact] = {
    fact.path.partition(".")[2]: fact
    for fact in (
        _fact("response.text", _I, "characters of response.text", GROWS,
              lambda f: f.response.text_chars + max(len(f.response.texts) - 1, 0)),
        _fact("response.content", _I, "characters of response.content", GROWS, lambda f: f.response.contents.size),
        _fact("response.reasoning", _I, "characters of response.reasoning", GROWS, lambda f: f.response.thoughts.size),
    )
}  # fmt: skip
"""By text of the response: what `size()` of it gives, without the text."""

PART_FIELDS: Mapping[str, tuple[type[PbMessage], tuple[str, ...]]] = {
    "Message": (pb.Message, ("role", "text", "name")),
    "Tool": (pb.Tool, ("name", "kind")),
    "ToolResult": (pb.ToolResult, ("name", "call_id", "text", "is_error")),
    "ToolCall": (pb.ToolCall, ("name", "arguments", "kind", "strings")),
}
"""The messages that stand in lists, and their fields."""

NOT_YET = frozenset({"request.prompt", "request.intent", "caller.risk", "session.tool_cycle", "session.novelty"})


def part_of(fact: Fact) -> str:
    """The message that a fact lists (`Tool` of `list(Tool)`), or nothing."""
    inner = fact.type.removeprefix("list(").removesuffix(")")
    return inner if inner in PART_FIELDS else ""


def fields_of(root: str) -> tuple[str, ...]:
    """Every path below a root."""
    return tuple(path for path in FACTS if path.startswith(f"{root}."))


def whole(root: str, facts: Facts) -> PbMessage:
    """A root as one message with everything that was sent: for the rare expression that needs it as a value."""
    message: Any = getattr(pb, root.title())()
    for path in fields_of(root):
        _put(message, FACTS[path], facts)
    return message  # type: ignore[no-any-return]


def whole_counter(counter: CounterFacts) -> PbMessage:
    """A counter as one message."""
    sent = {name: fact.get(counter) for name, fact in COUNTER_FACTS.items() if fact.present(counter)}
    return pb.Counter(**sent)  # type: ignore[arg-type]


def _put(message: Any, fact: Fact, facts: Facts) -> None:
    if not fact.present(facts):
        return
    name, value, part = fact.path.partition(".")[2], fact.get(facts), part_of(fact)
    if part:
        getattr(message, name).extend(part_rows(part, value))
    elif fact.type == "map(string, string)":
        getattr(message, name).update({well_formed(key): _bare(item) for key, item in value.items()})  # type: ignore[attr-defined]
    elif fact.type.startswith("list("):
        getattr(message, name).extend([_bare(item) for item in value])  # type: ignore[attr-defined]
    elif fact.type == "map(string, int)":
        getattr(message, name).update(value)
    elif fact.type in ("duration", "Price"):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, _bare(value))


def _bare(value: Any) -> Any:
    if isinstance(value, StringValue):
        return value.value
    return well_formed(value) if isinstance(value, str) else value


def part_rows(part: str, items: Any, fields: Iterable[str] | None = None) -> list[PbMessage]:
    """The items of a list fact as messages; all fields unless told."""
    if not items:
        return []
    kind, every = PART_FIELDS[part]
    names = every if fields is None else tuple(fields)
    return [kind(**dict(_sent(item, names))) for item in items]
