"""A network between policyd and an API server that breaks watches in the middle of an event, by the byte.

It speaks plain HTTP to policyd and TLS to the server, so that what it cuts are the events themselves, not TLS records
which the other side would throw away whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.envoy.harness import free_port
from tests.k8s.server import Access

ABORTED, ENDED, STOPPED = "aborted", "ended", "stopped"


@dataclass(slots=True)
class Proxy:
    """Passes on what is asked, one request a connection, and spoils each watch after so many bytes, in one of `ways`:

    aborted: the connection breaks. ended: the answer ends there, as if it were whole. stopped: nothing comes any more,
    though the connection stands and everything that is sent into it is taken.
    """

    access: Access
    chance: random.Random
    ways: tuple[str, ...] = ()  # none: nothing is spoilt
    delay_s: float = 0.0  # of each piece of a watch
    port: int = field(default_factory=free_port)
    spoilt: dict[str, int] = field(default_factory=dict)
    asked: int = 0

    @property
    def way_in(self) -> Access:
        return Access(f"http://127.0.0.1:{self.port}", None, self.access.token)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked += 1
        there, back = await self._server()
        # As HTTP/1.0 the server does not cut its answer into chunks, and ends it by closing.
        back.write(head.replace(" HTTP/1.1\r\n", " HTTP/1.0\r\nconnection: close\r\n", 1).encode())
        pouring = asyncio.create_task(_pour(reader, back))
        try:
            if "watch=1" in head and self.ways:
                await self._spoil(there, writer)
            else:
                await self._relay(there, writer, 1 << 40, self.delay_s if "watch=1" in head else 0.0)
        finally:
            pouring.cancel()
            back.transport.abort()
            writer.close()

    async def _server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.access.url.removeprefix("https://").rpartition(":")
        tls = ssl.create_default_context(cafile=str(self.access.ca))
        return await asyncio.open_connection(host, int(port), ssl=tls)

    async def _relay(
        self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int, delay_s: float
    ) -> None:
        while most > 0 and (piece := await there.read(min(most, self.chance.randint(1, 4000)))):
            most -= len(piece)
            await asyncio.sleep(delay_s)
            writer.write(piece)
            await writer.drain()

    async def _spoil(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = self.chance.choice(self.ways)
        await self._relay(there, writer, self.chance.randint(400, 6_000), self.delay_s)
        self.spoilt[way] = self.spoilt.get(way, 0) + 1
        match way:
            case "aborted":
                writer.transport.abort()
            case "stopped":
                await asyncio.sleep(60)
            case _:
                pass  # closed by whoever called: the answer's end


async def _pour(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        to.write(data)


@contextlib.asynccontextmanager
async def proxied(access: Access, seed: int = 1) -> AsyncIterator[Proxy]:
    """One before this server."""
    proxy = Proxy(access, random.Random(seed))
    serving: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            await proxy.serve(reader, writer)
        serving.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", proxy.port)
    try:
        yield proxy
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
