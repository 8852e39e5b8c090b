"""What policyd says in the voice of Ollama, Cohere, Gemini, Bedrock and MCP, as the official SDKs hear it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import cohere
import httpx
import ollama
import pytest
from botocore.eventstream import EventStream
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import EventStreamJSONParser, RestJSONParser
from google import genai
from google.genai import errors as google_errors

from policyd.core.model.facts import RequestFacts
from policyd.core.stream import eventstream, ndjson
from policyd.core.stream.dialects import Dialect, Ending
from policyd.core.stream.dialects.bedrock import BedrockConverse, BedrockInvoke
from policyd.core.stream.dialects.cohere import CohereChat, CohereGenerate
from policyd.core.stream.dialects.gemini import GeminiGenerate
from policyd.core.stream.dialects.mcp import Mcp
from policyd.core.stream.dialects.ollama import OllamaChat, OllamaGenerate
from policyd.core.stream.json_text import dumps
from tests.streams import read_stream, sse

FALLBACK = 'Stopped.\n\n"quoted" \u2028 data: [DONE] 漢'
USER: Any = [{"role": "user", "content": "hi"}]
BINARY, LINES, EVENTS = "application/vnd.amazon.eventstream", "application/x-ndjson", "text/event-stream"


def lines(*documents: Any) -> bytes:
    return b"".join(ndjson.render(dumps(one)) for one in documents)


def messages(*documents: Any) -> bytes:
    """Each document under its event's name."""
    return b"".join(eventstream.render(dumps(body), name) for one in documents for name, body in one.items())


def chunked(*documents: Any) -> bytes:
    encoded = [base64.b64encode(dumps(one).encode()).decode() for one in documents]
    return b"".join(eventstream.render(dumps({"bytes": one, "p": "ab"}), "chunk") for one in encoded)


def array(*documents: Any) -> bytes:
    return ("[" + ",\r\n".join(map(dumps, documents)) + "]").encode()


# ---- a stream of each kind ------------------------------------------------------------------------------------------


def said(text: str = "", done: bool = False, **more: Any) -> dict[str, Any]:
    head = {"model": "llama", "created_at": "2024-05-24T20:26:46.3Z", "done": done}
    end = {"done_reason": "stop", "prompt_eval_count": 5, "eval_count": 3} if done else {}
    return {**head, "message": {"role": "assistant", "content": text, **more}, **end}


def generated(text: str, done: bool = False) -> dict[str, Any]:
    document = said(done=done)
    del document["message"]
    return {**document, "response": text}


CALL = {"function": {"name": "f", "arguments": {"a": "x"}}}
OLLAMA = lines(said(thinking="hm"), said("a"), said("b", tool_calls=[CALL]), said(done=True))
GENERATE = lines(generated("a"), generated("b"), generated("", done=True))

BILLED = {"billed_units": {"input_tokens": 5, "output_tokens": 3}, "tokens": {"input_tokens": 70, "output_tokens": 3}}


def typed(kind: str, index: int | None = None, **message: Any) -> dict[str, Any]:
    where = {} if index is None else {"index": index}
    return {"type": kind, **where, **({"delta": {"message": message}} if message else {})}


def tool(kind: str, **function: Any) -> dict[str, Any]:
    return typed(f"tool-call-{kind}", 0, tool_calls={"id": "t", "type": "function", "function": function})


COHERE = sse(
    {"id": "c", **typed("message-start", role="assistant", content=[])},
    typed("tool-plan-delta", tool_plan="I will"),
    tool("start", name="f", arguments=""),
    tool("delta", arguments='{"a": "x'),
    tool("delta", arguments='y"}'),
    typed("tool-call-end", 0),
    typed("content-start", 0, content={"type": "text", "text": ""}),
    typed("content-delta", 0, content={"text": "a"}),
    typed("content-delta", 0, content={"text": "b"}),
    typed("content-end", 0),
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": BILLED}},
    names=True,
)  # fmt: skip
COHERE += b"data: [DONE]\n\n"


