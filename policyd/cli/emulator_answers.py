"""What the provider emulator says: answers in the two providers' own shapes, steered by `x-emulate-*` headers.

Rule 1: the same request gets the same bytes: nothing here reads a clock or a random number.
Rule 2: a token is a word with the white space before it; with `x-emulate-token-chars: N` it is N characters.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

_TEXT = "the circuit breaker opens when a session has spent what it was given and closes when the window is over"
_WORDS = tuple(_TEXT.split())
_TOKEN = re.compile(r"\s*\S+|\s+$")
_ERRORS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CREATED = 1_700_000_000  # seconds since 1970; fixed, see rule 1

Json = dict[str, object]


class BadRequest(Exception):  # noqa: N818 - the caller's fault, answered as the provider would
    """A request that the provider would refuse with 400; the text is the provider's message."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the `x-emulate-*` headers of one call ask of the emulator."""

    text: str | None = None
    events: int | None = None  # text tokens, when no text is given
    token_chars: int | None = None
    interval_ms: float = 0.0  # between two events
    batch: int = 1  # events in one write
    status: int = 200
    tool: str = ""  # the answer calls this tool
    arguments: str = "{}"
    input_tokens: int | None = None
    cached_tokens: int = 0
    silent_after: int | None = None  # events; then nothing until the peer goes away
    break_at: int | None = None  # the connection is reset before this event
    malformed_at: int | None = None  # this event's JSON is broken
    raw: str = ""  # a registered answer, byte for byte


def read_wish(headers: Mapping[str, str]) -> Wish:
    """The wish of one call. Values are percent-decoded; raises BadRequest for what is no number."""
    given = {name.removeprefix("x-emulate-"): unquote(value) for name, value in headers.items() if "x-emulate-" in name}
    return Wish(
        text=given.get("text"),
        events=_number(given, "events"),
        token_chars=_number(given, "token-chars"),
        interval_ms=_number(given, "interval-ms") or 0,
        batch=_number(given, "batch") or 1,
        status=_number(given, "status") or 200,
        tool=given.get("tool", ""),
        arguments=given.get("arguments", '{"city": "Paris", "unit": "celsius"}'),
        input_tokens=_number(given, "input-tokens"),
        cached_tokens=_number(given, "cached-tokens") or 0,
        silent_after=_number(given, "silent-after"),
        break_at=_number(given, "break-at"),
        malformed_at=_number(given, "malformed-at"),
        raw=given.get("raw", ""),
    )


def _number(given: Mapping[str, str], name: str) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if not value.isdecimal():
        raise BadRequest(f"x-emulate-{name}: expected a whole number")
    return int(value)


@dataclass(frozen=True, slots=True)
class Event:
    """One protocol event as bytes; `tokens`: output tokens that the provider bills once it has been generated."""

    data: bytes
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, ready to send. Streamed answers have `events`, the others `body`."""

    status: int
    content_type: str
    body: bytes = b""
    events: tuple[Event, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0


def tokens_of(text: str, chars: int | None = None) -> list[str]:
    """The text cut into tokens (rule 2)."""
    if chars:
        return [text[start : start + chars] for start in range(0, len(text), chars)]
    return _TOKEN.findall(text)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What will be said, before it has a provider's shape."""

    id: str
    model: str
    tokens: tuple[str, ...]
    choices: int
    truncated: bool
    tool: str
    fragments: tuple[str, ...]
    input_tokens: int
    cached_tokens: int
    include_usage: bool

    @property
    def output_tokens(self) -> int:
        return len(self.tokens) * self.choices + len(self.fragments)

    def finish(self, truncated: str, tool: str, stop: str) -> str:
        """Why the answer ended, in the provider's words."""
        if self.truncated:
            return truncated
        return tool if self.tool else stop


