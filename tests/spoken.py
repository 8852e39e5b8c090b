"""What a model says, in every language that streams: any text, and any arguments of a tool, cut into any pieces.

One `Voice` a dialect, and one for each provider that speaks a shared dialect in a way of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from policyd.core.stream.dialects import Dialect, registry
from tests.core.test_endings import MESSAGE, begin, stop
from tests.core.test_endings import call as openai_call
from tests.core.test_endings import chunk as openai_chunk
from tests.core.test_endings import delta as block_delta
from tests.core.test_endings_others import (
    BILLED,
    BINARY,
    CONVERSED,
    EVENTS,
    LINES,
    METRICS,
    PROGRESS,
    TOLD,
    array,
    block,
    candidate,
    chunked,
    first,
    generated,
    lines,
    messages,
    said,
    tool,
    typed,
)
from tests.responses import Script
from tests.streams import sse

Pieces = Sequence[str]
USER: Any = [{"role": "user", "content": "hi"}]
ARRAY = "application/json; charset=UTF-8"
STREAM_JSON = "application/stream+json"


@dataclass(frozen=True)
class Voice:
    """One way to stream: where it is asked for, and how it says a text, or calls the tool `f`."""

    path: str  # with its query
    body: Any
    kind: str  # the answer's content type
    say: Callable[[Pieces], bytes]
    call: Callable[[Pieces], bytes] | None = None  # None: it has no tools
    host: str = "llm.test"

    @property
    def dialect(self) -> Dialect:
        dialect, _, _ = registry.choose("POST", self.path, self.host, {":authority": self.host})
        assert dialect is not None
        return dialect


# ---- OpenAI, and those who speak like it ----------------------------------------------------------------------------


def chat_says(pieces: Pieces) -> bytes:
    role = openai_chunk({"role": "assistant", "content": ""})
    return sse(role, *(openai_chunk({"content": one}) for one in pieces), openai_chunk({}, "stop"))


def chat_says_twice(pieces: Pieces) -> bytes:
    """Two choices at once."""
    both = [openai_chunk({"content": one}, index=index) for one in pieces for index in (0, 1)]
    return sse(*both, openai_chunk({}, "stop"), openai_chunk({}, "stop", index=1))


def chat_calls(pieces: Pieces) -> bytes:
    deltas = [openai_chunk(openai_call(arguments=one)) for one in pieces]
    return sse(openai_chunk(openai_call(name="f", arguments="")), *deltas, openai_chunk({}, "tool_calls"))


def chat_calls_as_ever(pieces: Pieces) -> bytes:
    """The legacy function_call."""
    deltas = [openai_chunk({"function_call": {"arguments": one}}) for one in pieces]
    return sse(
        openai_chunk({"function_call": {"name": "f", "arguments": ""}}), *deltas, openai_chunk({}, "function_call")
    )


def chosen(delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk whose choice says more than its delta."""
    document = openai_chunk(delta, reason)
    document["choices"][0] |= more
    return document


def perplexity_says(pieces: Pieces) -> bytes:
    """Beside each delta the whole message so far."""
    wholes = [*accumulate(pieces)]
    events = [chosen({"content": one}, message={"content": so_far}) for one, so_far in zip(pieces, wholes, strict=True)]
    return sse(*events, chosen({"content": ""}, "stop", message={"content": "".join(pieces)}))


def together_says(pieces: Pieces) -> bytes:
    """The text of each delta once more beside it."""
    events = [chosen({"content": one, "token_id": 7}, text=one) for one in pieces]
    return sse(*events, chosen({"content": ""}, "eos", text=""))


def mistral_says(pieces: Pieces) -> bytes:
    """Content as a list of parts."""
    events = [openai_chunk({"content": [{"type": "text", "text": one}]}, p="ab") for one in pieces]
    return sse(*events, openai_chunk({"content": ""}, "stop"))