def first(kind: str, over: bool = False, **more: Any) -> dict[str, Any]:
    return {"is_finished": over, "event_type": kind, **more}


TOLD = {"response_id": "r", "text": "ab", "generation_id": "g", "chat_history": [], "finish_reason": "COMPLETE"}
COHERE_1 = lines(
    first("stream-start", generation_id="g"),
    first("text-generation", text="a"),
    first("tool-calls-chunk", tool_call_delta={"index": 0, "name": "f"}),
    first("tool-calls-chunk", tool_call_delta={"index": 0, "parameters": '{"a": 1}'}),
    first("tool-calls-generation", tool_calls=[{"name": "f", "parameters": {"a": 1}}]),
    first("text-generation", text="b"),
    first("stream-end", over=True, finish_reason="COMPLETE", response={**TOLD, "meta": BILLED}),
)
GENERATION = lines(
    first("text-generation", text="a"),
    first("text-generation", text="b"),
    first("stream-end", over=True, finish_reason="COMPLETE", meta=BILLED,
          response={"generations": [{"id": "g0", "text": "ab", "finish_reason": "COMPLETE"}]}),
)  # fmt: skip


def candidate(*parts: Any, reason: str | None = None, index: int = 0) -> dict[str, Any]:
    one = {"content": {"role": "model", "parts": list(parts)}, "index": index}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 1, "totalTokenCount": 8}
    end = {"finishReason": reason} if reason else {}
    return {"candidates": [{**one, **end}], "usageMetadata": usage, "modelVersion": "gemini-x", "responseId": "r"}


ANSWERS = (
    candidate({"text": "hm", "thought": True}),
    candidate({"text": "a"}),
    candidate({"functionCall": {"name": "f", "args": {"a": "x"}}}),
    candidate({"text": "b"}, reason="STOP"),
)


def block(kind: str, index: int, **more: Any) -> dict[str, Any]:
    return {f"contentBlock{kind}": {"contentBlockIndex": index, **more}}


CONVERSED = (
    {"messageStart": {"role": "assistant", "p": "ab"}},
    block("Delta", 0, delta={"reasoningContent": {"text": "hm"}}),
    block("Delta", 0, delta={"reasoningContent": {"signature": "s"}}),
    block("Stop", 0),
    block("Start", 1, start={"toolUse": {"toolUseId": "t", "name": "f"}}),
    block("Delta", 1, delta={"toolUse": {"input": '{"a": "x'}}),
    block("Delta", 1, delta={"toolUse": {"input": 'y"}'}}),
    block("Stop", 1),
    block("Delta", 2, delta={"text": "a"}),
    block("Delta", 2, delta={"text": "b"}),
    block("Stop", 2),
    {"messageStop": {"stopReason": "end_turn"}},
    {"metadata": {"usage": {"inputTokens": 5, "outputTokens": 3, "totalTokens": 8}, "metrics": {"latencyMs": 1}}},
)
METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 5, "outputTokenCount": 3}}
CLAUDE = (
    {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "c",
                                          "content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ab"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop", **METRICS},
)  # fmt: skip
TITAN = (
    {"outputText": "a", "index": 0.0, "inputTextTokenCount": 5.0},
    {"outputText": "b", "index": 0.0, "completionReason": "FINISH", "totalOutputTextTokenCount": 3.0, **METRICS},
)
LLAMA = (
    {"generation": "a", "prompt_token_count": 5, "generation_token_count": 1, "stop_reason": None},
    {"generation": "b", "prompt_token_count": None, "generation_token_count": 3, "stop_reason": "stop", **METRICS},
)
PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1, "message": "half"}}
RESULT = {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "ab"}]}}

