"""Requests: rules on their content, and redaction of every string that they hold."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from policyd.core.errors import Malformed
from policyd.core.model.bounds import Bounds
from policyd.core.model.decision import Redaction
from policyd.core.stream.dialects.redact_content import ContentRedactor
from policyd.core.stream.dialects.request_fields import request_structure
from policyd.core.stream.json_text import splice
from policyd.core.stream.redactor import redactors
from tests.driving import Bed, chat, policy

MAIL, CARD = "joe@example.org", "4111111111111111"
SEARCH = redactors([Redaction(("email", "card"))])
FEW = Bounds(request_content=10)
FORBIDDEN = policy("rules: [{name: no, when: 'request.content.contains(\"launch\")', terminate: {}}]")
REDACT = policy("rules: [{name: hide, constrain: {redact: {detectors: [email, card], in: [request]}}}]")


def redacted(document: Any, dialect: str = "openai.chat") -> Any:
    body = json.dumps(document).encode()
    return json.loads(splice(body, ContentRedactor(SEARCH).edits(document, request_structure(dialect))))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("plain joe@example.org", "plain [redacted]"),
        (r'{"a": "joe\u0040example.org", "b": "x\ty"}', r'{"a": "[redacted]", "b": "x\ty"}'),
        (r'{"a": "{\"b\": \"joe\\u0040example.org\"}"}', r'{"a": "{\"b\": \"[redacted]\"}"}'),
        (r'"joe\u0040example.org"', '"[redacted]"'),
        ('{"card": 4111111111111111}', '{"card": "[redacted]"}'),
        ('{"joe@example.org": 1}', '{"[redacted]": 1}'),
        ('{"joe@example.org": "\\n"}', '{"[redacted]":"\\n"}'),
        (r'{"joe\u0040example.org": [{"n": 4111111111111111}]}', '{"[redacted]":[{"n":"[redacted]"}]}'),
        (r'{"n": [4111111111111111, 1.5, true, "\t"]}', r'{"n": ["[redacted]", 1.5, true, "\t"]}'),
        ('{"a": "joe@example.org', '{"a": "[redacted]'),
        ('{"a": "joe@example.org", "a": "x\\n"}', '{"a": "[redacted]", "a": "x\\n"}'),
        (b64encode(b"mail joe@example.org").decode(), b64encode(b"mail [redacted]").decode()),
        (
            "data:text/plain;base64," + b64encode(b"mail joe@example.org").decode(),
            "data:text/plain;base64," + b64encode(b"mail [redacted]").decode(),
        ),
    ],
)
def test_a_string_is_redacted_as_its_reader_reads_it(before: str, after: str) -> None:
    assert redacted({"prompt": before}) == {"prompt": after}


def test_what_replaces_a_find_may_match_again() -> None:
    search = ContentRedactor(redactors([Redaction((), ("a",), replacement="[redacted]")]))
    assert search.text("a\\b") == "[redacted]\\b"
    assert search.text('{"b": "a\\n"}') == '{"b": "[redacted]\\n"}'


@pytest.mark.parametrize(
    "document",
    [
        {"metadata": {MAIL: "x"}},
        {MAIL: "x"},
        {"prompt": r'{"joe\u0040example.org": 1, "ann@example.org": 2}'},
        {"prompt": r'{"a": "joe\u0040example.org'},
        {"prompt": r'{"a": "joe\u0040example.org", "a": 1}'},
    ],
)
def test_a_find_that_cannot_be_edited_refuses_the_call(document: Any) -> None:
    with pytest.raises(Malformed):
        redacted(document)
    sent = Bed(REDACT).call(body=json.dumps({"model": "m", "messages": [], **document}).encode())
    assert sent.rejected is not None
    assert sent.rejected.status == 503
    assert sent.sent is None


def test_known_or_unknown_no_field_keeps_a_find() -> None:
    body = {
        "model": "gpt-4o",
        "user": MAIL,
        "metadata": {"who": MAIL},
        "x_new": [{"deep": {"er": f"<{MAIL}>"}}],
        "messages": [
            {"role": f"user {MAIL}", "name": MAIL, "tool_call_id": MAIL, "content": [{"type": "new", "say": MAIL}]},
            {"role": "assistant", "reasoning_content": MAIL, "tool_calls": [{"id": "call_1", "function": {
                "name": "f", "arguments": '{"to": "joe\\u0040example.org"}'}}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": MAIL, "parameters": {
            "properties": {"a": {"default": CARD}}}}}],
    }  # fmt: skip
    sent = Bed(REDACT).call(body=json.dumps(body).encode())
    assert sent.sent is not None
    for trace in (b"joe", CARD.encode()):
        assert trace not in sent.sent
    assert json.loads(sent.sent)["messages"][1]["tool_calls"][0]["id"] == "call_1"


@pytest.mark.parametrize(
    "more",
    [
        {"user": "launch"},
        {"metadata": {"launch": "x"}},
        {"messages": [{"role": "user", "content": "hi", "x": "launch"}]},
        {"messages": [{"role": "user", "content": [{"type": "new", "new": {"x": "launch"}}]}]},
        {"messages": [{"role": "user", "tool_calls": [{"function": {"arguments": r'{"a": "l\u0061unch"}'}}]}]},
        {"stop": ["launch"]},
    ],
)
def test_a_rule_on_content_sees_every_string(more: dict[str, Any]) -> None:
    bed = Bed(FORBIDDEN)
    assert bed.call(body=chat("hi")).rejected is None
    assert bed.call(body=chat("hi", **more)).rejected is not None


def test_content_beyond_its_bound_cannot_be_judged() -> None:
    bed = Bed(FORBIDDEN, bounds=Bounds(request_content=100))
    assert bed.call(body=chat("x" * 90)).rejected is None
    sent = bed.call(body=chat("x" * 101))
    assert sent.rejected is not None
    assert sent.rejected.status == 503
    assert "more than 100 characters of content (bound request_content)" in sent.record.rules[0].reason


def test_content_is_found_only_where_an_expression_reads_it() -> None:
    bed = Bed(
        policy("rules: [{name: no, when: 'request.text.contains(\"launch\")', terminate: {}}]"),
        bounds=FEW,
    )
    assert bed.call(body=chat("x" * 101)).rejected is None
    for spec in (
        "matchConditions: [{name: c, expression: 'request.content.size() < 5'}]\nrules: [{name: r, terminate: {}}]",
        "counters: [{name: n, key: request.content, charge: Requests, window: {idle: 1h}, limit: 9 requests}]\n"
        "rules: [{name: r, when: counters.n.exceeded, terminate: {}}]",
        "rules: [{name: r, when: 'request.content.contains(response.text)', terminate: {}}]",
    ):
        sent = Bed(policy(spec), bounds=FEW).call(body=chat("x" * 101))
        assert sent.rejected is not None, spec
        assert sent.rejected.status == 503, spec
    sent = Bed(policy("rules: [{name: r, terminate: {messageExpression: request.content}}]"), bounds=FEW).call(
        body=chat("x" * 101)
    )
    assert sent.rejected is not None
    assert sent.rejected.status == 403  # an expression that fails leaves the plain text


NEVER = policy("rules: [{name: no, when: 'request.text == \"never\"', terminate: {}}]")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": [{"role": "user", "Content": "hi"}]}),
        ("/api/chat", {"messages": [{"role": "user", "content": "a", "Content": "b"}]}),
        ("/api/chat", {"messages": [], "options": {"Num_Predict": 5}}),
        ("/api/generate", {"prompt": "hi", "Template": "x"}),
        ("/mcp", {"method": "tools/call", "params": {"name": "f", "Arguments": {"a": 1}}}),
        ("/mcp", [{"method": "tools/call", "params": {"Name": "f"}}]),
        ("/v1/chat/completions", {"messages": [], "Tools": []}),
        ("/v1/chat/completions", {"messages": [], "Max_Tokens": 5}),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "text", "TEXT": "hi"}]}]}),
    ],
)
def test_a_known_field_in_another_case_cannot_be_judged(path: str, body: Any) -> None:
    sent = Bed(NEVER).call(body=json.dumps(body).encode(), path=path)
    assert sent.rejected is not None
    assert sent.rejected.status == 503


def test_a_caller_may_name_the_members_of_its_own_maps_as_it_likes() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"Content": {}, "Role": {}}}}}
    body = chat("hi", metadata={"Model": "x", "Content": "y"}, tools=[tool], x_new={"Content": 1})
    assert Bed(NEVER).call(body=body).rejected is None
