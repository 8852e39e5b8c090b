"""The small HTTP server behind `--admin`: /metrics, /healthz and /readyz. Not for the outside world.

Rule 1: it reads a request line and nothing else of use; whatever it does not know is 404 or 405.
Rule 2: a peer that says nothing, or too much, is let go.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from policyd.adapters.errors import NotAvailable, reason_of

_PATIENCE_S = 5.0
_TEXT = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"  # what Prometheus reads


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the admin server."""

    status: int
    body: bytes
    content_type: str = _TEXT


Page = Callable[[], Answer | Awaitable[Answer]]
"""What makes a page when it is asked for."""


@dataclass(slots=True)
class Admin:
    """Serves pages by path until closed."""

    pages: Mapping[str, Page]
    _server: asyncio.Server | None = field(default=None, init=False)

    async def start(self, host: str, port: int) -> int:
        """Listen, and tell the port. Raises NotAvailable."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=16 * 1024)
        except OSError as error:
            raise NotAvailable(f"--admin {host}:{port}: cannot listen: {reason_of(error)}") from None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(sent(await self._answer(head), head.startswith(b"HEAD ")))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        except asyncio.CancelledError:  # the process ends: asyncio would print a peer that is let go as a failure
            pass
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> Answer:
        words = head.split(b"\r\n", 1)[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return Answer(HTTPStatus.BAD_REQUEST, b"not HTTP/1\n")
        page = self.pages.get(words[1].split(b"?", 1)[0].decode("latin-1"))
        if page is None:
            return Answer(HTTPStatus.NOT_FOUND, "".join(f"{path}\n" for path in self.pages).encode())
        if words[0] not in (b"GET", b"HEAD"):
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"GET only\n")
        return await read(page)


def sent(answer: Answer, head_only: bool = False) -> bytes:
    """An answer as HTTP/1.1, after which the connection ends."""
    head = (
        f"HTTP/1.1 {int(answer.status)} {HTTPStatus(answer.status).phrase}\r\n"
        f"content-type: {answer.content_type}\r\ncontent-length: {len(answer.body)}\r\n"
        "cache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if head_only else answer.body)


async def read(page: Page) -> Answer:
    """What a page says now."""
    found = page()
    return await found if inspect.isawaitable(found) else found


def text(status: int, words: str) -> Answer:
    """A page of plain words."""
    return Answer(status, f"{words}\n".encode())