Case = tuple[Dialect, RequestFacts, str, bytes]
CASES: dict[str, Case] = {
    "ollama chat": (OllamaChat(), RequestFacts(stream=True, model="llama"), LINES, OLLAMA),
    "ollama generate": (OllamaGenerate(), RequestFacts(stream=True, model="llama"), LINES, GENERATE),
    "cohere": (CohereChat(), RequestFacts(stream=True, path="/v2/chat"), EVENTS, COHERE),
    "cohere 1": (CohereChat(), RequestFacts(stream=True, path="/v1/chat"), "application/stream+json", COHERE_1),
    "cohere generate": (CohereGenerate(), RequestFacts(stream=True), "application/stream+json", GENERATION),
    "gemini": (GeminiGenerate(), RequestFacts(stream=True, query="alt=sse"), EVENTS, sse(*ANSWERS, done=False)),
    "gemini array": (GeminiGenerate(), RequestFacts(stream=True), "application/json", array(*ANSWERS)),
    "converse": (BedrockConverse(), RequestFacts(stream=True), BINARY, messages(*CONVERSED)),
    "invoke claude": (BedrockInvoke(), RequestFacts(stream=True, shape="claude"), BINARY, chunked(*CLAUDE)),
    "invoke nova": (BedrockInvoke(), RequestFacts(stream=True, shape="nova"), BINARY, chunked(*CONVERSED)),
    "invoke titan": (BedrockInvoke(), RequestFacts(stream=True, shape="outputText"), BINARY, chunked(*TITAN)),
    "invoke llama": (BedrockInvoke(), RequestFacts(stream=True, shape="generation"), BINARY, chunked(*LLAMA)),
    "mcp": (Mcp(), RequestFacts(rpc_id=7), EVENTS, sse(PROGRESS, RESULT, done=False)),
}


def cut(case: Case, event: int | None, text: str = FALLBACK, finish: str = "stop") -> bytes:
    """The stream ended before this event, read to its own end before the cut: later events must not show."""
    dialect, request, kind, data = case
    read = read_stream(dialect, [data], request, kind)
    read.reader.rewind(read.marks[event if event is not None else -1])
    return b"".join(one.raw for one in read.events[:event]) + read.reader.ending(Ending(text, finish))


def count_of(case: Case) -> int:
    dialect, request, kind, data = case
    return len(read_stream(dialect, [data], request, kind).events)


EVERY = [
    pytest.param(name, event, id=f"{name}-{event}") for name, case in CASES.items() for event in range(count_of(case))
]


@pytest.mark.parametrize("name", CASES)
def test_the_stream_itself_is_understood(name: str) -> None:
    dialect, request, kind, data = CASES[name]
    got = read_stream(dialect, [data], request, kind).response
    assert (got.inspection, got.partial_reason) == ("full", "")
    assert got.text() == "ab"
    if name != "mcp":
        assert (got.usage_source, got.input_tokens, got.output_tokens) == ("provider", 5, 3)


@pytest.mark.parametrize(("name", "event"), EVERY)
def test_a_cut_stream_reads_as_a_whole_one(name: str, event: int) -> None:
    case = CASES[name]
    body = cut(case, event)
    got = read_stream(case[0], [body], case[1], case[2]).response
    finished = name in ("cohere", "converse", "invoke nova") and event >= count_of(case) - 1
    assert got.inspection == ("partial" if finished else "full"), got.partial_reason
    assert got.text().endswith(FALLBACK)
    assert name == "cohere 1" or all(_is_json(call.arguments) for call in got.tool_calls)


def _is_json(text: str) -> bool:
    return isinstance(json.loads(text), dict)


@pytest.mark.parametrize("name", CASES)
def test_a_stream_that_is_over_needs_no_ending(name: str) -> None:
    case = CASES[name]
    if name in ("gemini", "gemini array"):
        return  # it has no end of its own: words may always follow
    assert cut(case, None) == b"".join(one.raw for one in read_stream(case[0], [case[3]], case[1], case[2]).events)


