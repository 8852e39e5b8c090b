"""Shapes of calls and responses as providers send them: read whole, with their calls, texts and usage, however cut."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from policyd.adapters.recordings import Recording
from policyd.core.stream.dialects.gemini_arguments import GrowingArguments
from policyd.core.stream.eventstream import render
from tests.small import call, read
from tests.streams import sse

CHAT, RESPONSES, GEMINI = "/v1/chat/completions", "/v1/responses", "/v1beta/models/gemini-3-pro-preview"
OPENAI, GOOGLE, BEDROCK = (
    "api.openai.com",
    "generativelanguage.googleapis.com",
    "bedrock-runtime.us-east-1.amazonaws.com",
)
SIGNATURE = "QUJD" * 30
ASK = {"messages": [{"role": "user", "content": "hi"}]}
TALK = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


@dataclass(frozen=True)
class Want:
    """What is to be read of a call."""

    recording: Recording
    text: str = ""
    calls: tuple[tuple[str, str, object], ...] = ()  # name, kind, arguments
    dialect: str = "openai.chat"
    finish: tuple[str, ...] = ("stop",)
    tokens: tuple[int, int] | None = (5, 3)


# ---- OpenAI Chat Completions ----------------------------------------------------------------------------------------


def chat(message: dict[str, object], **more: object) -> dict[str, object]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
        **more,
    }


def chunk(message: object = None, finish: str | None = None, **delta: object) -> dict[str, object]:
    choice: dict[str, object] = {"index": 0, "delta": delta, "finish_reason": finish}
    if message is not None:
        choice["message"] = message
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def said(host: str, answer: object, path: str = CHAT, *, body: dict[str, object] | None = None) -> Recording:
    stream = {"stream": True} if isinstance(answer, bytes) else {}
    return call(host, path, {"model": "m", **ASK, **stream, **(body or {})}, answer)


EMPTY: dict[str, object] = {"name": "", "arguments": ""}
SIGNED = {"extra_content": {"google": {"thought_signature": SIGNATURE}}}
FUNCTION = {"id": "f1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
GRAPH = {"sources": [], "status": "finished", "subqueries": []}


def writes(content: str) -> dict[str, object]:
    return {"content": content, "role": "assistant", "refusal": None, "graph_data": GRAPH}


CHATS = {
    "an empty function_call": Want(said(OPENAI, chat({"content": "x", "function_call": EMPTY})), "x"),
    "an empty function_call, streamed": Want(
        said(OPENAI, sse(chunk(content="x", function_call=EMPTY), chunk(finish="stop", function_call=EMPTY))),
        "x",
        tokens=None,
    ),
    "an empty tool call": Want(
        said(OPENAI, chat({"content": "x", "tool_calls": [{"id": "", "type": "function", "function": EMPTY}]})), "x"
    ),
    "a custom tool": Want(
        said(OPENAI, chat({"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "code", "input": "1"}}]})),
        calls=(("code", "custom", "1"),),
    ),
    "arguments as the value itself": Want(
        said("h.example", chat({"tool_calls": [{**FUNCTION, "function": {"name": "f", "arguments": {"a": 1}}}]})),
        calls=(("f", "function", {"a": 1}),),
    ),
    "Google's signatures": Want(
        said(
            GOOGLE,
            chat({"content": "x", **SIGNED, "tool_calls": [{**FUNCTION, **SIGNED}]}),
            "/v1beta/openai" + CHAT[3:],
        ),
        "x",
        (("f", "function", {}),),
    ),
    "Google's signatures, sent back": Want(
        said(
            GOOGLE,
            chat({"content": "x"}),
            "/v1beta/openai" + CHAT[3:],
            body={"messages": [{"role": "assistant", "tool_calls": [{**FUNCTION, **SIGNED}]}]},
        ),
        "x",
    ),
    "Mistral's references": Want(
        said(
            "api.mistral.ai",
            chat({"content": [{"type": "text", "text": "x"}, {"type": "tool_reference", "tool": "web", "title": "t"}]}),
        ),
        "x",
    ),
    "Databricks' reasoning": Want(
        said(
            "me.cloud.databricks.com",
            chat(
                {
                    "content": [
                        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                        {"type": "text", "text": "x"},
                    ]
                }
            ),
            "/serving-endpoints/chat/completions",
        ),
        "x",
    ),
    "OpenRouter's files": Want(
        said(
            "openrouter.ai",
            chat({"content": "x", "annotations": [{"type": "file", "file": {"hash": "ab", "name": "a.pdf"}}]}),
        ),
        "x",
    ),
    "Azure's own data": Want(
        said(
            "x.openai.azure.com",
            chat({"content": "x", "context": {"citations": [{"content": "c", "filepath": "a.md"}], "intent": "q"}}),
            "/openai/deployments/d/chat/completions",
        ),
        "x",
    ),
    "Z.AI's searches": Want(
        said("api.z.ai", chat({"content": "x"}, web_search=[{"title": "t", "link": "l", "media": "m", "refer": "r"}])),
        "x",
    ),
    "Writer": Want(said("api.writer.com", chat({**writes("x"), "llm_data": None}), "/v1/chat"), "x"),
    "Writer, streamed": Want(
        said(
            "api.writer.com",
            sse(
                chunk(writes("Hi"), content="Hi"),
                chunk(writes(" you"), content=" you"),
                chunk(writes(""), "stop", content=""),
            ),
            "/v1/chat",
        ),
        "Hi you",
        tokens=None,
    ),
    "Writer, streamed, the whole at the end": Want(
        said(
            "api.writer.com",
            sse(
                chunk(writes("Hi"), content="Hi"),
                chunk(writes(" you"), content=" you"),
                chunk(writes("Hi you"), "stop", content=""),
            ),
            "/v1/chat",
        ),
        "Hi you",
        tokens=None,
    ),
}

# ---- Gemini ---------------------------------------------------------------------------------------------------------


def gemini(*parts: dict[str, object], finish: str | None = "STOP") -> dict[str, object]:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8}
    ends = {"finishReason": finish} if finish else {}
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **ends}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3-pro-preview"}


def asks(answer: object, **body: object) -> Recording:
    verb = "streamGenerateContent?alt=sse" if isinstance(answer, bytes) else "generateContent"
    return call(GOOGLE, f"{GEMINI}:{verb}", {**TALK, **body}, answer)


def piece(path: str, text: str, *, more: bool = True, **name: object) -> dict[str, object]:
    place = {"jsonPath": path, "stringValue": text, **({"willContinue": True} if more else {})}
    return {"functionCall": {**name, "partialArgs": [place], "willContinue": True}}


SEARCHED = {"toolType": "GOOGLE_SEARCH_WEB", "id": "x1"}
GEMINIS = {
    "tool calls and their responses": Want(
        asks(
            gemini(
                {"toolCall": {**SEARCHED, "args": {"queries": ["q"]}}, "thoughtSignature": SIGNATURE},
                {"toolResponse": {**SEARCHED, "response": {"search_suggestions": "<b>"}}},
                {"text": "Sunny"},
            )
        ),
        "Sunny",
        (("GOOGLE_SEARCH_WEB", "hosted", {"queries": ["q"]}),),
    ),
    "code that is run": Want(
        asks(
            gemini(
                {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
            )
        ),
        calls=(("code_execution", "hosted", {"language": "PYTHON", "code": "print(1)"}),),
    ),
    "tools as one object": Want(
        asks(
            gemini({"functionCall": {"name": "f", "args": {"a": 1}}}),
            tools={"functionDeclarations": {"name": "f", "description": "d"}},
        ),
        calls=(("f", "function", {"a": 1}),),
    ),
    "arguments in pieces": Want(
        asks(
            sse(
                gemini({"functionCall": {"name": "f", "id": "x", "willContinue": True}}, finish=None),
                gemini(piece("$.city", "Par"), finish=None),
                gemini(piece("$.city", "is", more=False), finish=None),
                gemini(piece("$.days[0].name", "Monday", more=False), finish=None),
                gemini({"functionCall": {}}),
                done=False,
            )
        ),
        calls=(("f", "function", {"city": "Paris", "days": [{"name": "Monday"}]}),),
    ),
    "arguments in pieces that break off": Want(
        asks(sse(gemini(piece("$.city", "Par", name="f"), finish=None), gemini(finish="MAX_TOKENS"), done=False)),
        calls=(("f", "function", {"city": "Par"}),),
        finish=("MAX_TOKENS",),
    ),
}

# ---- OpenAI Responses -----------------------------------------------------------------------------------------------


def response(*output: dict[str, object], **more: object) -> dict[str, object]:
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "gpt-5"}
    return {**head, "output": list(output), "usage": usage, **more}


def message(text: str) -> dict[str, object]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def responds(*middle: dict[str, object], out: tuple[dict[str, object], ...]) -> Recording:
    begun = response(status="in_progress", usage=None)
    events = ({"type": "response.created", "response": begun}, *middle)
    numbered = [
        {**one, "sequence_number": number}
        for number, one in enumerate((*events, {"type": "response.completed", "response": response(*out)}))
    ]
    return call(OPENAI, RESPONSES, {"model": "gpt-5", "input": "hi", "stream": True}, sse(*numbered, names=True))


def item(kind: str, place: int, **said: object) -> dict[str, object]:
    return {"type": f"response.{kind}", "output_index": place, **said}


def writing(text: str, place: int, part: int) -> list[dict[str, object]]:
    at = {"item_id": "msg_1", "content_index": part}
    return [
        item("output_item.added", place, item={**message(""), "content": [], "status": "in_progress"}),
        item("content_part.added", place, **at, part={"type": "output_text", "text": "", "annotations": []}),
        item("output_text.delta", place, **at, delta=text[:3]),
        item("output_text.delta", place, **at, delta=text[3:]),
        item("output_text.done", place, **at, text=text),
        item("content_part.done", place, **at, part={"type": "output_text", "text": text, "annotations": []}),
        item("output_item.done", place, item=message(text)),
    ]


THOUGHT = {"id": "rs", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hmm"}]}
THINKING = {"item_id": "rs", "content_index": 0}
SHELL = {"id": "sh", "type": "shell_call", "status": "completed", "call_id": "c", "action": {"commands": ["ls"]}}
SEARCH = {"id": "xs", "type": "x_search_call", "status": "completed", "call_id": "c", "name": "x_search", "input": "{}"}
HELLO = message("Hello")
RESPONSE_STREAMS = {
    "content_index that is not the place in the item": Want(responds(*writing("Hello", 0, 1), out=(HELLO,)), "Hello"),
    "parts of reasoning": Want(
        responds(
            item("output_item.added", 0, item={**THOUGHT, "content": []}),
            item("reasoning_part.added", 0, **THINKING, part={"type": "reasoning_text", "text": ""}),
            item("reasoning_text.delta", 0, **THINKING, delta="hmm"),
            item("reasoning_text.done", 0, **THINKING, text="hmm"),
            item("reasoning_part.done", 0, **THINKING, part={"type": "reasoning_text", "text": "hmm"}),
            item("output_item.done", 0, item=THOUGHT),
            *writing("Hello", 1, 0),
            out=(THOUGHT, HELLO),
        ),
        "Hello",
    ),
    "shell commands": Want(
        responds(
            item("output_item.added", 0, item={**SHELL, "action": {"commands": []}, "status": "in_progress"}),
            item("shell_call_command.added", 0, command_index=0, command=""),
            item("shell_call_command.delta", 0, command_index=0, delta="ls"),
            item("shell_call_command.done", 0, command_index=0, command="ls"),
            item("output_item.done", 0, item=SHELL),
            out=(SHELL,),
        ),
        calls=(("shell", "shell", {"commands": ["ls"]}),),
    ),
    "searches of X": Want(
        responds(
            item("output_item.added", 0, item={**SEARCH, "status": "in_progress"}),
            item("x_search_call.in_progress", 0, item_id="xs"),
            item("x_search_call.searching", 0, item_id="xs"),
            item("x_search_call.completed", 0, item_id="xs"),
            item("output_item.done", 0, item=SEARCH),
            *writing("Hello", 1, 0),
            out=(SEARCH, HELLO),
        ),
        "Hello",
    ),
}

# ---- Bedrock --------------------------------------------------------------------------------------------------------


def converse(*events: tuple[str, dict[str, object]]) -> bytes:
    return b"".join(render(json.dumps(document), name) for name, document in events)


BEGUN = ("messageStart", {"role": "assistant"})
WORD = ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}})
OVER = ("contentBlockStop", {"contentBlockIndex": 0})
STOP = ("messageStop", {"stopReason": "end_turn"})
METERED = ("metadata", {"usage": {"inputTokens": 5, "outputTokens": 3, "totalTokens": 8}, "metrics": {"latencyMs": 1}})
SPOKEN = {"role": "assistant", "content": [{"text": "Hello"}]}
AMAZON = "application/vnd.amazon.eventstream"
CONVERSE = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
BEDROCKS = {
    "usage before the stop": Want(
        call(BEDROCK, "/model/m/converse-stream", CONVERSE, converse(BEGUN, WORD, OVER, METERED, STOP), kind=AMAZON),
        "Hello",
        dialect="bedrock.converse",
        finish=("end_turn",),
    ),
    "behind a prefix": Want(
        call(
            "gateway.example",
            "/bedrock/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse",
            CONVERSE,
            {"output": {"message": SPOKEN}, "stopReason": "end_turn", "usage": METERED[1]["usage"]},
        ),
        "Hello",
        dialect="bedrock.converse",
        finish=("end_turn",),
    ),
}
READ = {
    **CHATS,
    **{f"gemini, {name}": want for name, want in GEMINIS.items()},
    **{f"responses, {name}": want for name, want in RESPONSE_STREAMS.items()},
    **{f"bedrock, {name}": want for name, want in BEDROCKS.items()},
}
DIALECTS = {"gemini": "gemini.generate", "responses": "openai.responses", "bedrock": "bedrock.converse"}


@pytest.mark.parametrize("name", READ)
def test_it_is_read_whole(name: str) -> None:
    want = READ[name]
    played = read(want.recording)
    record, seen = played.record, played.facts.response
    family = name.partition(",")[0]
    finish = {"gemini": "STOP", "responses": "completed"}.get(family)

    assert (record.inspection, record.inspection_reason) == ("full", "")
    assert record.dialect == DIALECTS.get(family, want.dialect)
    assert seen.all_text() == want.text
    found = [(one.name, one.kind, one.arguments) for one in seen.tool_calls]
    assert [
        (one, kind, _loaded(said, like)) for (one, kind, said), (_, _, like) in zip(found, want.calls, strict=True)
    ] == [*want.calls]
    assert record.finish_reasons == (want.finish if want.finish != ("stop",) or finish is None else (finish,))
    if want.tokens is not None:
        assert (record.usage["input_tokens"], record.usage["output_tokens"]) == want.tokens
        assert record.usage["source"] == "provider"


def _loaded(arguments: str, like: object) -> object:
    return arguments if isinstance(like, str) else json.loads(arguments)


@pytest.mark.parametrize("path", ["city", "$.", "$[x]", "$.a..b", "$[99999]", ""])
def test_a_piece_of_arguments_without_a_path_is_malformed(path: str) -> None:
    with pytest.raises(Exception, match="whose place is no path"):
        GrowingArguments().put(path, {"stringValue": "x"})


def test_a_rule_sees_arguments_that_come_in_pieces_before_they_are_forwarded() -> None:
    spec = "rules: [{name: no, when: 'response.tool_calls.exists(c, c.arguments.contains(\"Paris\"))', terminate: {}}]"
    played = read(READ["gemini, arguments in pieces"].recording, spec)

    assert played.record.verdict.value == "terminate"