def completed(text: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": reason, **more}
    return {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m", "choices": [choice]}


def completions_say(pieces: Pieces) -> bytes:
    return sse(*map(completed, pieces), completed("", "stop"))


def responses_say(pieces: Pieces) -> bytes:
    return sse(*Script().say(*pieces).end(), names=True)


def responses_call(pieces: Pieces) -> bytes:
    return sse(*Script().call("f", *pieces).end(), names=True)


# ---- Anthropic ------------------------------------------------------------------------------------------------------

BEGUN = {"type": "message_start", "message": {**MESSAGE, "usage": {"input_tokens": 5, "output_tokens": 1}}}


def over(reason: str) -> list[Any]:
    told = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 9}}
    return [told, {"type": "message_stop"}]


def claude_says(pieces: Pieces) -> list[Any]:
    deltas = [block_delta(0, type="text_delta", text=one) for one in pieces]
    return [BEGUN, begin(0, type="text", text=""), *deltas, stop(0), *over("end_turn")]


def claude_calls(pieces: Pieces) -> list[Any]:
    deltas = [block_delta(0, type="input_json_delta", partial_json=one) for one in pieces]
    return [BEGUN, begin(0, type="tool_use", id="t", name="f", input={}), *deltas, stop(0), *over("tool_use")]


def prompted(pieces: Pieces) -> bytes:
    """Anthropic's text completions."""
    head = {"type": "completion", "id": "c", "model": "m"}
    events = [{**head, "completion": one, "stop_reason": None} for one in pieces]
    return sse(*events, {**head, "completion": "", "stop_reason": "stop_sequence"}, names=True)


# ---- Ollama, Cohere, Hugging Face, MCP ------------------------------------------------------------------------------


def ollama_says(pieces: Pieces) -> bytes:
    return lines(*map(said, pieces), said(done=True))


def ollama_generates(pieces: Pieces) -> bytes:
    return lines(*map(generated, pieces), generated("", done=True))


def whole(pieces: Pieces) -> Any:
    """Arguments of a dialect that tells them as a value: in one event."""
    return json.loads("".join(pieces))


def ollama_calls(pieces: Pieces) -> bytes:
    return lines(said(tool_calls=[{"function": {"name": "f", "arguments": whole(pieces)}}]), said(done=True))


START = {"id": "c", **typed("message-start", role="assistant")}


def cohere_ends(reason: str) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": BILLED}}


def cohere_says(pieces: Pieces) -> bytes:
    deltas = [typed("content-delta", 0, content={"text": one}) for one in pieces]
    opened = typed("content-start", 0, content={"type": "text", "text": ""})
    return sse(START, opened, *deltas, typed("content-end", 0), cohere_ends("COMPLETE"), names=True)


def cohere_calls(pieces: Pieces) -> bytes:
    deltas = [tool("delta", arguments=one) for one in pieces]
    opened = tool("start", name="f", arguments="")
    return sse(START, opened, *deltas, typed("tool-call-end", 0), cohere_ends("TOOL_CALL"), names=True)


def cohere_1_ends(text: str, **more: Any) -> dict[str, Any]:
    history = [{"role": "USER", "message": "hi"}, {"role": "CHATBOT", "message": text}]
    told = {**TOLD, "text": text, "chat_history": history, "meta": BILLED, **more}
    return first("stream-end", over=True, finish_reason="COMPLETE", response=told)


def cohere_1_says(pieces: Pieces) -> bytes:
    deltas = [first("text-generation", text=one) for one in pieces]
    return lines(first("stream-start", generation_id="g"), *deltas, cohere_1_ends("".join(pieces)))


def cohere_1_calls(pieces: Pieces) -> bytes:
    calls = [{"name": "f", "parameters": whole(pieces)}]
    deltas = [first("tool-calls-chunk", tool_call_delta={"index": 0, "parameters": one}) for one in pieces]
    named = first("tool-calls-chunk", tool_call_delta={"index": 0, "name": "f"})
    end = cohere_1_ends("", tool_calls=calls)
    return lines(
        first("stream-start", generation_id="g"), named, *deltas, first("tool-calls-generation", tool_calls=calls), end
    )


