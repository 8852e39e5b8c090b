"""The answer: which way it is read, and what its headers look like when it leaves.

Rule 1: what nobody reads passes by; what could be refused is judged before its headers leave, where it comes in one
        piece, and event by event where it streams.
Rule 2: an answer that cannot be read is judged as such before a byte of it leaves.
"""

from __future__ import annotations

import zlib

from policyd.core.compile.policyset import Phase
from policyd.core.decide.combine import combine
from policyd.core.decide.evaluate import judge
from policyd.core.exchange.call import Call
from policyd.core.exchange.judging import Bench, Touch, may_change_answer, redacts_answer
from policyd.core.exchange.opening import header_map
from policyd.core.exchange.refusal import refuse
from policyd.core.exchange.streaming import Streaming
from policyd.core.exchange.whole import Whole
from policyd.core.model.counters import Readings
from policyd.core.model.decision import Verdict
from policyd.core.model.steps import (
    BodyMode,
    Extend,
    HeaderEdit,
    PassResponseBody,
    PassResponseHeaders,
    PassTrailers,
    Release,
    ResponseChunk,
    ResponseHeaders,
    Step,
)
from policyd.core.stream.framing import framing_of

BODILESS = frozenset({204, 205, 304})
DECODERS = {"gzip": 31, "x-gzip": 31, "deflate": 47}  # zlib's window bits


