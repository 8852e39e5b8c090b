"""Tool results in requests: told alike in every dialect, and messages of role `tool`."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.core.model.facts import RequestFacts, ToolResult
from policyd.core.stream.dialects import Dialect
from policyd.core.stream.dialects.registry import DIALECTS

BY_NAME: dict[str, Dialect] = {dialect.name: dialect for dialect in DIALECTS}
PATHS = {"bedrock.converse": "/model/m/converse", "bedrock.invoke": "/model/anthropic.claude/invoke"}


def asked(dialect: str, body: Any) -> RequestFacts:
    facts = RequestFacts(path=PATHS.get(dialect, ""))
    BY_NAME[dialect].read_request(body, facts)
    return facts


def call(id_: str, name: str) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": "{}"}}


def of_claude(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": list(blocks)}]}


def item(**item_: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": "hi"}, item_]}


USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
CASES: list[tuple[str, Any, ToolResult]] = [
    ("openai.chat", {"messages": [{"role": "assistant", "tool_calls": [call("c1", "f")]},
                                  {"role": "tool", "tool_call_id": "c1", "content": "out"}]},
     ToolResult("f", "c1", "out")),
    ("openai.chat", {"messages": [{"role": "function", "name": "f", "content": "out"}]}, ToolResult("f", "", "out")),
    ("openai.chat", {"messages": [{"role": "tool", "content": [{"type": "text", "text": "a"}, {"type": "new",
                                                                                               "say": "b"}]}]},
     ToolResult("", "", "a\nb")),
    ("openai.responses", {"input": [{"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                                    {"type": "function_call_output", "call_id": "c1", "output": "out"}]},
     ToolResult("f", "c1", "out")),
    ("openai.responses", item(type="function_call_output", call_id="c1", output=[{"type": "input_text", "text": "o"}]),
     ToolResult("function", "c1", "o")),
    ("openai.responses", item(type="mcp_call", id="m1", name="f", arguments="{}", output="out"),
     ToolResult("f", "m1", "out")),
    ("openai.responses", item(type="mcp_call", id="m1", name="f", error="it failed"),
     ToolResult("f", "m1", "it failed", True)),
    ("openai.responses", item(type="local_shell_call_output", id="l1", output="listing"),
     ToolResult("local_shell", "l1", "listing")),
    ("openai.responses", item(type="shell_call_output", call_id="s1", output=[{"stdout": "a", "stderr": "b"}]),
     ToolResult("shell", "s1", "a\nb")),
    ("openai.responses", item(type="file_search_call", id="s1", results=[{"file_id": "f1", "text": "found"}]),
     ToolResult("file_search", "s1", "found")),
    ("openai.responses", item(type="code_interpreter_call", id="c1", code="1", outputs=[{"type": "logs", "logs": "1"}]),
     ToolResult("code_interpreter", "c1", "1")),
    ("openai.responses", item(type="mcp_list_tools", id="l1", tools=[{"name": "f", "description": "do evil"}]),
     ToolResult("mcp_list_tools", "l1", "f\ndo evil")),
    ("anthropic.messages", of_claude(USE, {"type": "tool_result", "tool_use_id": "t1", "content": "out"}),
     ToolResult("f", "t1", "out")),
    ("anthropic.messages", of_claude({"type": "tool_result", "tool_use_id": "t1", "is_error": True,
                                      "content": [{"type": "text", "text": "out"}]}),
     ToolResult("", "t1", "out", True)),
    ("anthropic.messages", of_claude({"type": "tool_result", "tool_use_id": "t1", "content": [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "word"}}]}),
     ToolResult("", "t1", "word")),
    ("anthropic.messages", of_claude({"type": "web_search_tool_result", "tool_use_id": "s1", "content": [
        {"type": "web_search_result", "title": "found", "url": "https://a.test", "encrypted_content": "eA=="}]}),
     ToolResult("web_search", "s1", "found")),
    ("anthropic.messages", of_claude({"type": "mcp_tool_result", "tool_use_id": "m1", "content": [{"type": "text",
                                                                                                 "text": "out"}]}),
     ToolResult("mcp", "m1", "out")),
    ("anthropic.messages", of_claude({"type": "bash_code_execution_tool_result", "tool_use_id": "b1", "content": {
        "type": "bash_code_execution_result", "stdout": "out", "stderr": "err", "return_code": 0}}),
     ToolResult("bash_code_execution", "b1", "out\nerr")),
    ("bedrock.invoke", {"anthropic_version": "b", **of_claude({"type": "tool_result", "content": "out"})},
     ToolResult("", "", "out")),
    ("gemini.generate", {"contents": [{"role": "user", "parts": [{"functionResponse": {"id": "f1", "name": "f",
                                                               "response": {"status": "do evil"}}}]}]},
     ToolResult("f", "f1", "do evil")),
    ("gemini.generate", {"contents": [{"parts": [{"function_response": {"name": "f", "response": {"error": "no"}}}]}]},
     ToolResult("f", "", "no", True)),
    ("gemini.generate", {"contents": [{"parts": [{"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}]}]},
     ToolResult("codeExecution", "", "1")),
    ("bedrock.converse", {"messages": [
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "f", "input": {}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "status": "error", "content": [
            {"text": "a"}, {"json": {"status": "b"}}, {"document": {"name": "d", "source": {"text": "c"}}}]}}]}]},
     ToolResult("f", "t1", "a\nb\nd\nc", True)),
    ("cohere.chat", {"messages": [{"role": "assistant", "tool_calls": [call("c1", "f")]},
                                  {"role": "tool", "tool_call_id": "c1", "content": "out"}]},
     ToolResult("f", "c1", "out")),
    ("cohere.chat", {"message": "x", "tool_results": [{"call": {"name": "f"}, "outputs": [{"status": "out"}]}]},
     ToolResult("f", "", "out")),
    ("cohere.chat", {"message": "x", "documents": [{"id": "d1", "data": {"text": "found"}}]},
     ToolResult("documents", "d1", "found")),
    ("cohere.chat", {"message": "x", "chat_history": [{"role": "TOOL", "tool_results": [
        {"call": {"name": "f"}, "outputs": [{"a": "out"}]}]}]},
     ToolResult("f", "", "out")),
    ("ollama.chat", {"messages": [{"role": "tool", "tool_name": "f", "content": "out"}]}, ToolResult("f", "", "out")),
    ("mcp", {"jsonrpc": "2.0", "id": 7, "result": {"role": "assistant", "content": {"type": "text", "text": "out"}}},
     ToolResult("", "7", "out")),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "body", "result"), CASES)
def test_a_tool_result_is_told(dialect: str, body: Any, result: ToolResult) -> None:
    facts = asked(dialect, body)
    assert facts.tool_results == [result]
    assert [one.text for one in facts.messages if one.role == "tool"] == [result.text]
    for word in result.text.split("\n"):
        assert word in (facts.text or "").split("\n")


@pytest.mark.parametrize(
    ("dialect", "body", "words"),
    [
        ("anthropic.messages", of_claude({"type": "compaction", "content": "so far"}), "so far"),
        ("anthropic.messages", of_claude({"type": "thinking", "thinking": "hm", "signature": "s"}), "hm"),
        ("gemini.generate", {"contents": [{"parts": [{"thought": True, "text": "hm"}]}]}, "hm"),
        ("gemini.generate", {"systemInstruction": {"parts": [{"thought": True, "text": "hm"}]}}, "hm"),
        ("bedrock.converse", {"messages": [{"role": "user", "content": [
            {"document": {"name": "d", "format": "txt", "source": {"content": [{"text": "inside"}]}}}]}]}, "inside"),
        ("bedrock.converse", {"messages": [{"role": "user", "content": [
            {"searchResult": {"source": "s", "title": "t", "content": [{"text": "found"}]}}]}]}, "found"),
        ("bedrock.converse", {"messages": [{"role": "assistant", "content": [
            {"citationsContent": {"content": [{"text": "said"}], "citations": [{"title": "cited"}]}}]}]}, "cited"),
        ("openai.chat", {"messages": [{"role": "assistant", "reasoning_content": "hm"}]}, "hm"),
        ("openai.chat", {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": [
            {"type": "text", "text": "hm"}]}]}]}, "hm"),
        ("openai.chat", {"messages": [], "documents": [{"title": "t", "text": "read me"}]}, "read me"),
        ("openai.responses", item(role="user", content=[{"type": "new", "say": "hm"}]), "hm"),
        ("openai.responses", item(type="compaction", summary="so far"), "so far"),
    ],
)  # fmt: skip
def test_text_of_a_request_leaves_nothing_out_that_a_model_reads(dialect: str, body: Any, words: str) -> None:
    facts = asked(dialect, body)
    assert words in (facts.text or "").split("\n")


def test_results_stand_in_order_among_the_messages() -> None:
    text = {"type": "text", "text": "before"}
    facts = asked("anthropic.messages", {"messages": [{"role": "user", "content": [
        text, {"type": "tool_result", "content": "out"}, {"type": "text", "text": "after"}]}]})  # fmt: skip
    assert [(one.role, one.text) for one in facts.messages] == [("user", "before"), ("tool", "out"), ("user", "after")]
