"""`serve --workers N`: one supervisor that serves nothing itself, and N workers with an address each.

Rule 1: it begins with all workers or not at all: the first one that cannot start ends them all with its exit code.
Rule 2: from then on a worker that ends is replaced, at once if it lived well, else after a pause that doubles.
Rule 3: told to stop it tells every worker to drain, and ends when they have, or by force when they are overdue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from policyd.adapters.admin import Admin, Answer, text
from policyd.adapters.envoy.config import Address, addresses
from policyd.adapters.errors import OK, UNAVAILABLE, reason_of
from policyd.server import gathered
from policyd.server.gathered import Told
from policyd.server.link import DRAIN, HURRY, Link, Order, send_order
from policyd.server.settings import Settings

log = logging.getLogger("policyd")

GRACE_S = 10.0  # after the drain time: settlements, and the last lines of records
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0
_STEADY_S = 60.0  # a worker that served this long had a good start


@dataclass(slots=True)
class Worker:
    """A worker's process, and the line to it."""

    number: int
    process: asyncio.subprocess.Process
    link: Link
    listening: asyncio.Task[None]
    begun: float  # by the monotonic clock, seconds

    async def ended(self) -> int:
        """Its exit code, once it is gone; -N after signal N."""
        code = await self.process.wait()
        await asyncio.wait((self.listening,))
        return code

    def drain(self) -> None:
        """One that does not serve yet has nothing to drain."""
        if self.link.ready.is_set():
            self.link.say(DRAIN)
        elif self.process.returncode is None:
            self.process.terminate()

    def kill(self) -> None:
        if self.process.returncode is None:
            log.error("worker %d has not drained in time: killed", self.number)
            self.process.kill()


async def start(order: Order) -> Worker:
    """A new process. Raises OSError when the system has no room for one."""
    ours, theirs = socket.socketpair()
    with theirs:
        send_order(ours, order)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # what lies in the folder that it was started in is no part of it
            *("-m", "policyd.server.worker", str(theirs.fileno())),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # Ctrl-C is for the supervisor, which tells the workers in its own way
        )
    link = Link(*await asyncio.open_connection(sock=ours))
    return Worker(order.number, process, link, asyncio.create_task(link.listen()), time.monotonic())


