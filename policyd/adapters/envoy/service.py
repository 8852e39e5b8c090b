"""The ext_proc service: one gRPC stream is one call.

Rule 1: every message is answered once, by what the exchange decided; what it cannot answer ends the stream.
Rule 2: a stream that owes bytes is never ended cleanly. Envoy makes us: it takes a clean end for leave to go on.
Rule 3: while an answer of our own is still possible, a broken call gets one: a filter that fails open would take an
        aborted stream, too, for leave to go on.
Rule 4: however a stream ends, its call is told so exactly once.
Rule 5: a stream that will be asked nothing more is ended, unless its answer must stay in reach. Envoy makes us: it
        breaks an answer that nobody reads when the process at the other end of an idle stream dies.
Rule 6: what a change of policies asks of a call is done between two of its messages, never within one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from policyd.adapters.envoy import codec
from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.between import Between
from policyd.adapters.envoy.calls import Calls, Latencies, OpenCall, Tap, Taps
from policyd.adapters.envoy.codec import Kind
from policyd.adapters.envoy.config import PROCESS_METHOD, SERVICE
from policyd.adapters.envoy.declared import deployment_of
from policyd.adapters.envoy.order import Order
from policyd.adapters.envoy.outgoing import BROKEN, Outgoing
from policyd.adapters.envoy.routes import Routes
from policyd.core.model.deployment import Deployments
from policyd.core.model.steps import (
    BodyMode,
    Ended,
    Event,
    Failed,
    PassRequestBody,
    PassResponseHeaders,
    RequestBody,
    RequestHeaders,
    Step,
    Tick,
)

log = logging.getLogger("policyd")

PATIENT_S = 0.9  # whoever leaves earlier was not Envoy, unless its message_timeout is shorter than it should be
_REFUSABLE = frozenset({Kind.REQUEST_HEADERS, Kind.REQUEST_BODY, Kind.RESPONSE_HEADERS, Kind.RESPONSE_BODY})


class _Broken(Exception):  # noqa: N818 - not an error of ours: how a stream is to end
    """End the stream with a status that is not OK."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class _Gone(Exception):  # noqa: N818
    """Envoy does not listen any more."""


def handler(
    calls: Calls,
    latencies: Latencies | None = None,
    taps: Taps | None = None,
    routes: Routes | None = None,
    upstreams: Deployments | None = None,
) -> grpc.GenericRpcHandler:
    """The service, to be added to a grpc.aio server."""
    complained: set[str] = set()

    async def process(_messages: object, stream: Any) -> None:
        await Conversation(calls, stream, complained, latencies, taps, routes, upstreams).hold()

    # Messages are parsed here and not by gRPC, so that a malformed one is judged like any other failure.
    method = grpc.stream_stream_rpc_method_handler(process)
    return grpc.method_handlers_generic_handler(SERVICE, {PROCESS_METHOD: method})


