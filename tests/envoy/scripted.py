"""Both neighbours of an Envoy, on one background loop: an upstream that tells what reached it, and an ext_proc server
that answers from a script."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.config import PROCESS_METHOD, SERVICE

T = TypeVar("T")
Script = Callable[[pb.ProcessingRequest], Iterable[pb.ProcessingResponse]]
GAP_S = 0.02  # between two events of a stream


class Background:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Does the work there, and waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


# ---- the upstream ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """One request as the upstream saw it, and what became of its answer."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    events: int = 0  # written before the peer went away
    closed_early: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


Answer = Callable[[Seen, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def event(number: int) -> bytes:
    return b"data: %d\n\n" % number


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n%s\r\n"
JSON = b'{"answer": "as the upstream wrote it"}'


async def stream(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, trailer: bytes = b"") -> None:
    """`?n` events, one every GAP_S, until the peer goes away."""
    writer.write(STREAM_HEAD % (b"trailer: x-sum\r\n" if trailer else b""))
    for number in range(int(seen.path.partition("?")[2] or 20)):
        writer.write(chunk(event(number)))
        seen.events += 1
        seen.closed_early = await _gone(reader)
        if seen.closed_early:
            return
    writer.write(b"0\r\n%s\r\n" % trailer)


async def stream_with_trailers(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await stream(seen, reader, writer, b"x-sum: 7\r\n")


async def late_end(_seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """No events, and their end in a segment of its own."""
    writer.write(STREAM_HEAD % b"")
    await _gone(reader)
    writer.write(b"0\r\n\r\n")


async def _gone(reader: asyncio.StreamReader) -> bool:
    """Whether the peer goes away within GAP_S."""
    try:
        return await asyncio.wait_for(reader.read(1), GAP_S) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def fixed(raw: bytes) -> Answer:
    """An answer that is these bytes."""

    async def answer(_seen: Seen, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return answer


ANSWERS: dict[str, Answer] = {
    "/stream": stream,
    "/trailers": stream_with_trailers,
    "/json": fixed(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(JSON), JSON)
    ),
    "/json-chunked": fixed(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        + chunk(JSON)
        + b"0\r\n\r\n"
    ),
    "/big": fixed(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (300_000, b"x" * 300_000)),
    "/empty-late": late_end,
    "/empty": fixed(STREAM_HEAD % b"" + b"0\r\n\r\n"),
    "/204": fixed(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "/zero": fixed(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
}


@dataclass(slots=True)
class Upstream:
    """A tiny HTTP/1.1 server on loopback."""

    name: str
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    server: asyncio.Server | None = None
    connections: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 26)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self.server
        self.server.close()
        for writer in tuple(self.connections):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while request := await _read_request(reader):
                self.seen.append(request)
                try:
                    await ANSWERS[request.path.partition("?")[0]](request, reader, writer)
                finally:
                    request.done.set()
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections.discard(writer)
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    seen = Seen(method, path, headers, b"")
    if seen.header("transfer-encoding"):
        seen.body = await _read_chunks(reader)
    elif length := seen.header("content-length"):
        seen.body = await reader.readexactly(int(length[0]))
    return seen


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while size := int(await reader.readline(), 16):
        pieces.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(pieces)


# ---- the ext_proc server ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Processor:
    """An ext_proc server that answers each message as `script` says and keeps what it was sent."""

    script: Script = lambda _message: ()
    messages: list[pb.ProcessingRequest] = field(default_factory=list)
    port: int = 0
    server: grpc.aio.Server | None = None
    abort: grpc.StatusCode | None = None  # when the script gives nothing

    async def start(self) -> None:
        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        method = grpc.stream_stream_rpc_method_handler(
            self._process, pb.ProcessingRequest.FromString, pb.ProcessingResponse.SerializeToString
        )
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {PROCESS_METHOD: method}),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()

    async def stop(self) -> None:
        assert self.server
        await self.server.stop(None)

    @property
    def kinds(self) -> list[str | None]:
        """Which messages came, in order."""
        return [message.WhichOneof("request") for message in self.messages]

    async def _process(self, _requests: object, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            self.messages.append(message)
            answers = tuple(self.script(message))
            for answer in answers:
                await context.write(answer)
            if not answers and self.abort:
                await context.abort(self.abort, "scripted")