def _plan(doc: Json, wish: Wish, limit: int | None, digest: str) -> _Plan:
    model = doc.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter")
    if not isinstance(doc.get("messages"), list):
        raise BadRequest("missing required parameter: 'messages'")
    tokens = spoken(wish)
    kept = tokens if limit is None else tokens[:limit]
    options = doc.get("stream_options")
    choices = doc.get("n")
    return _Plan(
        id=digest,
        model=model,
        tokens=tuple(kept),
        choices=choices if isinstance(choices, int) and choices > 0 else 1,
        truncated=len(kept) < len(tokens),
        tool=wish.tool,
        fragments=tuple(tokens_of(wish.arguments, 8)) if wish.tool else (),
        input_tokens=_input_tokens(doc, wish),
        cached_tokens=wish.cached_tokens,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def spoken(wish: Wish) -> list[str]:
    """The tokens of the answer, before any limit."""
    if wish.text is not None:
        return tokens_of(wish.text, wish.token_chars)
    if wish.tool and wish.events is None:
        return []
    count = len(_WORDS) if wish.events is None else wish.events
    return [(" " if i else "") + _WORDS[i % len(_WORDS)] for i in range(count)]


def _input_tokens(doc: Json, wish: Wish) -> int:
    if wish.input_tokens is not None:
        return wish.input_tokens
    return max(1, len(json.dumps([doc.get("system"), doc.get("messages")])) // 4)


def answer(path: str, body: bytes, wish: Wish) -> Answer:
    """The provider's answer to one call of `/v1/chat/completions` or `/v1/messages`. Raises BadRequest."""
    try:
        doc = json.loads(body)
    except ValueError:
        raise BadRequest("we could not parse the JSON body of your request") from None
    if not isinstance(doc, dict):
        raise BadRequest("the JSON body of your request is not an object")
    digest = hashlib.sha256(body).hexdigest()[:24]
    return _anthropic(doc, wish, digest) if path == "/v1/messages" else _openai(doc, wish, digest)


def error(path: str, status: int, message: str) -> Answer:
    """An error answer in the provider's own shape."""
    name = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    inner: Json = {"type": name, "message": message}
    if path == "/v1/messages":
        return _json_answer({"type": "error", "error": inner}, status)
    return _json_answer({"error": {**inner, "param": None, "code": None}}, status)


def models() -> Answer:
    """The list of models, as OpenAI answers it."""
    names = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-6")
    data = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "emulator"} for name in names]
    return _json_answer({"object": "list", "data": data})


def _json_answer(doc: Json, status: int = 200, input_tokens: int = 0, output_tokens: int = 0) -> Answer:
    body = json.dumps(doc).encode()
    return Answer(status, "application/json", body, input_tokens=input_tokens, output_tokens=output_tokens)


def _stream_answer(events: Iterator[Event], plan: _Plan, wish: Wish) -> Answer:
    listed = [Event(b"data: {broken\n\n") if i == wish.malformed_at else event for i, event in enumerate(events)]
    return Answer(
        200,
        "text/event-stream; charset=utf-8",
        events=tuple(listed),
        input_tokens=plan.input_tokens,
        output_tokens=sum(event.tokens for event in listed),
    )


# ---- OpenAI Chat Completions -----------------------------------------------------------------------------------------


def _openai(doc: Json, wish: Wish, digest: str) -> Answer:
    limits = [v for v in (doc.get("max_completion_tokens"), doc.get("max_tokens")) if isinstance(v, int)]
    plan = _plan(doc, wish, min(limits, default=None), digest)
    if doc.get("stream") is True:
        return _stream_answer(_openai_events(plan), plan, wish)
    message: Json = {"role": "assistant", "content": "".join(plan.tokens) or None, "refusal": None, "annotations": []}
    if plan.tool:
        message["tool_calls"] = [_openai_tool(plan, "".join(plan.fragments))]
    choices = [
        {"index": i, "message": message, "logprobs": None, "finish_reason": plan.finish("length", "tool_calls", "stop")}
        for i in range(plan.choices)
    ]
    whole = {**_openai_head(plan, "chat.completion"), "choices": choices, "usage": _openai_usage(plan)}
    return _json_answer(whole, 200, plan.input_tokens, plan.output_tokens)


def _openai_head(plan: _Plan, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{plan.id}",
        "object": kind,
        "created": _CREATED,
        "model": plan.model,
        "service_tier": "default",
        "system_fingerprint": "fp_emulated",
    }


def _openai_tool(plan: _Plan, arguments: str) -> Json:
    return {"id": f"call_{plan.id}", "type": "function", "function": {"name": plan.tool, "arguments": arguments}}


