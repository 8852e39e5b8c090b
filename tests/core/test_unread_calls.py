"""Tool calls of unknown shapes, and fields in another case: rules that depend on them are errored, never silent."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from policyd.core.stream.dialects.content import Structure
from policyd.core.stream.dialects.response_fields import RESPONSES
from tests.attempts.in_responses import WHOLE
from tests.core.test_endings_others import BINARY, EVENTS, LINES, chunked, messages
from tests.core.test_endings_others import lines as json_lines
from tests.driving import Bed, Outcome, policy
from tests.spoken import VOICES
from tests.streams import sse as events


def sse(*documents: Any) -> bytes:
    """Events of these documents, and the end where the dialect has one."""
    return events(*documents, done="choices" in documents[0])


ANY = 'match: {operations: ["*", unknown]}\n'
CALLS = policy(
    f"{ANY}rules: [{{name: r, when: 'response.tool_calls.exists(c, c.name == \"drop_all\")', terminate: {{}}}}]"
)
TEXT = policy(f"{ANY}rules: [{{name: r, when: 'response.text.contains(\"zugzwang\")', terminate: {{}}}}]")
BOTH = policy(
    f"{ANY}rules: [{{name: r, when: 'response.tool_calls.size() > 0 && response.text.contains(\"zugzwang\")', "
    "terminate: {}}]"
)
ARGS = '{"cmd": "rm -rf /data"}'
F = {"name": "run_shell", "arguments": ARGS}
CALL = {"id": "c1", "type": "function", "function": F}
INPUT = {"name": "run_shell", "input": {"cmd": "rm"}}
ARGS_OF = {"name": "run_shell", "args": {"cmd": "rm"}}

# The place of a message in a whole response, by dialect; what is planted there looks like a call that nobody reads.
SHAPES: list[tuple[str, str, dict[str, Any]]] = [
    *(("openai.chat", "choices.0.message", made) for made in (
        {"tool_call": CALL}, {"toolCalls": [CALL]}, {"function_calls": [F]}, {"functionCall": ARGS_OF},
        {"tool_use": {"name": "f", "input": {}}}, {"note": {"name": "f", "args": {}}}, {"x": [{"y": INPUT}]},
        {"content": [{"type": "tool_call", "id": "c"}]}, {"content": [{"type": "text", "text": "x", **INPUT}]},
        {"tool_calls": [{"id": "c1", "type": "function", **F}]},
        {"tool_calls": [{"id": "c1", "type": "mcp", "mcp": F}]},
        {"tool_calls": [{"id": "c1", "type": "novel_call", "do": "x"}]}, {"actions": [{"tool": "f", "input": "x"}]},
        {"novel": {"toolName": "f", "args": {}}}, {"provider_calls": [{"do": "rm"}]},
    )),
    ("openai.chat", "choices.0", {"tool_calls": [CALL]}),
    ("openai.chat", "choices.0", {"delta": {"tool_calls": [{"index": 0, "type": "novel_call"}], "x": ARGS_OF}}),
    ("openai.chat", "", {"tool_calls": [CALL]}),
    ("openai.chat", "", {"output": [{"type": "function_call", **F}]}),
    *(("openai.responses", "output.+", made) for made in (
        {"type": "novel_call", "id": "n", "call_id": "c", **F}, {"type": "browser_call", "action": {"url": "x"}},
        {"type": "computer_use_call", "actions": [{"type": "type", "text": "rm"}]}, {"type": "tool_use", **INPUT},
        {"type": "tool_invocation", **F}, {"type": "novel", **F}, {"type": "novel", "tool_calls": [CALL]},
        {"type": "message", "role": "assistant", "content": [{"type": "function_call", **F}]},
        {"type": "message", "role": "assistant", "content": [], "tool_calls": [CALL]},
    )),
    ("openai.responses", "", {"tool_calls": [CALL]}),
    ("openai.responses", "", {"required_action": {"submit_tool_outputs": {"tool_calls": [CALL]}}}),
    *(("anthropic.messages", "content.+", made) for made in (
        {"type": "novel_tool_use", "id": "t", **INPUT}, {"type": "client_tool_use", "id": "t", **INPUT},
        {"type": "tool_call", "id": "t"}, {"type": "novel", **INPUT}, {"type": "text", "text": "x", "tool_use": INPUT},
    )),
    ("anthropic.messages", "", {"tool_calls": [CALL]}),
    *(("gemini.generate", "candidates.0.content.parts.+", made) for made in (
        {"function_call": ARGS_OF}, {"novelCall": ARGS_OF}, {"tool_use": INPUT}, {"note": ARGS_OF},
        {"functionCalls": [ARGS_OF]}, {"text": "x", "actions": [ARGS_OF]},
    )),
    ("gemini.generate", "candidates.0", {"functionCall": ARGS_OF}),
    ("gemini.generate", "", {"automaticFunctionCallingHistory": [{"parts": [{"functionCall": ARGS_OF}]}]}),
    *(("bedrock.converse", "output.message.content.+", made) for made in (
        {"tool_use": INPUT}, {"serverToolUse": INPUT}, {"functionCall": ARGS_OF}, {"novel": INPUT},
    )),
    ("bedrock.converse", "output.message", {"tool_calls": [CALL]}),
    ("cohere.chat", "message", {"function_call": F}),
    ("cohere.chat", "message.content.+", {"type": "tool_use", **INPUT}),
    ("cohere.chat", "", {"tool_use": [INPUT]}),
    ("ollama.chat", "message", {"function_call": F}),
    ("ollama.chat", "", {"tool_calls": [CALL]}),
    ("mcp", "result.content.+", {"type": "tool_use", "id": "t", **INPUT}),
    ("retrieval of items", "data.+", {"type": "function_call", **F}),
    ("image", "data.0", {"tool_calls": [CALL]}),
]  # fmt: skip
ORDINARY: list[tuple[str, str, dict[str, Any]]] = [
    ("openai.chat", "choices.0.message", {"tool_calls": [CALL], "function_call": F}),
    ("openai.chat", "choices.0.message", {"content": '{"tool_calls": [{"name": "f", "arguments": {}}]}'}),
    ("openai.chat", "choices.0.message",
     {"tool_calls": [{**CALL, "function": {"name": "f", "arguments": json.dumps(CALL)}}]}),
    ("openai.chat", "choices.0",
     {"delta": {"tool_calls": [CALL]}, "message": {"role": "assistant", "tool_calls": [CALL]}}),
    ("openai.chat", "usage", {"server_tool_use": {"web_search_requests": 1}, "num_tool_calls": 3}),
    ("openai.responses", "", {"tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}]}),
    ("openai.responses", "", {"metadata": {"name": "x", "input": "y"}}),
    ("openai.responses", "output.+", {"type": "local_shell_call", "id": "l", "action": {"type": "exec"}}),
    ("openai.responses", "output.+", {"type": "mcp_call", "id": "m", "server_label": "s", **F}),
    ("anthropic.messages", "content.+", {"type": "tool_use", "id": "t", "name": "f", "input": INPUT}),
    ("anthropic.messages", "content.+", {"type": "mcp_tool_use", "id": "t", "server_name": "s", **INPUT}),
    ("gemini.generate", "candidates.0.content.parts.+", {"functionCall": {"name": "f", "args": ARGS_OF}}),
    ("bedrock.converse", "output.message.content.+", {"toolUse": {"toolUseId": "t", "name": "f", "input": INPUT}}),
    ("mcp", "", {"result": {"prompts": [{"name": "p", "arguments": [{"name": "a", "required": True}]}]}}),
    ("mcp", "", {"result": {"tools": [{"name": "f", "inputSchema": {"type": "object"}}]}}),
    ("mcp", "result", {"structuredContent": {"name": "x", "input": {"a": "b"}}}),
]  # fmt: skip


def put(document: Any, where: str, made: dict[str, Any]) -> Any:
    """The document with these members at a place, or (`+`) as one more element of the list there."""
    document = copy.deepcopy(document)
    at = document
    *steps, last = where.split(".") if where else [""]
    for step in (one for one in [*steps, "" if last == "+" else last] if one):
        at = at[int(step) if step.isdigit() else step]
    if last == "+":
        at.append(made)
    else:
        at.update(made)
    return document


def answered(rules: str, dialect: str, document: Any) -> Outcome:
    path, body, _ = WHOLE[dialect]
    bed = Bed(rules)
    asked = b"" if body is None else json.dumps(body).encode()
    return bed.call(
        body=asked, path=path, method="GET" if body is None else "POST", chunks=[json.dumps(document).encode()]
    )


def name(case: Any) -> str:
    return json.dumps(case)[:60] if isinstance(case, dict) else str(case)


@pytest.mark.parametrize(("dialect", "where", "made"), SHAPES, ids=name)
def test_rules_on_tool_calls_are_errored_by_a_call_of_an_unknown_shape(
    dialect: str, where: str, made: dict[str, Any]
) -> None:
    document = put(WHOLE[dialect][2], where, made)
    out = answered(CALLS, dialect, document)
    assert out.rule("r").outcome.value == "errored"
    assert b"run_shell" not in out.body
    assert answered(TEXT, dialect, document).rule("r").outcome.value == "not_matched"
    assert answered(BOTH, dialect, document).rule("r").outcome.value == "not_matched"


@pytest.mark.parametrize(("dialect", "where", "made"), ORDINARY, ids=name)
def test_ordinary_responses_are_no_calls_of_an_unknown_shape(dialect: str, where: str, made: dict[str, Any]) -> None:
    out = answered(CALLS, dialect, put(WHOLE[dialect][2], where, made))
    assert out.rule("r").outcome.value == "not_matched"


def event(**choice: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": {}, **choice}],
    }


CLAUDE_START = {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "c",
                "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}}  # fmt: skip
V1 = {"model": "command-r", "message": "hi", "stream": True}
EVENTS_OF: dict[str, tuple[str, Any, str, bytes]] = {
    "chat, message in a chunk": ("/v1/chat/completions", {}, EVENTS, sse(event(message={"tool_calls": [CALL]}))),
    "chat, in the choice": ("/v1/chat/completions", {}, EVENTS, sse(event(tool_calls=[CALL]))),
    "chat, flat": ("/v1/chat/completions", {}, EVENTS, sse(event(delta={"tool_calls": [{"index": 0, **F}]}))),
    "chat, later": ("/v1/chat/completions", {}, EVENTS,
                    sse(event(delta={"content": "hello"}), event(delta={"toolCalls": [CALL]}))),
    "claude, unknown tool": ("/v1/messages", {}, EVENTS, sse(CLAUDE_START, {
        "type": "content_block_start", "index": 0, "content_block": {"type": "novel_tool_use", "id": "t", **INPUT}})),
    "claude, in a delta": ("/v1/messages", {}, EVENTS, sse(CLAUDE_START, {
        "type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x", "tool_use": INPUT}})),
    "responses, unknown item": ("/v1/responses", {}, EVENTS, sse(
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "novel_call", "id": "n", **F}})),
    "responses, unknown item done": ("/v1/responses", {}, EVENTS, sse(
        {"type": "response.output_item.done", "output_index": 0, "item": {"type": "browser_call", "id": "n"}})),
    "responses, in a part": ("/v1/responses", {}, EVENTS, sse(
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "m"}},
        {"type": "response.content_part.added", "output_index": 0, "part": {"type": "tool_use", **INPUT}})),
    "gemini": ("/v1beta/models/g:streamGenerateContent?alt=sse", None, EVENTS, sse(
        {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"function_call": ARGS_OF}]}}]})),
    "converse": ("/model/m/converse-stream", None, BINARY, messages(
        {"messageStart": {"role": "assistant"}},
        {"contentBlockStart": {"contentBlockIndex": 0, "start": {"serverToolUse": INPUT}}})),
    "invoke claude": ("/model/anthropic.claude-3/invoke-with-response-stream", None, BINARY, chunked(CLAUDE_START, {
        "type": "content_block_start", "index": 0, "content_block": {"type": "novel_tool_use", "id": "t", **INPUT}})),
    "ollama": ("/api/chat", {}, LINES, json_lines({"model": "m", "message": {"function_call": F}})),
    "cohere": ("/v2/chat", {}, EVENTS, sse(
        {"type": "message-start", "id": "c", "delta": {"message": {"role": "assistant", "tool_calls": [CALL]}}})),
}  # fmt: skip


def streamed(rules: str, path: str, body: Any, kind: str, data: bytes) -> Outcome:
    asked = (
        body
        if body
        else {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    )
    if "responses" in path:
        asked = {"model": "m", "stream": True, "input": "hi"}
    if "converse" in path:
        asked = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    if "streamGenerate" in path:
        asked = {"contents": [{"parts": [{"text": "hi"}]}]}
    chunks = [data[at : at + 40] for at in range(0, len(data), 40)]
    return Bed(rules).call(
        body=json.dumps(asked).encode(), path=path, chunks=chunks, response_headers=[("content-type", kind)]
    )


@pytest.mark.parametrize("case", EVENTS_OF)
def test_events_of_an_unknown_shape(case: str) -> None:
    out = streamed(CALLS, *EVENTS_OF[case])
    assert out.rule("r").outcome.value == "errored"
    assert b"run_shell" not in out.body
    assert streamed(TEXT, *EVENTS_OF[case]).rule("r").outcome.value == "not_matched"


def first_version(*calls: Any, end: Any = (), history: Any = ()) -> bytes:
    said = {"text": "", "tool_calls": list(end), "chat_history": list(history), "finish_reason": "COMPLETE"}
    return json_lines(
        {"event_type": "stream-start", "generation_id": "g"},
        *({"event_type": "tool-calls-generation", "tool_calls": list(one)} for one in calls),
        {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": said},
    )


def test_the_first_version_of_cohere_reads_calls_wherever_it_says_them_again() -> None:
    mild, wild = {"name": "f", "parameters": {"a": 1}}, {"name": "drop_all", "parameters": {}}
    old = {"role": "CHATBOT", "tool_calls": [wild]}
    last = {"role": "CHATBOT", "message": "x", "tool_calls": [mild]}
    for data, outcome in (
        (first_version([mild], end=[mild], history=[old, last]), "not_matched"),
        (first_version([mild], end=[mild, wild]), "matched"),
        (first_version([mild], [wild]), "matched"),
        (first_version([mild], history=[last, old]), "matched"),
        (first_version([mild], end=[{**mild, "parameters": {"a": 2}}]), "not_matched"),
    ):
        out = streamed(CALLS, "/v1/chat", V1, "application/stream+json", data)
        assert out.rule("r").outcome.value == outcome


# ---- fields in another case ------------------------------------------------------------------------------------------


def named(document: Any, structure: Structure, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every member that the dialect names."""
    pairs = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in pairs:
        if isinstance(key, int):
            yield from named(value, structure, (*path, key))
        elif key in structure.names and key.casefold() in structure.folded:
            yield (*path, key)
            if key not in structure.free:
                yield from named(value, structure, (*path, key))


