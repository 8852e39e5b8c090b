"""A provider emulator for demonstrations and tests: OpenAI Chat Completions and Anthropic Messages over HTTP/1.1.

Rule 1: loopback only. It is no provider: its answers are made of a dozen words.
Rule 2: what it did stands in its ledger (`GET /ledger`): what reached it, what it sent before its peer went away, what
        a provider would bill for that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, repeat
from types import TracebackType

from policyd.cli.emulator_answers import Answer, BadRequest, Event, Wish, answer, error, models, read_wish
from policyd.core.model.credentials import is_credential

_HEAD_LIMIT = 1 << 20  # bytes of one request's head
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive"})
_NO_BODY = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """A registered answer, sent byte for byte; `stream` frames it as chunks, one write each. With status 0 the chunks
    are all of it, heads included, and the connection's end is its end."""

    status: int
    headers: tuple[tuple[str, str], ...]
    chunks: tuple[bytes, ...]
    stream: bool = True
    tokens: tuple[int, ...] = ()

    @property
    def events(self) -> tuple[Event, ...]:
        pairs = zip(self.chunks, chain(self.tokens, repeat(0)), strict=False)
        return tuple(Event(chunk, tokens) for chunk, tokens in pairs if chunk)


@dataclass(slots=True)
class Call:
    """One call as the upstream saw it. `events` counts what was written before the peer went away."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    status: int = 0
    planned: int = 0  # events of the whole answer
    events: int = 0
    closed_early: bool = False
    finished: bool = False
    input_tokens: int = 0  # billed
    output_tokens: int = 0  # billed: generated so far, read or not

    def header(self, name: str) -> str:
        """The first value of a header, or nothing."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def credentials(self) -> list[str]:
        return sorted({name for name, _ in self.headers if is_credential(name)})

    def to_json(self) -> dict[str, object]:
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in ("body", "headers")}
        body = self.body.decode("utf-8", "replace")
        return {**plain, "headers": self.headers, "body": body, "credentials": self.credentials}