def _openai_usage(plan: _Plan) -> Json:
    return {
        "prompt_tokens": plan.input_tokens,
        "completion_tokens": plan.output_tokens,
        "total_tokens": plan.input_tokens + plan.output_tokens,
        "prompt_tokens_details": {"cached_tokens": plan.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _openai_events(plan: _Plan) -> Iterator[Event]:
    head = _openai_head(plan, "chat.completion.chunk")
    tail: Json = {"usage": None} if plan.include_usage else {}

    def chunk(index: int, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _sse({**head, "choices": [choice], **tail})

    indexes = range(plan.choices)
    for i in indexes:
        yield Event(chunk(i, {"role": "assistant", "content": "", "refusal": None}))
    for token in plan.tokens:
        for i in indexes:
            yield Event(chunk(i, {"content": token}), 1)
    for n, fragment in enumerate(plan.fragments):
        if n == 0:
            yield Event(chunk(0, {"tool_calls": [{"index": 0, **_openai_tool(plan, "")}]}))
        yield Event(chunk(0, {"tool_calls": [{"index": 0, "function": {"arguments": fragment}}]}), 1)
    for i in indexes:
        yield Event(chunk(i, {}, plan.finish("length", "tool_calls", "stop")))
    if plan.include_usage:
        yield Event(_sse({**head, "choices": [], "usage": _openai_usage(plan)}))
    yield Event(b"data: [DONE]\n\n")


# ---- Anthropic Messages ----------------------------------------------------------------------------------------------


def _anthropic(doc: Json, wish: Wish, digest: str) -> Answer:
    limit = doc.get("max_tokens")
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise BadRequest("max_tokens: Field required")
    plan = _plan(doc, wish, limit, digest)
    if doc.get("stream") is True:
        return _stream_answer(_anthropic_events(plan), plan, wish)
    content: list[Json] = [{"type": "text", "text": "".join(plan.tokens)}] if plan.tokens else []
    if plan.tool:
        content.append({**_anthropic_tool(plan), "input": json.loads("".join(plan.fragments))})
    ending = {"stop_reason": plan.finish("max_tokens", "tool_use", "end_turn"), "stop_sequence": None}
    whole = {**_anthropic_head(plan), "content": content, **ending, "usage": _anthropic_usage(plan, plan.output_tokens)}
    return _json_answer(whole, 200, plan.input_tokens, plan.output_tokens)


def _anthropic_head(plan: _Plan) -> Json:
    return {"id": f"msg_{plan.id}", "type": "message", "role": "assistant", "model": plan.model}


def _anthropic_tool(plan: _Plan) -> Json:
    return {"type": "tool_use", "id": f"toolu_{plan.id}", "name": plan.tool, "input": {}}


def _anthropic_usage(plan: _Plan, output: int) -> Json:
    return {  # unlike OpenAI's, these input tokens leave the cached ones out
        "input_tokens": plan.input_tokens - plan.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": plan.cached_tokens,
        "output_tokens": output,
    }


def _anthropic_events(plan: _Plan) -> Iterator[Event]:
    start: Json = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": _anthropic_usage(plan, 1)}
    yield _named("message_start", message={**_anthropic_head(plan), **start})
    block = 0
    if plan.tokens:
        yield _named("content_block_start", index=block, content_block={"type": "text", "text": ""})
        yield _named("ping")
        for token in plan.tokens:
            yield _named("content_block_delta", 1, index=block, delta={"type": "text_delta", "text": token})
        yield _named("content_block_stop", index=block)
        block += 1
    if plan.tool:
        yield _named("content_block_start", index=block, content_block=_anthropic_tool(plan))
        for part in plan.fragments:
            yield _named(
                "content_block_delta", 1, index=block, delta={"type": "input_json_delta", "partial_json": part}
            )
        yield _named("content_block_stop", index=block)
    ending = {"stop_reason": plan.finish("max_tokens", "tool_use", "end_turn"), "stop_sequence": None}
    yield _named("message_delta", delta=ending, usage={"output_tokens": plan.output_tokens})
    yield _named("message_stop")


def _named(kind: str, tokens: int = 0, /, **fields: object) -> Event:
    return Event(_sse({"type": kind, **fields}, kind), tokens)


def _sse(doc: Json, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(doc)}\n\n".encode()