# ---- as the SDKs hear it --------------------------------------------------------------------------------------------


class Heard(str):
    """The text of a stream as its SDK tells it, and why it ended."""

    reason: str | None

    def __new__(cls, text: str, reason: object = None) -> Heard:
        heard = super().__new__(cls, text)
        heard.reason = None if reason is None else str(getattr(reason, "value", reason))
        return heard


def answered(body: bytes, kind: str, status: int = 200, **headers: str) -> httpx.MockTransport:
    return httpx.MockTransport(
        lambda _: httpx.Response(status, content=body, headers={"content-type": kind, **headers})
    )


def hear_ollama(body: bytes, kind: str, *, chat: bool = True) -> str:
    client = ollama.Client("http://h")
    client._client = httpx.Client(base_url="http://h", transport=answered(body, kind))
    if chat:
        parts = list(client.chat(model="m", messages=USER, stream=True))
        assert parts[-1].done and parts[-1].eval_count is not None
        return Heard("".join(part.message.content or "" for part in parts), parts[-1].done_reason)
    told = list(client.generate(model="m", prompt="p", stream=True))
    assert told[-1].done
    return Heard("".join(part.response for part in told), told[-1].done_reason)


def cohere_http(body: bytes, kind: str, status: int = 200) -> httpx.Client:
    return httpx.Client(transport=answered(body, kind, status))


def hear_cohere(body: bytes, kind: str) -> str:
    client = cohere.ClientV2("k", httpx_client=cohere_http(body, kind))
    out, opened, closed = "", 0, 0
    for event in client.chat_stream(model="m", messages=USER):
        opened += event.type in ("content-start", "tool-call-start")
        closed += event.type in ("content-end", "tool-call-end")
        if event.type == "content-delta":
            out += event.delta.message.content.text  # type: ignore[union-attr, operator]
        last = event
    assert last.type == "message-end"
    assert opened == closed
    return Heard(out, last.delta.finish_reason)  # type: ignore[union-attr]


def hear_cohere_1(body: bytes, kind: str) -> str:
    client = cohere.Client("k", httpx_client=cohere_http(body, kind))
    events = list(client.chat_stream(message="hi"))
    assert events[-1].event_type == "stream-end"
    text = "".join(event.text for event in events if event.event_type == "text-generation")
    return Heard(text, events[-1].finish_reason)


def google(body: bytes, kind: str, status: int = 200) -> genai.Client:
    http = httpx.Client(transport=answered(body, kind, status))
    return genai.Client(api_key="k", http_options=genai.types.HttpOptions(httpx_client=http))


def hear_google(body: bytes, kind: str) -> str:
    parts = list(google(body, kind).models.generate_content_stream(model="m", contents="hi"))
    assert parts[-1].candidates
    text = "".join(
        piece.text or ""
        for part in parts
        for one in (part.candidates or [])
        for piece in ((one.content and one.content.parts) or [])
        if not piece.thought
    )
    return Heard(text, parts[-1].candidates[0].finish_reason)


def hear_array(body: bytes, kind: str) -> str:  # noqa: ARG001 - no SDK asks for it
    documents = json.loads(body)
    text = "".join(
        part.get("text", "")
        for one in documents
        for said in one["candidates"]
        for part in said["content"]["parts"]
        if not part.get("thought")
    )
    return Heard(text, documents[-1]["candidates"][0].get("finishReason"))


AWS = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"), "bedrock-runtime")


def bedrock_events(body: bytes, operation: str, field: str) -> Iterator[dict[str, Any]]:
    """Through botocore's own parser of event streams."""

    class Raw:
        def stream(self) -> Iterator[bytes]:
            yield body

        def close(self) -> None: ...

    shape = AWS.operation_model(operation).output_shape.members[field]
    yield from EventStream(Raw(), shape, EventStreamJSONParser(), operation)


