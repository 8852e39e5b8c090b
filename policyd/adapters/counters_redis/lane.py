"""One Redis server, kept in reach: it connects, notices that the server is gone or hangs, and comes back by itself.

Rule 1: a server that is known not to answer costs its callers nothing: they are told at once, and one probe at a time
        goes on behind them.
Rule 2: a server hangs when its oldest answer is overdue. It is back when an answer comes, without a new connection.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio.connection import parse_url

from policyd.adapters.counters_redis.wire import Lost, Refused, Unavailable, Wire, Word

log = logging.getLogger("policyd")

_AWAY = "redis is away"
_BUSY = 3  # attempts to connect while the process is busy with other work
_HANGS = "redis does not answer"
_PROBE_S = 0.1  # between two attempts to reach a server that is gone
_TLS_TRIPS = 4  # a handshake takes more round trips, and some arithmetic; callers do not wait for it
_GIVEN_UP_S = 1.0  # a server that hangs this long gets a new connection: the old one may lead nowhere


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take, seconds."""

    connect_s: float = 0.025
    answer_s: float = 0.05


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is and how it is greeted."""

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    db: int = 0
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"

    def at(self, host: str, port: int) -> Server:
        """Another server of the same cluster."""
        return replace(self, host=host or self.host, port=port, path="")


def server_of(url: str) -> Server:
    """redis://, rediss:// (TLS) or unix://, as redis-py reads them. Raises ValueError."""
    found: Mapping[str, Any] = parse_url(url)
    return Server(
        host=found.get("host", "localhost"),
        port=found.get("port", 6379),
        path=found.get("path", "") if url.startswith("unix:") else "",
        db=int(found.get("db", 0)),
        username=found.get("username") or "",
        password=found.get("password") or "",
        tls=_tls(found) if url.startswith("rediss:") else None,
    )


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
    context.check_hostname = bool(options.get("ssl_check_hostname", True))
    if options.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := options.get("ssl_certfile"):
        context.load_cert_chain(certificate, options.get("ssl_keyfile"))
    return context


class Lane:
    """Commands to one server. Its first caller connects; until `close` it stays in reach of the server."""

    def __init__(self, server: Server, patience: Patience) -> None:
        self.server, self._patience = server, patience
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._why = _AWAY
        self._gone = False  # the last attempt to reach it failed

    @property
    def up(self) -> bool:
        """Whether it can be asked at once."""
        wire = self._wire
        return wire is not None and not wire.closed.is_set() and wire.waiting_s <= self._patience.answer_s

    def state(self) -> str:
        """Why it cannot be asked, as far as is known; empty when it can. Whoever looks has it looked after: what that
        finds is known the next time."""
        wire = self._wire
        if wire is None or wire.closed.is_set():
            self._connect()
            return self._why if self._gone else "not connected yet"
        if wire.waiting_s > self._patience.answer_s:
            return _HANGS
        if not wire.waiting_s:
            wire.ask(("PING",)).add_done_callback(_told)
        return ""

    async def ask(self, *commands: Sequence[Word]) -> bytes:
        """The answer to the last of these commands, which follow one another. Raises Unavailable, Lost, Refused."""
        wire = await self._reached()
        answers = [wire.ask(words) for words in commands]
        try:
            return (await asyncio.gather(*answers))[-1] if len(answers) > 1 else await answers[0]
        finally:
            for answer in answers:
                answer.cancel()

    async def _reached(self) -> Wire:
        wire = self._wire
        if wire is not None and not wire.closed.is_set():
            if wire.waiting_s <= self._patience.answer_s:
                return wire
            if wire.waiting_s > _GIVEN_UP_S:
                wire.abort()
            raise Unavailable(_HANGS)
        if self._gone:
            raise Unavailable(self._why)
        await asyncio.wait((self._connect(),))
        if self._wire is None or self._wire.closed.is_set():
            raise Unavailable(self._why)
        return self._wire

    def _connect(self) -> asyncio.Task[None]:
        """The attempt that goes on, or a new one. Where the last one failed, probes go on: there is none to begin."""
        if self._connecting is None or (self._connecting.done() and not self._gone):
            self._connecting = self._begin(self._attempt())
        return self._connecting

    async def _attempt(self) -> None:
        """Connect, or from now on look behind the callers' backs for when it can be done."""
        try:
            self._wire = await self._greeted_in_time()
            self._gone = False
        except (OSError, TimeoutError, Lost, Refused) as error:
            self._why = _why(error)
            if not self._gone:
                log.error("redis %s is not available: %s", self.server, str(error) or self._why)
                self._gone = True
                self._probing = self._begin(self._probe())

    async def _probe(self) -> None:
        while self._gone:
            await asyncio.sleep(_PROBE_S)
            await self._attempt()
        log.info("redis %s is available again", self.server)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(_tell)
        return task

    async def _greeted_in_time(self) -> Wire:
        """A timeout that comes far too late says that this process was busy, not that the server did not answer: at its
        start a process compiles policies for longer than a connection may take. Then it is tried again."""
        loop = asyncio.get_running_loop()
        for _ in range(_BUSY):
            began = loop.time()
            try:
                return await self._greeted()
            except TimeoutError:
                if loop.time() - began < 2 * self._connect_s:
                    raise
        return await self._greeted()

    @property
    def _connect_s(self) -> float:
        return self._patience.connect_s * (_TLS_TRIPS if self.server.tls else 1)

    async def _greeted(self) -> Wire:
        """A connection on which the server has answered: a frozen one accepts connections, and is not back."""
        loop, server = asyncio.get_running_loop(), self.server
        async with asyncio.timeout(self._connect_s):
            if server.path:
                _, wire = await loop.create_unix_connection(Wire, server.path)
            else:
                _, wire = await loop.create_connection(Wire, server.host, server.port, ssl=server.tls)
        try:
            async with asyncio.timeout(self._patience.answer_s):
                named = wire.ask(("CLIENT", "SETNAME", "policyd"))  # for people; not every user may
                named.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
                await asyncio.gather(*(wire.ask(words) for words in _greeting(server)))
        except BaseException:
            wire.abort()
            raise
        return wire

    async def close(self) -> None:
        """End what goes on."""
        for task in (self._connecting, self._probing):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        if self._wire is not None:
            self._wire.abort()
            await self._wire.closed.wait()


def _greeting(server: Server) -> list[tuple[Word, ...]]:
    words: list[tuple[Word, ...]] = []
    if server.password:
        words.append(("AUTH", *([server.username] if server.username else []), server.password))
    if server.db:
        words.append(("SELECT", str(server.db)))
    return [*words, ("PING",)]


def _why(error: Exception) -> str:
    match error:
        case Refused():
            return error.reason
        case ssl.SSLCertVerificationError():
            return "redis shows a certificate that is not trusted"
        case ssl.SSLError():
            return "redis does not speak TLS as we do"
        case _:
            return _AWAY


def _told(answer: asyncio.Future[bytes]) -> None:
    """An answer that nobody needs, nor its failure: `state` sees by itself what became of the server."""
    if not answer.cancelled():
        answer.exception()


def _tell(task: asyncio.Task[None]) -> None:
    """A defect in connecting must not pass in silence."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("connecting to redis ended: %r", error)
