"""Steps become messages: what leaves together, what waits for its time, and which answer is still owed.

Rule 1: nothing overtakes: what has no time of its own waits behind what has one.
Rule 2: nothing follows an end, be it the last byte, the trailers or an answer of our own.
Rule 3: no byte leaves before Envoy has sent one of the answer's body: it would take it for spurious, and where it fails
open let the answer pass unjudged from there. An answer that is to end earlier is broken.
Rule 4: no gRPC and no clock in here: callers bring `now` and send what they get.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from policyd.adapters.envoy import codec
from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.codec import Kind
from policyd.adapters.envoy.config import STREAM_CHUNK
from policyd.adapters.envoy.order import Order
from policyd.core.model.decision import DecisionRecord
from policyd.core.model.steps import (
    Break,
    Extend,
    PassRequestBody,
    PassRequestHeaders,
    PassResponseBody,
    PassResponseHeaders,
    PassTrailers,
    Record,
    Reject,
    Release,
    Settle,
    Step,
    Tell,
    WakeAt,
)

_ERROR = {
    "message": "The call could not be evaluated, so it was stopped.",
    "type": "server_error",
    "code": "policy_error",
}
BROKEN = Reject(503, (("content-type", "application/json"),), json.dumps({"error": _ERROR}).encode())
MAX_QUEUED = 1 << 20  # bytes that wait for their pace; above it nothing more is read


@dataclass(slots=True)
class Outgoing:
    """One call's answers. Times are monotonic seconds."""

    order: Order
    owed: Kind = Kind.NOTHING  # the message that still waits for its answer
    body_begun: bool = False  # Envoy has sent something of a streamed answer's body, and so listens for more
    over: bool = False  # the answer is complete: nothing that comes matters any more
    broken: str = ""  # why the call is to be broken
    wake_at: float | None = None
    _queue: deque[tuple[float, Release | PassTrailers]] = field(default_factory=deque)
    _queued: int = 0  # bytes
    _record: DecisionRecord | None = None  # to be told to Envoy's access log with the last answer

    @property
    def full(self) -> bool:
        """Envoy makes us: in this mode it holds nothing back for a slow peer, so what waits here must be bounded."""
        return self._queued >= MAX_QUEUED

    @property
    def due(self) -> float | None:
        """When something is to be done next, if nothing comes before."""
        if self.over:
            return None
        if not self._queue:
            return self.wake_at
        first = self._queue[0][0]
        return first if self.wake_at is None else min(first, self.wake_at)

    def take(self, steps: Sequence[Step], now: float) -> list[pb.ProcessingResponse]:
        """The messages that these steps are, as far as it is time for them."""
        answers: list[pb.ProcessingResponse] = []
        pieces: list[Release] = []
        for step in steps:
            if not isinstance(step, Release):
                self._flush(pieces, answers)
                self._do(step, answers)
            elif step.hurry:
                pieces += self._waiting()
                pieces.append(step)
            elif not self._delayed(step, now):
                pieces.append(step)
        self._flush(pieces, answers)
        return self._with_record(answers)

    def straight(self, steps: Sequence[Step]) -> bytes | None:
        """The hot path: what these steps are, serialised, when they are bytes for one message and nothing more; None
        when there is anything else to it, and `take` has to see to it."""
        if len(steps) != 1 or self._queue or self._record is not None or self.over:
            return None
        only = steps[0]
        if type(only) is not Release or only.end or only.at is not None or not 0 < len(only.data) <= STREAM_CHUNK:
            return None
        return codec.streamed(only.data)

    def timely(self, now: float) -> list[pb.ProcessingResponse]:
        """The messages whose time has come."""
        answers: list[pb.ProcessingResponse] = []
        pieces: list[Release] = []
        while self._queue and self._queue[0][0] <= now and not self.over:
            _, step = self._queue.popleft()
            if isinstance(step, Release):
                self._queued -= len(step.data)
                pieces.append(step)
            else:
                self._flush(pieces, answers)
                self._do(step, answers)
        self._flush(pieces, answers)
        return self._with_record(answers)

    def _delayed(self, step: Release, now: float) -> bool:
        if not self._queue and (step.at is None or step.at <= now):
            return False
        last = self._queue[-1][0] if self._queue else 0.0
        self._queue.append((max(step.at or 0.0, last), step))
        self._queued += len(step.data)
        return True

    def _waiting(self) -> list[Release]:
        waiting = [step for _, step in self._queue if isinstance(step, Release)]
        self._queue.clear()
        self._queued = 0
        return waiting

    def _flush(self, pieces: list[Release], answers: list[pb.ProcessingResponse]) -> None:
        if not pieces or self.over:
            return
        together = pieces[0] if len(pieces) == 1 else codec.joined(pieces)
        sent = codec.release(together.data, end=together.end)
        spurious = bool(sent) and not self.body_begun
        answers.extend([codec.reject(BROKEN)] if spurious else sent)  # its headers have left: Envoy resets the stream
        self.over = together.end or spurious
        pieces.clear()

    def _do(self, step: Step, answers: list[pb.ProcessingResponse]) -> None:
        if isinstance(step, Record | Tell):
            self._record = step.record if isinstance(step.record, DecisionRecord) else None
        if self.over:
            return
        match step:
            case PassRequestHeaders():
                self.order.awaiting_body = step.want_body
                self._pay(codec.pass_request_headers(step), answers)
            case PassRequestBody():
                self._pay(codec.pass_request_body(step), answers)
            case PassResponseHeaders():
                self.order.mode, self.order.held = step.mode, step.held
                self._pay(codec.pass_response_headers(step), answers)
            case PassResponseBody():
                self._pay(codec.pass_response_body(step), answers)
            case PassTrailers():
                self._trailers(step, answers)
            case Reject():
                self._pay(codec.reject(step), answers)
                self.over = True
            case WakeAt():
                self.wake_at = step.at
            case Break(refused=True):
                self._queue.clear()
                answers.append(codec.reject(BROKEN))  # its headers have left: Envoy resets the stream, failing open too
                self.over = True
            case Break():
                self.broken = self.broken or step.reason
            case Settle() | Extend() | Tell() | Record() | Release():
                pass

    def _pay(self, answer: pb.ProcessingResponse, answers: list[pb.ProcessingResponse]) -> None:
        answers.append(answer)
        self.owed = Kind.NOTHING

    def _trailers(self, step: PassTrailers, answers: list[pb.ProcessingResponse]) -> None:
        self.owed = Kind.NOTHING
        if self._queue:
            self._queue.append((self._queue[-1][0], step))
            return
        answers.append(codec.pass_trailers(Kind.RESPONSE_TRAILERS))
        self.over = True

    def _with_record(self, answers: list[pb.ProcessingResponse]) -> list[pb.ProcessingResponse]:
        if answers and self._record is not None and not self._queue:
            codec.attach(answers[-1], codec.record_facts(self._record))
            self._record = None
        return answers
