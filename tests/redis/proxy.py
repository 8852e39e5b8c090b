"""A network between policyd and Redis that does what networks do: it loses answers, breaks off and takes its time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Proxy:
    """Passes everything on to `upstream`, both unix sockets.

    `break_after`: so many of the next answers are lost, and the connection with them: Redis has done what was asked.
    `delay_s`: how long an answer takes.
    """

    path: Path
    upstream: Path
    break_after: int = 0
    delay_s: float = 0.0
    broken: int = 0

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(self.upstream))
        forth = asyncio.create_task(_pour(reader, back))
        try:
            while data := await there.read(65536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.break_after and b"PONG" not in data:
                    self.break_after, self.broken = self.break_after - 1, self.broken + 1
                    break
                writer.write(data)
        finally:
            forth.cancel()
            await asyncio.wait((forth,))
            for each in (writer, back):
                each.transport.abort()


async def _pour(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        to.write(data)
    to.close()


@contextlib.asynccontextmanager
async def proxy(upstream: Path) -> AsyncIterator[Proxy]:
    """A proxy beside the socket of a server."""
    network = Proxy(upstream.with_name("p.sock"), upstream)
    serving: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await network.serve(reader, writer)
        serving.discard(task)

    server = await asyncio.start_unix_server(accept, str(network.path))
    try:
        yield network
    finally:
        server.close()
        for task in tuple(serving):
            task.cancel()
        if serving:
            await asyncio.wait(serving)
        await server.wait_closed()
