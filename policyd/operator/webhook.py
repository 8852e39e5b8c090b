"""The validating webhook: HTTPS for the API server alone, one question a connection. Nothing enforces by it.

Rule 1: what is asked is bounded in bytes, what is judged in time; who is late is answered `allowed`, with a warning.
Rule 2: whatever comes, the answer is HTTP, or the connection is let go; nothing ends the server.
Rule 3: one policy is judged at a time: compiling holds the interpreter, and two at once would both be late.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from policyd.adapters.admin import Answer, sent, text
from policyd.adapters.envoy.config import Address
from policyd.adapters.errors import NotAvailable, reason_of
from policyd.adapters.policies_kube.api import Api, Object
from policyd.adapters.tls_files import Pems, Result, TlsFiles, TlsWatch
from policyd.operator.admission import Asked, Beside, NoReview, asked, judged, unjudged

log = logging.getLogger("policyd")

PATH = "/validate"
LARGEST = 8 << 20  # bytes: the API server takes objects of 3 MiB, and sends the one before along
JUDGED_S = 1.5  # the API server waits for 2
MOST_OPEN = 64  # connections: TLS holds a third of a MiB for each
TOGETHER = 8  # bodies held at once
_PATIENCE_S = 5.0
_PARTING_S = 1.0  # for a peer that does not take its leave
_REST_S = 0.1
_HEAD = 16 << 10
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,20})[ \t]*\r\n", re.IGNORECASE)


@dataclass(slots=True)
class Webhook:
    """Serves reviews. `files`: whose certificate; None: one of its own. `serving` around, `watch` beside."""

    address: Address
    api: Api
    beside: Beside
    files: TlsFiles | None = None
    judge: Callable[[Asked, Beside], Object] = judged
    judged_s: float = JUDGED_S
    lasts_s: float = 86_400.0  # a certificate of its own; renewed at half of it
    port: int = 0  # that it listens on
    _tls: ssl.SSLContext = field(default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    _certificate: Any = None  # TlsWatch | OwnCertificate
    _open: set[asyncio.Task[None]] = field(default_factory=set)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_OPEN))
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(TOGETHER))
    _bench: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "webhook"))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen meanwhile. Raises NotAvailable, or UnreadableInput for certificates that are no good."""
        self._start_certificate()
        with self._listening() as listening:
            self.port = int(listening.getsockname()[1])
            log.info("webhook on %s", Address(self.address.host, self.port))
            accepting = asyncio.create_task(self._accept(listening))
            try:
                yield
            finally:
                self._bench.shutdown(wait=False, cancel_futures=True)
                for task in (accepting, *self._open):
                    task.cancel()
                await asyncio.gather(accepting, *self._open, return_exceptions=True)

    def _listening(self) -> socket.socket:
        host, port = self.address.host, self.address.port
        try:
            found = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise NotAvailable(f"--webhook {host}:{port}: cannot listen: {reason_of(error)}") from None
        found.setblocking(False)
        return found

    async def watch(self) -> None:
        """Follow its certificate, for ever."""
        await self._certificate.watch()

    @property
    def failure(self) -> str:
        """What keeps the API server from asking here, or the newest certificate from use."""
        found = self._certificate.refused if self.files else self._certificate.failure
        return str(found)

    # ---- its certificate --------------------------------------------------------------------------------------------

    def _start_certificate(self) -> None:
        if self.files is None:
            from policyd.operator.certificate import LOOK_S, OwnCertificate

            self._certificate = OwnCertificate(self.api, self._present, self.lasts_s, min(LOOK_S, self.lasts_s / 20))
            self._certificate.start()
        else:
            self._certificate = TlsWatch(self.files, self._reloaded)
            self._certificate.start()
            self._present(self._certificate.current)

    def _reloaded(self, result: Result, words: str) -> None:
        if result == "loaded":
            self._present(self._certificate.current)
        else:
            log.error("webhook: changed certificates refused, those before stay in use: %s", words)

    def _present(self, pems: Pems) -> None:
        """New connections get this one."""
        with _as_file(pems.cert + b"\n" + pems.key) as name:
            self._tls.load_cert_chain(name)
        log.info("webhook: certificate good until %s UTC", f"{pems.expires:%Y-%m-%d %H:%M}")

    # ---- connections ------------------------------------------------------------------------------------------------

    async def _accept(self, listening: socket.socket) -> None:
        """Let in as many as there is room for; the others wait with the system, where they cost next to nothing."""
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # such as no file descriptor left
                self._room.release()
                log.warning("webhook: nobody can be let in: %s", reason_of(error))
                await asyncio.sleep(_REST_S)
                continue
            task = asyncio.create_task(self._connected(connection))
            self._open.add(task)
            task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        self._room.release()

    async def _connected(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(_HEAD)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=_PATIENCE_S,
                ssl_shutdown_timeout=_PARTING_S,
            )
        except OSError:  # no TLS, or not in time
            connection.close()
            return
        await self._serve(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    # ---- HTTP -------------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                writer.write(sent(await self._answer(reader)))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # let go; the API server goes by the failurePolicy
        except asyncio.CancelledError:
            pass  # the process ends
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return text(HTTPStatus.BAD_REQUEST, "not HTTP/1")
        if words[1].split(b"?", 1)[0] != PATH.encode():
            return text(HTTPStatus.NOT_FOUND, PATH)
        if words[0] != b"POST":
            return text(HTTPStatus.METHOD_NOT_ALLOWED, "POST only")
        length = _LENGTH.search(head)
        if length is None:
            return text(HTTPStatus.LENGTH_REQUIRED, "content-length is missing")
        if int(length[1]) > LARGEST:
            return text(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LARGEST >> 20} MiB")
        async with self._gate:
            return await self._reviewed(await reader.readexactly(int(length[1])))

    async def _reviewed(self, body: bytes) -> Answer:
        try:
            one = asked(body)
        except NoReview as error:
            return text(HTTPStatus.BAD_REQUEST, str(error))
        try:
            review = await self._in_time(one)
        except Exception:  # whatever it is: the API server goes by the failurePolicy, and the log says what it was
            log.exception("webhook: a question could not be answered")
            return text(HTTPStatus.INTERNAL_SERVER_ERROR, "the review failed")
        return Answer(HTTPStatus.OK, json.dumps(review).encode(), "application/json")

    async def _in_time(self, one: Asked) -> Object:
        judging = asyncio.get_running_loop().run_in_executor(self._bench, self.judge, one, self.beside)
        try:
            return await asyncio.wait_for(judging, self.judged_s)
        except TimeoutError:
            file = one.policy.file if one.policy else ""
            log.warning("webhook: %s: not judged within %s s", file, self.judged_s)
            return unjudged(one)


@contextmanager
def _as_file(pem: bytes) -> Iterator[str]:
    """A file for the ssl module, which takes nothing else: in memory where the system has that, else gone at once."""
    if sys.platform == "linux":
        with os.fdopen(os.memfd_create("policyd"), "wb") as held:
            held.write(pem)
            held.flush()
            yield f"/proc/self/fd/{held.fileno()}"
        return
    with tempfile.NamedTemporaryFile("wb") as pair:
        pair.write(pem)
        pair.flush()
        yield pair.name
