"""One call as a state machine: an event in, steps out, and now and then a need.

Rule 1: whatever decides what may leave this process is decided here and in the files beside this one.
Rule 2: this file knows no Envoy, no store and no clock. Callers bring readings and `now`.
Rule 3: TRANSITIONS is the whole truth about order; what is not in it is `OutOfOrder`, which is judged, not crashed on.
Rule 4: a call ends once: `Settle` and `Record` are given exactly once, whatever else happens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import StrEnum
from typing import Any

from policyd.core.decide.combine import CANNOT_JUDGE
from policyd.core.decide.evaluate import may_apply
from policyd.core.decide.plan import enforceable
from policyd.core.errors import Malformed
from policyd.core.exchange.admission import admit
from policyd.core.exchange.answering import Answering
from policyd.core.exchange.call import Call, Ground
from policyd.core.exchange.departure import depart, header_edit
from policyd.core.exchange.judging import may_change_answer
from policyd.core.exchange.opening import OWN_PREFIX, header_map, open_call
from policyd.core.exchange.recording import record, settlement
from policyd.core.exchange.refusal import refuse, refuse_as
from policyd.core.model.counters import Readings
from policyd.core.model.decision import FailurePolicy, Verdict
from policyd.core.model.steps import (
    Break,
    Ended,
    Event,
    Failed,
    HeaderEdit,
    Need,
    PassRequestBody,
    PassRequestHeaders,
    PassTrailers,
    Reject,
    RequestBody,
    RequestHeaders,
    ResponseChunk,
    ResponseHeaders,
    ResponseTrailers,
    Step,
    Tick,
)
from policyd.core.stream import json_text


class State(StrEnum):
    """Where a call is."""

    OPEN = "open"  # nothing has come
    BODY = "body"  # waiting for the request's body
    ADMITTING = "admitting"  # waiting for readings
    SENT = "sent"  # the request has left
    ANSWERING = "answering"  # the answer is being read
    DONE = "done"  # nothing more will be decided


class Exchange:
    """One call. `receive` an event, do the steps; while `need` is set, bring it and `resume`."""

    def __init__(self, ground: Ground, id: str) -> None:
        self.call = Call(ground, id, 0.0)
        self.call.holder = id
        self.state = State.OPEN
        self.need: Need | None = None
        self.answering: Answering | None = None
        self._asking: Generator[Need, Readings, None] | None = None
        self._with_body = False
        self._now = 0.0

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

    def at(self, now: float) -> None:
        """The time at which a need was brought."""
        self._now = max(self._now, now)

    # ---- the request -------------------------------------------------------------------------------------------------

    def _on_request_headers(self, event: RequestHeaders) -> list[Step]:
        call = self.call
        call.began = event.now
        call.facts, call.dialect = open_call(event, call.options.identity)
        call.world.facts = call.facts
        strip = HeaderEdit(remove=tuple(sorted({name for name, _ in event.headers if name.startswith(OWN_PREFIX)})))
        if self._wants_body(event):
            self.state = State.BODY
            self._with_body = True
            return [PassRequestHeaders(strip, want_body=True)]
        self._strip = strip
        return self._admit()

    _strip = HeaderEdit()

    def _wants_body(self, event: RequestHeaders) -> bool:
        call = self.call
        needed = call.options.observe_all or call.ground.plans.session_readers or self._reads_body()
        if call.dialect is None or not needed:
            return False
        headers = header_map(event.headers)
        call.facts.unreadable_request = _unreadable(headers, event.end, call.options.max_request)
        return not call.facts.unreadable_request

    def _reads_body(self) -> bool:
        """Whether a policy that may concern this call reads its body: a condition over headers is judged first."""
        call = self.call
        plan = call.ground.plans.of(call.policies_for(None))
        return plan.needs_request_body and call.ground.plans.of(may_apply(plan, call.world)).needs_request_body

    def _on_request_body(self, event: RequestBody) -> list[Step]:
        call = self.call
        assert call.dialect is not None
        call.body = event.data
        try:
            if event.truncated or len(event.data) > call.options.max_request:
                raise Malformed("the request's body is too large")
            call.document = json_text.loads(event.data)
            call.dialect.read_request(call.document, call.facts.request)
        except Malformed as failure:
            call.document = None
            call.facts.unreadable_request = failure.reason
        return self._admit()

    def _admit(self) -> list[Step]:
        self.state = State.ADMITTING
        return self._ask(admit(self.call), None)

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
        if call.decision.verdict is Verdict.TERMINATE:
            assert call.decision.winner is not None
            return self._reject(refuse(call, call.decision.winner))
        try:
            data = depart(call)
        except Malformed as failure:
            return self._reject(refuse_as(call, CANNOT_JUDGE, f"{CANNOT_JUDGE.message}: {failure.reason}"))
        call.left = True
        self.state = State.SENT
        edit = header_edit(call, narrow=self._narrows())
        moved = call.decision.reroute is not None
        if self._with_body:
            return [*call.releases_now(), PassRequestBody(data, edit, moved)]
        merged = HeaderEdit(edit.set, tuple(sorted({*edit.remove, *self._strip.remove} - dict(edit.set).keys())))
        return [*call.releases_now(), PassRequestHeaders(merged, reroute=moved)]

    def _narrows(self) -> bool:
        """An answer that must be read and may be changed must come without an encoding."""
        plan = self.call.plan
        return plan is not None and plan.needs_response_body and may_change_answer(self.call)

    def _reject(self, reject: Reject, *, ended: str = "rejected") -> list[Step]:
        return [reject, *self._finish(ended)]

    # ---- the answer --------------------------------------------------------------------------------------------------

    def _on_response_headers(self, event: ResponseHeaders) -> list[Step]:
        self.answering = Answering(self.call, event.now)
        self.state = State.ANSWERING
        return self._after_answer(self.answering.headers(event))

    def _on_chunk(self, event: ResponseChunk) -> list[Step]:
        assert self.answering is not None
        return self._after_answer(self.answering.chunk(event))

    def _on_tick(self, event: Tick) -> list[Step]:
        assert self.answering is not None
        return self._after_answer(self.answering.tick(event.now))

    def _on_trailers(self, event: ResponseTrailers) -> list[Step]:
        assert self.answering is not None
        steps = self.answering.chunk(ResponseChunk(b"", True, event.now)) if not self.answering.done else []
        # Trailers end the body, so what ends here is the body alone: the trailers follow it.
        return self._after_answer([*self.answering.without_end(steps), PassTrailers()])

    def _after_answer(self, steps: list[Step]) -> list[Step]:
        assert self.answering is not None
        self.need = self.answering.need
        if self.answering.done:
            return [*steps, *self._finish(self.answering.ended)]
        return steps

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _on_ended(self, event: Ended) -> list[Step]:
        if self._asking is not None:
            self._asking.close()
            self._asking = None
            self.need = None
        return self._finish("cancelled" if event.cancelled or self.state is not State.SENT else "complete")

    def _on_late_trailers(self, _: ResponseTrailers) -> list[Step]:
        return [PassTrailers()]

    def _on_nothing(self, _: Event) -> list[Step]:
        return []

    def _on_failed(self, event: Failed) -> list[Step]:
        """INVARIANT: a failure is judged: under Fail it refuses, under Ignore alone the call goes on, degraded."""
        if self.state is State.ANSWERING and self.answering is not None:
            steps = self.answering.fail(event.reason, event.now)
            if self.answering.done:
                return self._after_answer(steps)
            self.call.degraded = True
            return [*steps, Break(event.reason)] if event.reason != "deadline" else steps
        if self._fails_closed() and self.state is not State.SENT:
            self.call.facts.unreadable_request = event.reason
            return self._reject(refuse_as(self.call, CANNOT_JUDGE, CANNOT_JUDGE.message), ended="broken")
        self.call.degraded = True
        return [Break(event.reason), *self._finish("broken")]

    def abandon(self, now: float) -> list[Step]:
        """Give up a call whose state makes no sense any more: its client sees a broken answer, never unjudged bytes."""
        self._now = max(self._now, now)
        self.call.degraded = True
        self.answering = None
        return [Break("internal"), *self._finish("broken")]

    def _out_of_order(self, event: Event) -> list[Step]:
        if self.state is State.DONE:
            return []
        return self._on_failed(Failed("out_of_order", event.now))

    def _fails_closed(self) -> bool:
        plan = self.call.plan or self.call.ground.plans.of(self.call.policies_for(None))
        return any(
            bound.rule.failure_policy is FailurePolicy.FAIL and enforceable(bound.rule, self.call.options.mode)
            for bound in plan.rules
        )

    def _finish(self, ended: str) -> list[Step]:
        if self.state is State.DONE:
            return []
        opened = self.state is not State.OPEN
        self.state = State.DONE
        if not opened:
            return []
        if self.answering is not None:
            self.answering.close()
        if self.call.plan is None:
            self.call.plan = self.call.ground.plans.of(())
        steps: list[Step] = [*settlement(self.call)]
        return [*steps, record(self.call, now=self._now, ended=ended)]


def _unreadable(headers: dict[str, str], end: bool, most: int) -> str:
    """Why a request's body cannot be read, as far as its headers tell."""
    if end:
        return "the request has no body"
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        return "the request's body is encoded"
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        return "the request's body is too large"
    return ""


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