def twinned(document: Any, place: tuple[Any, ...], twin: str, *, alone: bool) -> Any:
    document = copy.deepcopy(document)
    at = document
    for key in place[:-1]:
        at = at[key]
    at[twin] = at.pop(place[-1]) if alone else at[place[-1]]
    return document


DIALECTS = [one for one in WHOLE if one in RESPONSES]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_field_in_another_case_makes_a_response_unreadable(dialect: str) -> None:
    structure, (_, _, document) = RESPONSES[dialect], WHOLE[dialect]
    for number, place in enumerate(named(document, structure)):
        key = place[-1]
        twins = [one for one in (key.capitalize(), key.upper(), f"{key} ") if one != key and one not in structure.names]
        twin = twins[number % len(twins)]
        for rules in (CALLS, TEXT):
            out = answered(rules, dialect, twinned(document, place, twin, alone=bool(number % 3 == 0)))
            assert out.rule("r").outcome.value == "errored", (place, twin)
    assert answered(TEXT, dialect, document).rule("r").outcome.value == "not_matched"


SSE_VOICES = [one for one, voice in VOICES.items() if voice.kind == EVENTS]


@pytest.mark.parametrize("voice", SSE_VOICES)
def test_a_field_in_another_case_makes_a_stream_unreadable(voice: str) -> None:
    one = VOICES[voice]
    structure = RESPONSES.get(one.dialect.name)
    blocks = [block for block in one.say(["hello"]).split(b"\n\n") if block]
    for number, block in enumerate(blocks):
        head, found, data = block.rpartition(b"data: ")
        if structure is None or not found or not data.startswith(b"{"):
            continue
        document = json.loads(data)
        places = list(named(document, structure))
        for place in places[:: max(1, len(places) // 5)]:
            twin = next(
                made
                for made in (place[-1].capitalize(), place[-1].upper(), place[-1] + " ")
                if made not in structure.names
            )
            made = json.dumps(twinned(document, place, twin, alone=False)).encode()
            changed = b"\n\n".join([*blocks[:number], head + b"data: " + made, *blocks[number + 1 :]]) + b"\n\n"
            out = Bed(TEXT).call(
                body=json.dumps(one.body).encode(), path=one.path, host=one.host, chunks=[changed],
                response_headers=[("content-type", EVENTS)],
            )  # fmt: skip
            assert out.rule("r").outcome.value == "errored", (number, place, twin)


def test_names_that_nobody_lists_may_be_in_any_case() -> None:
    chat = WHOLE["openai.chat"][2]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"Name": "a", "name": "b"}'}}
    for made in ({"novel": {"Content": "x"}}, {"Novel": 1, "novel": 2}, {"tool_calls": [call]}):
        out = answered(TEXT, "openai.chat", put(chat, "choices.0.message", made))
        assert out.rule("r").outcome.value == "not_matched"
    document = put(WHOLE["anthropic.messages"][2], "content.+",
                   {"type": "tool_use", "id": "t", "name": "f", "input": {"Content": "a", "content": "b"}})  # fmt: skip
    assert answered(TEXT, "anthropic.messages", document).rule("r").outcome.value == "not_matched"
    error = Bed(TEXT).call(body=json.dumps(WHOLE["openai.chat"][1]).encode(), status=403, chunks=[b'{"Message": "no"}'])
    assert error.rule("r").outcome.value == "not_matched"
