"""The answer: which way it is read, and what its headers look like when it leaves.

Rule 1: what nobody reads passes by; what could be refused is judged before its headers leave, where it comes in one
        piece, and event by event where it streams.
Rule 2: an answer that cannot be read is judged as such before a byte of it leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

from policyd.core.compile.policyset import CompiledPolicy, Phase
from policyd.core.decide.combine import combine
from policyd.core.decide.evaluate import Judged, judge
from policyd.core.errors import Malformed
from policyd.core.exchange.call import Call
from policyd.core.exchange.fates import seal_answer
from policyd.core.exchange.intake import Intake
from policyd.core.exchange.joining import Stand, hear, reachable
from policyd.core.exchange.judging import Bench, Touch, may_change_answer, redacts_answer
from policyd.core.exchange.opening import RESPONSE_CHARSETS, header_map, other_charset
from policyd.core.exchange.refusal import break_off, refuse
from policyd.core.exchange.streaming import Streaming, wake
from policyd.core.exchange.whole import Whole
from policyd.core.model.counters import Readings
from policyd.core.model.decision import Outcome, Verdict
from policyd.core.model.steps import (
    BodyMode,
    Break,
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
from policyd.core.stream.encodings import MOST_STREAMED, Decoding, codings_of, decode
from policyd.core.stream.framing import framing_of

BODILESS = frozenset({204, 304})  # a response of status 205 may have a body, whatever the standard says
PLAIN = HeaderEdit(remove=("content-encoding",))  # of a body that leaves without the encoding that it came in
_AS_IT_CAME = HeaderEdit()


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
        self.held = False  # it passes by, and may yet be broken off
        self.blind = False  # a defect of ours: what could not change anyway passes, and is not read any more
        self._codings: tuple[str, ...] = ()  # of its body, in the order in which they are undone
        self._read = bytearray()  # of an answer in one piece that passes by
        call.phase = "response"

    @property
    def unseen(self) -> bool:
        """Whether the response has begun, and what it holds is not known: it comes in one piece, not yet whole."""
        return self.whole is not None and not self.done

    @property
    def need(self) -> Extend | None:
        return self.streaming.need if self.streaming else None

    @property
    def pending(self) -> int:
        """Bytes that have come and have not left, or are to be read at the end."""
        return self.streaming.pending if self.streaming is not None else len(self._read)

    # ---- headers -----------------------------------------------------------------------------------------------------

    def headers(self, event: ResponseHeaders) -> list[Step]:
        call, response = self.call, self.call.facts.response
        headers = header_map(event.headers)
        status = headers.pop(":status", "0")
        response.status = int(status) if status.isdecimal() else 0
        response.headers = headers
        response.input_tokens = call.facts.request.input_tokens
        response.elapsed_ms = call.elapsed_ms(event.now)
        response.inspection, response.partial_reason = _inspected(call)
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
        seal_answer(call, judged, None)
        call.add(decision)
        return decision.verdict

    def _choose(self, headers: dict[str, str], event: ResponseHeaders) -> list[Step]:
        call, response = self.call, self.call.facts.response
        bodiless = event.end or response.status in BODILESS or call.facts.request.method == "HEAD"
        if not self._reads():
            return self._unseen(bodiless)
        changes = may_change_answer(call)
        framing = framing_of(
            headers.get("content-type", ""),
            call.facts.request.dialect,
            asked=bool(call.facts.request.stream),
            most=call.options.bounds.event_bytes,
        )
        if call.dialect is None:
            return self._unknown()
        if bodiless:
            return self._at_once(bodiless=True)
        if why := self._cannot_read(headers, changes, framing is not None):
            return self._unread(why)
        reader = call.dialect.reader(call.facts.request, response)
        if framing is not None:
            decoding = Decoding(self._codings, MOST_STREAMED) if self._codings else None
            self.streaming = Streaming(call, reader, Intake(framing, decoding), event.now)
            # INVARIANT: what may be changed leaves as it was read; what is only read along leaves as it came.
            head = self._go(BodyMode.STREAM, PLAIN if decoding and changes else _AS_IT_CAME)
            return [head, *self.streaming.start(event.now)]
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
            or (call.ground.plans.session_readers and call.understood)
        )

    def _cannot_read(self, headers: dict[str, str], changes: bool, streams: bool) -> str:
        if other_charset(headers, RESPONSE_CHARSETS):
            return "the response's body is not declared as UTF-8"
        try:
            self._codings = codings_of(headers.get("content-encoding", ""))
        except Malformed as failure:
            return failure.reason
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

    def cannot_be_read(self, why: str) -> None:
        """The response has come, and could not be judged: every rule that would have been judged over it errs."""
        call, response = self.call, self.call.facts.response
        response.inspection, response.partial_reason = "partial", why
        call.facts.unreadable_response = call.facts.unmetered = why
        errors = [Judged(bound, Outcome.ERRORED, why) for bound in Bench(call).roster.rules]
        call.add(combine([*call.allows, *errors], call.options.mode, reroutes=False))

    def _unseen(self, bodiless: bool) -> list[Step]:
        """Nothing reads it. INVARIANT: no body is said to be understood that was not looked at."""
        response = self.call.facts.response
        if not bodiless:
            response.inspection, response.partial_reason = "none", "nothing reads the answer"
        return self._pass_by(bodiless=bodiless)

    def _unknown(self) -> list[Step]:
        """A call whose content nobody reads: the rules are judged over what little is known."""
        return self._at_once()

    def _at_once(self, *, bodiless: bool = False) -> list[Step]:
        """Judge what there is: no body will tell more."""
        self.bench = Bench(self.call)
        if self.bench.judge(self.bench.due(int(Touch.ALL), forced=True), None).verdict is Verdict.TERMINATE:
            return self._refused()
        return self._pass_by(bodiless=bodiless)

    def _refused(self) -> list[Step]:
        winner = self.call.decision.winner
        assert winner is not None
        self.done, self.ended = True, "rejected"
        return [refuse(self.call, winner)]

    def _pass_by(self, *, bodiless: bool) -> list[Step]:
        self.held = not bodiless and reachable(self.call)
        self.done = not self.held
        return [self._go(BodyMode.NONE)]

    def _go(self, mode: BodyMode, more: HeaderEdit = _AS_IT_CAME) -> PassResponseHeaders:
        self.mode = mode
        edit = self._edit()
        edit = HeaderEdit(edit.set, (*edit.remove, *more.remove)) if more.remove else edit
        return PassResponseHeaders(edit, mode, "content-length" not in self.call.facts.response.headers, self.held)

    def _edit(self) -> HeaderEdit:
        edit = self.call.decision.obligations.response_headers
        if self.call.plan is None or not self.call.plan.enforces:
            return edit
        return HeaderEdit((*edit.set, ("x-policyd-decision", self.call.id)), edit.remove)

    # ---- policies that join it -----------------------------------------------------------------------------------

    def join(self, fresh: Sequence[CompiledPolicy], now: float) -> list[Step]:
        """Another set is in force: `fresh` are those of its policies that this call has not heard of."""
        call, response = self.call, self.call.facts.response
        response.elapsed_ms = call.elapsed_ms(now)
        streaming, whole = self.streaming, self.whole
        if streaming is not None:
            event = response.events - (streaming.waiting is not None)
            refused = hear(call, fresh, Stand(Phase.RESPONSE_HEADERS, texts=True, event=event))
            return self._noted(streaming.join(now, refused=refused))
        if whole is not None:
            waits = self.mode is BodyMode.WHOLE
            refused = hear(call, fresh, Stand(Phase.RESPONSE_HEADERS, texts=waits))
            whole.bench.follow()
            return (self._refused() if waits else self._broken_off()) if refused else []
        return self._joined_passing(fresh, now) if self.held else []

    def _joined_passing(self, fresh: Sequence[CompiledPolicy], now: float) -> list[Step]:
        """What reads the answer cannot be judged; what reads the clock alone still can."""
        facts = self.call.facts
        facts.unreadable_response = facts.unreadable_response or facts.response.partial_reason
        refused = hear(self.call, fresh, Stand(Phase.RESPONSE_HEADERS))
        self.bench = Bench(self.call)
        self.bench.keep_joined()
        return self._broken_off() if refused else self.tick(now)

    def _tick_passing(self, now: float) -> list[Step]:
        bench = self.bench
        if bench is None or not bench.roster.timed:
            return []
        self.call.facts.response.elapsed_ms = self.call.elapsed_ms(now)
        if bench.judge(bench.due(int(Touch.TIME)), None).verdict is Verdict.TERMINATE:
            return self._broken_off()
        return [wake(self.call, now)]

    def _broken_off(self) -> list[Step]:
        self.done, self.ended = True, "broken"
        return break_off(self.call)

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
        steps = streaming.chunk(event.data, event.end, event.now)
        return self._noted(steps) if streaming.done or self._codings else steps

    def _noted(self, steps: list[Step]) -> list[Step]:
        streaming = self.streaming
        assert streaming is not None
        if streaming.done:
            self.done = True
            self.ended = "cut" if streaming.cut else "broken" if streaming.broken else "complete"
        elif streaming.intake.lost and streaming.waiting is None and not streaming.passive:
            # What could be decoded has left. That there was more, its caller sees by an answer that breaks.
            self.done = streaming.done = self.call.degraded = True
            self.ended = "broken"
            return [*steps, Break(streaming.intake.broken)]
        return steps

    def _judged_whole(self, whole: Whole, event: ResponseChunk) -> list[Step]:
        readable = self._readable(event.data, truncated=event.truncated)
        body = Malformed(event.unread) if event.unread else readable
        data = whole.judge(body, event.now)
        if self.call.decision.verdict is Verdict.TERMINATE:
            return self._refused()
        self.done = True
        if self._codings and isinstance(body, bytes):
            return [PassResponseBody(body if data is None else data, PLAIN)]
        return [PassResponseBody(data)]

    def _readable(self, data: bytes, *, truncated: bool) -> bytes | Malformed:
        """A body without its encoding, or why it cannot be read."""
        most = self.call.options.max_request
        if truncated:
            return Malformed("the answer is too large")
        try:
            return decode(data, self._codings, most) if self._codings else data
        except Malformed as failure:
            return failure

    def _read_along(self, event: ResponseChunk) -> list[Step]:
        """An answer in one piece that nothing can change: its bytes pass, a copy is read at the end."""
        if len(self._read) <= self.call.options.max_request:
            self._read += event.data
        if event.end:
            self.done = True
            if self.whole is not None:
                truncated = len(self._read) > self.call.options.max_request
                self.whole.judge(self._readable(bytes(self._read), truncated=truncated), event.now)
            if self.call.decision.verdict is Verdict.TERMINATE:
                return self._broken_off()
        return [Release(event.data, event.end)]

    def extended(self, readings: Readings, now: float) -> list[Step]:
        return self._noted(self.streaming.extended(readings, now)) if self.streaming else []

    def tick(self, now: float) -> list[Step]:
        if self.held:
            return self._tick_passing(now)
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
        return self.streaming is None or self.streaming.passive

    @property
    def cut(self) -> bool:
        return self.streaming is not None and self.streaming.cut

    def close(self) -> None:
        """Nothing more will come: what never matched is recorded as such."""
        bench = self.bench or (self.streaming.bench if self.streaming else self.whole.bench if self.whole else None)
        (bench or Bench(self.call)).close()


def _inspected(call: Call) -> tuple[str, str]:
    """How much of a response can be understood before it comes, and why not all of it."""
    if call.dialect is None:
        return "none", ""
    return ("full", "") if call.understood else ("partial", "the endpoint is not known")
