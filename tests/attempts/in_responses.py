"""Attempts of an upstream to get text past a rule or a redaction, in every dialect, whole and streamed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from policyd.cli.emulator import RawAnswer
from tests.attempts.attempt import Attempt, Outcome, Request, kept_from_caller, served, streamed, whole
from tests.attempts.ends import interrupted
from tests.attempts.planting import escaped, name_of, places, planted
from tests.spoken import VOICES, Voice

FORBIDDEN = "zugzwang"
SECRET = "canary-314159"
CARD = 4111111111111111
CUT = 7  # characters of a text in each event

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
CHAT = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "gpt-4o", "usage": USAGE,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {
        "role": "assistant", "content": "hello", "refusal": None, "reasoning_content": "I think",
        "annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.test", "title": "t"}}],
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}]}}],
}  # fmt: skip
WHOLE: dict[str, tuple[str, Any, Any]] = {
    "openai.chat": ("/v1/chat/completions", {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}, CHAT),
    "openai.responses": ("/v1/responses", {"model": "gpt-4o", "input": "hi"}, {
        "id": "resp_1", "object": "response", "status": "completed", "model": "gpt-4o", "metadata": {"a": "b"},
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        "output": [
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "I think"}]},
            {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "q"}},
            {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": '{"a": "b"}'},
            {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [
                {"type": "output_text", "text": "hello", "annotations": [
                    {"type": "url_citation", "url": "https://a.test", "title": "t", "start_index": 0, "end_index": 1}
                ]}]}]}),
    "openai.completions": ("/v1/completions", {"model": "m", "prompt": "hi"}, {
        "id": "c", "object": "text_completion", "model": "m", "usage": USAGE,
        "choices": [{"index": 0, "text": "hello", "finish_reason": "stop"}]}),
    "anthropic.messages": ("/v1/messages", {"model": "claude-sonnet-4-6", "max_tokens": 9,
                                            "messages": [{"role": "user", "content": "hi"}]}, {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6", "stop_reason": "end_turn",
        "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 5}, "content": [
            {"type": "thinking", "thinking": "I think", "signature": "c2ln"},
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [
                {"type": "web_search_result", "url": "https://a.test", "title": "t", "encrypted_content": "YQ=="}]},
            {"type": "text", "text": "hello", "citations": [
                {"type": "web_search_result_location", "url": "https://a.test", "title": "t", "cited_text": "quoted"}]},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "b"}}]}),
    "gemini.generate": ("/v1beta/models/gemini-2.5-pro:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]}, {
        "candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [
            {"text": "hello"}, {"text": "I think", "thought": True},
            {"functionCall": {"name": "f", "args": {"a": "b"}}},
            {"executableCode": {"language": "PYTHON", "code": "print(1)"}}]},
            "groundingMetadata": {"webSearchQueries": ["q"]}}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 5, "totalTokenCount": 8},
        "modelVersion": "gemini-2.5-pro"}),
    "bedrock.converse": ("/model/amazon.nova-pro-v1%3A0/converse",
                         {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}, {
        "output": {"message": {"role": "assistant", "content": [
            {"text": "hello"}, {"reasoningContent": {"reasoningText": {"text": "I think", "signature": "c2ln"}}},
            {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": "b"}}}]}},
        "stopReason": "end_turn", "usage": {"inputTokens": 3, "outputTokens": 5, "totalTokens": 8},
        "metrics": {"latencyMs": 7}}),
    "cohere.chat": ("/v2/chat", {"model": "command-a", "messages": [{"role": "user", "content": "hi"}]}, {
        "id": "c", "finish_reason": "COMPLETE", "message": {"role": "assistant", "tool_plan": "I will",
            "content": [{"type": "text", "text": "hello"}],
            "citations": [{"start": 0, "end": 1, "text": "h", "sources": [
                {"type": "document", "id": "d", "document": {"text": "a document"}}]}]},
        "usage": {"billed_units": {"input_tokens": 3, "output_tokens": 5},
                  "tokens": {"input_tokens": 3, "output_tokens": 5}}}),
    "ollama.chat": ("/api/chat", {"model": "m", "stream": False, "messages": [{"role": "user", "content": "hi"}]}, {
        "model": "m", "created_at": "2024-05-24T20:26:46.3Z", "done": True, "done_reason": "stop",
        "prompt_eval_count": 3, "eval_count": 5,
        "message": {"role": "assistant", "content": "hello", "thinking": "I think",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"a": "b"}}}]}}),
    "mcp": ("/mcp", {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "f"}}, {
        "jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "hello"},
            {"type": "resource", "resource": {"uri": "file:///a", "mimeType": "text/plain", "text": "inside"}}],
            "structuredContent": {"a": "b"}}}),
    "retrieval of a response": ("/v1/responses/resp_1", None, {
        "id": "resp_1", "object": "response", "status": "completed", "model": "gpt-4o",
        "output": [{"type": "message", "id": "m", "role": "assistant", "content": [
            {"type": "output_text", "text": "hello", "annotations": []}]}]}),
    "retrieval of a chat": ("/v1/chat/completions/chatcmpl-1", None, CHAT),
    "retrieval of items": ("/v1/conversations/conv_1/items", None, {"object": "list", "data": [
        {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}]}),
    "image": ("/v1/images/generations", {"model": "m", "prompt": "a"}, {"created": 1, "data": [
        {"url": "https://a.test", "revised_prompt": "hello, a cat"}]}),
}  # fmt: skip
ERROR = {"error": {"message": "bad", "type": "invalid_request_error", "param": "messages", "code": "bad_request"}}


def attempts() -> Iterator[Attempt]:
    """Text in every place of a response, whole and streamed."""
    for dialect, (path, body, skeleton) in WHOLE.items():
        for kind, where in places(skeleton):
            for text, team in ((FORBIDDEN, "cut"), (SECRET, "hidden")):
                document = planted(skeleton, kind, where, f"it is {text}.")
                yield _attempt("text in a whole response", f"{dialect}, {name_of(kind, where)}", path, body,
                               whole(document), text, team)  # fmt: skip
                if kind == "value":
                    data = escaped(json.dumps(document).encode(), text)
                    yield _attempt("text in JSON escapes", f"{dialect}, response, {name_of(kind, where)}", path, body,
                                   whole(data), text, team)  # fmt: skip
            for team in ("cut", "hidden") if kind != "value" else ():
                yield _attempt("number in a response", f"{dialect}, {name_of(kind, where)}", path, body,
                               whole(planted(skeleton, kind, where, CARD)), str(CARD), team)  # fmt: skip
        for team in ("cut", "hidden"):
            yield _ordinary(f"{dialect}, whole, {team}", path, body, whole(skeleton), team)
    for name, voice in VOICES.items():
        for team in ("cut", "hidden"):
            data = voice.say(["hello", " there"])
            yield _ordinary(f"{name}, {team}", voice.path, voice.body, streamed(data, kind=voice.kind), team)
    yield from _errors()
    yield from _streams()
    yield from _ends()
    yield from _events()
    yield from _lines()


_STORED = itertools.count()


def _stored(path: str, team: str, reply: RawAnswer) -> Request:
    """The retrieval of a stored response under an id of its own: one that was cut or redacted is refused afterwards."""
    number = str(next(_STORED))
    chunks = reply.chunks
    for name in ("resp_1", "chatcmpl-1", "conv_1"):
        path = path.replace(name, name + number)
        chunks = tuple(chunk.replace(f'"{name}"'.encode(), f'"{name}{number}"'.encode()) for chunk in chunks)
    return Request(path, method="GET", team=team, reply=replace(reply, chunks=chunks))


def _attempt(klass: str, name: str, path: str, body: Any, reply: RawAnswer, text: str, team: str) -> Attempt:
    request = _stored(path, team, reply) if body is None else Request.json(path, body, team=team, reply=reply)
    return Attempt(klass, f"{name} ({team})", [request], kept_from_caller(text))


def _ordinary(name: str, path: str, body: Any, reply: RawAnswer, team: str) -> Attempt:
    def check(outcomes: list[Outcome]) -> str:
        wrong = served(outcomes)
        return wrong or (
            "" if outcomes[0].status == reply.status and outcomes[0].caller_has("hello") else "no response"
        )

    request = _stored(path, team, reply) if body is None else Request.json(path, body, team=team, reply=reply)
    return Attempt("ordinary response (must pass)", name, [request], check)


def _errors() -> Iterator[Attempt]:
    for dialect, (path, body, _) in WHOLE.items():
        for kind, where in places(ERROR):
            document = planted(ERROR, kind, where, f"key {SECRET}")
            yield _attempt("text in an error", f"{dialect}, {name_of(kind, where)}", path, body, whole(document, 400),
                           SECRET, "hidden")  # fmt: skip


def _streams() -> Iterator[Attempt]:
    """A text or the arguments of a call, cut into pieces."""
    for name, voice in VOICES.items():
        for text, team in ((FORBIDDEN, "cut"), (SECRET, "hidden")):
            for size in (1, 3, CUT, 99):
                pieces = _cut(f"well, it is {text}, as ever", size)
                yield _spoken("text in a stream", f"{name}, {size} characters an event", voice, voice.say(pieces), text,
                              team)  # fmt: skip
                if voice.call is not None:
                    pieces = _cut(json.dumps({"a": f"it is {text}."}), size)
                    yield _spoken("arguments in a stream", f"{name}, {size} characters an event", voice,
                                  voice.call(pieces), text, team)  # fmt: skip


def _ends() -> Iterator[Attempt]:
    """A text that goes on after the provider said that it was over."""
    for name, voice in VOICES.items():
        if name in ("gemini array", "openai choices"):  # events that do not stand alone; a text that is said twice
            continue
        for head, tail, team in (("zug", "zwang", "cut"), ("canary-3", "14159", "hidden")):
            for what, events in interrupted(voice, head, tail):
                reply = streamed(*events, kind=voice.kind)
                request = Request.json(voice.path, voice.body, team=team, reply=reply)
                check = kept_from_caller(tail)
                yield Attempt("text after its end", f"{name}, {what} between ({team})", [request], check)


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _spoken(klass: str, name: str, voice: Voice, data: bytes, text: str, team: str) -> Attempt:
    request = Request.json(voice.path, voice.body, team=team, reply=streamed(data, kind=voice.kind))
    return Attempt(klass, f"{name} ({team})", [request], kept_from_caller(text))


def _events() -> Iterator[Attempt]:
    """Text in every place of every event of a stream of server-sent events."""
    for name, voice in VOICES.items():
        if voice.kind != "text/event-stream":
            continue
        blocks = [block for block in voice.say(["hello"]).split(b"\n\n") if block]
        for number, block in enumerate(blocks):
            head, found, data = block.rpartition(b"data: ")
            if not found or not data.startswith(b"{"):
                continue
            document = json.loads(data)
            for kind, where in places(document):
                for text, team in ((FORBIDDEN, "cut"), (SECRET, "hidden"), (CARD, "cut"), (CARD, "hidden")):
                    if kind == "value" and text == CARD:
                        continue
                    made = json.dumps(planted(document, kind, where, text if text == CARD else f" {text} ")).encode()
                    changed = b"".join(one + b"\n\n" for one in
                                       [*blocks[:number], head + b"data: " + made, *blocks[number + 1:]])  # fmt: skip
                    klass = "number in an event" if text == CARD else "text in an event"
                    yield _spoken(klass, f"{name}, event {number}, {name_of(kind, where)}", voice,
                                  changed, str(text), team)  # fmt: skip


LINES = {
    "comment": ": it is {text}\n\n",
    "comment beside data": ": {text}\ndata: {data}\n\n",
    "event name": "event: {text}\ndata: {data}\n\n",
    "id": "id: {text}\ndata: {data}\n\n",
    "retry": "retry: {text}\ndata: {data}\n\n",
    "unknown field": "note: {text}\n\n",
    "field without colon": "{text}\n\n",
    "bare JSON": '{{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\n\n',
    "BOM before data": '\ufeffdata: {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\n\n',
    "two BOMs": '\ufeff\ufeffdata: {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\n\n',
    "space before data": ' data: {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\n\n',
    "tab before data": '\tdata: {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\n\n',
    "upper case data": 'DATA: {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\n\n',
    "data with two spaces": 'data:  {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\n\n',
    "data in two lines": 'data: {{"choices": [{{"index": 0,\ndata: "delta": {{"content": "{text}"}}}}]}}\n\n',
    "carriage returns": 'data: {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\r\r',
    "mixed line ends": 'data: {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\r\n\n\r',
    "NUL in the field": 'da\x00ta: {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\n\n',
    "error event": 'data: {{"error": {{"message": "{text}"}}}}\n\n',
    "text behind the end": 'data: [DONE]\n\ndata: {{"choices": [{{"delta": {{"content": "{text}"}}}}]}}\n\n',
    "not JSON": "data: {text}\n\n",
    "a string": 'data: "{text}"\n\n',
    "a list": 'data: ["{text}"]\n\n',
    "without an end": 'data: {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}',
}


def _lines() -> Iterator[Attempt]:
    """Text in what is no data of a stream, or only to some readers."""
    for name in ("openai", "responses", "anthropic", "gemini", "cohere"):
        voice = VOICES[name]
        blocks = [block + b"\n\n" for block in voice.say(["hello", " there"]).split(b"\n\n") if block]
        data = blocks[0].rpartition(b"data: ")[2].strip().decode()
        for what, template in LINES.items():
            for text, team in ((FORBIDDEN, "cut"), (SECRET, "hidden")):
                for at in (0, 1, len(blocks)):
                    line = template.format(text=text, data=data).encode()
                    stream = b"".join([*blocks[:at], line, *blocks[at:]])
                    yield _spoken("lines of a stream", f"{name}, {what}, before block {at}", voice, stream, text, team)
