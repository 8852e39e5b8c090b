"""The upstream of the attacks: a small response for everybody, and the attack's own for a request that names one in
`x-attack`: `python -m bench.attack_upstream PORT`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import signal
import sys

import uvloop

from bench.attack_list import ATTACKS

SMALL = b'{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant",'
SMALL += b'"content":"Hello there."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3}}'
_LENGTH = re.compile(rb"^content-length: *(\d+)\r$", re.MULTILINE | re.IGNORECASE)
_NAMED = re.compile(rb"^x-attack: *(.*?) *\r$", re.MULTILINE | re.IGNORECASE)
_PIECE = 256 << 10


@functools.cache
def response(name: str) -> bytes:
    """The whole response, with its head."""
    attack = ATTACKS.get(name)
    if attack is None or attack.response is None:
        return _head(b"application/json", b"", len(SMALL)) + SMALL
    body = attack.response()
    return _head(attack.kind.encode(), attack.encoding.encode(), len(body)) + body


def _head(kind: bytes, encoding: bytes, length: int) -> bytes:
    coded = b"content-encoding: %s\r\n" % encoding if encoding else b""
    return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n%scontent-length: %d\r\n\r\n" % (kind, coded, length)


async def _serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await _body(reader, head)
            named = _NAMED.search(head)
            data = response(named[1].decode() if named else "")
            for start in range(0, len(data), _PIECE):
                writer.write(data[start : start + _PIECE])
                await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()


async def _body(reader: asyncio.StreamReader, head: bytes) -> None:
    if length := _LENGTH.search(head):
        await reader.readexactly(int(length[1]))
        return
    if b"chunked" not in head.lower():
        return
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()


async def serve(port: int) -> None:
    """Serve there until told to stop."""
    server = await asyncio.start_server(_serve_one, "127.0.0.1", port, limit=64 << 20)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await stopping.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
