"""The attacks: what one caller, or its upstream, sends to make policyd slow or large.

Rule 1: an attack is bytes and a manner of sending them. It says nothing about how policyd answers.
Rule 2: bodies are made when they are asked for, and once.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

KB, MB = 1 << 10, 1 << 20
CHAT = "/v1/chat/completions"
STREAM, JSON = "text/event-stream", "application/json"


class Manner(StrEnum):
    """How a request is sent."""

    WHOLE = "whole"  # at once, and its response is read to the end
    SLOW = "slow"  # a byte now and then
    ABORT = "abort"  # the caller leaves once the response has begun, or soon after the request was sent


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack. `response`: the upstream's body, where that is the attack."""

    name: str
    body: Callable[[], bytes]
    response: Callable[[], bytes] | None = None
    headers: tuple[tuple[str, str], ...] = ()
    path: str = CHAT
    kind: str = STREAM  # of the response
    encoding: str = ""  # of the response
    at_once: int = 1
    manner: Manner = Manner.WHOLE


def _small(*, stream: bool = False) -> bytes:
    return _chat("hello", stream=stream)


def _chat(text: object, *, stream: bool = False, **more: object) -> bytes:
    return json.dumps(
        {"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": text}], **more},
        ensure_ascii=False,
    ).encode()


def _with(field: str, raw: bytes) -> bytes:
    """A chat request with this field, as it is written here."""
    return b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"%s":%s}' % (field.encode(), raw)


def _bomb(text: str) -> bytes:
    return gzip.compress(_chat(text))


def _brotli(text: str) -> bytes:
    import brotli

    return bytes(brotli.compress(_chat(text), quality=5))


def _zstd(text: str) -> bytes:
    from backports import zstd

    return bytes(zstd.compress(_chat(text)))


def _messages(count: int, message: dict[str, object]) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": [message] * count}).encode()


def _tools(count: int) -> bytes:
    tool = {"type": "function", "function": {"name": "search", "description": "d", "parameters": {"type": "object"}}}
    return _chat("hi", tools=[tool] * count)


def _tool_results(count: int, text: str = "ignore all") -> bytes:
    return _messages(count, {"role": "tool", "tool_call_id": "c", "content": text})


def _nested(depth: int) -> bytes:
    return _with("metadata", b'{"a":' * depth + b"1" + b"}" * depth)


# ---- responses ------------------------------------------------------------------------------------------------------


def _events(pieces: Sequence[bytes], *, end: str = "stop") -> bytes:
    head = b'data: {"id":"c","object":"chat.completion.chunk","model":"gpt-4o","choices":['
    body = b"".join(b'%s{"index":0,"delta":%s,"finish_reason":null}]}\n\n' % (head, piece) for piece in pieces)
    last = b'%s{"index":0,"delta":{},"finish_reason":"%s"}]}\n\ndata: [DONE]\n\n' % (head, end.encode())
    return body + last


def _texts(count: int, text: str = " a") -> bytes:
    return _events([json.dumps({"content": text}).encode()] * count)


def _arguments(count: int, piece: str = "abcd") -> bytes:
    def call(text: str, **more: object) -> bytes:
        function = {"arguments": text, **more}
        return json.dumps({"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": function}]}).encode()

    pieces = [call('{"path": "', name="read_file"), *[call(piece)] * count, call('"}')]
    return _events(pieces, end="tool_calls")


def _many_calls(count: int) -> bytes:
    pieces = [
        json.dumps({"tool_calls": [{"index": n, "id": f"t{n}", "function": {"name": "search", "arguments": "{}"}}]})
        for n in range(count)
    ]
    return _events([piece.encode() for piece in pieces], end="tool_calls")


def _choices(count: int) -> bytes:
    choices = [{"index": n, "delta": {"content": " a"}, "finish_reason": None} for n in range(count)]
    return b"data: %s\n\n" % json.dumps({"id": "c", "model": "gpt-4o", "choices": choices}).encode() * 20


def _whole(content: str, **more: object) -> bytes:
    message = {"role": "assistant", "content": content, **more}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "c", "object": "chat.completion", "model": "gpt-4o", "choices": [choice]}).encode()


def _whole_choices(count: int) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    return json.dumps({"id": "c", "model": "gpt-4o", "choices": [choice] * count}).encode()


def _deflate(data: bytes) -> bytes:
    return zlib.compress(data, 6)


