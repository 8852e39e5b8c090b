"""A streamed answer as its official SDK hears it: its texts, and the arguments of its tool calls, by where they stand.

Where no SDK reads a stream (a JSON array, a chunk of InvokeModel, Hugging Face, MCP) the protocol is read as it says.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import anthropic
import cohere
import httpx
import ollama
import openai

from tests.core.test_endings_others import answered, bedrock_events, google
from tests.streams import answering

USER: Any = [{"role": "user", "content": "hi"}]
Heard = dict[str, str]
"""By where it stands: the text there, "args" at its beginning for arguments."""


def openai_client(body: bytes) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", http_client=answering(body), max_retries=0)


def hear_chat(body: bytes, _: str) -> Heard:
    heard: Heard = defaultdict(str)
    for chunk in openai_client(body).chat.completions.create(model="m", messages=USER, stream=True):
        for choice in chunk.choices:
            heard[f"text {choice.index}"] += _content(choice.delta.content)
            for call in choice.delta.tool_calls or ():
                if call.function is not None:
                    heard[f"args {choice.index} {call.index}"] += call.function.arguments or ""
            if choice.delta.function_call is not None:
                heard[f"args {choice.index}"] += choice.delta.function_call.arguments or ""
    return heard


def _content(said: Any) -> str:
    """A string, or Mistral's list of parts, which this SDK hands on as it is."""
    return "".join(part["text"] for part in said) if isinstance(said, list) else said or ""


def hear_completions(body: bytes, _: str) -> Heard:
    heard: Heard = defaultdict(str)
    for chunk in openai_client(body).completions.create(model="m", prompt="p", stream=True):
        for choice in chunk.choices:
            heard[f"text {choice.index}"] += choice.text or ""
    return heard


def hear_responses(body: bytes, _: str) -> Heard:
    """What was said piece by piece, and what the closing response says of it: the same."""
    heard: Heard = defaultdict(str)
    for event in openai_client(body).responses.create(model="m", input="p", stream=True):
        if event.type == "response.output_text.delta":
            heard[f"text {event.output_index} {event.content_index}"] += event.delta
        elif event.type == "response.function_call_arguments.delta":
            heard[f"args {event.output_index}"] += event.delta
        elif event.type == "response.completed":
            told = event.response
    for item in told.output:  # a call that was cut is left out, so its place does not tell
        if item.type == "message":
            assert all(part.type != "output_text" or part.text in ("", *heard.values()) for part in item.content)
        elif item.type == "function_call":
            assert item.arguments in heard.values()
    return heard


def hear_messages(body: bytes, _: str) -> Heard:
    client = anthropic.Anthropic(api_key="k", http_client=answering(body), max_retries=0)
    heard: Heard = defaultdict(str)
    with client.messages.stream(model="m", max_tokens=1, messages=USER) as stream:
        for event in stream:
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                heard[f"text {event.index}"] += event.delta.text
            elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                heard[f"args {event.index}"] += event.delta.partial_json
        final = stream.get_final_message()
    for index, one in enumerate(final.content):
        assert one.type != "text" or one.text == heard[f"text {index}"]
    return heard


def hear_complete(body: bytes, _: str) -> Heard:
    return {"text": "".join(one["completion"] for one in _data(body))}  # its SDK has dropped this door


def ollama_client(body: bytes, kind: str) -> ollama.Client:
    client = ollama.Client("http://h")
    client._client = httpx.Client(base_url="http://h", transport=answered(body, kind))
    return client


def hear_ollama(body: bytes, kind: str) -> Heard:
    parts = list(ollama_client(body, kind).chat(model="m", messages=USER, stream=True))
    assert parts[-1].done
    calls = [call.function.arguments for part in parts for call in part.message.tool_calls or ()]
    heard = {f"args {at}": json.dumps(one, ensure_ascii=False) for at, one in enumerate(calls)}
    return {"text": "".join(part.message.content or "" for part in parts), **heard}


def hear_generated(body: bytes, kind: str) -> Heard:
    parts = list(ollama_client(body, kind).generate(model="m", prompt="p", stream=True))
    assert parts[-1].done
    return {"text": "".join(part.response for part in parts)}


def cohere_http(body: bytes, kind: str) -> httpx.Client:
    return httpx.Client(transport=answered(body, kind))


