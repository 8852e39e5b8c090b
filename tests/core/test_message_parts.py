"""Text that is split over the parts of one message of a request: rules and redaction read the parts together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.core.model.bounds import Bounds
from policyd.core.stream.dialects.content import ANYTHING
from policyd.core.stream.dialects.parts import NEAR, contents, list_of
from tests.driving import Bed, policy

HIDE = policy("rules: [{name: hide, constrain: {redact: {detectors: [card, email, private_key], in: [request]}}}]")
CONTENT = policy("rules: [{name: no, when: 'request.content.contains(\"make plutonium now\")', terminate: {}}]")
TEXT = policy("rules: [{name: no, when: 'request.text.contains(\"make plutonium now\")', terminate: {}}]")
COUNT = policy("rules: [{name: no, when: 'request.detections[\"card\"] == 1', terminate: {}}]")
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----"

Parts = list[str]


def chat(parts: Parts) -> tuple[str, Any]:
    return "/v1/chat/completions", {
        "model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": one} for one in parts]}]
    }  # fmt: skip


def with_image(parts: Parts) -> tuple[str, Any]:
    path, body = chat(parts)
    body["messages"][0]["content"].insert(1, {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}})
    return path, body


def responses(parts: Parts) -> tuple[str, Any]:
    return "/v1/responses", {
        "model": "m",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": one} for one in parts]}
        ],
    }


def anthropic(parts: Parts) -> tuple[str, Any]:
    body = chat(parts)[1]
    return "/v1/messages", {**body, "max_tokens": 9}


def prefill(parts: Parts) -> tuple[str, Any]:
    path, body = anthropic(parts)
    body["messages"][0]["role"] = "assistant"
    return path, {**body, "messages": [{"role": "user", "content": "hi"}, *body["messages"]]}


def system(parts: Parts) -> tuple[str, Any]:
    path, body = anthropic(["hi"])
    return path, {**body, "system": [{"type": "text", "text": one} for one in parts]}


def tool_result(parts: Parts) -> tuple[str, Any]:
    said = [{"type": "text", "text": one} for one in parts]
    result = {"type": "tool_result", "tool_use_id": "t", "content": said}
    return "/v1/messages", {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [result]}]}


def gemini(parts: Parts) -> tuple[str, Any]:
    said = [{"text": one} for one in parts]
    return "/v1beta/models/gemini-2.5-pro:generateContent", {"contents": [{"role": "user", "parts": said}]}


def converse(parts: Parts) -> tuple[str, Any]:
    said = [{"text": one} for one in parts]
    return "/model/amazon.nova-pro-v1%3A0/converse", {"messages": [{"role": "user", "content": said}]}


def cohere(parts: Parts) -> tuple[str, Any]:
    return "/v2/chat", chat(parts)[1]


def completions(parts: Parts) -> tuple[str, Any]:
    return "/v1/completions", {"model": "m", "prompt": parts}


WAYS = [
    chat, with_image, responses, anthropic, prefill, system, tool_result, gemini, converse, cohere, completions
]  # fmt: skip


def called(spec: str, way: Any, parts: Parts) -> Any:
    path, body = way(parts)
    host = "api.cohere.com" if way is cohere else "llm.test"
    return Bed(spec).call(body=json.dumps(body).encode(), path=path, host=host)


def pieces(way: Any, sent: bytes | None, count: int) -> Parts:
    """The texts of the parts as they left."""
    assert sent is not None
    found: Parts = []

    def walk(value: Any, key: Any) -> None:
        if isinstance(value, dict):
            for name, below in value.items():
                walk(below, name)
        elif isinstance(value, list):
            for below in value:
                walk(below, key)
        elif key in ("text", "prompt"):
            found.append(value)

    walk(json.loads(sent), "")
    return found[-count:] if way is not system else found[:count] if len(found) == count else found[-count:]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "parts", [["please make plut", "onium now"], ["make", "", " pluto", "nium now"], list("make plutonium now")]
)
def test_rules_read_the_parts_together(way: Any, parts: Parts) -> None:
    for spec in (CONTENT, TEXT):
        refused = called(spec, way, parts).rejected
        assert refused is not None and refused.status == 403
        assert called(spec, way, ["make plut", "o", "now"]).rejected is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["pay 4111 1111 ", "1111 1111 now"], ["pay [redacted]", " now"]),
        (["pay 4111", "", "111111111111"], ["pay [redacted]", "", ""]),
        (["mail joe@exa", "mple.org, 4111111111111111"], ["mail [redacted]", ", [redacted]"]),
        (["4111111111111111", "joe@example.org", "a"], ["[redacted]", "[redacted]", "a"]),
        ([f"key {KEY[:40]}", f"{KEY[40:]} end"], ["key [redacted]", " end"]),
        ([f"key {KEY[:20]}", KEY[20:50], f"{KEY[50:]} end"], ["key [redacted]", "", " end"]),
        (["nothing", "here"], ["nothing", "here"]),
    ],
)
def test_redaction_finds_what_stands_across_parts(way: Any, before: Parts, after: Parts) -> None:
    assert pieces(way, called(HIDE, way, before).sent, len(after)) == after


@pytest.mark.parametrize("parts", [["pay 4111 1111 ", "1111 1111 now"], ["pay", " 4111111111111111"]])
def test_a_find_counts_once(parts: Parts) -> None:
    assert called(COUNT, chat, parts).rejected is not None
    assert called(COUNT, chat, [*parts, " and 4111111111111111"]).rejected is None


def test_messages_are_no_parts() -> None:
    messages = [{"role": "user", "content": one} for one in ("make plut", "onium now")]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    for spec in (CONTENT, TEXT):
        assert Bed(spec).call(body=body).rejected is None


def test_long_parts_are_joined_at_their_borders() -> None:
    long = "x" * (10 * NEAR)
    read = contents({"content": [{"text": long + "make"}, {"text": " it" + long}]}, ANYTHING, Bounds())
    assert "make it" in read.text
    assert len(read.text) - len(read.plain) < 5 * NEAR


@pytest.mark.parametrize(
    ("path", "list_"),
    [
        (("messages", 0, "content", 1, "text"), ("messages", 0, "content")),
        (("contents", 0, "parts", 1, "text"), ("contents", 0, "parts")),
        (("messages", 0, "content", 1, "guardContent", "text", "text"), ("messages", 0, "content")),
        (("prompt", 0), ("prompt",)),
        (("messages", 0, "content"), None),
        (("messages", 0, "content", 1, "input", "text"), None),
        (("input", 0), None),
        (("text",), None),
        ((), None),
    ],
)
def test_the_list_of_a_part(path: Any, list_: Any) -> None:
    assert list_of(path) == list_
