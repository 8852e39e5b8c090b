"""Requests of Ollama, Cohere, Gemini, Bedrock, Hugging Face and MCP: facts, editable text, edits, bad bodies."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import Dialect, RequestChange
from policyd.core.stream.dialects.anthropic_complete import AnthropicComplete
from policyd.core.stream.dialects.bedrock import BedrockConverse, BedrockInvoke
from policyd.core.stream.dialects.cohere import CohereChat, CohereEmbed, CohereGenerate
from policyd.core.stream.dialects.gemini import GeminiEmbed, GeminiGenerate
from policyd.core.stream.dialects.huggingface import HuggingFaceText
from policyd.core.stream.dialects.mcp import Mcp
from policyd.core.stream.dialects.ollama import OllamaChat, OllamaEmbed, OllamaGenerate
from policyd.core.stream.dialects.openai_chat import OpenAIChat
from policyd.core.stream.dialects.openai_completions import OpenAICompletions
from policyd.core.stream.json_text import dumps, loads, splice

CHAT, GENERATE, EMBED = OllamaChat(), OllamaGenerate(), OllamaEmbed()
COHERE, GEMINI, CONVERSE, INVOKE, MCP = CohereChat(), GeminiGenerate(), BedrockConverse(), BedrockInvoke(), Mcp()
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {}}}
OTHER = {"type": "function", "function": {"name": "g", "parameters": {}}}
STREAM = "/v1beta/models/gemini-x:streamGenerateContent"
ARN = "arn:aws:bedrock:us-east-1:1:inference-profile/us.m"

OLLAMA_BODY: Any = {
    "model": "llama", "tools": [FUNCTION, OTHER], "options": {"num_predict": 9, "temperature": 0},
    "messages": [
        {"role": "system", "content": "be"},
        {"role": "user", "content": "hi", "images": ["aGk="]},
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": "in", "b": ["deep"]}}}]},
        {"role": "tool", "tool_name": "f", "content": "out"},
    ],
}  # fmt: skip
COHERE_1: Any = {
    "model": "command", "message": "now", "preamble": "be", "max_tokens": 5, "temperature": 0.5, "stream": True,
    "chat_history": [{"role": "USER", "message": "hi"}, {"role": "CHATBOT", "message": "yo", "tool_calls": [
        {"name": "f", "parameters": {"a": "in"}}]}],
    "tools": [{"name": "f", "description": "d", "parameter_definitions": {}}], "documents": [{"title": "T"}],
    "tool_results": [{"call": {"name": "f", "parameters": {}}, "outputs": [{"x": "out"}]}],
}  # fmt: skip
COHERE_2: Any = {
    "model": "command-r", "tools": [FUNCTION, OTHER], "tool_choice": "REQUIRED",
    "messages": [
        {"role": "system", "content": "be"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "u"}}]},
        {"role": "assistant", "tool_plan": "plan", "tool_calls": [
            {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
        {"role": "tool", "tool_call_id": "t", "content": [{"type": "document", "document": {"data": {"x": "out"}}}]},
    ],
}  # fmt: skip
GEMINI_BODY: Any = {
    "systemInstruction": {"parts": [{"text": "be"}]},
    "contents": [
        {"role": "user", "parts": [{"text": "hi"}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}}]},
        {"role": "model", "parts": [
            {"text": "hm", "thought": True}, {"functionCall": {"name": "f", "args": {"a": "in"}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"x": "out"}}}]},
    ],
    "tools": [{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}, {"googleSearch": {}}],
    "generationConfig": {"maxOutputTokens": 9, "temperature": 1, "candidateCount": 2},
}  # fmt: skip
CONVERSE_BODY: Any = {
    "system": [{"text": "be"}, {"cachePoint": {"type": "default"}}],
    "messages": [
        {"role": "user", "content": [{"text": "hi"}, {"guardContent": {"text": {"text": "guarded"}}}, {"image": {}}]},
        {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
            {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": "in"}}}]},
        {"role": "user", "content": [
            {"toolResult": {"toolUseId": "t", "content": [{"text": "out"}, {"json": {"x": "y"}}]}}]},
    ],
    "inferenceConfig": {"maxTokens": 9, "temperature": 0.5},
    "toolConfig": {"tools": [{"toolSpec": {"name": "f"}}, {"cachePoint": {}}, {"toolSpec": {"name": "g"}}],
                   "toolChoice": {"tool": {"name": "f"}}},
}  # fmt: skip
CALL: Any = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "f", "arguments": {"a": "in"}}}

Told = tuple[str | None, bool | None, int | None, float | None, str | None, str, list[str]]
FACTS: dict[str, tuple[Dialect, str, Any, Told]] = {
    "ollama": (CHAT, "/api/chat", OLLAMA_BODY, ("llama", True, 9, 0, "be", "be|hi|hm|in|deep|out", ["f", "g"])),
    "ollama generate": (
        GENERATE, "/api/generate", {"model": "m", "prompt": "p", "system": "s", "stream": False},
        ("m", False, None, None, "s", "s|p", []),
    ),
    "ollama without a limit": (
        CHAT, "/api/chat", {"model": "m", "options": {"num_predict": -1}}, ("m", True, None, None, None, "", []),
    ),
    "ollama embed": (
        EMBED, "/api/embed", {"model": "m", "input": ["a", "b"]}, ("m", None, None, None, None, "a|b", []),
    ),
    "cohere 1": (
        COHERE, "/v1/chat", COHERE_1,
        ("command", True, 5, 0.5, "be", "be|now|hi|yo|in|T|f|out", ["f"]),
    ),
    "cohere 2": (
        COHERE, "/v2/chat", COHERE_2,
        ("command-r", None, None, None, "be", 'be|hi|plan|{"a": 1}|out', ["f", "g"]),
    ),
    "cohere generate": (
        CohereGenerate(), "/v1/generate", {"prompt": "p", "max_tokens": 3}, (None, None, 3, None, None, "p", []),
    ),
    "cohere embed": (
        CohereEmbed(), "/v2/embed", {"model": "e", "inputs": [{"content": [{"type": "text", "text": "a"}]}]},
        ("e", None, None, None, None, "a", []),
    ),
    "gemini": (
        GEMINI, STREAM, GEMINI_BODY,
        ("gemini-x", True, 9, 1, "be", "be|hi|hm|in|out", ["f", "g", "googleSearch"]),
    ),
    "gemini in snake case": (
        GEMINI, "/v1/projects/p/locations/l/publishers/google/models/g-1:generateContent",
        {"contents": {"parts": {"text": "hi"}}, "system_instruction": {"parts": [{"text": "be"}]},
         "generation_config": {"max_output_tokens": 4}, "tools": [{"function_declarations": [{"name": "f"}]}]},
        ("g-1", False, 4, None, "be", "be|hi", ["f"]),
    ),
    "gemini embed": (
        GeminiEmbed(), "/v1beta/models/e:batchEmbedContents",
        {"requests": [{"model": "models/e", "content": {"parts": [{"text": "a"}]}}]},
        ("e", None, None, None, None, "a", []),
    ),
    "converse": (
        CONVERSE, f"/model/{ARN}/converse-stream", CONVERSE_BODY,
        (ARN, True, 9, 0.5, "be", "be|hi|guarded|hm|in|out|y|higuarded", ["f", "g"]),
    ),
    "invoke claude": (
        INVOKE, "/model/anthropic.claude-v3%3A0/invoke",
        {"anthropic_version": "b", "max_tokens": 3, "system": "be", "messages": [{"role": "user", "content": "hi"}]},
        ("anthropic.claude-v3:0", False, 3, None, "be", "be|hi", []),
    ),
    "invoke nova": (
        INVOKE, "/model/amazon.nova-lite-v1:0/invoke-with-response-stream",
        {"messages": [{"role": "user", "content": [{"text": "hi"}]}], "inferenceConfig": {"max_new_tokens": 3}},
        ("amazon.nova-lite-v1:0", True, 3, None, None, "hi", []),
    ),
    "invoke openai": (
        INVOKE, "/model/openai.gpt-oss/invoke", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3},
        ("openai.gpt-oss", False, 3, None, None, "hi", []),
    ),
    "invoke titan": (
        INVOKE, "/model/amazon.titan-text/invoke",
        {"inputText": "hi", "textGenerationConfig": {"maxTokenCount": 3, "temperature": 0}},
        ("amazon.titan-text", False, 3, 0, None, "hi", []),
    ),
    "invoke llama": (
        INVOKE, "/model/meta.llama/invoke", {"prompt": "hi", "max_gen_len": 3},
        ("meta.llama", False, 3, None, None, "hi", []),
    ),
    "invoke cohere": (
        INVOKE, "/model/cohere.command-r/invoke", {"message": "hi"},
        ("cohere.command-r", False, None, None, None, "hi", []),
    ),
    "invoke embed": (
        INVOKE, "/model/cohere.embed-v4/invoke", {"texts": ["a"], "input_type": "x"},
        ("cohere.embed-v4", False, None, None, None, "a", []),
    ),
    "hugging face": (
        HuggingFaceText(), "/generate_stream", {"inputs": "hi", "parameters": {"max_new_tokens": 3}},
        (None, True, 3, None, None, "hi", []),
    ),
    "anthropic complete": (
        AnthropicComplete(), "/v1/complete", {"model": "c", "prompt": "hi", "max_tokens_to_sample": 3},
        ("c", None, 3, None, None, "hi", []),
    ),
    "mcp": (MCP, "/mcp", CALL, (None, None, None, None, None, "in", ["f"])),
    "mcp batch": (MCP, "/mcp", [CALL, CALL], (None, None, None, None, None, "in|in", ["f", "f"])),
}  # fmt: skip


def asked(dialect: Dialect, path: str, body: Any) -> RequestFacts:
    facts = RequestFacts(path=path)
    dialect.read_request(loads(dumps(body)), facts)
    return facts


@pytest.mark.parametrize("name", FACTS)
def test_the_facts_of_a_request(name: str) -> None:
    dialect, path, body, told = FACTS[name]
    got = asked(dialect, path, body)
    model, stream, limit, temperature, system, text, tools = told
    assert (got.model, got.stream, got.max_tokens, got.temperature) == (model, stream, limit, temperature)
    assert (got.system, (got.text or "").replace("\n", "|"), [tool.name for tool in got.tools]) == (system, text, tools)
    assert got.input_tokens > 0 or not text


@pytest.mark.parametrize("name", FACTS)
def test_every_text_is_editable_where_it_stands(name: str) -> None:
    dialect, _, body, _ = FACTS[name]
    found = dialect.request_segments(body)
    for segment in found:
        at: Any = body
        for key in segment.path:
            at = at[key]
        assert at == segment.text
    assert len({segment.channel for segment in found}) == len(found)


def test_the_messages_of_a_request() -> None:
    assert [(one.role, one.text, one.name) for one in asked(CHAT, "", OLLAMA_BODY).messages][3] == ("tool", "out", "f")
    assert [(one.role, one.text) for one in asked(COHERE, "", COHERE_1).messages] == [
        ("tool", "T"), ("user", "hi"), ("chatbot", "yo"), ("user", "now"), ("tool", "out"),
    ]  # fmt: skip
    assert [(one.role, one.text) for one in asked(COHERE, "", COHERE_2).messages][1] == ("user", "hi")
    assert [one.text for one in asked(GEMINI, STREAM, GEMINI_BODY).messages] == ["hi", "", "out"]
    assert asked(GEMINI, STREAM, GEMINI_BODY).choices == 2
    assert [one.text for one in asked(CONVERSE, "", CONVERSE_BODY).messages] == ["hi\nguarded", "", "out\ny"]


@pytest.mark.parametrize(
    ("body", "operation", "id"),
    [
        (CALL, "tool_call", 7),
        ({**CALL, "method": "tools/list"}, "other", 7),
        ({"jsonrpc": "2.0", "method": "notifications/initialized"}, "other", None),
        ([{**CALL, "method": "ping"}, {**CALL, "id": "x"}], "tool_call", 7),
    ],
)
def test_what_an_mcp_message_is(body: Any, operation: str, id: object) -> None:
    facts = asked(MCP, "/mcp", body)
    assert (facts.operation, facts.rpc_id) == (operation, id)


BAD: list[tuple[Dialect, Any]] = [
    *((one, body) for one in (CHAT, COHERE, GEMINI, CONVERSE, INVOKE, EMBED, GENERATE) for body in ([], "x", None, 5)),
    (CHAT, {"messages": "x"}), (CHAT, {"messages": ["x"]}), (CHAT, {"options": []}), (CHAT, {"stream": "true"}),
    (CHAT, {"options": {"num_predict": "5"}}), (CHAT, {"options": {"num_predict": 5.5}}), (CHAT, {"Model": "x"}),
    (CHAT, {"messages": [{"content": ["x"]}]}), (CHAT, {"tools": {}}),
    (COHERE, {"max_tokens": -1}), (COHERE, {"messages": [{"content": 5}]}), (COHERE, {"MESSAGE": "x"}),
    (COHERE, {"message": 5}), (COHERE, {"message": "x", "chat_history": {}}),
    (GEMINI, {"contents": "x"}), (GEMINI, {"contents": [{"parts": [{"text": 5}]}]}),
    (GEMINI, {"generationConfig": {"maxOutputTokens": True}}), (GEMINI, {"tools": [5]}),
    (GEMINI, {"generationConfig": {}, "generation_config": {}}), (GEMINI, {"systemInstruction": 5}),
    (GEMINI, {"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 2}}), (GEMINI, {"Contents": []}),
    (CONVERSE, {"messages": {}}), (CONVERSE, {"inferenceConfig": {"maxTokens": 1e999}}), (CONVERSE, {"system": "x"}),
    (CONVERSE, {"messages": [{"content": [{"text": 5}]}]}),
    (INVOKE, {}), (INVOKE, {"foo": "x"}), (INVOKE, {"prompt": 5}), (INVOKE, {"inputText": ["x"]}),
    (INVOKE, {"anthropic_version": "b", "messages": 5}), (INVOKE, {"prompt": "x", "max_gen_len": "5"}),
    (MCP, "x"), (MCP, ["x"]), (MCP, {**CALL, "params": []}), (MCP, {**CALL, "id": 1.5}), (MCP, {**CALL, "METHOD": "x"}),
    (MCP, {**CALL, "params": {"name": 5}}), (MCP, {**CALL, "method": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "body"), BAD)
def test_a_bad_body_is_malformed(dialect: Dialect, body: Any) -> None:
    with pytest.raises(Malformed):
        dialect.read_request(body, RequestFacts(path="/model/m/invoke"))


# ---- edits ----------------------------------------------------------------------------------------------------------


def edited(dialect: Dialect, body: Any, **change: Any) -> Any:
    data = dumps(body).encode()
    return loads(splice(data, dialect.edits(body, RequestChange(**change))))


CAP = {"caps": (("max_tokens", 4),)}
CAPPED: list[tuple[Dialect, Any, Any]] = [
    (CHAT, {"options": {"num_predict": 9}}, {"options": {"num_predict": 4}}),
    (CHAT, {"options": {"num_predict": 3}}, {"options": {"num_predict": 3}}),
    (CHAT, {"options": {"num_predict": -1}}, {"options": {"num_predict": 4}}),
    (CHAT, {}, {"options": {"num_predict": 4}}),
    (CHAT, {"options": None}, {"options": {"num_predict": 4}}),
    (COHERE, {"max_tokens": 5}, {"max_tokens": 4}),
    (CohereGenerate(), {"prompt": "p"}, {"prompt": "p", "max_tokens": 4}),
    (GEMINI, {}, {"generationConfig": {"maxOutputTokens": 4}}),
    (GEMINI, {"generation_config": {"max_output_tokens": 9}}, {"generation_config": {"max_output_tokens": 4}}),
    (CONVERSE, {}, {"inferenceConfig": {"maxTokens": 4}}),
    (INVOKE, {"messages": [{"content": [{"text": "x"}]}], "inferenceConfig": {"max_new_tokens": 9}},
     {"messages": [{"content": [{"text": "x"}]}], "inferenceConfig": {"max_new_tokens": 4}}),
    (INVOKE, {"inputText": "x"}, {"inputText": "x", "textGenerationConfig": {"maxTokenCount": 4}}),
    (INVOKE, {"prompt": "x", "max_gen_len": 9}, {"prompt": "x", "max_gen_len": 4}),
    (INVOKE, {"anthropic_version": "b", "max_tokens": 9}, {"anthropic_version": "b", "max_tokens": 4}),
    (INVOKE, {"texts": ["x"]}, {"texts": ["x"]}),
    (EMBED, {"input": "x"}, {"input": "x"}),
    (HuggingFaceText(), {"inputs": "x"}, {"inputs": "x", "parameters": {"max_new_tokens": 4}}),
    (AnthropicComplete(), {"max_tokens_to_sample": 9}, {"max_tokens_to_sample": 4}),
    (MCP, CALL, CALL),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "before", "after"), CAPPED)
def test_a_cap_lowers_or_sets_never_raises(dialect: Dialect, before: Any, after: Any) -> None:
    assert edited(dialect, before, **CAP) == after


@pytest.mark.parametrize(
    ("dialect", "body", "change"),
    [
        (GEMINI, {}, {"model": "g"}),
        (GeminiEmbed(), {}, {"model": "g"}),
        (CONVERSE, {}, {"model": "g"}),
        (INVOKE, {"prompt": "x"}, {"model": "g"}),
        (HuggingFaceText(), {}, {"model": "g"}),
        (INVOKE, {"prompt": "x"}, CAP),
        (INVOKE, {"prompt": "x"}, {"inject_system": ("s",)}),
        (EMBED, {"input": "x"}, {"inject_system": ("s",)}),
        (CohereGenerate(), {"prompt": "x"}, {"inject_system": ("s",)}),
        (GeminiEmbed(), {}, {"inject_system": ("s",)}),
        (MCP, CALL, {"inject_system": ("s",)}),
        (MCP, CALL, {"tools_deny": frozenset({"f"})}),
        (MCP, CALL, {"tools_allow": (frozenset({"g"}),)}),
        (MCP, [CALL], {"sets": ((("a",), 1),)}),
    ],
)
def test_what_cannot_be_carried_out_refuses(dialect: Dialect, body: Any, change: Any) -> None:
    with pytest.raises(Malformed):
        dialect.edits(body, RequestChange(**change))


def test_the_model_changes_where_the_body_names_it() -> None:
    for dialect in (CHAT, GENERATE, EMBED, COHERE):
        assert edited(dialect, {"model": "a"}, model="b") == {"model": "b"}


def test_tools_go_and_with_the_last_the_choice() -> None:
    deny: Any = {"tools_deny": frozenset({"f"})}
    assert [one["function"]["name"] for one in edited(CHAT, OLLAMA_BODY, **deny)["tools"]] == ["g"]
    assert "tools" not in edited(CHAT, OLLAMA_BODY, tools_allow=(frozenset(),))
    assert [one["function"]["name"] for one in edited(COHERE, COHERE_2, **deny)["tools"]] == ["g"]
    assert not {"tools", "tool_choice"} & edited(COHERE, COHERE_2, tools_allow=(frozenset(),)).keys()
    left = edited(GEMINI, GEMINI_BODY, **deny)["tools"]
    assert left == [{"functionDeclarations": [{"name": "g"}]}, {"googleSearch": {}}]
    assert edited(GEMINI, GEMINI_BODY, tools_allow=(frozenset({"googleSearch"}),))["tools"] == [{"googleSearch": {}}]
    assert edited(GEMINI, GEMINI_BODY, tools_allow=(frozenset({"f"}),))["tools"] == [
        {"functionDeclarations": [{"name": "f"}]}
    ]
    assert "tools" not in edited(GEMINI, GEMINI_BODY, tools_allow=(frozenset(),))
    mixed = {"tools": [{"functionDeclarations": [{"name": "f"}], "googleSearch": {}}]}
    assert edited(GEMINI, mixed, **deny)["tools"] == [{"googleSearch": {}}]
    config = edited(CONVERSE, CONVERSE_BODY, **deny)["toolConfig"]
    assert config == {"tools": [{"cachePoint": {}}, {"toolSpec": {"name": "g"}}]}
    assert "toolConfig" not in edited(CONVERSE, CONVERSE_BODY, tools_allow=(frozenset(),))
    assert edited(MCP, CALL, tools_deny=frozenset({"g"})) == CALL


def test_a_system_prompt_comes_after_the_ones_that_lead() -> None:
    words: Any = {"inject_system": ("s", "t")}
    roles = [(one["role"], one["content"]) for one in edited(CHAT, OLLAMA_BODY, **words)["messages"]][:4]
    assert roles == [("system", "be"), ("system", "s"), ("system", "t"), ("user", "hi")]
    assert edited(GENERATE, {"system": "be"}, **words)["system"] == "be\n\ns\n\nt"
    assert edited(COHERE, COHERE_1, **words)["preamble"] == "be\n\ns\n\nt"
    assert [one["content"] for one in edited(COHERE, COHERE_2, **words)["messages"][:3]] == ["be", "s", "t"]
    parts = [{"text": "be"}, {"text": "s"}, {"text": "t"}]
    assert edited(GEMINI, GEMINI_BODY, **words)["systemInstruction"]["parts"] == parts
    assert edited(GEMINI, {}, **words)["systemInstruction"] == {"parts": parts[1:]}
    assert (
        edited(GEMINI, {"system_instruction": {"parts": {"text": "be"}}}, **words)["system_instruction"]["parts"]
        == parts
    )
    system = [{"text": "be"}, {"cachePoint": {"type": "default"}}, {"text": "s"}, {"text": "t"}]
    assert edited(CONVERSE, CONVERSE_BODY, **words)["system"] == system
    assert edited(CONVERSE, {}, **words)["system"] == parts[1:]
    claude = {"anthropic_version": "b", "messages": []}
    assert edited(INVOKE, claude, **words)["system"] == "s\n\nt"


def test_a_change_that_changes_nothing_leaves_every_byte() -> None:
    for dialect, _, body, _ in FACTS.values():
        assert dialect.edits(body, RequestChange()) == []


def test_every_text_that_is_written_counts_as_a_choice() -> None:
    assert asked(OpenAIChat(), "", {"messages": [], "n": 2, "best_of": 16}).choices == 16
    assert asked(OpenAICompletions(), "", {"prompt": ["a", "b"], "best_of": 3}).choices == 6
    assert asked(HuggingFaceText(), "", {"inputs": "a", "parameters": {"best_of": 3}}).choices == 3
    with pytest.raises(Malformed):
        asked(OpenAIChat(), "", {"messages": [], "best_of": 0})


def test_a_cap_lowers_the_models_own_limits_too() -> None:
    more = {"max_tokens": 99, "inferenceConfig": {"maxTokens": 98, "topK": 1}, "max_gen_len": 3}
    body = {"messages": [], "inferenceConfig": {"maxTokens": 50}, "additionalModelRequestFields": more}
    assert asked(CONVERSE, "", body).max_tokens == 99
    got = edited(CONVERSE, body, caps=(("max_tokens", 10),))
    assert got["inferenceConfig"] == {"maxTokens": 10}
    assert got["additionalModelRequestFields"] == {
        "max_tokens": 10, "inferenceConfig": {"maxTokens": 10, "topK": 1}, "max_gen_len": 3,
    }  # fmt: skip