class Answering:
    """One answer."""

    def __init__(self, call: Call, now: float) -> None:
        self.call = call
        self.began = now
        self.mode = BodyMode.NONE
        self.done = False
        self.ended = "complete"
        self.streaming: Streaming | None = None
        self.whole: Whole | None = None
        self.bench: Bench | None = None
        self.blind = False  # a defect of ours: what could not change anyway passes, and is not read any more
        self._decoder: zlib._Decompress | None = None
        self._read = bytearray()  # of an answer in one piece that passes by
        call.phase = "response"

    @property
    def need(self) -> Extend | None:
        return self.streaming.need if self.streaming else None

    # ---- headers -----------------------------------------------------------------------------------------------------

    def headers(self, event: ResponseHeaders) -> list[Step]:
        call, response = self.call, self.call.facts.response
        headers = header_map(event.headers)
        status = headers.pop(":status", "0")
        response.status = int(status) if status.isdecimal() else 0
        response.headers = headers
        response.input_tokens = call.facts.request.input_tokens
        response.elapsed_ms = (event.now - call.began) * 1000
        response.inspection = "full" if call.dialect else "none"
        call.status = response.status
        call.phase = "request" if call.decision.would is not Verdict.ALLOW else "response"
        if self._judged_headers() is Verdict.TERMINATE:
            return self._refused()
        return self._choose(headers, event)

    def _judged_headers(self) -> Verdict:
        call = self.call
        rules = call.rules_of(Phase.RESPONSE_HEADERS)
        if not rules or call.plan is None:
            return Verdict.ALLOW
        call.meter.refresh(call.world, None)
        judged = judge(call.plan, rules, call.world)
        decision = combine([*call.allows, *judged], call.options.mode, reroutes=False)
        call.add(decision)
        return decision.verdict

    def _choose(self, headers: dict[str, str], event: ResponseHeaders) -> list[Step]:
        call, response = self.call, self.call.facts.response
        bodiless = event.end or response.status in BODILESS or call.facts.request.method == "HEAD"
        if not self._reads():
            return self._unseen(bodiless)
        changes = may_change_answer(call)
        framing = framing_of(
            headers.get("content-type", ""), call.facts.request.dialect, asked=bool(call.facts.request.stream)
        )
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if call.dialect is None or response.inspection == "none":
            return self._unknown()
        if bodiless:
            return self._at_once()
        if why := self._cannot_read(headers, encoding, changes, framing is not None):
            return self._unread(why)
        if encoding in DECODERS:
            self._decoder = zlib.decompressobj(DECODERS[encoding])
        reader = call.dialect.reader(call.facts.request, response)
        if framing is not None:
            self.streaming = Streaming(call, reader, framing, event.now)
            return [self._go(BodyMode.STREAM), *self.streaming.start(event.now)]
        self.whole = Whole(call, reader)
        return [self._go(BodyMode.WHOLE if changes else BodyMode.STREAM)]

    def _reads(self) -> bool:
        call, plan = self.call, self.call.plan
        obligations = call.decision.obligations
        return (
            (plan is not None and plan.needs_response_body)
            or redacts_answer(call)
            or bool(obligations.pace)
            or call.options.observe_all
            or (call.ground.plans.session_readers and call.dialect is not None)
        )

    def _cannot_read(self, headers: dict[str, str], encoding: str, changes: bool, streams: bool) -> str:
        if encoding not in ("", "identity") and (changes or encoding not in DECODERS):
            return "the answer is encoded"
        length = headers.get("content-length", "")
        if changes and not streams and length.isdecimal() and int(length[:20]) > self.call.options.max_request:
            return "the answer is too large"
        return ""

    def _unread(self, why: str) -> list[Step]:
        """The answer cannot be read: its readers err, and without a Fail among them it passes by."""
        response = self.call.facts.response
        response.inspection, response.partial_reason = "partial", why
        self.call.facts.unreadable_response = self.call.facts.unmetered = why
        return self._at_once()

    def _unseen(self, bodiless: bool) -> list[Step]:
        """Nothing reads it. INVARIANT: no body is said to be understood that was not looked at."""
        response = self.call.facts.response
        if not bodiless:
            response.inspection, response.partial_reason = "none", "nothing reads the answer"
        return self._pass_by()

    def _unknown(self) -> list[Step]:
        """A language that policyd does not speak: the rules are judged over what little is known."""
        response = self.call.facts.response
        response.inspection = "none"
        return self._at_once()

    def _at_once(self) -> list[Step]:
        """Judge what there is: no body will tell more."""
        self.bench = Bench(self.call)
        if self.bench.judge(self.bench.due(int(Touch.ALL), forced=True), None).verdict is Verdict.TERMINATE:
            return self._refused()
        return self._pass_by()

    def _refused(self) -> list[Step]:
        winner = self.call.decision.winner
        assert winner is not None
        self.done, self.ended = True, "rejected"
        return [refuse(self.call, winner)]

    def _pass_by(self) -> list[Step]:
        self.done = True
        return [self._go(BodyMode.NONE)]

    def _go(self, mode: BodyMode) -> PassResponseHeaders:
        self.mode = mode
        return PassResponseHeaders(self._edit(), mode, "content-length" not in self.call.facts.response.headers)

    def _edit(self) -> HeaderEdit:
        edit = self.call.decision.obligations.response_headers
        if self.call.plan is None or not self.call.plan.enforces:
            return edit
        return HeaderEdit((*edit.set, ("x-policyd-decision", self.call.id)), edit.remove)

    # ---- body --------------------------------------------------------------------------------------------------------

    def chunk(self, event: ResponseChunk) -> list[Step]:
        if self.blind:
            self.done = event.end
            return [Release(event.data, event.end)]
        if self.streaming is not None:
            return self._streamed(self.streaming, event)
        if self.whole is not None and self.mode is BodyMode.WHOLE:
            steps = self._judged_whole(self.whole, event)
        else:
            steps = self._read_along(event)
        return steps

    def _streamed(self, streaming: Streaming, event: ResponseChunk) -> list[Step]:
        if self._decoder is None:
            steps = streaming.chunk(event.data, event.end, event.now)
            return self._noted(steps) if streaming.done else steps
        steps = streaming.chunk(self._decoded(event.data), event.end, event.now)
        # INVARIANT: an encoded answer is only ever read along, so its own bytes pass.
        return self._noted([Release(event.data, event.end), *(s for s in steps if not isinstance(s, Release))])

    def _noted(self, steps: list[Step]) -> list[Step]:
        assert self.streaming is not None
        if self.streaming.done:
            self.done = True
            self.ended = "cut" if self.streaming.cut else "complete"
        return steps

    def _decoded(self, data: bytes) -> bytes:
        assert self._decoder is not None
        response = self.call.facts.response
        try:
            decoded = self._decoder.decompress(data, 64 * max(len(data), 1024))
        except zlib.error:
            response.inspection, response.partial_reason = "partial", "the answer's encoding is broken"
            return b""
        if self._decoder.unconsumed_tail or self._decoder.unused_data:
            response.inspection, response.partial_reason = "partial", "more is encoded in the answer than is decoded"
        return decoded

    def _judged_whole(self, whole: Whole, event: ResponseChunk) -> list[Step]:
        data = whole.judge(event.data, event.now, truncated=event.truncated)
        if self.call.decision.verdict is Verdict.TERMINATE:
            return self._refused()
        self.done = True
        return [PassResponseBody(data)]

    def _read_along(self, event: ResponseChunk) -> list[Step]:
        """An answer in one piece that nothing can change: its bytes pass, a copy is read at the end."""
        if len(self._read) <= self.call.options.max_request:
            self._read += self._decoded(event.data) if self._decoder else event.data
        if event.end:
            self.done = True
            if self.whole is not None:
                self.whole.judge(bytes(self._read), event.now)
        return [Release(event.data, event.end)]

    def extended(self, readings: Readings, now: float) -> list[Step]:
        return self._noted(self.streaming.extended(readings, now)) if self.streaming else []

    def tick(self, now: float) -> list[Step]:
        return self._noted(self.streaming.tick(now)) if self.streaming and not self.blind else []

    def fail(self, reason: str, now: float) -> list[Step]:
        return self._noted(self.streaming.fail(reason, now)) if self.streaming and not self.blind else []

    def without_end(self, steps: list[Step]) -> list[Step]:
        """The same steps for a body that trailers end."""
        return [
            Release(step.data, at=step.at) if isinstance(step, Release) and not self.cut else step
            for step in steps
            if not isinstance(step, PassTrailers)
        ]

    @property
    def reads_along(self) -> bool:
        """Whether the answer's own bytes pass, whatever is judged of them."""
        if self.mode is not BodyMode.STREAM or not self.call.answered:
            return False
        return self.streaming is None or self.streaming.passive or self._decoder is not None

    @property
    def cut(self) -> bool:
        return self.streaming is not None and self.streaming.cut

    def close(self) -> None:
        """Nothing more will come: what never matched is recorded as such."""
        bench = self.bench or (self.streaming.bench if self.streaming else self.whole.bench if self.whole else None)
        (bench or Bench(self.call)).close()