def hear_converse(body: bytes, kind: str) -> str:  # noqa: ARG001
    events = list(bedrock_events(body, "ConverseStream", "stream"))
    assert [name for one in events for name in one][-1] == "metadata"
    stops = [one["messageStop"]["stopReason"] for one in events if "messageStop" in one]
    said = [one["contentBlockDelta"]["delta"] for one in events if "contentBlockDelta" in one]
    return Heard("".join(one.get("text", "") for one in said), stops[-1])


def hear_chunks(body: bytes, kind: str) -> str:  # noqa: ARG001
    out = ""
    for one in bedrock_events(body, "InvokeModelWithResponseStream", "body"):
        document = json.loads(one["chunk"]["bytes"])
        inner = document.get("contentBlockDelta", document)
        out += (inner.get("delta") or {}).get("text", "") or inner.get("outputText", "") or inner.get("generation", "")
    return out


def hear_mcp(body: bytes, kind: str) -> str:  # noqa: ARG001 - read as the protocol says
    data = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: ")]
    (result,) = [one["result"] for one in data if one.get("id") == 7]
    return "".join(part["text"] for part in result["content"])


HEAR: dict[str, Callable[[bytes, str], str]] = {
    "ollama chat": hear_ollama,
    "ollama generate": lambda body, kind: hear_ollama(body, kind, chat=False),
    "cohere": hear_cohere,
    "cohere 1": hear_cohere_1,
    "gemini": hear_google,
    "gemini array": hear_array,
    "converse": hear_converse,
    "invoke claude": hear_chunks,
    "invoke nova": hear_chunks,
    "invoke titan": hear_chunks,
    "invoke llama": hear_chunks,
    "mcp": hear_mcp,
}


FINISHES = ("refusal", "length", "stop")
WORDS = {  # the three in the words of each dialect, as its SDK tells them
    "ollama chat": ("content_filter", "length", "stop"),
    "ollama generate": ("content_filter", "length", "stop"),
    "cohere": ("ERROR", "MAX_TOKENS", "COMPLETE"),
    "cohere 1": ("ERROR_TOXIC", "MAX_TOKENS", "COMPLETE"),
    "gemini": ("SAFETY", "MAX_TOKENS", "STOP"),
    "gemini array": ("SAFETY", "MAX_TOKENS", "STOP"),
    "converse": ("content_filtered", "max_tokens", "end_turn"),
}


@pytest.mark.parametrize(("name", "event"), [one for one in EVERY if one.values[0] in HEAR])
def test_a_cut_stream_parses_in_the_sdk(name: str, event: int) -> None:
    case = CASES[name]
    for at, finish in enumerate(FINISHES):
        heard = HEAR[name](cut(case, event, finish=finish), case[2])
        assert heard.endswith(FALLBACK)
        assert name not in WORDS or getattr(heard, "reason", None) == WORDS[name][at]


@pytest.mark.parametrize("name", HEAR)
def test_a_stream_of_our_own_parses_in_the_sdk(name: str) -> None:
    dialect, request, kind, _ = CASES[name]
    told = dialect.completion(request, Ending(FALLBACK, "stop"), "d1")
    if name == "mcp":
        assert json.loads(told.data)["result"]["content"][0]["text"] == FALLBACK
        return
    assert told.content_type.split(";")[0] in (kind, LINES, EVENTS)
    assert HEAR[name](told.data, told.content_type) == FALLBACK
    assert read_stream(dialect, [told.data], request, told.content_type).response.inspection == "full"


# ---- answers of our own in one piece --------------------------------------------------------------------------------


