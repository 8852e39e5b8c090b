"""Ways to tools in requests: how they are told, and which of them `tools: {allow, deny}` leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, Tool
from policyd.core.model.mcp_places import host_of, place_of
from policyd.core.model.tools import Identity, kind_of, permitted, unversioned
from policyd.core.stream.dialects import Dialect, RequestChange
from policyd.core.stream.dialects.generic import GENERIC
from policyd.core.stream.dialects.registry import DIALECTS
from policyd.core.stream.json_text import splice
from tests.driving import Bed, chat, policy

BY_NAME: dict[str, Dialect] = {**{dialect.name: dialect for dialect in DIALECTS}, "generic": GENERIC}
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
    ("openai.chat", "a plugin", {"plugins": [{"id": "web"}]}, ("web", "search")),
    ("openai.chat", "a plugin by its name alone", {"plugins": ["plugin_web_search"]}, ("plugin_web_search", "search")),
    ("openai.chat", "a plugin that is no search", {"plugins": [{"id": "file-parser"}]}, ("file-parser", "hosted")),
    ("openai.chat", "search switched on", {"enable_web_search": "on"}, ("web_search", "search")),
    ("openai.chat", "search with options", {"webSearch": {"enable": True}}, ("web_search", "search")),
    ("openai.chat", "Moonshot's search", {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]},
     ("$web_search", "search")),
    ("openai.chat", "Google's search", {"tools": [{"google_search": {}}]}, ("google_search", "search")),
    ("openai.chat", "a function in extra_body",
     {"extra_body": {"tools": [{"type": "function", "function": {"name": "f"}}]}}, ("f", "function")),
    ("openai.chat", "search in extra_body", {"extra_body": {"web_search_options": {}}}, ("web_search", "search")),
    ("openai.chat", "a plugin in extra_body", {"extra_body": {"plugins": [{"id": "web"}]}}, ("web", "search")),
    ("openai.chat", "an MCP server in extra_body", {"extra_body": {"tools": [EVIL]}}, ("get_weather", "mcp")),
    ("openai.chat", "search further down", {"providerOptions": {"google": {"tools": [{"googleSearch": {}}]}}},
     ("googleSearch", "search")),
    ("openai.chat", "Venice's search", {"venice_parameters": {"enable_web_search": "auto"}}, ("web_search", "search")),
    ("openai.responses", "a function in extra_body", {"extra_body": {"tools": [{"type": "function", "name": "f"}]}},
     ("f", "function")),
    ("openai.completions", "a plugin in extra_body", {"prompt": "x", "extra_body": {"plugins": [{"id": "web"}]}},
     ("web", "search")),
    ("anthropic.messages", "a plugin", {"plugins": [{"id": "web"}]}, ("web", "search")),
    ("anthropic.messages", "a tool in extra_body", {"extra_body": {"tools": [{"type": "web_search_20250305"}]}},
     ("web_search_20250305", "search")),
    ("openai.chat", "Azure's data", {"data_sources": [{"type": "azure_search"}]}, ("azure_search", "search")),
    ("openai.chat", "Alibaba's search", {"enable_search": True}, ("web_search", "search")),
    ("openai.chat", "an MCP server", {"tools": [EVIL]}, ("get_weather", "mcp")),
    ("openai.completions", "a plugin", {"prompt": "x", "plugins": [{"id": "web"}]}, ("web", "search")),
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


PLACES = {
    "https://Evil.test:8443/mcp/": "evil.test:8443/mcp",
    "HTTPS://evil.test": "evil.test",
    "https://evil.test:443/": "evil.test",
    "http://evil.test:80/x": "evil.test/x",
    "http://evil.test:443/x": "evil.test:443/x",
    "https://evil.test/mcp?key=a@b#c": "evil.test/mcp",
    "https://evil.test/a%20b/$x": "evil.test/a%20b/$x",
    "https://127.0.0.1:8080/mcp": "127.0.0.1:8080/mcp",
    "https://[2001:db8::1]:8443/": "[2001:db8::1]:8443",
    "https://my_host.xn--bcher-kva.test": "my_host.xn--bcher-kva.test",
    "connector_gmail": "connector_gmail",
    "tunnel_0a-1B": "tunnel_0a-1B",
}
AMBIGUOUS = (
    "https://x@evil.test/", "https://a:b@evil.test/", "https://a.test@evil.test/", "https://@evil.test/",
    "https://evil.test./", "https://evil.test..", "https://.evil.test", "https://evil..test/",
    "https://evil.test\\x", "https://a.test\\@evil.test/", "https:\\\\evil.test", "https:/\\evil.test",
    "https://%65vil.test/", "https://evil%2etest/", "https://evil.test%2f@a.test", "https://evil.test%00/",
    "https://ｅvil.test/", "https://evil。test/", "https://еvil.test/", "https://evil.test\u00ad/", "https://ﬁ.test/",
    "https://evil.test/ü", "https://evil\u200b.test/", "https://evil.tes\u212a",
    "ftp://evil.test", "wss://evil.test/", "file:///evil.test", "javascript://evil.test/%0a", "stdio:evil.test",
    "//evil.test", "/evil.test", "evil.test", "evil.test/x", "evil.test:443", "localhost/x", "https:evil.test",
    "https:/evil.test", "https:///evil.test", "https://", "http+unix://evil.test/",
    " https://evil.test/", "https://evil.test/ ", "https://evil.test/a b", "https://evil\t.test", "ht\ntps://evil.test",
    "https://evil.test\r\n/", "https://evil.test\x00", "https://evil.test/\x7f", "\ufeffhttps://evil.test/",
    "https://evil.test:/", "https://evil.test:0443/", "https://evil.test:99999/", "https://evil.test:4４3/",
    "https://evil.test:x/", "https://evil.test?@a.test", "https://evil.test#@a.test", "https://evil.test:443@a.test",
    "https://2130706433/", "https://0x7f.1/", "https://127.1/", "https://127.0.0.01/", "https://0177.0.0.1/",
    "https://127.0.0.0x1/", "https://evil.123/", "https://[0:0:0:0:0:0:0:1]/", "https://[::1", "https://[127.0.0.1]/",
    "https://[fe80::1%25eth0]/", "https://::1/",
    "https://a.test/x/../y", "https://a.test/./y", "https://a.test//y", "https://a.test/..", "https://a.test/%2e%2e/y",
    "https://a.test/%79", "https://a.test/x%2fy", "https://a.test/x%5cy", "https://a.test/x;y", "https://a.test/%zz",
    "https://a.test/x%3by", "https://a.test/%00", "https://a.test/%",
)  # fmt: skip


@pytest.mark.parametrize("url", PLACES)
def test_the_place_of_a_server(url: str) -> None:
    assert place_of(url) == PLACES[url]


@pytest.mark.parametrize("url", AMBIGUOUS)
def test_a_url_that_two_parsers_may_read_as_two_places_has_none(url: str) -> None:
    assert place_of(url) is None


def test_hosts_and_kinds() -> None:
    hosts = {"a.test:8443/x": "a.test", "a.test/x": "a.test", "[::1]:8443/x": "[::1]", "connector_x": "connector_x"}
    assert {place: host_of(place) for place in hosts} == hosts
    assert kind_of("web_search_call") == "search"
    assert unversioned("web_search_preview_2025_03_11") == "web_search"


def server(dialect: str, **where: Any) -> dict[str, Any]:
    """A request that offers one MCP server, which says so where it is."""
    match dialect:
        case "anthropic.messages":
            return {"mcp_servers": [{"type": "url", "name": "wiki", **where}]}
        case "bedrock.converse":
            return {"additionalModelRequestFields": server("anthropic.messages", **where)}
        case "gemini.generate":
            return {"tools": [{"mcpServers": [{"name": "wiki", "streamableHttpTransport": where}]}]}
        case "wrapped":
            return {"extra_body": server("openai.chat", **where)}
    return {"tools": [{"type": "mcp", "server_label": "wiki", **where}]}


SERVERS = [
    ("openai.chat", "openai.chat", "server_url"),
    ("openai.chat", "wrapped", "server_url"),
    ("openai.responses", "openai.responses", "server_url"),
    ("anthropic.messages", "anthropic.messages", "url"),
    ("gemini.generate", "gemini.generate", "url"),
    ("bedrock.converse", "bedrock.converse", "url"),
    ("generic", "openai.chat", "server_url"),
]


@pytest.mark.parametrize(("dialect", "shape", "field"), SERVERS, ids=[shape for _, shape, _ in SERVERS])
@pytest.mark.parametrize("url", AMBIGUOUS[::7])
def test_an_ambiguous_url_is_refused_where_a_rule_is_about_places(
    dialect: str, shape: str, field: str, url: str
) -> None:
    body = server(shape, **{field: url})
    rules: list[dict[str, Any]] = [
        {"deny": ("mcp:evil.test",)}, {"allow": ("mcp:a.test", "f")}, {"deny": ("evil.test",)},
        {"deny": ("mcp:*.test",)}, {"allow": ("mcp:a.test/x",), "deny": ("shell:*",)},
    ]  # fmt: skip
    for rule in rules:
        with pytest.raises(Malformed, match="more than one way"):
            left(dialect, body, **rule)
    assert left(dialect, body, deny=("delete_*", "search:*")) == body
    assert left(dialect, body, allow=("mcp:*",)) == body
    for rule in ({"deny": ("mcp:*",)}, {"allow": ("f",)}, {"deny": ("wiki",)}, {"deny": ("*",)}):
        assert told(dialect, left(dialect, body, **rule)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(("dialect", "shape", "field"), SERVERS, ids=[shape for _, shape, _ in SERVERS])
def test_every_way_to_a_server_must_be_allowed(dialect: str, shape: str, field: str) -> None:
    url = {field: "https://a.test/sse"}
    plain = server(shape, **url, authorization="x.y/z", headers={"Host": "x.y"}, server_description="at x.y/z")
    assert left(dialect, plain, allow=("mcp:a.test",)) == plain
    for more in ({"tunnel_id": "tunnel_1"}, {"connector_id": "connector_gmail"}, {"endpoint": {"id": "other"}},
                 {"uris": ["https://b.test"]}):  # fmt: skip
        body = server(shape, **url, **more)
        assert told(dialect, left(dialect, body, allow=("mcp:a.test",))) == []
        assert left(dialect, body, allow=("mcp:*",)) == body
    tunnel = server(shape, **url, tunnel_id="tunnel_1")
    assert told(dialect, left(dialect, tunnel, deny=("mcp:tunnel_*",))) == []
    assert left(dialect, tunnel, allow=("mcp:a.test", "mcp:tunnel_1")) == tunnel


ONLINE = ("openai/gpt-4o:online", "x/y:free:online", "x/y:ONLINE", "x/y:online:nitro")


@pytest.mark.parametrize("dialect", ["openai.chat", "openai.responses", "openai.completions", "anthropic.messages"])
@pytest.mark.parametrize("model", ONLINE)
def test_a_model_that_searches_by_its_name(dialect: str, model: str) -> None:
    bodies: tuple[dict[str, Any], ...] = (
        {"model": model}, {"models": ["gpt-4o", model]}, {"extra_body": {"model": model}},
        {"fallbacks": [{"model": model}]},
    )  # fmt: skip
    for body in bodies:
        assert ("web_search", "search") in told(dialect, body)
        for rule in ({"deny": ("search:*",)}, {"allow": ("get_weather",)}, {"deny": ("web_search",)}):
            with pytest.raises(Malformed, match="cannot be taken out"):
                left(dialect, body, **rule)  # type: ignore[arg-type]
        assert left(dialect, body, allow=("search:*",)) == body


@pytest.mark.parametrize(
    "body",
    [
        {"model": "openai/gpt-4o:free"},
        {"model": "online/gpt-4o"},
        {"model": "gpt-4o", "web_search_options": None, "enable_web_search": "off", "webSearch": {"enable": False}},
        {"extra_body": {"top_k": 3, "models": ["a"], "note": {"tools": []}}},
        {"extra_body": "tools"},
        {"search": "me", "search_domain_filter": ["a.test"]},
    ],
)
def test_what_offers_no_tool(body: dict[str, Any]) -> None:
    assert told("openai.chat", body) == []


def test_what_stands_in_a_wrapper_and_cannot_be_read_refuses() -> None:
    body = {"extra_body": {"tools": "all"}}
    assert told("openai.chat", body) == [("extra_body", "hosted")]
    with pytest.raises(Malformed, match="cannot be taken out"):
        left("openai.chat", body, allow=("get_weather",))


def test_lists_of_two_rules_must_both_allow() -> None:
    rules = "- {name: %s, constrain: {tools: {allow: [%s]}}}"
    bed = Bed(policy("rules:\n" + "\n".join([rules % ("a", '"get_*"'), rules % ("b", '"*_weather"')])))
    tools = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "get_time", "set_weather")]
    sent = bed.call(body=chat("hi", tools=tools))
    assert sent.sent is not None
    assert json.loads(sent.sent)["tools"] == tools[:1]
    assert Tool("a") == Tool("a", "function")