def cohere_generates(pieces: Pieces) -> bytes:
    deltas = [first("text-generation", text=one) for one in pieces]
    told = {"generations": [{"id": "g0", "text": "".join(pieces), "finish_reason": "COMPLETE"}]}
    return lines(*deltas, first("stream-end", over=True, finish_reason="COMPLETE", meta=BILLED, response=told))


def token(text: str, number: int, **more: Any) -> dict[str, Any]:
    return {"index": number, "token": {"id": number, "text": text, "logprob": -0.1, "special": False},
            "generated_text": None, "details": None, **more}  # fmt: skip


def huggingface_says(pieces: Pieces) -> bytes:
    details = {"finish_reason": "eos_token", "generated_tokens": len(pieces), "seed": None}
    last = token("</s>", len(pieces), generated_text="".join(pieces), details=details)
    last["token"]["special"] = True
    return sse(*(token(one, number) for number, one in enumerate(pieces)), last, done=False)


def result(pieces: Pieces) -> dict[str, Any]:
    content = [{"type": "text", "text": one} for one in pieces]
    return {"jsonrpc": "2.0", "id": 7, "result": {"content": content, "structuredContent": {"said": "".join(pieces)}}}


def mcp_says(pieces: Pieces) -> bytes:
    """A result comes whole."""
    return sse(PROGRESS, result(["".join(pieces)]), done=False)


# ---- Google and Amazon ----------------------------------------------------------------------------------------------


def gemini_says(pieces: Pieces) -> list[Any]:
    return [*(candidate({"text": one}) for one in pieces), candidate(reason="STOP")]


def gemini_calls(pieces: Pieces) -> list[Any]:
    return [candidate({"functionCall": {"name": "f", "args": whole(pieces)}}, reason="STOP")]


def converse_says(pieces: Pieces) -> list[Any]:
    deltas = [block("Delta", 0, delta={"text": one}) for one in pieces]
    return [CONVERSED[0], *deltas, block("Stop", 0), {"messageStop": {"stopReason": "end_turn"}}, CONVERSED[-1]]


def converse_calls(pieces: Pieces) -> list[Any]:
    deltas = [block("Delta", 1, delta={"toolUse": {"input": one}}) for one in pieces]
    ends = {"messageStop": {"stopReason": "tool_use"}}
    return [CONVERSED[0], CONVERSED[4], *deltas, block("Stop", 1), ends, CONVERSED[-1]]


def titan_says(pieces: Pieces) -> bytes:
    events = [{"outputText": one, "index": 0, "inputTextTokenCount": 5} for one in pieces]
    last = {"outputText": "", "index": 0, "completionReason": "FINISH", "totalOutputTextTokenCount": 3, **METRICS}
    return chunked(*events, last)


def llama_says(pieces: Pieces) -> bytes:
    events = [{"generation": one, "generation_token_count": 1, "stop_reason": None} for one in pieces]
    return chunked(*events, {"generation": "", "generation_token_count": 3, "stop_reason": "stop", **METRICS})


def mixtral_says(pieces: Pieces) -> bytes:
    events = [{"outputs": [{"text": one, "stop_reason": None}]} for one in pieces]
    return chunked(*events, {"outputs": [{"text": "", "stop_reason": "stop"}], **METRICS})


def command_says(pieces: Pieces) -> bytes:
    events = [{"text": one, "is_finished": False, "index": 0} for one in pieces]
    return chunked(*events, {"text": "", "is_finished": True, "finish_reason": "COMPLETE", **METRICS})


def invoke(
    name: str, body: Any, say: Callable[[Pieces], bytes], call: Callable[[Pieces], bytes] | None = None
) -> Voice:
    return Voice(f"/model/{name}/invoke-with-response-stream", body, BINARY, say, call)


def metered(events: list[Any]) -> bytes:
    return chunked(*events[:-1], {**events[-1], **METRICS})


CHAT = {"model": "m", "messages": USER, "stream": True}
PROMPT = {"model": "m", "prompt": "hi", "stream": True}
CONTENTS = {"contents": [{"parts": [{"text": "hi"}]}]}
ASKED = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
CHATS = "/v1/chat/completions"

