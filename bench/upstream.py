"""A provider as lean as Python can make one, so that it is not what is measured: `python -m bench.upstream PORT`.

A request says in its headers what it wants: `x-bench-events` events, `x-bench-burst` of them at once, such bursts
`x-bench-gap` milliseconds apart, the first of them after `x-bench-after` milliseconds. Without a gap they are written
as fast as they are taken. Each event carries the time at which it was written, in nanoseconds of this machine's
monotonic clock, after its only `~`: a single byte is found however the bytes were cut and framed.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from typing import Any

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BEFORE = (
    b'data: {"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012","object":"chat.completion.chunk","created":1730000000,'
    b'"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{"index":0,'
    b'"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"~'
)
MARK = b"~"
AFTER = b'"}\n\n'
LAST = (
    b'data: {"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012","object":"chat.completion.chunk","created":1730000000,'
    b'"model":"gpt-4o-2024-08-06","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
DIGITS = 20
EVENT = len(BEFORE) + DIGITS + len(AFTER)  # bytes
TOGETHER = 32  # events in one write, when there is no gap between them
_WANTED = re.compile(rb"^x-bench-(events|burst|gap|after): *([0-9.]+)\r$", re.MULTILINE | re.IGNORECASE)


def event(now: int) -> bytes:
    """One event that was written now."""
    return b"%s%020d%s" % (BEFORE, now, AFTER)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class Provider(asyncio.Protocol):
    """One connection, one call."""

    def __init__(self) -> None:
        self._head = b""
        self._left, self._burst = 0, 1
        self._gap = self._next = 0.0  # seconds
        self._open = True  # whether more may be written now
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._left = 0
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._open = False

    def resume_writing(self) -> None:
        self._open = True
        if not self._gap:
            self._loop.call_soon(self._flood)

    def data_received(self, data: bytes) -> None:
        """Only what a request's headers ask for matters; its body is not looked at."""
        if self._left:
            return
        self._head += data
        if b"\r\n\r\n" not in self._head:
            return
        wanted = {name.lower(): float(value) for name, value in _WANTED.findall(self._head)}
        self._head = b""
        if not wanted:
            return  # the rest of a body
        self._left, self._gap = int(wanted[b"events"]), wanted.get(b"gap", 0.0) / 1000
        self._burst = int(wanted.get(b"burst", 1))
        self._transport.write(HEAD)
        if self._gap:
            self._next = self._loop.time() + wanted.get(b"after", 0.0) / 1000
            self._timer = self._loop.call_at(self._next, self._pace)
        else:
            self._flood()

    def _pace(self) -> None:
        count = min(self._left, self._burst)
        self._transport.write(chunk(event(time.monotonic_ns()) * count))
        self._left -= count
        self._next += self._gap
        if self._left:
            self._timer = self._loop.call_at(self._next, self._pace)
        else:
            self._end()

    def _flood(self) -> None:
        while self._open and self._left:
            count = min(self._left, TOGETHER)
            self._left -= count
            self._transport.write(chunk(event(time.monotonic_ns()) * count))
            if not self._left:
                self._end()

    def _end(self) -> None:
        self._transport.write(chunk(LAST) + b"0\r\n\r\n")


async def serve(port: int) -> None:
    """Serve there until told to stop."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", port, backlog=1024)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await stopping.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