class Conversation:
    """One stream."""

    def __init__(
        self,
        calls: Calls,
        stream: Any,
        complained: set[str],
        latencies: Latencies | None,
        taps: Taps | None,
        routes: Routes | None = None,
        upstreams: Deployments | None = None,
    ) -> None:
        self._upstreams = upstreams
        self._calls, self._clock, self._stream = calls, calls.clock, stream
        self._complained, self._latencies, self._taps, self._routes = complained, latencies, taps, routes
        self._call: OpenCall | None = None
        self._tap: Tap | None = None
        self._order = Order()
        self._out = Outgoing(self._order)
        self._reading: asyncio.Task[Any] | None = None
        self._unsent = False  # the last message did not reach Envoy
        self._since = 0.0  # when the message came that was read last
        self._between = Between(self._meanwhile, lambda: self._out.due, self._clock)

    # ---- life -------------------------------------------------------------------------------------------------------

    async def hold(self) -> None:
        """Hold the conversation to its end."""
        cancelled, broken = True, None
        try:
            await self._converse()
            cancelled = False
        except _Broken as failure:
            broken = failure
            await self._answer_for_upstream(failure)
        except _Gone:
            pass
        finally:
            await self._end(cancelled)
        if broken is not None:
            with contextlib.suppress(grpc.aio.UsageError):
                await self._stream.abort(broken.code, broken.reason)

    async def _end(self, cancelled: bool) -> None:
        self._between.end()
        if self._reading is not None:
            self._reading.cancel()
        if self._call is None and cancelled:
            # Envoy, or its caller, gave the call up before a message of it was read: it has a record all the same.
            await self._handle(Failed("not_read", self._clock(), time.time()))
            self._given_up("before its first message was read")
        elif cancelled and self._out.owed in _REFUSABLE and not self._out.over:
            waited = self._clock() - self._since
            if waited >= PATIENT_S:
                self._given_up(f"after {waited:.1f} s without an answer")
        if self._call is not None:
            await self._handle(Ended(self._clock(), cancelled=cancelled, unsent=self._unsent))

    def _given_up(self, when: str) -> None:
        """Most likely by Envoy, whose message_timeout has passed: only its configuration knows what it did then."""
        if self._latencies is not None:
            self._latencies.given_up()
        log.warning("a call was given up %s: with --fail-open Envoy lets such a call pass unjudged", when)

    async def _answer_for_upstream(self, failure: _Broken) -> None:
        """Envoy makes us (rule 3): as long as no header has left, the call is refused before its stream breaks."""
        if self._out.over or self._out.owed not in _REFUSABLE:
            return
        log.warning("a call is broken before its answer: %s", failure.reason)
        with contextlib.suppress(_Gone):
            await self._send([codec.reject(BROKEN)])

    async def _converse(self) -> None:
        while True:
            if self._between.rung:
                await self._take_up()
            if self._let_go:
                return  # rule 5
            if self._waits_for_more:
                raw = await self._next()
            else:
                self._between.parked = True
                raw = await self._stream.read()
                self._between.parked = False
                if self._between.standing_in is not None:
                    await self._between.come_back(self._between.standing_in)
            if raw is grpc.aio.EOF:
                return
            if raw is None or self._out.over:
                continue
            try:
                await self._receive(raw)
            except (_Broken, _Gone):
                raise
            except Exception:
                await self._defect()

    async def _meanwhile(self) -> None:
        """Whatever there is to do between two messages."""
        try:
            await (self._take_up() if self._between.rung else self._timely(None))
        except _Broken as failure:
            await self._answer_for_upstream(failure)
            await self._stream.abort(failure.code, failure.reason)

    async def _take_up(self) -> None:
        self._between.heard()
        if self._call is None or self._out.over:
            return
        try:
            await self._carry_out(self._call.join())
        except (_Broken, _Gone):
            raise
        except Exception:
            await self._defect()

    @property
    def _let_go(self) -> bool:
        """Whether nothing more will be asked, nor said."""
        return self._order.passed_by and not self._out.over and (not self._order.held or self._calls.leaving)

    async def _defect(self) -> None:
        log.exception("a defect of policyd; the call is judged as one that cannot be judged")
        await self._failed("internal", grpc.StatusCode.INTERNAL)

    @property
    def _waits_for_more(self) -> bool:
        """Whether anything but a message is waited for: an answer of the store, or a time."""
        if self._reading is not None or self._out.due is not None or self._order.held:
            return True
        return self._call is not None and self._call.outstanding is not None and not self._out.over

    async def _next(self) -> Any:
        """The next message, EOF, or None when it was only time for something."""
        outstanding = self._call.outstanding if self._call is not None and not self._out.over else None
        if self._reading is None and not self._out.full:
            self._reading = asyncio.ensure_future(self._stream.read())
        await self._between.wait((self._reading, outstanding), self._out.due)
        if not self._out.over:
            try:
                await self._timely(outstanding)
            except (_Broken, _Gone):
                raise
            except Exception:
                await self._defect()
        if self._reading is None or not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        return reading.result()

    async def _timely(self, outstanding: asyncio.Future[Any] | None) -> None:
        """Whatever it is time for."""
        if self._call is None:
            return
        if outstanding is not None and outstanding.done():
            await self._carry_out(await self._call.deliver())
            self._check_answered()
        now = self._clock()
        await self._send(self._out.timely(now))
        if self._out.wake_at is not None and self._out.wake_at <= now and not self._out.over:
            self._out.wake_at = None
            await self._carry_out(await self._handle(Tick(now)))

    # ---- messages ---------------------------------------------------------------------------------------------------

    async def _receive(self, raw: bytes) -> None:
        began = self._since = self._clock()
        try:
            message = pb.ProcessingRequest.FromString(raw)
        except DecodeError:
            await self._failed("malformed_message", grpc.StatusCode.INVALID_ARGUMENT)
            return
        if not self._order.begun:
            self._look_at_configuration(message)
        kind = codec.kind_of(message)
        if kind is Kind.RESPONSE_BODY and self._order.streaming:
            await self._stream_on(message, began)
        else:
            await self._answer(kind, message, began)
        if self._latencies is not None:
            self._latencies.message(self._clock() - began)

    async def _stream_on(self, message: pb.ProcessingRequest, now: float) -> None:
        """The hot path: more of an answer that streams. Nothing is owed for it: what leaves is what the steps say."""
        chunk = codec.response_chunk(message, now, whole=False)
        self._out.owed, self._out.body_begun = Kind.NOTHING, True
        self._order.body_over = chunk.end
        steps = await self._handle(chunk)
        raw = self._out.straight(steps)
        if raw is None:
            await self._carry_out(steps)
        else:
            await self._write(raw)

    async def _answer(self, kind: Kind, message: pb.ProcessingRequest, now: float) -> None:
        if kind is Kind.RESPONSE_HEADERS and not self._order.begun and codec.is_refusal(message):
            # Envoy's own refusal of a request that never got as far as here: a path that it does not take, or a filter
            # before this one, such as jwt_authn. Envoy 1.40.0 shows us such a refusal, 1.36.4 does not.
            await self._send([codec.pass_response_headers(PassResponseHeaders())])
            return
        whole = self._order.mode is BodyMode.WHOLE
        refused = kind is Kind.RESPONSE_HEADERS and self._order.awaiting_body
        self._out.body_begun = self._out.body_begun or kind is Kind.RESPONSE_TRAILERS
        self._out.owed = Kind.NOTHING if kind is Kind.RESPONSE_BODY and not whole else kind
        if not self._order.take(kind, end=message.response_body.end_of_stream):
            await self._failed("out_of_order", grpc.StatusCode.FAILED_PRECONDITION)
            return
        if refused and await self._refused_by_envoy(now):
            return
        event = self._event(kind, message, now, whole=whole)
        if event is None:
            self._out.owed = Kind.NOTHING
            await self._send([codec.pass_trailers(kind)])
            return
        self._unsent = True  # a call that is given up while it is judged has not left
        await self._carry_out(await self._handle(event))
        self._check_answered()

    def _event(self, kind: Kind, message: pb.ProcessingRequest, now: float, *, whole: bool) -> Event | None:
        """The event that this message is; None for trailers that no rule reads."""
        match kind:
            case Kind.REQUEST_HEADERS:
                route = self._routes.of(message) if self._routes is not None else None
                place = deployment_of(message)
                return codec.request_headers(message, now, time.time(), route, place, self._upstreams)
            case Kind.REQUEST_BODY:
                return codec.request_body(message, now, self._calls.options.max_request)
            case Kind.RESPONSE_HEADERS:
                return codec.response_headers(message, now)
            case Kind.RESPONSE_BODY:
                return codec.response_chunk(message, now, whole=whole, most=self._calls.options.max_request)
            case Kind.RESPONSE_TRAILERS if self._order.mode is BodyMode.STREAM:
                return codec.response_trailers(now)
            case _:
                return None

    async def _refused_by_envoy(self, now: float) -> bool:
        """The answer came though we wait for the request's body: Envoy found it too large, or too slow. The exchange
        says whether we refuse in its place, in the caller's own dialect."""
        self._order.awaiting_body = False
        steps = await self._handle(RequestBody(b"", now, truncated=True))
        await self._carry_out([step for step in steps if not isinstance(step, PassRequestBody)])
        return self._out.over

    def _check_answered(self) -> None:
        outstanding = self._call is not None and self._call.outstanding is not None
        if self._out.owed and not self._out.over and not outstanding:
            raise _Broken(grpc.StatusCode.FAILED_PRECONDITION, f"no answer to {self._out.owed}")

    async def _failed(self, reason: str, code: grpc.StatusCode) -> None:
        """Something around the call failed: the exchange says what becomes of it; what it leaves open is broken."""
        await self._carry_out(await self._handle(Failed(reason, self._clock(), time.time())))
        if not self._out.over:
            raise _Broken(code, reason)

    async def _handle(self, event: Event) -> Sequence[Step]:
        if self._call is None:
            self._call = self._calls.open()
            self._call.wake = self._between.ring
        if self._taps is not None:
            self._let_see(event, self._taps)
        return await self._call.handle(event)

    def _let_see(self, event: Event, taps: Taps) -> None:
        if isinstance(event, RequestHeaders):
            self._tap = taps.begin(event)
        elif self._tap is not None:
            if isinstance(event, Ended) and self._call is not None:
                self._tap.estimated_by(self._call.rates, self._call.id)
            self._tap.see(event)

    def _look_at_configuration(self, message: pb.ProcessingRequest) -> None:
        for complaint in codec.complaints(message):
            if complaint not in self._complained:
                self._complained.add(complaint)
                log.error("envoy's ext_proc filter: %s; `policyd envoy bootstrap` prints one that fits", complaint)

    # ---- answers ----------------------------------------------------------------------------------------------------

    async def _carry_out(self, steps: Sequence[Step]) -> None:
        await self._send(self._out.take(steps, self._clock()))
        if self._out.broken and not self._out.over:
            raise _Broken(grpc.StatusCode.ABORTED, self._out.broken)

    async def _send(self, answers: Sequence[pb.ProcessingResponse]) -> None:
        for answer in answers:
            await self._write(answer.SerializeToString())

    async def _write(self, raw: bytes) -> None:
        self._unsent = True  # until it is written: a stream that was given up meanwhile raises here
        try:
            await self._stream.write(raw)
        except grpc.aio.BaseError as failure:
            raise _Gone from failure
        self._unsent = False