def hear_cohere(body: bytes, kind: str) -> Heard:
    if "stream+json" in kind:
        return _hear_cohere_1(body, kind)
    heard: Heard = defaultdict(str)
    client = cohere.ClientV2("k", httpx_client=cohere_http(body, kind))
    last = None
    for last in client.chat_stream(model="m", messages=USER):
        if last.type == "content-delta":
            heard[f"text {last.index}"] += last.delta.message.content.text or ""  # type: ignore[union-attr]
        elif last.type == "tool-call-delta":
            heard[f"args {last.index}"] += last.delta.message.tool_calls.function.arguments  # type: ignore[union-attr]
    assert last is not None and last.type == "message-end"
    return heard


def _hear_cohere_1(body: bytes, kind: str) -> Heard:
    events = list(cohere.Client("k", httpx_client=cohere_http(body, kind)).chat_stream(message="hi"))
    last = events[-1]
    assert last.event_type == "stream-end"
    text = "".join(event.text for event in events if event.event_type == "text-generation")
    assert last.response.text == text
    calls = [call for event in events if event.event_type == "tool-calls-generation" for call in event.tool_calls]
    heard = {f"args {at}": json.dumps(call.parameters, ensure_ascii=False) for at, call in enumerate(calls)}
    return {"text": text, **heard}


def hear_cohere_generated(body: bytes, kind: str) -> Heard:
    events = list(cohere.Client("k", httpx_client=cohere_http(body, kind)).generate_stream(prompt="p"))
    text = "".join(event.text for event in events if event.event_type == "text-generation")
    end = next(event for event in events if event.event_type == "stream-end")
    assert [one.text for one in end.response.generations or ()] == [text]
    return {"text": text}


def hear_google(body: bytes, kind: str) -> Heard:
    heard: Heard = defaultdict(str)
    if "event-stream" in kind:
        told = google(body, kind).models.generate_content_stream(model="m", contents="hi")
        documents = [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in told]
    else:
        documents = json.loads(body)
    for one in documents:
        for candidate in one.get("candidates") or ():
            for part in candidate.get("content", {}).get("parts") or ():
                if "functionCall" in part:
                    heard["args"] += json.dumps(part["functionCall"]["args"], ensure_ascii=False)
                elif not part.get("thought"):
                    heard["text"] += part.get("text") or ""
    return heard


def _blocks(heard: Heard, event: dict[str, Any]) -> None:
    """Converse's deltas, and Claude's and the plain families' behind InvokeModel."""
    told = event.get("contentBlockDelta", event)
    delta = told.get("delta") or {}
    # Behind a guardrail Nova puts every word in a block of its own: what they say is one text.
    index = told.get("contentBlockIndex", told.get("index", 0)) or 0
    at = "text" if "contentBlockDelta" in event else f"text {index}"
    if "text" in delta or "outputText" in told or "generation" in told or "text" in told:
        said = delta.get("text") or told.get("outputText") or told.get("generation") or told.get("text")
        heard[at] += said or ""
    for one in told.get("outputs") or ():
        heard["text 0"] += one["text"]
    arguments = delta.get("partial_json") or (delta.get("toolUse") or {}).get("input")
    if arguments:
        heard[f"args {index}"] += arguments


def hear_converse(body: bytes, _: str) -> Heard:
    heard: Heard = defaultdict(str)
    for event in bedrock_events(body, "ConverseStream", "stream"):
        _blocks(heard, event)
    return heard


def hear_invoke(body: bytes, _: str) -> Heard:
    heard: Heard = defaultdict(str)
    for event in bedrock_events(body, "InvokeModelWithResponseStream", "body"):
        _blocks(heard, json.loads(event["chunk"]["bytes"]))
    return heard


def _data(body: bytes) -> list[Any]:
    return [json.loads(line[5:]) for line in body.decode().split("\n") if line.startswith("data:")]


def hear_huggingface(body: bytes, _: str) -> Heard:
    events = _data(body)
    text = "".join(one["token"]["text"] for one in events if not one["token"]["special"])
    assert events[-1]["generated_text"] == text
    return {"text": text}


def hear_mcp(body: bytes, _: str) -> Heard:
    results = [one["result"]["content"] for one in _data(body) if "result" in one]
    return {"text": "".join(part["text"] for content in results for part in content)}


HEAR: dict[str, Callable[[bytes, str], Heard]] = {
    "openai.chat": hear_chat,
    "openai.completions": hear_completions,
    "openai.responses": hear_responses,
    "anthropic.messages": hear_messages,
    "anthropic.complete": hear_complete,
    "ollama.chat": hear_ollama,
    "ollama.generate": hear_generated,
    "cohere.chat": hear_cohere,
    "cohere.generate": hear_cohere_generated,
    "gemini.generate": hear_google,
    "bedrock.converse": hear_converse,
    "bedrock.invoke": hear_invoke,
    "huggingface.text": hear_huggingface,
    "mcp": hear_mcp,
}
