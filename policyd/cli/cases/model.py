"""A file of test cases as its author writes it: the shape, its names and its bounds. docs/testing.md tells it in words.

Rule 1: words of the policy language are written as there (`limit: 2.00 USD`), and facts are named as rules read them
        (`max_tokens`, `input_tokens`).
Rule 2: what is not said is not checked: an expectation that is left out holds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, JsonValue, Tag

from policyd.core.model.policy import LIST, MAP, TEXT, Amount, Duration, Glob, Strict

KIND = "PolicyTest"

Line = Annotated[str, Field(min_length=1, max_length=512)]
Headers = Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")], str], Field(max_length=64)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Pause = Duration


def _shape(value: object) -> str:
    if isinstance(value, dict | BaseModel):
        return MAP
    return LIST if isinstance(value, list) else TEXT


class CallerSpec(Strict):
    """Who is calling: sent as the headers that `--identity headers` reads."""

    user: str | None = None
    team: str | None = None
    tenant: str | None = None
    key: Line | None = None  # a credential, sent as `authorization: Bearer`


class MessageSpec(Strict):
    """One message of the request."""

    role: Line
    text: str


class RequestSpec(Strict):
    """What the caller sends: the fields from which a body is made, or a `body` as it is."""

    dialect: Literal["openai.chat", "anthropic.messages"] | None = None  # of the body that is made
    model: str | None = None
    prompt: str | None = None  # the text of one user message
    system: str | None = None
    messages: Annotated[list[MessageSpec], Field(max_length=256)] | None = None
    stream: bool | None = None
    max_tokens: Annotated[Count | None, Field(alias="max_tokens")] = None
    temperature: float | None = None
    tools: Annotated[list[Line], Field(max_length=256)] | None = None  # names
    set: dict[str, JsonValue] | None = None  # further fields of the body
    method: Line | None = None
    host: Line | None = None
    path: Line | None = None
    headers: Headers | None = None
    body: JsonValue = None  # a mapping is sent as JSON, a text as it is
    caller: CallerSpec | None = None
    session: Line | None = None
    tags: dict[str, str] | None = None


class PieceSpec(Strict):
    """One piece of a streamed answer."""

    text: str
    after: Pause | None = None  # since the piece before


PieceList = Annotated[
    list[Annotated[Annotated[str, Tag(TEXT)] | Annotated[PieceSpec, Tag(MAP)], Discriminator(_shape)]],
    Field(max_length=10_000),
]
Pieces = Annotated[Annotated[str, Tag(TEXT)] | Annotated[PieceList, Tag(LIST)], Discriminator(_shape)]


class ToolCallSpec(Strict):
    """A tool that the answer calls."""

    name: Line
    arguments: dict[str, JsonValue] = {}


class UsageSpec(Strict):
    """What the provider bills, tokens."""

    input_tokens: Annotated[Count | None, Field(alias="input_tokens")] = None
    output_tokens: Annotated[Count | None, Field(alias="output_tokens")] = None
    cached_input_tokens: Annotated[Count, Field(alias="cached_input_tokens")] = 0
    reasoning_tokens: Annotated[Count, Field(alias="reasoning_tokens")] = 0


class ChunkSpec(Strict):
    """Bytes of the answer as they come."""

    ms: Annotated[float, Field(ge=0)] = 0  # since the call began
    data: str


class ResponseSpec(Strict):
    """What the provider answers: the fields from which an answer is made, or a `body` or `chunks` as they are."""

    status: Annotated[int, Field(ge=0, le=599)] | None = None  # 0: no answer comes
    headers: Headers | None = None
    text: Pieces | None = None
    delay: Pause | None = None  # until the first byte
    every: Pause | None = None  # between two pieces
    silence: Pause | None = None  # after the last piece, and then the answer breaks off
    tool_calls: Annotated[list[ToolCallSpec], Field(alias="tool_calls", max_length=64)] = []
    usage: UsageSpec | None = None
    finish_reason: Annotated[Line | None, Field(alias="finish_reason")] = None
    body: JsonValue = None
    chunks: Annotated[list[ChunkSpec], Field(max_length=100_000)] | None = None


Words = Annotated[Annotated[str, Tag(TEXT)] | Annotated[list[str], Tag(LIST)], Discriminator(_shape)]


class TextWant(Strict):
    """What a text must hold, and what it must not."""

    contains: Words | None = None
    lacks: Words | None = None


TextExpect = Annotated[Annotated[str, Tag(TEXT)] | Annotated[TextWant, Tag(MAP)], Discriminator(_shape)]
OutcomeName = Literal["matched", "not_matched", "errored", "exempted"]
Rules = Annotated[Annotated[list[Line], Tag(LIST)] | Annotated[dict[str, OutcomeName], Tag(MAP)], Discriminator(_shape)]
HeaderWants = dict[str, str | None]  # None: it must not be there


class CounterWant(Strict):
    """What a counter stands at, once the call is over."""

    value: Amount | None = None
    exceeded: bool | None = None
    available: bool | None = None


Counted = Annotated[Annotated[Amount, Tag(TEXT)] | Annotated[CounterWant, Tag(MAP)], Discriminator(_shape)]


class SentWant(Strict):
    """What the provider got."""

    model: str | None = None
    body: dict[str, JsonValue] | None = None  # by dotted path; null: it must not be there
    text: TextExpect | None = None  # the body, as text
    headers: HeaderWants | None = None
    upstream: Line | None = None


class Expect(Strict):
    """What one call must come to."""

    verdict: Literal["allow", "constrain", "reroute", "terminate"] | None = None
    enforced: bool | None = None
    rules: Rules | None = None  # a list: exactly these matched; a mapping: the outcomes of these
    by: Line | None = None  # the rule that determined the verdict
    reason: str | None = None
    status: int | None = None
    ended: Literal["complete", "cut", "rejected", "cancelled", "broken"] | None = None
    event: Count | None = None
    degraded: bool | None = None
    model: str | None = None  # that served the call
    cost: Amount | None = None
    text: TextExpect | None = None  # what the caller could read
    output: TextExpect | None = None  # the body that the caller got, bytes as text
    headers: HeaderWants | None = None  # of the answer, as the caller got them
    sent: SentWant | None = None
    counters: dict[str, Counted] = {}


class CallSpec(Strict):
    """One call, and what is expected of it."""

    name: Line | None = None
    after: Pause | None = None  # since the end of the call before
    at: Line | None = None  # RFC 3339; instead of `after`
    times: Annotated[int, Field(ge=1, le=100_000)] = 1  # so often, with the same expectation each time
    store: Literal["up", "down"] = "up"  # of the counters
    request: RequestSpec | None = None
    response: ResponseSpec | None = None
    expect: Expect | None = None


class CounterStart(Strict):
    """What a counter stands at before the first call."""

    name: Line
    policy: Line | None = None  # where several policies have a counter of this name
    key: Words
    value: Amount
    age: Pause | None = None  # how long before the first call it was charged
    tenant: Line | None = None


class CaseSpec(Strict):
    """Calls in a row, on one clock and one set of counters."""

    name: Line
    start: Line | None = None  # RFC 3339
    mode: Literal["Monitor", "Soft", "Full"] | None = None
    request: RequestSpec | None = None  # what every call of the case sends unless it says otherwise
    response: ResponseSpec | None = None
    counters: Annotated[list[CounterStart], Field(max_length=256)] = []
    calls: Annotated[list[CallSpec], Field(min_length=1, max_length=10_000)]


class PriceSpec(Strict):
    """USD a million tokens."""

    input: Annotated[float, Field(ge=0, le=1_000_000)]
    output: Annotated[float, Field(ge=0, le=1_000_000)]


class TestDocument(Strict):
    """Cases of one or more policies."""

    __test__ = False

    api_version: Literal["policyd.dev/v1alpha1"]
    kind: Literal["PolicyTest"]
    policies: Annotated[list[Line], Field(min_length=1, max_length=64)] | None = None  # paths, from this file
    mode: Literal["Monitor", "Soft", "Full"] | None = None  # in which the policies are tested, whatever their own
    prices: Annotated[dict[Glob, PriceSpec], Field(max_length=256)] = {}
    start: Line | None = None
    request: RequestSpec | None = None
    response: ResponseSpec | None = None
    cases: Annotated[list[CaseSpec], Field(min_length=1, max_length=1_000)]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a test file, for editors."""
    return TestDocument.model_json_schema(by_alias=True)
