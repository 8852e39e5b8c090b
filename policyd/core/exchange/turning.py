"""An answer that streams, and is to be judged by more than it began with.

Rule 1: where nothing could be enforced its bytes have left as they came, perhaps in the middle of an event. That event
        leaves whole; from the next one on an event leaves only when it has been judged.
Rule 2: what cannot be ended properly is broken off: bytes that left encoded, and a language whose last event says the
        whole text again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from policyd.core.decide.plan import BoundRule
from policyd.core.exchange.judging import may_change_answer
from policyd.core.model.decision import Verdict
from policyd.core.model.steps import Release, Step

if TYPE_CHECKING:
    from policyd.core.exchange.streaming import Streaming


def join(streaming: Streaming, now: float, *, refused: bool) -> list[Step]:
    """Policies have joined the call, or left it. `refused`: they end it, whatever is still to come."""
    response, bench = streaming.response, streaming.bench
    late = bench.follow()
    streaming.read_for_plan()
    _look_for(streaming, late)
    _count_also(streaming)
    if streaming.passive and (refused or may_change_answer(streaming.call)):
        _turn(streaming)
    if late and response.events:
        event = response.events - (streaming.waiting is not None)
        refused = bench.judge(late, event).verdict is Verdict.TERMINATE or refused
    if refused:
        # What is judged and waits for its pace leaves with the ending: the call to the upstream is not to wait for it.
        steps = streaming.cut_at(streaming.judged)
        return [replace(step, hurry=True) if isinstance(step, Release) else step for step in steps]
    streaming.paced_tokens = streaming.paced_tokens or response.output_tokens  # a pace that joins begins here
    streaming.redact_from(streaming.judged)
    return streaming.start(now)


def _look_for(streaming: Streaming, late: Sequence[BoundRule]) -> None:
    watchers = [watcher for bound in late if bound.rule.when for watcher in bound.rule.when.watchers]
    if watchers:
        response = streaming.response
        streaming.outbox.watch_also(watchers, {choice: response.text(choice) for choice in response.texts})


def _count_also(streaming: Streaming) -> None:
    plan, response = streaming.call.plan, streaming.response
    names = plan.detectors("response") if plan else frozenset[str]()
    if not names <= response.detections.keys():
        streaming.finds.look_for(names, {choice: response.text(choice) for choice in response.texts})


def _turn(streaming: Streaming) -> None:
    intake = streaming.intake
    if intake.decoding is not None or getattr(streaming.reader, "repeats", False):
        streaming.sealed = True
    elif intake.framing.pending:
        streaming.turning = True
    else:
        _act(streaming)


def _act(streaming: Streaming) -> None:
    """All that has left are whole events: from here on each may be withheld."""
    streaming.outbox.release()
    streaming.passive = streaming.turning = False
    streaming.marks = deque([(streaming.outbox.added - 1, streaming.reader.mark(), streaming.response.text_chars)])
    streaming.redact_from(streaming.outbox.added)


def turn(streaming: Streaming, data: bytes, end: bool, now: float) -> list[Step]:
    """More of an answer whose newest event has left in part."""
    intake = streaming.intake
    left = intake.framing.pending
    intake.take(data, end=end)
    if not intake.queue or not intake.queue[0].complete:
        if not end and not intake.broken:
            return [Release(data)]
        streaming.sealed, streaming.turning = True, False
        steps = streaming.cut_at(streaming.judged) if streaming.cut_due else streaming.run(now)
        return steps if streaming.done else [Release(data, end), *_quiet(streaming, steps, end=end)]
    event = intake.queue.popleft()
    entry, touched = streaming.read(event)
    steps = streaming.judge_event(entry, touched) if touched and streaming.stirs(touched) else []
    streaming.judged = entry + 1
    _act(streaming)
    rest: list[Step] = [Release(event.raw[left:])]
    if streaming.cut_due:
        return [*rest, *streaming.cut_at(streaming.outbox.added)]
    return [*rest, *steps, *streaming.run(now)]


def _quiet(streaming: Streaming, steps: list[Step], *, end: bool) -> list[Step]:
    streaming.done = end
    return [step for step in steps if not isinstance(step, Release)]