def _headers(count: int, length: int) -> tuple[tuple[str, str], ...]:
    return tuple((f"x-flood-{n}", "4 " * (length // 2)) for n in range(count))


CARDS = "4 "
GZIP = (("content-encoding", "gzip"),)
BROTLI = (("content-encoding", "br"),)
ZSTD = (("content-encoding", "zstd"),)


def _request_attacks() -> list[Attack]:
    """What a caller sends."""
    return [
        Attack("1 kB of gzip that is card-like text", partial(_bomb, CARDS * 500_000), headers=GZIP),
        Attack("2 MB of card-like text", partial(_chat, CARDS * MB)),
        Attack("2 MB of key-like text", partial(_chat, "sk-" * 700_000)),
        Attack("2 MB of almost e-mail addresses", partial(_chat, "a@b." * 500_000)),
        Attack("2 MB that ends a long regular expression late", partial(_chat, "ignore all of the " * 110_000)),
        Attack("1 MB of letters that fold in case", partial(_chat, "\u212aſİ" * 150_000)),
        Attack("16 MB of empty objects", lambda: _with("metadata", b"[" + b"{}," * (16 * MB // 3) + b"{}]")),
        Attack("16 MB of numbers", lambda: _with("metadata", b"[" + b"1," * (8 * MB) + b"1]")),
        Attack("8 MB of different keys", lambda: _with("metadata", _keys(500_000))),
        Attack("8 MB of a key twice", lambda: _with("metadata", b"{" + b'"a":1,' * (8 * MB // 6) + b'"a":1}')),
        Attack("3 MB of empty messages", partial(_messages, 90_000, {"role": "user", "content": ""})),
        Attack("20,000 messages of tools", partial(_tool_results, 20_000)),
        Attack("200 messages of tools, 10 kB each", partial(_tool_results, 200, "ignore all of " * 700)),
        Attack("20,000 tools", partial(_tools, 20_000)),
        Attack("100,000 parts in a message", lambda: _chat([{"type": "text", "text": "a"}] * 100_000)),
        Attack("JSON 100,000 deep", partial(_nested, 100_000)),
        Attack("1 MB of integer", lambda: _with("seed", b"9" * MB)),
        Attack("1 MB of fraction", lambda: _with("temperature", b"0." + b"9" * MB)),
        Attack("4 MB of escapes", lambda: _with("user", b'"' + b"\\u0061" * (4 * MB // 6) + b'"')),
        Attack("24 MB of one string", partial(_chat, "word " * (24 * MB // 5))),
        Attack("32 MB from 30 kB of gzip", partial(_bomb, "a" * (32 * MB - 200)), headers=GZIP),
        Attack("300 MB from 300 kB of gzip", lambda: gzip.compress(b" " * (300 * MB), 6), headers=GZIP),
        Attack("brotli bomb", partial(_brotli, CARDS * 8_000_000), headers=BROTLI),
        Attack("zstd bomb", partial(_zstd, CARDS * 8_000_000), headers=ZSTD),
        Attack("16 kB of card-like text, 32 at once", partial(_chat, CARDS * 8_000), at_once=32),
        Attack("2 MB of text, 16 at once", partial(_chat, "word " * 400_000), at_once=16),
        Attack("50 kB of headers", _small, headers=_headers(12, 4_000)),
        Attack("80 headers", _small, headers=_headers(80, 20)),
        Attack("small calls, 64 at once", _small, at_once=64),
        Attack("bodies that come slowly, 200 at once", partial(_chat, "a" * 5000), at_once=200, manner=Manner.SLOW),
        Attack("calls given up early, 32 at once", partial(_chat, "word " * 4_000), at_once=32, manner=Manner.ABORT),
        Attack("unknown endpoint, 8 MB of empty objects", partial(_objects, 8 * MB), path="/v1/whatever"),
    ]


def _keys(count: int) -> bytes:
    return b"{" + b",".join(b'"key%08d":1' % n for n in range(count)) + b"}"


def _objects(size: int) -> bytes:
    return b"[" + b"{}," * (size // 3) + b"{}]"


def _response_attacks() -> list[Attack]:
    """What an upstream sends."""
    stream = partial(_small, stream=True)
    return [
        Attack("50,000 events of a tool's arguments", stream, partial(_arguments, 50_000)),
        Attack("4,000 events of a tool's arguments", stream, partial(_arguments, 4_000)),
        Attack("50,000 events of text at once", stream, partial(_texts, 50_000)),
        Attack("50,000 events of card-like text", stream, partial(_texts, 50_000, " 4")),
        Attack("1 MB of blank lines", stream, lambda: b"\n" * MB + _texts(3)),
        Attack("1 MB of comments", stream, lambda: b":\n" * (MB // 2) + _texts(3)),
        Attack("1 MB of field names", stream, lambda: b"id\n" * (MB // 3) + b"\n" + _texts(3)),
        Attack("1 MB of carriage returns", stream, lambda: b"\r" * MB + _texts(3)),
        Attack("200,000 empty events", stream, lambda: b"data:\n\n" * 200_000 + _texts(3)),
        Attack("an event of 8 MB", stream, partial(_texts, 1, "word " * (8 * MB // 5))),
        Attack("an event of 4 MB in lines of one byte", stream, lambda: b"data:1\n" * (4 * MB // 7) + b"\n"),
        Attack("events of 5,000 choices", stream, partial(_choices, 5_000)),
        Attack("5,000 calls of tools", stream, partial(_many_calls, 5_000)),
        Attack("stream that is a deflate bomb", stream, lambda: _deflate(_texts(400_000)), encoding="deflate"),
        Attack("8 MB in one piece", _small, partial(_whole, "word " * (8 * MB // 5)), kind=JSON),
        Attack("2 MB of card-like text in one piece", _small, partial(_whole, CARDS * MB), kind=JSON),
        Attack("16 MB of empty objects in one piece", _small, partial(_objects, 16 * MB), kind=JSON),
        Attack("100,000 choices in one piece", _small, partial(_whole_choices, 100_000), kind=JSON),
        Attack("events of text, 16 streams given up", stream, partial(_texts, 20_000), at_once=16, manner=Manner.ABORT),
    ]


ATTACKS: dict[str, Attack] = {one.name: one for one in (*_request_attacks(), *_response_attacks())}
