"""One call as a state machine: an event in, steps out, and now and then a need.

Rule 1: whatever decides what may leave this process is decided here and in the files beside this one.
Rule 2: this file knows no Envoy, no store and no clock. Callers bring readings and `now`.
Rule 3: TRANSITIONS is the whole truth about order; what is not in it is `OutOfOrder`, which is judged, not crashed on.
Rule 4: a call ends once: `Settle` and `Record` are given exactly once, whatever else happens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from policyd.core.decide.combine import CANNOT_JUDGE
from policyd.core.decide.plan import BoundRule, enforceable
from policyd.core.errors import Malformed
from policyd.core.exchange.admission import admit, count_unjudged
from policyd.core.exchange.answering import Answering
from policyd.core.exchange.call import Call, Ground
from policyd.core.exchange.departure import depart, header_edit, plain
from policyd.core.exchange.effects import note_request, note_response
from policyd.core.exchange.fetched import look_up_fetched, remember_fetched
from policyd.core.exchange.joining import ON_ITS_WAY, follow, hear
from policyd.core.exchange.judging import may_change_answer
from policyd.core.exchange.learning import learn
from policyd.core.exchange.opening import OWN_PREFIX, open_call
from policyd.core.exchange.place import BAD_PATH, PATH, judged_head, path_of
from policyd.core.exchange.reading import read_body, wants_body
from policyd.core.exchange.recording import record, renewal, settlement
from policyd.core.exchange.refusal import ambiguous, not_evaluated, refuse, refuse_as
from policyd.core.exchange.state import State
from policyd.core.exchange.withheld import withheld, withhold
from policyd.core.model.counters import Readings
from policyd.core.model.decision import FailurePolicy, Terminate, Verdict
from policyd.core.model.steps import (
    BodyMode,
    Break,
    Ended,
    Event,
    Extend,
    Failed,
    HeaderEdit,
    Need,
    PassRequestBody,
    PassRequestHeaders,
    PassResponseBody,
    PassResponseHeaders,
    PassTrailers,
    Reject,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
    ResponseTrailers,
    Step,
    Tell,
    Tick,
)

INSPECTION_READ = "response.inspection"
INTERNAL = "internal"  # the reason of a failure that is a defect of policyd


class Exchange:
    """One call. `receive` an event, do the steps; while `need` is set, bring it and `resume`."""

    def __init__(self, ground: Ground, id: str) -> None:
        self.call = Call(ground, id, 0.0)
        self.call.holder = id
        self.state = State.OPEN
        self.need: Need | None = None
        self.answering: Answering | None = None
        self._asking: Generator[Need, Readings, None] | None = None
        self._refused: Terminate | None = None  # before any rule was judged
        self.recorded = False
        self._settled = False
        self._later: Ground | None = None  # of a set that came into force while readings were awaited
        self._with_body = False
        self._trailing = False  # the answer's trailers have come
        self._begun = False  # something of a call has come
        self._strip = HeaderEdit()  # the caller's headers that only we may set
        self._now = 0.0
        self._before = self.call.decision  # what had been decided before a response in one piece was judged
        self._late, self._refused_late = "", False

    # ---- the door ----------------------------------------------------------------------------------------------------

    def receive(self, event: Event) -> list[Step]:
        """What is to be done about this event."""
        self._now = event.now
        step = TRANSITIONS.get((self.state, type(event)))
        if step is None:
            return self._out_of_order(event)
        return step(self, event)

    def resume(self, readings: Readings) -> list[Step]:
        """The need that was asked for has been brought."""
        self.need = None
        if self._asking is not None:
            return self._ask(self._asking, readings)
        if self.answering is not None and self.state is State.ANSWERING:
            return self._after_answer(self.answering.extended(readings, self._now))
        return []

    def concerns(self, ground: Ground) -> bool:
        """Whether it would make a difference to this call that another set is in force."""
        latest = self.call.latest or self.call.ground
        return self.state is not State.DONE and latest.policies.running != ground.policies.running

    def join(self, ground: Ground, now: float) -> list[Step]:
        """Another set is in force: its policies for calls in flight judge this one, too, from here on."""
        self.at(now)
        if self.state is State.ADMITTING:
            self._later = ground
            return []
        fresh = follow(self.call, ground)
        if self.state is State.ANSWERING and self.answering is not None:
            return self._after_answer(self.answering.join(fresh, self._now))
        # What has not been admitted yet is judged by them with the rest.
        return self._refuse() if self.state is State.SENT and hear(self.call, fresh, ON_ITS_WAY) else []

    def at(self, now: float) -> None:
        """The time at which a need was brought."""
        self._now = max(self._now, now)

    def renewal(self) -> Extend | None:
        """What keeps this call's holds alive; None while it holds none. Its answer need not be brought."""
        return renewal(self.call) if self.state in (State.SENT, State.ANSWERING) else None

    # ---- the request -------------------------------------------------------------------------------------------------

    def _on_request_headers(self, event: RequestHeaders) -> list[Step]:
        call = self.call
        self._begin(event.now, event.wall)
        self._strip = HeaderEdit(
            remove=tuple(sorted({name for name, _ in event.headers if name.startswith(OWN_PREFIX)}))
        )
        call.opens(*open_call(event, call.options.identity), event)
        if (refusal := ambiguous(call)) is not None:
            return self._refuse_unjudged(refusal, refusal.message)
        if call.ground.plans.enforces(call.ground.policies):
            path = path_of(event)
            if path.ambiguous:
                return self._refuse_unjudged(BAD_PATH, f"{BAD_PATH.message}: {path.ambiguous}.")
            self._strip = judged_head(event, path, self._strip)
        call.sent_path = dict((*event.headers, *self._strip.set)).get(PATH, "")
        if wants_body(call, event):
            self.state = State.BODY
            self._with_body = True
            unsized = all(name != "content-length" for name, _ in event.headers)
            early = unsized and not call.ground.plans.of(call.policies_for(None)).reroutes
            return [PassRequestHeaders(self._strip, want_body=True, unsized=early)]
        return self._admit()

    def _refuse_unjudged(self, said: Terminate, message: str) -> list[Step]:
        """Refuse a call that contradicts itself. It is an attempt all the same."""
        count_unjudged(self.call)
        return self._reject(refuse_as(self.call, said, message))

    def _begin(self, now: float, wall: float) -> None:
        self._begun, self.call.began, self.call.facts.now = True, now, wall

    def _on_request_body(self, event: RequestBody) -> list[Step]:
        read_body(self.call, event)
        return self._admit()

    def _admit(self) -> list[Step]:
        self.state = State.ADMITTING
        return self._ask(self._judge_request(), None)

    def _judge_request(self) -> Generator[Need, Readings, None]:
        self._refused = yield from withheld(self.call)
        if self._refused is None:
            yield from look_up_fetched(self.call)
        if self._refused is None:
            yield from admit(self.call)

    def _ask(self, asking: Generator[Need, Readings, None], readings: Readings | None) -> list[Step]:
        try:
            self.need = next(asking) if readings is None else asking.send(readings)
            self._asking = asking
            return []
        except StopIteration:
            self._asking = None
            return self._admitted()

    def _admitted(self) -> list[Step]:
        call = self.call
        if self._refused is not None:
            return self._refuse_unjudged(self._refused, self._refused.message or not_evaluated())
        if call.decision.verdict is Verdict.TERMINATE or self._joined_meanwhile():
            return self._refuse()
        try:
            data = depart(call)
        except Malformed as failure:
            return self._reject(refuse_as(call, CANNOT_JUDGE, not_evaluated(failure.reason)))
        if call.decision.constrains:
            note_request(call, data)
        call.left = True
        self.state = State.SENT
        # What may be changed must come without an encoding. INVARIANT: what only counts or records has no say in this.
        edit = header_edit(call, narrow=may_change_answer(call))
        moved = call.decision.reroute is not None
        if self._with_body:
            return [*call.releases_now(), PassRequestBody(data, edit if data is None else plain(call, edit), moved)]
        sets = (*((name, value) for name, value in self._strip.set if name not in dict(edit.set)), *edit.set)
        merged = HeaderEdit(sets, tuple(sorted({*edit.remove, *self._strip.remove} - dict(edit.set).keys())))
        return [*call.releases_now(), PassRequestHeaders(merged, reroute=moved)]

    def _joined_meanwhile(self) -> bool:
        later, self._later = self._later, None
        return later is not None and hear(self.call, follow(self.call, later), ON_ITS_WAY)

    def _refuse(self) -> list[Step]:
        assert self.call.decision.winner is not None
        return self._reject(refuse(self.call, self.call.decision.winner))

    def _reject(self, reject: Reject, *, ended: str = "rejected") -> list[Step]:
        return [reject, *self._finish(ended)]

    # ---- the answer --------------------------------------------------------------------------------------------------

    def _on_response_headers(self, event: ResponseHeaders) -> list[Step]:
        self.answering = Answering(self.call, event.now)
        self.state = State.ANSWERING
        steps = self.answering.headers(event)
        self.call.answered = self.answering.mode is not BodyMode.WHOLE
        return self._after_answer(steps)

    def _on_chunk(self, event: ResponseChunk) -> list[Step]:
        assert self.answering is not None
        return self._after_answer(self.answering.chunk(event))

    # ---- a response in one piece that takes long to judge ------------------------------------------------------------

    def judge_whole(self, event: ResponseChunk) -> list[Step]:
        """The long part of `receive` for a response in one piece. `judged_whole` is the rest of it."""
        assert self.answering is not None
        self._now, self._before = event.now, self.call.decision
        return self.answering.chunk(event)

    def judged_whole(self, steps: list[Step]) -> list[Step]:
        """What is to be done about it."""
        return self._after_answer(steps)

    def overdue(self, reason: str) -> list[Step]:
        """What is said in time while `judge_whole` goes on in a thread. INVARIANT: it reads nothing that is changed
        there, and `late_whole` keeps to it."""
        self._late = reason
        self._refused_late = any(map(self._minds, self.call.plan.rules if self.call.plan else ()))
        if self._refused_late:
            return [refuse_as(self.call, CANNOT_JUDGE, not_evaluated(reason))]
        return [PassResponseBody()]

    def _minds(self, bound: BoundRule) -> bool:
        """Whether this rule does not let pass what could not be read."""
        rule = bound.rule
        closed = rule.failure_policy is FailurePolicy.FAIL or INSPECTION_READ in rule.reads
        return closed and enforceable(rule, self.call.options.mode)

    def late_whole(self, now: float) -> list[Step]:
        """What `overdue` has said is carried out: the response could not be judged, whatever came of it since."""
        call, answering = self.call, self.answering
        assert answering is not None
        self.at(now)
        call.decision = self._before
        answering.cannot_be_read(self._late)
        if self._refused_late:
            return self._reject(refuse_as(call, CANNOT_JUDGE, not_evaluated(self._late)))
        call.degraded = answering.done = True
        return [PassResponseBody(), *self._finish("complete")]

    @property
    def pending(self) -> int:
        """Bytes of the response that have come and have not left."""
        return self.answering.pending if self.answering is not None else 0

    def _on_tick(self, event: Tick) -> list[Step]:
        assert self.answering is not None
        return self._after_answer(self.answering.tick(event.now))

    def _on_trailers(self, event: ResponseTrailers) -> list[Step]:
        assert self.answering is not None
        self._trailing = True
        steps = self.answering.chunk(ResponseChunk(b"", True, event.now)) if not self.answering.done else []
        return self._after_answer(steps)

    def _after_answer(self, steps: list[Step]) -> list[Step]:
        assert self.answering is not None
        self.need = self.answering.need
        if self._trailing:
            # Trailers end the body, so what ends here is the body alone; they follow it, also where its text waits.
            steps = self.answering.without_end(steps)
        if not self.answering.done:
            return [*steps, *self._pass_by()] if self.answering.held else steps
        trailers = [PassTrailers()] if self._trailing else []
        return [*steps, *trailers, *self._finish(self.answering.ended)]

    def _pass_by(self) -> list[Step]:
        """The answer passes by, and its caller listens: what is owed is known, and so is what to tell of it."""
        if self._settled:
            return []
        self._settled = True
        told = record(self.call, now=self._now, ended="complete")
        return [*settlement(self.call), Tell(told.record)]

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _on_ended(self, event: Ended) -> list[Step]:
        if self._asking is not None:
            self._asking.close()
            self._asking = None
            self.need = None
        call, answering = self.call, self.answering
        if event.unsent and self.state is State.SENT:
            call.left = False
        # A stream sends its headers when its output begins: without them it has produced nothing.
        silent = not call.facts.request.stream if answering is None else answering.unseen
        call.unseen = call.left and silent
        # Nobody saw the end of an answer that passed by.
        return self._finish("complete" if self.answering is not None and self.answering.held else "cancelled")

    def _on_late_trailers(self, _: ResponseTrailers) -> list[Step]:
        return [PassTrailers()]

    def _on_nothing(self, _: Event) -> list[Step]:
        return []

    def _on_failed(self, event: Failed) -> list[Step]:
        """INVARIANT: a failure is judged: under Fail it refuses or cuts, else the call goes on or breaks, degraded."""
        call, answering = self.call, self.answering
        if not self._begun:
            self._begin(event.now, event.wall)
        if event.reason == INTERNAL:
            call.world.lost = f"answer not readable: {INTERNAL}"
        if answering is not None and call.answered:
            steps = answering.fail(event.reason, event.now)
            if answering.done:
                return self._after_answer(steps)
            return self._degraded(steps) if event.reason == "deadline" else [*steps, *self._break(event.reason)]
        if not self._fails_closed():
            return self._break(event.reason)
        call.facts.unreadable_request = call.facts.unreadable_request or event.reason
        if self.state in (State.BODY, State.ADMITTING):
            count_unjudged(call)
        return self._reject(refuse_as(call, CANNOT_JUDGE, not_evaluated()))

    def defect(self, event: Event) -> list[Step]:
        """A defect of ours while this event was handled. It is judged like any failure; where nothing could be enforced
        any more the event passes as it came, and the call goes on unread."""
        if self.state is State.DONE:
            return []
        along = self.answering is not None and self.answering.reads_along
        if self._fails_closed() and not along:
            return self._on_failed(Failed(INTERNAL, event.now))
        self.need = self._asking = None
        self.call.degraded = True
        return self._unread(event, self.answering)

    def _unread(self, event: Event, answering: Answering | None) -> list[Step]:
        match event:
            case RequestHeaders() | RequestBody():
                self.state, self.call.left = State.SENT, True
                self.call.plan = self.call.ground.plans.of(())
                return [PassRequestBody() if isinstance(event, RequestBody) else PassRequestHeaders(self._strip)]
            case ResponseHeaders():
                return [PassResponseHeaders(), *self._finish("complete")]
            case ResponseChunk() if answering is not None and answering.mode is BodyMode.WHOLE:
                return [PassResponseBody(), *self._finish("complete")]
            case ResponseChunk() | ResponseTrailers() | Tick() if answering is not None and answering.reads_along:
                answering.blind = True
                return self.receive(event)
            case _:
                return self._break("internal")

    def abandon(self, now: float) -> list[Step]:
        """Give up a call whose state makes no sense any more: nothing is evaluated for it again."""
        self._now = max(self._now, now)
        self.call.meter.gauges = [gauge for gauge in self.call.meter.gauges if gauge.counter.amount is None]
        self.answering = None
        return self._break("internal")

    def _break(self, reason: str) -> list[Step]:
        """The client sees a broken answer, never unjudged bytes."""
        call = self.call
        if self._fails_closed():
            call.failed_closed, call.reason = True, CANNOT_JUDGE.reason
        call.degraded = not call.failed_closed
        call.facts.unreadable_request = call.facts.unreadable_request or reason
        if not call.answered:
            call.status = CANNOT_JUDGE.status  # what Envoy makes of a call that breaks before its answer
        return [Break(reason), *self._finish("broken")]

    def _degraded(self, steps: list[Step]) -> list[Step]:
        self.call.degraded = True
        return steps

    def _out_of_order(self, event: Event) -> list[Step]:
        if self.state is State.DONE:
            return []
        return self._on_failed(Failed("out_of_order", event.now))

    def _fails_closed(self) -> bool:
        """Whether something would be lost that is enforced: what has matched, or what fails closed."""
        return self.call.decision.winner is not None or self.call.fails_closed(known=self.state is not State.OPEN)

    def _finish(self, ended: str) -> list[Step]:
        if self.recorded:
            return []
        self.state, self.need = State.DONE, None
        if not self._begun:
            return []
        if self.answering is not None:
            self.answering.close()
        if self.call.plan is None:
            self.call.plan = self.call.ground.plans.of(())
        owed = [] if self._settled else settlement(self.call, ended)
        if self.call.decision.constrains:
            note_response(self.call, edited=self._changed())
        told = record(self.call, now=self._now, ended=ended)
        learn(self.call)
        kept = (withhold(self.call) if self._changed() else None, remember_fetched(self.call))
        self.recorded = True
        return [*owed, *(one for one in kept if one is not None), told]

    def _changed(self) -> bool:
        """Whether the client did not get all of the response, as the provider may keep it."""
        streaming = self.answering.streaming if self.answering is not None else None
        return self.call.trimmed or (streaming is not None and streaming.outbox.changed)


_Method = Callable[[Exchange, Any], list[Step]]  # Any: each takes the event that stands beside it

TRANSITIONS: dict[tuple[State, type], _Method] = {
    (State.OPEN, RequestHeaders): Exchange._on_request_headers,
    (State.BODY, RequestBody): Exchange._on_request_body,
    (State.SENT, ResponseHeaders): Exchange._on_response_headers,
    (State.ANSWERING, ResponseChunk): Exchange._on_chunk,
    (State.ANSWERING, ResponseTrailers): Exchange._on_trailers,
    (State.DONE, ResponseTrailers): Exchange._on_late_trailers,
    (State.ANSWERING, Tick): Exchange._on_tick,
    **{(state, Tick): Exchange._on_nothing for state in State if state is not State.ANSWERING},
    **{(state, Ended): Exchange._on_ended for state in State},
    **{(state, Failed): Exchange._on_failed for state in State if state is not State.DONE},
}
