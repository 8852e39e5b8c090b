"""The data plane, put together: policies, counters, prices and sinks around one enforcer behind gRPC.

Rule 1: it starts with a good policy set or not at all; from then on a bad one changes nothing.
Rule 2: on SIGTERM it says so first (health, /readyz), lets running calls finish, and loses no record.
Rule 3: a log line never holds what a caller sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from policyd.adapters import loop_watch
from policyd.adapters.admin import METRICS, Admin, Answer, Page, text
from policyd.adapters.aside import OutOfSight
from policyd.adapters.capture import Capture
from policyd.adapters.counters_memory import MemoryCounters
from policyd.adapters.envoy.carrying import Carrying, Listening
from policyd.adapters.envoy.config import JUDGING_S, Address, largest_message
from policyd.adapters.envoy.health import NOT_SERVING, SERVING, Health
from policyd.adapters.envoy.routes import Routes
from policyd.adapters.envoy.service import handler
from policyd.adapters.errors import NotAvailable
from policyd.adapters.garbage import look_seldom
from policyd.adapters.identity_watch import IdentityWatch
from policyd.adapters.jsonlines import LineFile, process_file
from policyd.adapters.machine_memory import default_budget, trimmer
from policyd.adapters.prices import load_prices
from policyd.adapters.records import RecordFile, Sinks
from policyd.adapters.reloads import Reload
from policyd.adapters.telemetry import Telemetry
from policyd.adapters.vocabularies import load_vocabularies
from policyd.core.compile.compiler import Compiler
from policyd.core.compile.policyset import PolicySet
from policyd.core.errors import Issue
from policyd.core.exchange.prepared import prepare
from policyd.core.model.decision import Mode
from policyd.core.model.identity import parse_identity
from policyd.enforcer import CounterStore, Deadlines, Enforcer, Memory, RecordSink
from policyd.server.listening import bind_failure, make_way, umask
from policyd.server.settings import Settings
from policyd.server.sources import Source, source_of
from policyd.server.transport import Transport

if TYPE_CHECKING:
    from policyd.adapters.counters_redis import Condition  # half of a tenth of a second that only --redis pays

log = logging.getLogger("policyd")

TRIM_S = 0.2  # seconds after calls have ended
SWITCH_S = (
    0.0005  # how long a thread with a large message keeps the loop waiting; Python's own 5 ms add up in each call
)
_NAMED = 10  # of many policies, on /readyz


@dataclass(slots=True)
class DataPlane:
    """One serving process. `run` returns when it has been told to stop and has drained."""

    settings: Settings
    telemetry: Telemetry = field(default_factory=Telemetry)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""  # where it listens, once it does
    _state: str = "starting"
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _carrying: Carrying = field(init=False)
    _directory: Source = field(init=False)
    _transport: Transport = field(init=False)
    _redis: Callable[[], Condition] | None = None
    _routes: Routes | None = None  # None: policies are about every call, whatever its route
    _preparing: asyncio.Future[None] | None = None  # of the newest policy set
    _changed: Callable[[], None] = lambda: None  # tells running calls of a policy set that came into force

    def __post_init__(self) -> None:
        self._carrying = Carrying(Compiler(fresh=OutOfSight()))
        self._directory = source_of(self.settings, self._carrying, self._reloaded, self._untold)
        self._carrying.again = self._directory.again
        self._transport = Transport(self.settings.tls, self.telemetry)
        if (home := self._directory.home) is not None:
            self._routes = Routes(home, lambda: self._directory.current, self._directory.parents)

    async def run(self) -> None:
        """Serve until told to stop. Raises PolicyError, UnreadableInput or NotAvailable when it cannot start."""
        async with AsyncExitStack() as stack:
            self._transport.start()
            prices = load_prices(self.settings.prices)
            for issue in await self._first():
                log.warning("%s", issue)
            enforcer = Enforcer(
                policies=lambda: self._directory.current,
                counters=self._counters(stack),
                prices=prices,
                sink=self._sink(stack),
                options=replace(self.settings.options, home=self._directory.home),
                vocabularies=load_vocabularies(),
                deadlines=Deadlines(judging_s=JUDGING_S),
                memory=self._memory(),
            )
            self._changed = enforcer.changed
            if loop_watch.wanted():
                watch = loop_watch.LoopWatch()
                self.telemetry.loop(watch.take)
                stack.push_async_callback(_ended, asyncio.create_task(watch.run()))
            if self.settings.redis is not None:
                stack.push_async_callback(_ended, asyncio.create_task(enforcer.keep_leases()))
            self.telemetry.open_calls(lambda: enforcer.open_calls)
            capture = self._capture(stack)
            await stack.enter_async_context(self._admin())
            health = Health()
            await self._prepare()
            server = await self._listening(stack, enforcer, health, capture)
            self._in_force(self._directory.current)
            self._tell_to_stop_on_signals(stack)
            await self._serve(server, enforcer, health)

    async def _first(self) -> tuple[Issue, ...]:
        started = self._directory.start()
        return started if isinstance(started, tuple) else await started

    # ---- parts ------------------------------------------------------------------------------------------------------

    def _counters(self, stack: AsyncExitStack) -> CounterStore:
        if self.settings.redis is None:
            return MemoryCounters(time.time)
        from policyd.adapters.counters_redis import RedisCounters

        counters = RedisCounters(self.settings.redis, state=self.settings.state)
        counters.open()
        stack.push_async_callback(counters.close)
        self._redis = counters.condition
        self.telemetry.redis(
            up=lambda: not counters.condition().away,
            calls=lambda: counters.condition().calls,
            owed=lambda: counters.condition().owed,
            size=lambda: counters.condition().journal,
        )
        return counters

    def _memory(self) -> Memory:
        whole = self.settings.memory or default_budget()
        memory, trim, loop = Memory(whole // self.settings.workers), trimmer(), asyncio.get_running_loop()
        # A moment later, when what has ended is gone; in a thread, for it takes some milliseconds.
        memory.freed = lambda: loop.call_later(TRIM_S, loop.run_in_executor, None, trim)
        self.telemetry.memory(lambda: memory.used)
        return memory

    def _sink(self, stack: AsyncExitStack) -> RecordSink:
        watch = IdentityWatch(parse_identity(self.settings.options.identity))
        if self.settings.records is None:
            return Sinks((self.telemetry, watch))
        lines = LineFile(process_file(self.settings.records, "records"), on_dropped=self.telemetry.records_dropped)
        stack.callback(lines.open().close)
        return Sinks((self.telemetry, watch, RecordFile(lines)))

    def _capture(self, stack: AsyncExitStack) -> Capture | None:
        if self.settings.capture is None:
            return None
        lines = LineFile(process_file(self.settings.capture, "exchanges"), on_dropped=self.telemetry.captures_dropped)
        stack.callback(lines.open().close)
        log.warning("whole exchanges, prompts and answers, are written to %s", lines.path)
        return Capture(lines, on_dropped=self.telemetry.captures_dropped)

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[None]:
        if self.settings.admin is None:
            yield
            return
        admin = Admin(self.pages)
        port = await admin.start(self.settings.admin.host, self.settings.admin.port)
        log.info("admin on %s", Address(self.settings.admin.host, port))
        try:
            yield
        finally:
            await admin.close()

    async def _listening(
        self, stack: AsyncExitStack, enforcer: Enforcer, health: Health, capture: Capture | None
    ) -> grpc.aio.Server:
        largest = largest_message(self.settings.options.max_request)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", largest),
                ("grpc.max_send_message_length", largest),
                ("grpc.so_reuseport", 0),  # two servers on one port would share its calls, and neither would know
                *self._transport.options,
            ]
        )
        calls = handler(enforcer, self.telemetry, capture, self._routes, self._carrying.upstreams)
        services = (Listening(calls, self._carrying.hear), health.handler())
        server.add_generic_rpc_handlers(self._transport.guard(*services))
        self.address = bind(server, self.settings.listen, self._transport.credentials)
        if self.settings.listen.path:
            stack.callback(Path(self.settings.listen.path).unlink, missing_ok=True)
        await server.start()
        return server

    # ---- life -------------------------------------------------------------------------------------------------------

    async def _serve(self, server: grpc.aio.Server, enforcer: Enforcer, health: Health) -> None:
        look_seldom()
        health.tell(SERVING)
        self._state = "ready"
        self.ready.set()
        log.info("listening on %s", self.address)
        watching = [asyncio.create_task(each.watch()) for each in (self._directory, self._transport)]
        try:
            await self.stopping.wait()
        finally:
            for each in watching:
                await _ended(each)
            await self._drain(server, enforcer, health)

    async def _drain(self, server: grpc.aio.Server, enforcer: Enforcer, health: Health) -> None:
        self._state = "draining"
        health.tell(NOT_SERVING)
        log.info("draining: %d calls run, at most %g s", enforcer.open_calls, self.settings.drain_s)
        stop = asyncio.create_task(server.stop(self.settings.drain_s))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.sleep(0)  # it has begun to refuse new calls
        enforcer.leave()
        self.draining.set()
        await asyncio.wait((stop, hurry), return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            await server.stop(0)
        hurry.cancel()
        await stop
        await enforcer.drain()
        log.info("stopped")

    def _tell_to_stop_on_signals(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
            stack.callback(loop.remove_signal_handler, number)

    def stop(self) -> None:
        """Begin to drain; told again, end at once."""
        if self.stopping.is_set():
            self._hurry.set()
        self.stopping.set()

    # ---- policies ---------------------------------------------------------------------------------------------------

    def _in_force(self, policies: PolicySet) -> None:
        count = len(policies.policies)
        self.telemetry.policy_set(policies.digest, count)
        log.info("policy set %s in force: %d policies", policies.digest, count)
        if not count:
            log.warning("the policy set is empty: calls pass without evaluation")
        idle = sum(policy.mode is Mode.MONITOR for policy in policies.policies)
        if idle:
            log.warning("%d of them in Monitor: they enforce nothing", idle)

    async def _prepare(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, prepare, self._directory.current)

    def _reloaded(self, reload: Reload) -> None:
        self.telemetry.reload(reload.result)
        if reload.result == "loaded":
            self._in_force(self._directory.current)
            self._preparing = asyncio.ensure_future(self._prepare())
            self._changed()
        if reload.result == "refused":
            log.error("changed policies refused, %s stays in force: %s", reload.digest, _why(reload))

    def _untold(self) -> str:
        return self._routes.untold if self._routes is not None else ""

    # ---- pages ------------------------------------------------------------------------------------------------------

    @property
    def pages(self) -> Mapping[str, Page]:
        """What can be asked of it, by path."""
        return {"/metrics": self._metrics, "/healthz": _alive, "/readyz": self._ready}

    def _metrics(self) -> Answer:
        return Answer(HTTPStatus.OK, self.telemetry.page(), METRICS)

    def _ready(self) -> Answer:
        if self._state != "ready":
            return text(HTTPStatus.SERVICE_UNAVAILABLE, self._state)
        unready, digest = self._directory.unready, self._directory.current.digest
        words = [
            f"not ready: {unready}; policy set {digest} in force" if unready else f"ready: policy set {digest} in force"
        ]
        if self._directory.refused is not None and not self._directory.refused.lost:
            words.append(f"changed policies refused: {_why(self._directory.refused)}")
        if placeholders := self._directory.placeholders:
            words.append(f"failing by failurePolicy, for no text of them can be read: {_some(placeholders)}")
        if self._directory.away:
            words.append(f"kubernetes: {self._directory.away}: the policies seen last stay in force")
        if untold := self._untold():
            words.append(untold)
        if self._redis is not None:
            words.append(_redis_words(self._redis()))
        words += self._carrying.words + self._transport.words
        return text(HTTPStatus.SERVICE_UNAVAILABLE if unready else HTTPStatus.OK, "\n".join(words))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _alive() -> Answer:
    return text(HTTPStatus.OK, "alive")


def _why(reload: Reload) -> str:
    return reload.failure or "; ".join(map(str, reload.issues))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _redis_words(condition: Condition) -> str:
    """It is ready all the same: what becomes of calls while Redis is away is the policies' `failurePolicy`."""
    state = f"redis: {condition.away}" if condition.away else "redis: in reach"
    owed = f", {condition.owed} settlements are owed" if condition.owed else ""
    return f"{state}{owed}"


# ---- the process ----------------------------------------------------------------------------------------------------


def bind(server: grpc.aio.Server, address: Address, credentials: Any = None) -> str:
    """Listen there, and tell where: port 0 becomes the one that was given. None: plain. Raises NotAvailable."""
    if address.path:
        make_way(Path(address.path))
    try:
        with umask(0o117):  # a socket of mode 0660: Envoy shares a group with us, nobody else gets in
            plain = credentials is None
            port = (
                server.add_insecure_port(str(address)) if plain else server.add_secure_port(str(address), credentials)
            )
    except RuntimeError:
        raise NotAvailable(f"--listen {address}: cannot listen there: {bind_failure(address)}") from None
    return str(address) if address.path else str(Address(address.host, port))


def serve(settings: Settings) -> None:
    """Run one data plane in this process until it is told to stop."""
    run(DataPlane(settings).run())


def run(plane: Coroutine[Any, Any, None]) -> None:
    """Run to its end, on the fast loop where there is one."""
    sys.setswitchinterval(SWITCH_S)
    try:
        import uvloop
    except ImportError:
        asyncio.run(plane)
    else:
        uvloop.run(plane)