VOICES: dict[str, Voice] = {
    "openai": Voice(CHATS, CHAT, EVENTS, chat_says, chat_calls),
    "openai choices": Voice(CHATS, {**CHAT, "n": 2}, EVENTS, chat_says_twice),
    "openai functions": Voice(CHATS, CHAT, EVENTS, chat_says, chat_calls_as_ever),
    "mistral": Voice(CHATS, CHAT, EVENTS, mistral_says, chat_calls, "api.mistral.ai"),
    "perplexity": Voice("/chat/completions", CHAT, EVENTS, perplexity_says, None, "api.perplexity.ai"),
    "together": Voice(CHATS, CHAT, EVENTS, together_says, chat_calls, "api.together.xyz"),
    "completions": Voice("/v1/completions", PROMPT, EVENTS, completions_say),
    "responses": Voice("/v1/responses", {"model": "m", "input": "hi", "stream": True}, EVENTS, responses_say,
                       responses_call),
    "anthropic": Voice("/v1/messages", {**CHAT, "max_tokens": 9}, EVENTS,
                       lambda pieces: sse(*claude_says(pieces), names=True),
                       lambda pieces: sse(*claude_calls(pieces), names=True)),
    "anthropic complete": Voice("/v1/complete", {**PROMPT, "max_tokens_to_sample": 9}, EVENTS, prompted),
    "ollama chat": Voice("/api/chat", {"model": "m", "messages": USER}, LINES, ollama_says, ollama_calls),
    "ollama generate": Voice("/api/generate", {"model": "m", "prompt": "hi"}, LINES, ollama_generates),
    "cohere": Voice("/v2/chat", CHAT, EVENTS, cohere_says, cohere_calls),
    "cohere 1": Voice("/v1/chat", {"model": "m", "message": "hi", "stream": True}, STREAM_JSON, cohere_1_says,
                      cohere_1_calls, "api.cohere.com"),
    "cohere generate": Voice("/v1/generate", PROMPT, STREAM_JSON, cohere_generates, None, "api.cohere.com"),
    "huggingface": Voice("/generate_stream", {"inputs": "hi"}, EVENTS, huggingface_says),
    "mcp": Voice("/mcp", {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "f"}}, EVENTS,
                 mcp_says),
    "gemini": Voice("/v1beta/models/g:streamGenerateContent?alt=sse", CONTENTS, EVENTS,
                    lambda pieces: sse(*gemini_says(pieces), done=False),
                    lambda pieces: sse(*gemini_calls(pieces), done=False)),
    "gemini array": Voice("/v1beta/models/g:streamGenerateContent", CONTENTS, ARRAY,
                          lambda pieces: array(*gemini_says(pieces)), lambda pieces: array(*gemini_calls(pieces))),
    "converse": Voice("/model/m%3A0/converse-stream", ASKED, BINARY, lambda pieces: messages(*converse_says(pieces)),
                      lambda pieces: messages(*converse_calls(pieces))),
    "invoke claude": invoke("anthropic.m", {"anthropic_version": "b", "max_tokens": 5, "messages": USER},
                            lambda pieces: metered(claude_says(pieces)), lambda pieces: metered(claude_calls(pieces))),
    "invoke nova": invoke("amazon.nova", {"schemaVersion": "messages-v1", **ASKED},
                          lambda pieces: metered(converse_says(pieces)),
                          lambda pieces: metered(converse_calls(pieces))),
    "invoke titan": invoke("amazon.titan", {"inputText": "hi"}, titan_says),
    "invoke llama": invoke("meta.llama", {"prompt": "hi", "max_gen_len": 5}, llama_says),
    "invoke mistral": invoke("mistral.m", {"prompt": "hi", "max_tokens": 5}, mixtral_says),
    "invoke command": invoke("cohere.command", {"prompt": "hi", "max_tokens": 5, "stream": True}, command_says),
}  # fmt: skip