def test_a_completion_in_the_sdk() -> None:
    told = OllamaChat().completion(RequestFacts(model="m", stream=False), Ending(FALLBACK, "stop"), "d")
    client = ollama.Client("http://h")
    client._client = httpx.Client(base_url="http://h", transport=answered(told.data, told.content_type))
    assert client.chat(model="m", messages=USER).message.content == FALLBACK
    told = CohereChat().completion(RequestFacts(path="/v2/chat"), Ending(FALLBACK, "stop"), "d")
    second = cohere.ClientV2("k", httpx_client=cohere_http(told.data, told.content_type))
    content = second.chat(model="m", messages=USER).message.content
    assert content and content[0].text == FALLBACK  # type: ignore[union-attr]
    told = CohereChat().completion(RequestFacts(path="/v1/chat"), Ending(FALLBACK, "stop"), "d")
    assert (
        cohere.Client("k", httpx_client=cohere_http(told.data, told.content_type)).chat(message="hi").text == FALLBACK
    )
    told = GeminiGenerate().completion(RequestFacts(), Ending(FALLBACK, "stop"), "d")
    assert google(told.data, told.content_type).models.generate_content(model="m", contents="hi").text == FALLBACK


@pytest.mark.parametrize("shape", ["claude", "chat", "nova", "cohere", "outputText", "generation", "outputs",
                                   "completion", "completions", "generations", "choices"])  # fmt: skip
def test_a_completion_behind_invoke_model_reads_as_one(shape: str) -> None:
    from tests.streams import read_json

    request = RequestFacts(shape=shape)
    told = BedrockInvoke().completion(request, Ending(FALLBACK, "stop"), "d")
    got = read_json(BedrockInvoke(), json.loads(told.data), request=request).response
    assert (got.inspection, got.text()) == ("full", FALLBACK)
    assert got.finish_reasons
    streamed = RequestFacts(shape=shape, stream=True)
    told = BedrockInvoke().completion(streamed, Ending(FALLBACK, "stop"), "d")
    got = read_stream(BedrockInvoke(), [told.data], streamed, told.content_type).response
    assert (got.inspection, got.text()) == ("full", FALLBACK)


def test_a_converse_completion_in_botocore() -> None:
    told = BedrockConverse().completion(RequestFacts(), Ending(FALLBACK, "stop"), "d")
    shape = AWS.operation_model("Converse").output_shape
    got = RestJSONParser().parse({"status_code": 200, "headers": {}, "body": told.data}, shape)
    assert got["output"]["message"]["content"] == [{"text": FALLBACK}]
    assert got["stopReason"] == "end_turn"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 503])
def test_an_error_is_the_sdks_own(status: int) -> None:
    told = OllamaChat().error(status, "over_budget", FALLBACK)
    client = ollama.Client("http://h")
    client._client = httpx.Client(base_url="http://h", transport=answered(told.data, told.content_type, status))
    with pytest.raises(ollama.ResponseError) as one:
        client.chat(model="m", messages=USER)
    assert (one.value.error, one.value.status_code) == (FALLBACK, status)
    told = CohereChat().error(status, "over_budget", FALLBACK)
    with pytest.raises(cohere.core.ApiError) as two:
        cohere.ClientV2("k", httpx_client=cohere_http(told.data, told.content_type, status)).chat(
            model="m", messages=USER, request_options={"max_retries": 0}
        )
    assert (two.value.status_code, two.value.body["message"]) == (status, FALLBACK)
    told = GeminiGenerate().error(status, "over_budget", FALLBACK)
    with pytest.raises(google_errors.APIError) as three:
        google(told.data, told.content_type, status).models.generate_content(model="m", contents="hi")
    assert (three.value.code, three.value.message) == (status, FALLBACK)
    told = BedrockConverse().error(status, "over_budget", FALLBACK)
    shape = AWS.operation_model("Converse").output_shape
    got = RestJSONParser().parse({"status_code": status, "headers": dict(told.headers), "body": told.data}, shape)
    assert got["Error"]["Message"] == FALLBACK
    assert got["Error"]["Code"].endswith("Exception")
    assert json.loads(Mcp().error(status, "r", FALLBACK).data)["error"]["message"] == FALLBACK