@dataclass(slots=True)
class Supervisor:
    """Keeps the workers running. `run` returns the exit code when they have all ended."""

    settings: Settings
    grace_s: float = GRACE_S
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _workers: dict[int, Worker] = field(default_factory=dict)
    _replaced: list[int] = field(init=False)
    _code: int = OK

    def __post_init__(self) -> None:
        self._replaced = [0] * self.settings.workers

    async def run(self) -> int:
        """Serve until told to stop. Raises NotAvailable where there is no place for the admin pages, or no process."""
        async with AsyncExitStack() as stack:
            self._tell_to_stop_on_signals(stack)
            await stack.enter_async_context(self._admin())
            begun = await self._begin()
            keep = self._keep if begun else Worker.ended
            running = [asyncio.create_task(keep(worker)) for worker in tuple(self._workers.values())]
            if begun:
                log.info("%d workers serve", len(running))
            await self.stopping.wait()
            await self._drain(running)
        return self._code

    async def _begin(self) -> bool:
        """Start them all: the first one alone, so that what is wrong with the policies is said once."""
        for numbers in (range(1), range(1, self.settings.workers)):
            try:
                started = [await self._start(number) for number in numbers]
            except OSError as error:
                self._fail(f"no room for another worker: {reason_of(error)}", UNAVAILABLE)
                return False
            if not all(await asyncio.gather(*map(self._came_up, started))):
                return False
        return True

    async def _came_up(self, worker: Worker) -> bool:
        ready, over = asyncio.create_task(worker.link.ready.wait()), asyncio.create_task(self.stopping.wait())
        await asyncio.wait((ready, over, worker.listening), return_when=asyncio.FIRST_COMPLETED)
        if not ready.done() and not over.done():
            code = await worker.ended()
            self._fail(f"worker {worker.number} could not start ({_ending(code)})", code)
        ready.cancel()
        over.cancel()
        return not self.stopping.is_set()

    async def _keep(self, worker: Worker) -> None:
        """One worker after another on this one's address."""
        pause = 0.0
        while True:
            code = await worker.ended()
            if self.stopping.is_set():
                return
            pause = next_pause(pause, time.monotonic() - worker.begun)
            log.error("worker %d ended (%s): replaced in %g s", worker.number, _ending(code), pause)
            self._replaced[worker.number] += 1
            if (successor := await self._successor(worker, pause)) is None:
                return
            worker = successor

    async def _successor(self, worker: Worker, pause: float) -> Worker | None:
        """The next one, as soon as there is room for it; None when it is all over before."""
        while not self.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)
                return None
            try:
                return await self._start(worker.number)
            except OSError as error:
                pause = next_pause(pause, 0.0)
                log.error("no room for worker %d: %s: next attempt in %g s", worker.number, reason_of(error), pause)
        return None

    async def _start(self, number: int) -> Worker:
        worker = self._workers[number] = await start(Order(number, self._own(number)))
        if self.stopping.is_set():
            worker.drain()
        return worker

    def _own(self, number: int) -> Settings:
        address = addresses(self.settings.listen, self.settings.workers)[number]
        return replace(self.settings, listen=address, admin=None)

    def _fail(self, why: str, code: int) -> None:
        if not self.stopping.is_set():
            log.error("%s: none serves", why)
            self._code = code if code > 0 else UNAVAILABLE
        self.stopping.set()

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _tell_to_stop_on_signals(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
            stack.callback(loop.remove_signal_handler, number)

    def stop(self) -> None:
        """Let every worker drain; told again, end at once."""
        if self.stopping.is_set():
            for worker in self._workers.values():
                worker.link.say(HURRY)
        self.stopping.set()

    async def _drain(self, running: Sequence[asyncio.Task[Any]]) -> None:
        log.info("draining %d workers, at most %g s", len(running), self.settings.drain_s)
        for worker in self._workers.values():
            worker.drain()
        if running:
            await asyncio.wait(running, timeout=self.settings.drain_s + self.grace_s)
        for worker in self._workers.values():
            worker.kill()
        await asyncio.gather(*running)
        log.info("all workers stopped")

    # ---- pages ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[None]:
        place = self.settings.admin
        if place is None:
            yield
            return
        admin = Admin({"/metrics": self._metrics, "/healthz": _alive, "/readyz": self._readiness})
        log.info("admin on %s", Address(place.host, await admin.start(place.host, place.port)))
        try:
            yield
        finally:
            await admin.close()

    async def _metrics(self) -> Answer:
        return gathered.metrics(await self._told("/metrics"))

    async def _readiness(self) -> Answer:
        return gathered.ready(await self._told("/readyz"))

    async def _told(self, path: str) -> list[Told]:
        pages = await asyncio.gather(*(self._page(number, path) for number in range(self.settings.workers)))
        return [Told(page, replaced) for page, replaced in zip(pages, self._replaced, strict=True)]

    async def _page(self, number: int, path: str) -> Answer | None:
        worker = self._workers.get(number)
        if worker is None or worker.process.returncode is not None:
            return None
        return await worker.link.page(path)


def next_pause(before: float, lived_s: float) -> float:
    """Seconds until the next attempt, after a pause of `before` and a life of `lived_s`."""
    if not before or lived_s >= _STEADY_S:
        return _FIRST_PAUSE_S
    return min(_LONGEST_PAUSE_S, 2 * before)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _alive() -> Answer:
    return text(200, "alive")


def supervise(settings: Settings) -> int:
    """Run workers until told to stop; gives the exit code."""
    return asyncio.run(Supervisor(settings).run())
