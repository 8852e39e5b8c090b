"""A call as a case tells it, to the bytes that a caller and a provider would send.

Rule 1: the same case gives the same bytes: no clock and no chance.
Rule 2: what is given as bytes is sent as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from policyd.adapters.recordings import Recording
from policyd.cli.cases.model import CallerSpec, PieceSpec, RequestSpec, ResponseSpec, UsageSpec
from policyd.cli.cases.words import pause
from policyd.core.model.policy import Strict

OPENAI, ANTHROPIC = "openai.chat", "anthropic.messages"
DELAY_S, EVERY_S = 0.1, 0.02
CHARS_A_TOKEN = 4  # of an answer whose usage the case does not tell
INPUT_TOKENS = 10
_MODELS = {OPENAI: "gpt-4o", ANTHROPIC: "claude-sonnet-4-5"}
_PLACES = {OPENAI: ("api.openai.com", "/v1/chat/completions"), ANTHROPIC: ("api.anthropic.com", "/v1/messages")}
_MERGED = ("caller", "headers", "tags", "set")

Json = dict[str, Any]
Spec = TypeVar("Spec", bound=Strict)


def merged(base: Spec | None, over: Spec | None) -> Spec | None:
    """What `over` says, and where it says nothing what `base` does; who calls, headers and tags field by field."""
    if base is None or over is None:
        return over if base is None else base
    update: Json = {}
    for name in over.model_fields_set:
        old, new = getattr(base, name), getattr(over, name)
        update[name] = _both(old, new) if name in _MERGED and old is not None and new is not None else new
    return base.model_copy(update=update)


def _both(old: Any, new: Any) -> Any:
    return merged(old, new) if isinstance(old, CallerSpec) else {**old, **new}


def recording(source: str, at: float, request: RequestSpec, response: ResponseSpec) -> Recording:
    """The call as a recording that begins at `at`, seconds since 1970, UTC."""
    dialect = request.dialect or OPENAI
    host, path = _PLACES[dialect]
    body = _request_body(dialect, request)
    status = 200 if response.status is None else response.status
    made = _answer(dialect, request, response)
    headers = {"content-type": made.content_type, **(response.headers or {})}
    return Recording(
        source=source,
        time=at,
        method=request.method or "POST",
        path=request.path or path,
        host=request.host or host,
        scheme="https",
        headers=tuple(_headers(request, body).items()),
        body=body,
        status=status,
        response_headers=tuple((name.lower(), value) for name, value in headers.items()) if status else (),
        chunks=tuple(made.chunks) if status else (),
        tenant=(request.caller.tenant if request.caller else None) or "",
    )


# ---- the request ----------------------------------------------------------------------------------------------------


def _headers(request: RequestSpec, body: bytes) -> dict[str, str]:
    caller = request.caller or CallerSpec()
    named = {
        "x-user-id": caller.user,
        "x-team-id": caller.team,
        "x-tenant-id": caller.tenant,
        "authorization": f"Bearer {caller.key}" if caller.key else None,
        "x-session-id": request.session,
    }
    tags = {f"x-tag-{name.lower()}": value for name, value in (request.tags or {}).items()}
    own = {name.lower(): value for name, value in (request.headers or {}).items()}
    sent = {name: value for name, value in named.items() if value is not None}
    return {"content-type": "application/json", "content-length": str(len(body)), **sent, **tags, **own}


def _request_body(dialect: str, request: RequestSpec) -> bytes:
    if request.body is not None:
        return as_bytes(request.body)
    system = [{"role": "system", "content": request.system}] if request.system else []
    messages: list[Json] = [{"role": one.role, "content": one.text} for one in request.messages or ()]
    if request.prompt is not None or not messages:
        messages.append({"role": "user", "content": "hello" if request.prompt is None else request.prompt})
    body: Json = {"model": request.model or _MODELS[dialect]}
    if dialect == ANTHROPIC:
        body |= {"max_tokens": 1024, "messages": messages, **({"system": request.system} if system else {})}
    else:
        body["messages"] = [*system, *messages]
    given = {"max_tokens": request.max_tokens, "temperature": request.temperature, "stream": request.stream}
    body |= {name: value for name, value in given.items() if value is not None}
    if request.tools is not None:
        body["tools"] = [_tool(dialect, name) for name in request.tools]
    return as_bytes({**body, **(request.set or {})})


def _tool(dialect: str, name: str) -> Json:
    if dialect == ANTHROPIC:
        return {"name": name, "input_schema": {"type": "object"}}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def as_bytes(value: object) -> bytes:
    """A text as it is, anything else as JSON."""
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()


# ---- the answer -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Made:
    content_type: str
    chunks: list[tuple[float, bytes]]


_JSON, _SSE = "application/json", "text/event-stream"


def _answer(dialect: str, request: RequestSpec, response: ResponseSpec) -> _Made:
    delay = pause(response.delay, DELAY_S) * 1000
    if response.chunks is not None:
        chunks = [(chunk.ms, chunk.data.encode()) for chunk in response.chunks]
        return _Made(_SSE if request.stream else _JSON, chunks)
    if response.body is not None:
        return _Made(_JSON, [(delay, as_bytes(response.body))])
    said = _Said.of(dialect, request, response)
    if not request.stream:
        return _Made(_JSON, [(delay, as_bytes(said.whole()))])
    return _Made(_SSE, list(_timed(said, response, delay)))


def _timed(said: _Said, response: ResponseSpec, delay: float) -> Iterator[tuple[float, bytes]]:
    """Each event at its time; after a silence nothing else comes."""
    at, every = delay, pause(response.every, EVERY_S) * 1000
    opening = said.opening()
    if opening:
        yield at, opening
    for index, (piece, data) in enumerate(zip(said.pieces, said.events(), strict=True)):
        at += (pause(piece.after, every / 1000) * 1000) if index or piece.after else 0.0
        yield at, data
    if response.silence is not None:
        yield at + pause(response.silence, 0) * 1000, b""
        return
    for data in said.ending():
        at += every
        yield at, data


@dataclass(frozen=True, slots=True)
class _Said:
    """An answer before it has a provider's shape."""

    dialect: str
    model: str
    pieces: Sequence[PieceSpec]
    tools: Sequence[tuple[str, str]]  # name, arguments as JSON
    usage: UsageSpec
    finish: str | None

    @classmethod
    def of(cls, dialect: str, request: RequestSpec, response: ResponseSpec) -> _Said:
        given = "ok" if response.text is None and not response.tool_calls else response.text or ()
        texts = [given] if isinstance(given, str) else given
        pieces = [PieceSpec(text=one) if isinstance(one, str) else one for one in texts]
        tools = [(tool.name, json.dumps(tool.arguments)) for tool in response.tool_calls]
        chars = sum(len(piece.text) for piece in pieces) + sum(len(arguments) for _, arguments in tools)
        estimate = UsageSpec.model_construct(
            input_tokens=INPUT_TOKENS, output_tokens=max(1, -(-chars // CHARS_A_TOKEN))
        )
        usage = merged(estimate, response.usage) or estimate
        return cls(dialect, request.model or _MODELS[dialect], pieces, tools, usage, response.finish_reason)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def whole(self) -> Json:
        return self._anthropic_whole() if self.dialect == ANTHROPIC else self._openai_whole()

    def opening(self) -> bytes:
        return self._anthropic_opening() if self.dialect == ANTHROPIC else b""

    def events(self) -> Iterator[bytes]:
        for index, piece in enumerate(self.pieces):
            if self.dialect == ANTHROPIC:
                yield _named("content_block_delta", index=0, delta={"type": "text_delta", "text": piece.text})
            else:
                role = {} if index else {"role": "assistant"}
                yield self._chunk({**role, "content": piece.text})

    def ending(self) -> Iterator[bytes]:
        return self._anthropic_ending() if self.dialect == ANTHROPIC else self._openai_ending()

    # ---- OpenAI

    def _openai_whole(self) -> Json:
        message: Json = {"role": "assistant", "content": self.text if self.pieces else None}
        if self.tools:
            message["tool_calls"] = [_function(index, *tool) for index, tool in enumerate(self.tools)]
        choice = {"index": 0, "message": message, "finish_reason": self._openai_finish()}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._openai_usage()}

    def _head(self, kind: str) -> Json:
        return {"id": "chatcmpl-case", "object": kind, "created": 1_767_603_600, "model": self.model}

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _sse({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _openai_finish(self) -> str:
        return self.finish or ("tool_calls" if self.tools else "stop")

    def _openai_usage(self) -> Json:
        usage = self.usage
        given, made = usage.input_tokens or 0, usage.output_tokens or 0
        return {
            "prompt_tokens": given,
            "completion_tokens": made,
            "total_tokens": given + made,
            "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        }

    def _openai_ending(self) -> Iterator[bytes]:
        for index, tool in enumerate(self.tools):
            yield self._chunk({"tool_calls": [{"index": index, **_function(index, *tool)}]})
        yield self._chunk({}, self._openai_finish())
        yield _sse({**self._head("chat.completion.chunk"), "choices": [], "usage": self._openai_usage()})
        yield b"data: [DONE]\n\n"

    # ---- Anthropic

    def _anthropic_head(self) -> Json:
        return {"id": "msg_case", "type": "message", "role": "assistant", "model": self.model}

    def _anthropic_whole(self) -> Json:
        text = [{"type": "text", "text": self.text}] if self.pieces else []
        tools = [
            {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": json.loads(arguments)}
            for index, (name, arguments) in enumerate(self.tools)
        ]
        ending = {"stop_reason": self._anthropic_finish(), "stop_sequence": None}
        return {**self._anthropic_head(), "content": [*text, *tools], **ending, "usage": self._anthropic_usage()}

    def _anthropic_finish(self) -> str:
        return self.finish or ("tool_use" if self.tools else "end_turn")

    def _anthropic_usage(self) -> Json:
        usage = self.usage
        return {
            "input_tokens": max(0, (usage.input_tokens or 0) - usage.cached_input_tokens),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached_input_tokens,
            "output_tokens": usage.output_tokens or 0,
        }

    def _anthropic_opening(self) -> bytes:
        usage = {**self._anthropic_usage(), "output_tokens": 1}
        empty: Json = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        opening = _named("message_start", message={**self._anthropic_head(), **empty})
        if not self.pieces:
            return opening
        return opening + _named("content_block_start", index=0, content_block={"type": "text", "text": ""})

    def _anthropic_ending(self) -> Iterator[bytes]:
        if self.pieces:
            yield _named("content_block_stop", index=0)
        for index, (name, arguments) in enumerate(self.tools, start=bool(self.pieces)):
            block = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": arguments}
            yield _named("content_block_start", index=index, content_block=block)
            yield _named("content_block_delta", index=index, delta=delta)
            yield _named("content_block_stop", index=index)
        ending = {"stop_reason": self._anthropic_finish(), "stop_sequence": None}
        yield _named("message_delta", delta=ending, usage={"output_tokens": self.usage.output_tokens or 0})
        yield _named("message_stop")


def _function(index: int, name: str, arguments: str) -> Json:
    return {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _named(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\n".encode() + _sse({"type": kind, **fields})


def _sse(document: Mapping[str, object]) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"