class _Peer(asyncio.StreamReaderProtocol):
    """A stream that also tells, without reading from it, that its peer has gone away."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.gone = asyncio.Event()
        self.writer: asyncio.StreamWriter
        self._reader = reader
        super().__init__(reader, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self.writer = asyncio.StreamWriter(transport, self, self._reader, asyncio.get_running_loop())

    def eof_received(self) -> bool | None:
        self.gone.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        super().connection_lost(exc)


@dataclass(slots=True)
class Emulator:
    """One emulated provider: `async with Emulator("openai") as provider: ...`, or `running(...)` from plain code."""

    name: str = "openai"
    port: int = 0  # 0: a free one
    calls: list[Call] = field(default_factory=list)
    raw: dict[str, RawAnswer] = field(default_factory=dict)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Emulator:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens on loopback; raises OSError when the port is taken."""
        server = await asyncio.get_running_loop().create_server(self._connect, "127.0.0.1", self.port)
        self._server = server
        self.port = server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening and drops every connection."""
        if self._server:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connect(self) -> _Peer:
        return _Connection(self, asyncio.StreamReader(limit=_HEAD_LIMIT))

    def _track(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def respond(self, call: Call) -> tuple[Answer | RawAnswer, Wish]:
        """What to answer, and how. Never raises: a wrong request has its answer too."""
        path = call.path.partition("?")[0]
        try:
            wish = read_wish(dict(call.headers))
            if wish.raw:
                return self.raw.get(wish.raw) or error(path, 404, f"no raw answer {wish.raw}"), wish
            return self._route(call, path, wish), wish
        except BadRequest as problem:
            return error(path, 400, str(problem)), Wish()

    def _route(self, call: Call, path: str, wish: Wish) -> Answer:
        match call.method, path:
            case "GET", "/v1/models":
                return models()
            case "GET", "/ledger":
                return Answer(200, "application/json", self._ledger())
            case "POST", ("/v1/chat/completions" | "/v1/messages"):
                if wish.status != 200:
                    return error(path, wish.status, f"emulated status {wish.status}")
                return answer(path, call.body, wish)
            case _:
                return error(path, 404, f"invalid URL ({call.method} {path})")

    def _ledger(self) -> bytes:
        calls = [call.to_json() for call in self.calls if call.path != "/ledger"]
        return json.dumps({"name": self.name, "calls": calls}).encode()


class _Connection(_Peer):
    """One connection: requests one after another, each with its answer."""

    def __init__(self, emulator: Emulator, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._emulator = emulator

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._emulator._track(asyncio.get_running_loop().create_task(self._serve()))

    async def _serve(self) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while await self._exchange():
                    pass
        finally:
            self.writer.close()

    async def _exchange(self) -> bool:
        """One request and its answer; false when the connection is to end."""
        call = await self._read_call()
        if call is None:
            return False
        self._emulator.calls.append(call)
        reply, wish = self._emulator.respond(call)
        try:
            await self._answer(call, reply, wish)
            call.finished = not call.closed_early
        except ConnectionError:
            call.closed_early = True
        return not call.closed_early and not self.gone.is_set() and call.header("connection") != "close"

    async def _read_call(self) -> Call | None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        parts = first.split(" ")
        if len(parts) != 3:
            return None
        pairs = (line.partition(":") for line in lines)
        headers = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
        call = Call(method=parts[0], path=parts[1], headers=headers)
        call.body = await self._read_body(call)
        return call

    async def _read_body(self, call: Call) -> bytes:
        if call.header("transfer-encoding").lower() != "chunked":
            return await self._reader.readexactly(int(call.header("content-length") or 0))
        body = bytearray()
        while size := int((await self._reader.readline()).partition(b";")[0], 16):
            body += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        while await self._reader.readline() != b"\r\n":
            pass
        return bytes(body)

    async def _answer(self, call: Call, reply: Answer | RawAnswer, wish: Wish) -> None:
        call.status = reply.status
        if isinstance(reply, RawAnswer):
            await self._send_raw(call, reply, wish)
            return
        call.input_tokens = reply.input_tokens
        if reply.events:
            await self._send_stream(call, reply, wish)
            return
        call.output_tokens = reply.output_tokens
        headers = (("content-type", reply.content_type), ("x-emulator", self._emulator.name))
        await self._send_whole(call, headers, reply.body)

    async def _send_raw(self, call: Call, reply: RawAnswer, wish: Wish) -> None:
        if not reply.status:
            self.writer.write(b"".join(reply.chunks))
            await self.writer.drain()
            self.writer.close()
            return
        headers = tuple(pair for pair in reply.headers if pair[0].lower() not in _FRAMING)
        if not reply.stream or reply.status in _NO_BODY or call.method == "HEAD":
            await self._send_whole(call, headers, b"".join(reply.chunks))
            return
        self._write_head(reply.status, (*headers, ("transfer-encoding", "chunked")))
        await self._send_events(call, reply.events, wish)

    async def _send_whole(self, call: Call, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        framing = () if call.status in _NO_BODY else (("content-length", str(len(body))),)
        self._write_head(call.status, (*headers, *framing))
        if call.status not in _NO_BODY and call.method != "HEAD":
            self.writer.write(body)
        await self.writer.drain()

    async def _send_stream(self, call: Call, reply: Answer, wish: Wish) -> None:
        headers = (("content-type", reply.content_type), ("x-emulator", self._emulator.name))
        self._write_head(200, (*headers, ("cache-control", "no-cache"), ("transfer-encoding", "chunked")))
        await self._send_events(call, reply.events, wish)

    async def _send_events(self, call: Call, events: tuple[Event, ...], wish: Wish) -> None:
        """Each event at its own time, counted from the first, so that slow writes do not add up."""
        call.planned = len(events)
        begin = asyncio.get_running_loop().time()
        for start in range(0, len(events), wish.batch):
            if start and await self._gone_before(begin + start * wish.interval_ms / 1000):
                call.closed_early = True
                return
            if wish.break_at is not None and start >= wish.break_at:
                self.writer.transport.abort()
                return
            if wish.silent_after is not None and start >= wish.silent_after:
                await self.gone.wait()
                call.closed_early = True
                return
            self._write_events(call, events[start : start + wish.batch])
            await self.writer.drain()
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def _write_events(self, call: Call, events: tuple[Event, ...]) -> None:
        data = b"".join(event.data for event in events)
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        call.events += len(events)
        call.output_tokens += sum(event.tokens for event in events)

    async def _gone_before(self, deadline: float) -> bool:
        left = deadline - asyncio.get_running_loop().time()
        if left > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.gone.wait(), left)
        return self.gone.is_set()

    def _write_head(self, status: int, headers: tuple[tuple[str, str], ...]) -> None:
        lines = [f"HTTP/1.1 {status} Emulated", *(f"{name}: {value}" for name, value in headers)]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


@contextmanager
def running(*emulators: Emulator) -> Iterator[None]:
    """Runs emulators in a thread of their own, for code that does not await."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="emulator", daemon=True)
    thread.start()
    started: list[Emulator] = []
    try:
        for emulator in emulators:
            asyncio.run_coroutine_threadsafe(emulator.start(), loop).result(10)
            started.append(emulator)
        yield
    finally:
        for emulator in started:
            asyncio.run_coroutine_threadsafe(emulator.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def free_port() -> int:
    """A loopback TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _serve_forever(name: str, port: int) -> None:
    async with Emulator(name, port) as emulator:
        print(f"{name}: {emulator.url}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """`python -m policyd.cli.emulator --port N`."""
    parser = argparse.ArgumentParser(prog="policyd.cli.emulator", description="A provider emulator on loopback.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--name", default="openai", help="what the x-emulator header of its answers says")
    args = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve_forever(args.name, args.port))


if __name__ == "__main__":
    main()
