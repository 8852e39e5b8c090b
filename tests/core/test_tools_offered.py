"""Ways to tools in requests: how they are told, and which of them `tools: {allow, deny}` leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, Tool
from policyd.core.model.tools import Identity, kind_of, permitted, unversioned
from policyd.core.stream.dialects import Dialect, RequestChange
from policyd.core.stream.dialects.offers import place_of
from policyd.core.stream.dialects.registry import DIALECTS
from policyd.core.stream.json_text import splice
from tests.driving import Bed, chat, policy

BY_NAME: dict[str, Dialect] = {dialect.name: dialect for dialect in DIALECTS}
F = {"type": "function", "function": {"name": "get_weather"}}
EVIL = {"type": "mcp", "server_label": "get_weather", "server_url": "https://Evil.test:8443/mcp/"}
MESSAGES = [{"role": "user", "content": "hi"}]


def told(dialect: str, body: dict[str, Any]) -> list[tuple[str, str]]:
    facts = RequestFacts(path="/model/m/converse" if dialect == "bedrock.converse" else "/model/m/invoke")
    BY_NAME[dialect].read_request(body, facts)
    return [(tool.name, tool.kind) for tool in facts.tools]


def left(dialect: str, body: dict[str, Any], allow: tuple[str, ...] | None = None, deny: tuple[str, ...] = ()) -> Any:
    change = RequestChange(tools_allow=(frozenset(allow),) if allow is not None else (), tools_deny=frozenset(deny))
    return json.loads(splice(json.dumps(body).encode(), BY_NAME[dialect].edits(body, change)))


WAYS: list[tuple[str, str, dict[str, Any], tuple[str, str]]] = [
    ("openai.chat", "a function", {"tools": [{"type": "function", "function": {"name": "f"}}]}, ("f", "function")),
    ("openai.chat", "a legacy function", {"functions": [{"name": "f"}]}, ("f", "function")),
    ("openai.chat", "a custom tool", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, ("f", "function")),
    ("openai.chat", "web search", {"web_search_options": {}}, ("web_search", "search")),
    ("openai.chat", "live search", {"search_parameters": {"mode": "auto"}}, ("live_search", "search")),
    ("openai.chat", "a plugin", {"plugins": [{"id": "web"}]}, ("web", "hosted")),
    ("openai.chat", "Azure's data", {"data_sources": [{"type": "azure_search"}]}, ("azure_search", "search")),
    ("openai.chat", "Alibaba's search", {"enable_search": True}, ("web_search", "search")),
    ("openai.chat", "an MCP server", {"tools": [EVIL]}, ("get_weather", "mcp")),
    ("openai.completions", "a plugin", {"prompt": "x", "plugins": [{"id": "web"}]}, ("web", "hosted")),
    ("openai.responses", "search under a name", {"tools": [{"type": "web_search", "name": "get_weather"}]},
     ("get_weather", "search")),
    ("openai.responses", "code", {"tools": [{"type": "code_interpreter"}]}, ("code_interpreter", "hosted")),
    ("openai.responses", "a shell", {"tools": [{"type": "local_shell"}]}, ("local_shell", "shell")),
    ("openai.responses", "a computer", {"tools": [{"type": "computer_use_preview"}]},
     ("computer_use_preview", "computer")),
    ("openai.responses", "patches", {"tools": [{"type": "apply_patch"}]}, ("apply_patch", "editor")),
    ("openai.responses", "an MCP server", {"tools": [EVIL]}, ("get_weather", "mcp")),
    ("openai.responses", "a connector",
     {"tools": [{"type": "mcp", "server_label": "get_weather", "connector_id": "connector_gmail"}]},
     ("get_weather", "mcp")),
    ("openai.responses", "a namespace under the name",
     {"tools": [{"type": "namespace", "name": "get_weather", "tools": [{"type": "function", "name": "f"}]}]},
     ("f", "function")),
    ("anthropic.messages", "a function", {"tools": [{"name": "f", "input_schema": {}}]}, ("f", "function")),
    ("anthropic.messages", "search under a name", {"tools": [{"type": "web_search_20250305", "name": "get_weather"}]},
     ("get_weather", "search")),
    ("anthropic.messages", "a shell", {"tools": [{"type": "bash_20250124", "name": "bash"}]}, ("bash", "shell")),
    ("anthropic.messages", "an editor", {"tools": [{"type": "text_editor_20250728", "name": "e"}]}, ("e", "editor")),
    ("anthropic.messages", "an MCP server",
     {"mcp_servers": [{"type": "url", "url": "https://evil.test", "name": "get_weather"}]}, ("get_weather", "mcp")),
    ("anthropic.messages", "a skill", {"container": {"skills": [{"skill_id": "pptx"}]}}, ("pptx", "hosted")),
    ("gemini.generate", "search", {"tools": [{"googleSearch": {}}]}, ("googleSearch", "search")),
    ("gemini.generate", "search in snake case", {"tools": [{"google_search": {}}]}, ("googleSearch", "search")),
    ("gemini.generate", "code", {"tools": [{"codeExecution": {}}]}, ("codeExecution", "hosted")),
    ("gemini.generate", "a computer", {"tools": [{"computerUse": {}}]}, ("computerUse", "computer")),
    ("gemini.generate", "a function", {"tools": [{"functionDeclarations": [{"name": "f"}]}]}, ("f", "function")),
    ("gemini.generate", "an MCP server", {"tools": [{"mcpServers": [
        {"name": "get_weather", "streamableHttpTransport": {"url": "https://evil.test"}}]}]}, ("get_weather", "mcp")),
    ("bedrock.converse", "a function", {"toolConfig": {"tools": [{"toolSpec": {"name": "f"}}]}}, ("f", "function")),
    ("bedrock.converse", "a function with an odd name",
     {"toolConfig": {"tools": [{"toolSpec": {"name": "cachePoint"}}]}}, ("cachePoint", "function")),
    ("bedrock.converse", "a system tool", {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}},
     ("nova_grounding", "hosted")),
    ("bedrock.converse", "a side door",
     {"additionalModelRequestFields": {"tools": [{"type": "computer_20241022", "name": "get_weather"}]}},
     ("get_weather", "computer")),
    ("bedrock.invoke", "a plugin", {"prompt": "x", "tools": [{"type": "web_search"}]}, ("web_search", "search")),
    ("cohere.chat", "a function", {"message": "x", "tools": [{"name": "f"}]}, ("f", "function")),
    ("cohere.chat", "a connector", {"message": "x", "connectors": [{"id": "web-search"}]}, ("web-search", "search")),
    ("ollama.chat", "a function", {"tools": [{"type": "function", "function": {"name": "f"}}]}, ("f", "function")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "body", "tool"), [(one, body, tool) for one, _, body, tool in WAYS], ids=[" ".join(w[:2]) for w in WAYS]
)
def test_a_way_to_a_tool_is_told_and_goes_where_another_is_allowed(
    dialect: str, body: dict[str, Any], tool: tuple[str, str]
) -> None:
    assert tool in told(dialect, body)
    gone = left(dialect, body, allow=("get_weather",))
    assert gone != body
    assert told(dialect, gone) == []
    assert left(dialect, body, deny=("delete_*",)) == body
    assert left(dialect, body, deny=("*",)) == gone


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("openai.chat", {"tools": [F], "search_parameters": {"mode": "off"}, "enable_search": False}),
        ("openai.responses", {"tools": [{"type": "function", "name": "get_weather"}]}),
        ("anthropic.messages", {"tools": [{"type": "custom", "name": "get_weather"}]}),
        ("gemini.generate", {"tools": [{"functionDeclarations": [{"name": "get_weather"}]}]}),
        ("bedrock.converse", {"toolConfig": {"tools": [{"toolSpec": {"name": "get_weather"}}, {"cachePoint": {}}]}}),
    ],
)
def test_what_is_allowed_stays(dialect: str, body: dict[str, Any]) -> None:
    assert left(dialect, body, allow=("get_*",)) == body


def test_a_tool_with_two_names_needs_both() -> None:
    body = {"tools": [{"type": "function", "name": "get_weather", "function": {"name": "drop_all"}}]}
    assert "tools" not in left("openai.chat", body, allow=("get_weather",))
    assert "tools" not in left("openai.chat", body, allow=("drop_all",))
    assert left("openai.chat", body, allow=("get_weather", "drop_all")) == body


def test_what_cannot_be_taken_out_refuses() -> None:
    for body in ({"compound_custom": {"tools": {"enabled_tools": ["web_search"]}}}, {"compound_custom": {}}):
        with pytest.raises(Malformed, match="cannot be taken out"):
            left("openai.chat", body, allow=("get_weather",))
    body = {"compound_custom": {"tools": {"enabled_tools": ["web_search"]}}}
    assert left("openai.chat", body, allow=("hosted:web_*",)) == body


def test_servers_and_skills_go_with_what_belongs_to_them() -> None:
    server = {"type": "url", "url": "https://a.test/sse", "name": "wiki"}
    body = {
        "mcp_servers": [server, {**server, "name": "evil", "url": "https://b.test"}],
        "tools": [{"type": "mcp_toolset", "mcp_server_name": "wiki"}, {"type": "mcp_toolset", "mcp_server_name": "e"}],
        "container": {"id": "c_1", "skills": [{"skill_id": "pptx"}]},
        "tool_choice": {"type": "auto"},
    }
    assert left("anthropic.messages", body, allow=("mcp:a.test",)) == {
        "mcp_servers": [server],
        "tools": [{"type": "mcp_toolset", "mcp_server_name": "wiki"}],
        "container": {"id": "c_1"},
        "tool_choice": {"type": "auto"},
    }
    assert left("anthropic.messages", body, allow=()) == {"container": {"id": "c_1"}}


def test_one_of_several_goes() -> None:
    search, function = {"googleSearch": {}}, {"functionDeclarations": [{"name": "f"}, {"name": "g"}]}
    body = {"tools": [{**search, **function}], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}
    assert left("gemini.generate", body, deny=("g",))["tools"] == [
        {"googleSearch": {}, "functionDeclarations": [{"name": "f"}]}
    ]
    assert left("gemini.generate", body, deny=("function:*",))["tools"] == [search]
    assert left("gemini.generate", body, deny=("search:*",))["tools"] == [function]
    assert left("gemini.generate", body, deny=("*",)) == {}
    more = {"additionalModelRequestFields": {"top_k": 1, "tools": [{"type": "bash_20250124", "name": "bash"}]}}
    assert left("bedrock.converse", more, deny=("shell:*",)) == {"additionalModelRequestFields": {"top_k": 1}}


@pytest.mark.parametrize(
    ("tool", "allow", "deny", "may"),
    [
        (Identity("function", ("get_weather",)), ["get_*"], [], True),
        (Identity("function", ("get_weather",)), ["function:get_*"], [], True),
        (Identity("function", ("get_weather",)), ["hosted:*", "mcp:*"], [], False),
        (Identity("function", ("mail:send",)), ["mail:*"], [], True),  # no kind, so a name
        (Identity("search", ("web_search",), ("get_weather",)), ["get_weather"], [], False),
        (Identity("search", ("web_search",)), ["*"], [], False),
        (Identity("search", ("web_search",)), ["web_search"], [], True),
        (Identity("search", ("web_search",)), ["hosted:web_*"], [], True),
        (Identity("search", ("web_search",)), ["search:*"], [], True),
        (Identity("shell", ("local_shell",)), ["search:*"], [], False),
        (Identity("mcp", ("a.test/sse",), ("wiki",)), ["wiki", "*", "mcp:wiki"], [], False),
        (Identity("mcp", ("a.test/sse",)), ["mcp:a.test"], [], True),
        (Identity("mcp", ("a.test/sse",)), ["mcp:a.test/other"], [], False),
        (Identity("mcp", ("a.test.evil",)), ["mcp:a.test"], [], False),
        (Identity("mcp", ("a.test", "connector_gmail")), ["mcp:a.test"], [], False),
        (Identity("mcp", ("a.test",), ("wiki",)), None, ["wiki"], False),
        (Identity("mcp", ("a.test",), ("wiki",)), None, ["mcp:wi*"], False),
        (Identity("search", ("web_search_20250305",), ("web_search",)), None, ["web_search"], False),
        (Identity("function", ("f",)), None, ["hosted:*", "mcp:*"], True),
        (Identity("function", ("f",)), ["f"], ["f"], False),
    ],
)
def test_entries(tool: Identity, allow: list[str] | None, deny: list[str], may: bool) -> None:
    assert permitted(tool, () if allow is None else (frozenset(allow),), deny) is may


def test_every_list_must_allow() -> None:
    tool = Identity("function", ("get_weather",))
    assert permitted(tool, (frozenset({"get_*"}), frozenset({"*_weather"})), ())
    assert not permitted(tool, (frozenset({"get_*"}), frozenset({"*_time"})), ())


def test_the_place_of_a_server() -> None:
    for url, place in (
        ("https://Evil.test:8443/mcp/", "evil.test:8443/mcp"),
        ("https://a.test@evil.test/", ""),
        ("https://a.test\\@evil.test/", ""),
        ("a.test/x", "a.test/x"),
        ("connector_gmail", "connector_gmail"),
    ):
        assert place_of(url) == place
    assert kind_of("web_search_call") == "search"
    assert unversioned("web_search_preview_2025_03_11") == "web_search"


def test_lists_of_two_rules_must_both_allow() -> None:
    rules = "- {name: %s, constrain: {tools: {allow: [%s]}}}"
    bed = Bed(policy("rules:\n" + "\n".join([rules % ("a", '"get_*"'), rules % ("b", '"*_weather"')])))
    tools = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "get_time", "set_weather")]
    sent = bed.call(body=chat("hi", tools=tools))
    assert sent.sent is not None
    assert json.loads(sent.sent)["tools"] == tools[:1]
    assert Tool("a") == Tool("a", "function")
