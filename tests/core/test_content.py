"""What of a body is content: every string but the structural fields, names that the caller chose, text within text."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from policyd.core.errors import Malformed
from policyd.core.model.bounds import Bounds
from policyd.core.stream.dialects.content import ANYTHING, content_of, leaves, string_leaves
from policyd.core.stream.dialects.generic import is_generic
from policyd.core.stream.dialects.registry import DIALECTS
from policyd.core.stream.dialects.request_fields import REQUESTS, request_structure
from tests.structural_page import PAGE, markdown

PICTURE = b64encode(bytes(range(128, 256))).decode()
NOTE = b64encode(b"write to joe@example.org about the merger, " * 3).decode()
CHAT = REQUESTS["openai.chat"]


def content(document: object, dialect: str = "openai.chat") -> list[str]:
    return content_of(document, request_structure(dialect), Bounds()).split("\n")


def test_every_dialect_has_a_list_of_its_own() -> None:
    assert {dialect.name for dialect in DIALECTS if not is_generic(dialect)} == REQUESTS.keys()


@pytest.mark.parametrize(
    ("dialect", "body", "said"),
    [
        ("openai.chat", {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}, ["hi"]),
        ("openai.chat", {"messages": [{"role": "user, named Joe", "content": "hi"}]}, ["user, named Joe", "hi"]),
        ("openai.chat", {"messages": [{"role": "tool", "tool_call_id": "call_1", "content": "x"}]}, ["x"]),
        ("openai.chat", {"messages": [{"tool_call_id": "call 1"}]}, ["call 1"]),
        ("openai.chat", {"messages": [{"tool_call_id": "4111111111111111"}]}, ["4111111111111111"]),
        ("openai.chat", {"messages": [{"tool_call_id": "a" * 257}]}, ["a" * 257]),
        ("openai.chat", {"tool_call_id": "call_1"}, ["call_1"]),  # not where ids stand
        ("openai.chat", {"user": "joe", "metadata": {"who": "ann"}}, ["joe", "who", "ann"]),
        ("openai.chat", {"model": "joe@example.org"}, ["joe@example.org"]),
        ("openai.chat", {"x": {"role": "user", "y": ["z"]}}, ["x", "role", "user", "y", "z"]),
        (
            "openai.chat",
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"name": {}}}}}]},
            ["f", "properties", "name"],
        ),
        ("anthropic.messages", {"messages": [{"content": [{"type": "thinking", "thinking": "hm"}]}]}, ["hm"]),
        ("anthropic.messages", {"messages": [{"content": [{"type": "compaction", "content": "so"}]}]}, ["so"]),
        (
            "anthropic.messages",
            {"messages": [{"content": [{"type": "tool_use", "id": "toolu_1", "input": {"a": "b"}}]}]},
            ["a", "b"],
        ),
        ("gemini.generate", {"contents": [{"parts": [{"thought": True, "text": "hm"}]}]}, ["hm"]),
        ("cohere.chat", {"connectors": [{"id": "web"}]}, ["web"]),
        ("mcp", {"jsonrpc": "2.0", "id": "a1", "method": "tools/call", "params": {"name": "f"}}, ["f"]),
        ("mcp", [{"method": "tools/call and more"}], ["tools/call and more"]),
    ],
)
def test_what_is_content(dialect: str, body: object, said: list[str]) -> None:
    assert content(body, dialect) == said


def picture(url: str) -> dict[str, Any]:
    return {"messages": [{"content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def test_media_is_none_but_text_in_base64_and_links_are() -> None:
    assert content(picture(f"data:image/png;base64,{PICTURE}")) == [""]
    assert content(picture(PICTURE)) == [""]
    assert content(picture("https://example.org/a.png?q=secret")) == ["https://example.org/a.png?q=secret"]
    assert content(picture(f"data:image/png;base64,{PICTURE} and more")) == [
        f"data:image/png;base64,{PICTURE} and more"
    ]
    assert content(picture("SECRETWORD")) == ["SECRETWORD"]
    hidden = content(picture(f"data:image/png;base64,{NOTE}"))
    assert hidden[0].endswith(NOTE)
    assert hidden[1].startswith("write to joe@example.org")


def test_a_plain_text_source_is_no_media() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "x" * 80}
    body = {"messages": [{"content": [{"type": "document", "source": source}]}]}
    assert content(body, "anthropic.messages") == ["x" * 80]
    source["type"], source["data"] = "base64", PICTURE
    assert content(body, "anthropic.messages") == [""]


@pytest.mark.parametrize(
    ("text", "also"),
    [
        (r'{"mail": "joe\u0040example.org"}', ["mail", "joe@example.org"]),
        (r'{"a": "{\"b\": \"joe\\u0040x\"}"}', ["a", r'{"b": "joe\u0040x"}', "b", "joe@x"]),
        (r'{"a": "one\u0021", "a": 2}', ["a", "one!"]),  # strict parsers refuse it; lenient ones do not
        (r'{"a": "joe\u0040x', ['{"a": "joe@x']),
        (r'"rm\u0020-rf"', ["rm -rf"]),
        (r'{"a": "\ud800"}', ["a", "\ufffd"]),
        (r"C:\users, no JSON", []),
        ('{"a": "b"}', []),  # says nothing else decoded
    ],
)
def test_json_within_a_string_is_read_decoded(text: str, also: list[str]) -> None:
    assert sorted(content({"prompt": text})) == sorted([text, *also])


def test_string_leaves_of_arguments() -> None:
    assert string_leaves('{"cmd": "cd /data\\nrm -rf x", "n": [1, "\\u0041"]}') == ["cd /data\nrm -rf x", "A"]
    assert string_leaves('{"cmd": "rm\\u0020-r') == ['{"cmd": "rm -r']
    assert string_leaves("plain") == ["plain"]
    assert string_leaves(" ") == []


def test_paths() -> None:
    found = list(leaves({"a": [{"b": "x"}]}, ANYTHING))
    assert [(leaf.text, leaf.path, leaf.key) for leaf in found] == [
        ("a", ("a",), True),
        ("b", ("a", 0, "b"), True),
        ("x", ("a", 0, "b"), False),
    ]


def test_content_has_a_bound() -> None:
    assert content_of({"prompt": "x" * 10}, CHAT, Bounds(request_content=10)) == "x" * 10
    with pytest.raises(Malformed, match="more than 9 characters"):
        content_of({"prompt": "x" * 10}, CHAT, Bounds(request_content=9))


def test_depth_costs_no_stack() -> None:
    deep: Any = "end"
    for _ in range(5000):
        deep = [deep]
    assert [leaf.text for leaf in leaves(deep)] == ["end"]


def test_the_page_lists_what_is_no_content() -> None:
    assert PAGE.read_text() == markdown(), "run `python -m tests.structural_page`"
