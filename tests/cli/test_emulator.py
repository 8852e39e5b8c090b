"""The emulator speaks as the providers do, and its ledger tells what happened."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing

import anthropic
import openai
import pytest

from policyd.cli.emulator import Call, Emulator, RawAnswer, running

ASK = [{"role": "user", "content": "hello"}]


@pytest.fixture
def provider() -> Iterator[Emulator]:
    emulator = Emulator("openai")
    with running(emulator):
        yield emulator


def request(provider: Emulator, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
    sent = {f"x-emulate-{name.replace('_', '-')}": value for name, value in headers.items()}
    with closing(http.client.HTTPConnection("127.0.0.1", provider.port, timeout=10)) as link:
        link.request(method, path, None if body is None else json.dumps(body), sent)
        with link.getresponse() as answer:
            return answer.status, answer.read()


def chat(provider: Emulator, body: dict[str, object], **headers: str) -> tuple[int, bytes]:
    return request(provider, "POST", "/v1/chat/completions", {"model": "m", "messages": ASK, **body}, **headers)


def events(data: bytes) -> list[str]:
    return [block.split("data: ", 1)[1] for block in data.decode().split("\n\n") if block]


def last(provider: Emulator) -> Call:
    return provider.calls[-1]


def test_openai_sdk_reads_both_shapes(provider: Emulator) -> None:
    with openai.OpenAI(base_url=provider.url + "/v1", api_key="k") as client:
        whole = client.chat.completions.create(model="gpt-4o", messages=ASK)  # type: ignore[arg-type]
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage
        with client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True) as stream:  # type: ignore[arg-type]
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole.choices[0].message.content
    assert last(provider).credentials == ["authorization"]
    assert last(provider).output_tokens == whole.usage.completion_tokens


def test_anthropic_sdk_reads_both_shapes(provider: Emulator) -> None:
    with anthropic.Anthropic(base_url=provider.url, api_key="k") as client:
        whole = client.messages.create(model="c", max_tokens=50, messages=ASK)  # type: ignore[arg-type]
        headers = {"x-emulate-tool": "get_weather", "x-emulate-text": "hi%20there"}
        with client.messages.stream(model="c", max_tokens=50, messages=ASK, extra_headers=headers) as stream:  # type: ignore[arg-type]
            message = stream.get_final_message()
    assert whole.stop_reason == "end_turn"
    assert [block.type for block in message.content] == ["text", "tool_use"]
    assert message.stop_reason == "tool_use"
    assert last(provider).credentials  # x-api-key, or since 2026 a bearer token


def test_max_tokens_stops_the_answer(provider: Emulator) -> None:
    _, data = chat(provider, {"max_tokens": 3}, events="10")
    answer = json.loads(data)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_usage_comes_only_when_asked_for(provider: Emulator) -> None:
    _, bare = chat(provider, {"stream": True}, events="2")
    _, asked = chat(provider, {"stream": True, "stream_options": {"include_usage": True}}, events="2")
    assert not any('"usage"' in event for event in events(bare))
    assert json.loads(events(asked)[-2])["usage"]["completion_tokens"] == 2
    assert json.loads(events(asked)[0])["usage"] is None


def test_tool_call_is_streamed_in_fragments(provider: Emulator) -> None:
    _, data = chat(provider, {"stream": True}, tool="look", arguments='{"a": "0123456789"}')
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events(data)[:-1]]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["function"]["name"] == "look"
    assert "".join(call["function"]["arguments"] for call in calls) == '{"a": "0123456789"}'


@pytest.mark.parametrize(
    ("path", "body", "status", "where"),
    [
        ("/v1/chat/completions", {"messages": ASK}, 400, "model"),
        ("/v1/messages", {"model": "c", "messages": ASK}, 400, "max_tokens"),
        ("/v1/messages", [], 400, "object"),
        ("/nowhere", {}, 404, "/nowhere"),
    ],
)
def test_wrong_requests_get_the_providers_error(
    provider: Emulator, path: str, body: object, status: int, where: str
) -> None:
    got, data = request(provider, "POST", path, body)
    assert got == status
    assert where in json.loads(data)["error"]["message"]


def test_emulated_status(provider: Emulator) -> None:
    status, data = chat(provider, {}, status="429")
    assert (status, json.loads(data)["error"]["type"]) == (429, "rate_limit_error")


def test_malformed_event(provider: Emulator) -> None:
    _, data = chat(provider, {"stream": True}, events="3", malformed_at="2")
    assert events(data)[2] == "{broken"


def test_same_request_same_bytes(provider: Emulator) -> None:
    assert chat(provider, {"stream": True}) == chat(provider, {"stream": True})


def test_raw_answer_is_replayed(provider: Emulator) -> None:
    provider.raw["a"] = RawAnswer(207, (("content-type", "x/y"), ("content-length", "99")), (b"one", b"two"))
    assert request(provider, "PUT", "/any", raw="a") == (207, b"onetwo")
    assert request(provider, "GET", "/any", raw="b")[0] == 404


def test_break_at_breaks_the_stream(provider: Emulator) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        chat(provider, {"stream": True}, events="30", break_at="3")
    assert last(provider).events == 3


def read_some(provider: Emulator, until: bytes, **headers: str) -> None:
    """Reads a stream until `until` has come, then goes away."""
    body = json.dumps({"model": "m", "messages": ASK, "stream": True}).encode()
    lines = "".join(f"x-emulate-{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
    with socket.create_connection(("127.0.0.1", provider.port), 10) as link:
        link.sendall(head.encode() + body)
        seen = b""
        while until not in seen:
            seen += link.recv(65536)


@pytest.mark.parametrize("headers", [{"events": "500", "interval_ms": "5"}, {"events": "500", "silent_after": "2"}])
def test_ledger_knows_that_the_peer_left(provider: Emulator, headers: dict[str, str]) -> None:
    read_some(provider, b"the", **headers)
    for _ in range(1000):
        call = json.loads(request(provider, "GET", "/ledger")[1])["calls"][0]
        if call["closed_early"]:
            break
    assert call["closed_early"]
    assert not call["finished"]
    assert 2 <= call["events"] < call["planned"]
    assert call["output_tokens"] == call["events"] - 1


def test_keeps_its_connection(provider: Emulator) -> None:
    link = http.client.HTTPConnection("127.0.0.1", provider.port, timeout=10)
    for _ in range(3):
        link.request("GET", "/v1/models")
        assert json.load(link.getresponse())["object"] == "list"
    link.close()
