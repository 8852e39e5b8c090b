"""An answer that streams: every event read, accounted and judged before it leaves.

Rule 1: an event leaves only after every rule that it could make true has been judged over it.
Rule 2: how the network cut the bytes changes neither the decision, nor its event, nor the bytes out.
Rule 3: where nothing could be enforced the bytes pass as they come, and are only read along.
Rule 4: time passes between messages, never within one: every event of a message has the message's time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from policyd.core.errors import Malformed
from policyd.core.exchange.call import Call
from policyd.core.exchange.contents import Contents, wants_content
from policyd.core.exchange.costing import reprice
from policyd.core.exchange.extending import Extending
from policyd.core.exchange.intake import Intake
from policyd.core.exchange.judging import Bench, Touch, may_change_answer
from policyd.core.exchange.metering import usage_of
from policyd.core.exchange.refusal import break_off, ending, texts
from policyd.core.exchange.turning import join, turn
from policyd.core.model.counters import Readings
from policyd.core.model.decision import Verdict
from policyd.core.model.facts import ResponseFacts, ToolCall
from policyd.core.model.reach import Watcher
from policyd.core.model.steps import Extend, Release, Step, WakeAt
from policyd.core.stream.arguments import decode_call
from policyd.core.stream.detections import Finds
from policyd.core.stream.dialects import ALONE, AnswerReader, Changed, Reading, Repeating, Segment
from policyd.core.stream.hits import Hits
from policyd.core.stream.json_bounds import check_text
from policyd.core.stream.outbox import Outbox
from policyd.core.stream.redactor import redactors
from policyd.core.stream.sse import SseEvent

# Plain integers: an event is read in less time than one operation of an IntFlag takes.
TEXT, FINISH, USAGE = int(Changed.TEXT), int(Changed.FINISH), int(Changed.USAGE)
MODEL = int(Changed.MODEL)
TOOLS, CALLS = int(Changed.TOOLS), int(Touch.CALLS)
FINDS = int(Touch.FINDS)
EVENT, SPEND, HITS, INSPECTION = int(Touch.EVENT), int(Touch.SPEND), int(Touch.HITS), int(Changed.INSPECTION)
FIRST = int(Touch.ALL) & ~int(Touch.TIME)


class Streaming:
    """One streamed answer."""

    def __init__(self, call: Call, reader: AnswerReader, intake: Intake, now: float) -> None:
        self.call, self.reader, self.response = call, reader, call.facts.response
        self.bench = Bench(call)
        self.passive = not may_change_answer(call)
        self.intake = intake
        self.waiting: tuple[int, int] | None = None  # (entry, touched) of an event that waits for an extension
        self.extending = Extending(call)
        self.done = False  # the caller has got everything that it will get
        self.cut = False
        self.broken = False  # it was broken off
        self.sealed = False  # it could still be refused, but is passive: it can only be broken off
        self.turning = False  # passive until the event that has left in part is whole
        self.cut_due = False  # and then to be cut
        self.judged = 0  # entries that every rule has let go
        self.last = -1  # the entry that says that the stream is over
        self.calls = 0  # tool calls that are known
        self.behind = 0  # 1: what is to be judged lies behind the last whole event
        self.paced_until = now
        self.paced_tokens = 0
        # Entries that are not released yet, and the characters of text by then.
        self.marks: deque[tuple[int, object, int]] = deque([(-1, reader.mark(), 0)])
        self.finds = Finds(self.response.detections)
        self.finds.look_for(call.plan.detectors("response") if call.plan else ())
        self.contents = Contents(self.response)
        self.most_said = call.options.bounds.argument_chars
        self.blank = 0  # blank lines and comments that belong to no event
        self.grown = 0  # what the decoded arguments of tool calls have added, bits of Touch
        self.read_for_plan()
        self.outbox = self._outbox()
        call.world.hits = Hits(self.outbox.hits, self.outbox.followed)  # they grow as the outbox reads

    def _outbox(self) -> Outbox:
        roster, passive = self.bench.roster, self.passive
        redactions = [one for one in self.call.decision.obligations.redactions if one.in_response]
        outbox = Outbox(
            redactors=() if passive else redactors(redactions),
            watchers=roster.watchers,
            sought=roster.sought,
            keep={} if passive else roster.keeps,
            hold_args=not passive and roster.arguments,
            repeats=not passive and getattr(self.reader, "repeats", False),
            edit=self.intake.framing.edit,
        )
        outbox.redacted = self.call.redacted["response"]
        if charged := self._charged():
            outbox.watch_also(charged, {})  # nothing is kept back for what only counts
        return outbox

    def _charged(self) -> list[Watcher]:
        """The text conditions that charges read: they may be asked for at every event."""
        gauges = self.call.meter.gauges
        return [watcher for gauge in gauges if gauge.counter.amount for watcher in gauge.counter.amount.watchers]

    def read_for_plan(self) -> None:
        """Read what the policies in force need of the response."""
        call, plan = self.call, self.call.plan
        self.contents.want(plan.texts_kept if plan else ())
        self.wants_content = wants_content(call)
        self.reads_calls = self.wants_content or (plan is not None and plan.reads_calls)
        self.reader.want_content(self.wants_content)
        self.reader.want_calls(plan is not None and plan.reads_calls)

    # ---- events ----------------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Step]:
        return [wake(self.call, now)] if self.bench.roster.timed else []

    def chunk(self, data: bytes, end: bool, now: float) -> list[Step]:
        """More of the answer."""
        if self.done:
            return []
        self._at(now)
        if self.turning:
            return turn(self, data, end, now)
        self.intake.take(data, end=end)
        steps = self.run(now)
        if self.passive:
            self.done = end
            return [Release(data, end), *(step for step in steps if not isinstance(step, Release))]
        return steps

    @property
    def pending(self) -> int:
        """Bytes that have come and have not left."""
        return self.intake.framing.pending + self.outbox.pending_bytes

    @property
    def need(self) -> Extend | None:
        return None if self.done else self.extending.need

    def extended(self, readings: Readings, now: float) -> list[Step]:
        """The answer to an extension."""
        self.extending.answered(readings, waits=self.waiting is not None)
        if self.done or self.waiting is None:
            return []
        self._at(now)
        return self.run(now)

    def tick(self, now: float) -> list[Step]:
        """Time has passed and nothing came."""
        if self.done:
            return []
        self._at(now)
        steps: list[Step] = []
        if self.waiting is None:
            decision = self.bench.judge(self.bench.due(int(Touch.TIME)), self.call.facts.response.events)
            if decision.verdict is Verdict.TERMINATE:
                return self.cut_at(self.outbox.added)
        if self.bench.roster.timed:
            steps.append(wake(self.call, now))
        return steps

    def join(self, now: float, *, refused: bool) -> list[Step]:
        """Policies have joined the call, or left it. `refused`: they end it."""
        self._at(now)
        return [] if self.done else join(self, now, refused=refused)

    def fail(self, reason: str, now: float) -> list[Step]:
        """Something around the call failed: whatever still has to be judged cannot be."""
        self._at(now)
        self.call.facts.unreadable_response = reason
        event = self.call.facts.response.events - (self.waiting is not None)
        decision = self.bench.judge(self.bench.due(int(Touch.ALL), forced=True), event)
        if decision.verdict is Verdict.TERMINATE and not self.passive:
            return self.cut_at(self.judged)
        return []

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _at(self, now: float) -> None:
        self.call.facts.response.elapsed_ms = self.call.elapsed_ms(now)

    def _unreadable(self, reason: str) -> None:
        response = self.call.facts.response
        response.inspection, response.partial_reason = "partial", response.partial_reason or reason
        self.call.facts.unreadable_response = self.call.facts.unreadable_response or reason

    def run(self, now: float) -> list[Step]:
        """Read and judge what has come, until the answer is cut, or text has to wait."""
        steps: list[Step] = []
        if self.waiting is not None:
            if self.extending.need is not None:
                return steps
            entry, touched = self.waiting
            self.waiting = None
            # Others have spent, too, since the store answered last.
            steps += self.judge_event(entry, touched | SPEND, forced=True)
            if self.waiting is None:
                self.judged = self.outbox.added
        queue, outbox, paced, most = self.intake.queue, self.outbox, self._paced, self.call.options.bounds.held_text
        while queue and not self.done and self.waiting is None:
            entry, touched = self.read(queue.popleft())
            if touched and self.stirs(touched):
                steps += self.judge_event(entry, touched)
                paced = self._paced
            if self.waiting is None:
                self.judged = entry + 1
            if (paced or outbox.pending_bytes > most) and not self.done and self.waiting is None:
                steps += self._release(now)
        if self.done or self.waiting is not None:
            return steps  # INVARIANT: nothing leaves behind an event that waits: it may complete what has not left
        if self.intake.broken and not self.call.facts.unmetered:
            self._unreadable(self.intake.broken)
            self.call.facts.unmetered = self.intake.broken
            self.behind = 1
            steps += self.judge_event(self.outbox.added, INSPECTION)
        if self.intake.ended and not self.done and (self.passive or not self.intake.lost):
            return [*steps, *self._end(now)]
        return steps if self.done else [*steps, *self._release(now)]

    def read(self, event: SseEvent) -> tuple[int, int]:
        """The entry of this event, and what it touched; 0 for a block that is no event."""
        if event.damage:
            self._unreadable(event.damage)
        raw = event.raw if event.tidy is None or self.passive else event.tidy
        if event.data is None and event.complete:
            return self.outbox.add(raw, (), ()), self._idle(event)
        response, found = self.response, self.outbox.hits
        before, hits = response.output_tokens, len(found)
        if not event.complete or event.malformed:
            self._unreadable("the answer ends within an event" if not event.complete else self.intake.framing.damage)
            response.events += event.complete
            self.behind = int(not event.complete)
            return self._add(raw, Reading()), INSPECTION
        reading = self._reading(event)
        if event.beside and self.wants_content:
            reading.segments = [*reading.segments, *(Segment(ALONE, path, text) for path, text in event.beside)]
        response.events += 1
        if reading.malformed or response.unreadable:
            self._unreadable(response.unreadable or response.partial_reason)
        withheld = reading.extra and self.call.asked_usage
        entry = self._add(b"" if withheld else raw, reading)
        if self.outbox.reopened:
            self._unreadable("text goes on after its end")
        touched = int(reading.changed) | EVENT | (INSPECTION if event.damage or self.outbox.reopened else 0)
        if touched & TEXT:
            touched |= self._text_came(response)
        if self.finds.take(reading.segments, reading.closes):
            touched |= FINDS
        if reading.closes or touched & TOOLS or (self.calls and response.tool_calls[-1].said.size > self.most_said):
            touched |= self._calls_came(reading, response)
        if self.contents.wanted:
            touched |= self._content_came(reading)
        if response.unread_calls:
            touched |= TOOLS | CALLS | INSPECTION
        if response.events == 1:
            touched = FIRST
        repriced = bool(touched & MODEL) and reprice(self.call)
        if touched & USAGE or repriced:
            self.call.meter.aim(usage_of(response))
            touched |= SPEND
        elif response.output_tokens != before:
            touched |= SPEND
        if len(found) != hits:
            touched |= HITS
        return entry, touched

    def _idle(self, event: SseEvent) -> int:
        """Blank lines and comments, and lines that are no part of an event."""
        bounds = self.call.options.bounds
        self.blank += event.raw.count(b"\n") + event.raw.count(b"\r")
        if self.blank > bounds.blank_lines:
            self._unreadable(bounds.over("blank_lines"))
            return INSPECTION
        return INSPECTION if event.damage else 0

    def _reading(self, event: SseEvent) -> Reading:
        """What an event says. One that holds more than the bounds allow is not read."""
        data, bounds = event.data or "", self.call.options.bounds
        try:
            if len(data) > bounds.json_nodes:
                check_text(data, bounds)
            reading = self.reader.read_event(event.name, data)
            if len(data) > bounds.json_nodes:
                for segment in reading.segments:
                    check_text(segment.text)
        except Malformed as failure:
            self._unreadable(failure.reason)
            return Reading(changed=Changed.INSPECTION)
        return reading

    def _text_came(self, response: ResponseFacts) -> int:
        if response.ttft_ms is None:
            response.ttft_ms = response.elapsed_ms
        return self._too_long(response.text_chars) if "text" in self.bench.whole_texts else 0

    def _content_came(self, reading: Reading) -> int:
        try:
            grown = self.contents.take(reading.segments) | self.grown
        except Malformed as failure:
            self._unreadable(failure.reason)
            return INSPECTION
        self.grown = 0
        return grown | self._too_long(self.contents.longest) if grown else 0

    def _too_long(self, chars: int) -> int:
        """Whether a text that a rule reads whole is longer than it may be."""
        bounds = self.call.options.bounds
        if chars <= bounds.response_text:
            return 0
        self._unreadable(bounds.over("response_text"))
        return INSPECTION

    def _calls_came(self, reading: Reading, response: ResponseFacts) -> int:
        """Tool calls begin, or are complete: rules see the arguments of complete ones only, so that arguments are
        judged once, however many events they come in."""
        calls, complete = response.tool_calls, 0
        for call in calls[self.calls :]:
            call.open = True
        self.calls = len(calls)
        for channel in reading.closes:
            if channel[0] == "args" and channel[2] < len(calls):
                complete |= self._call_complete(calls[channel[2]])
        return complete | self._calls_bounded(calls)

    def _calls_bounded(self, calls: Sequence[ToolCall]) -> int:
        bounds = self.call.options.bounds
        over = "tool_calls" if len(calls) > bounds.tool_calls else ""
        if not over and any(call.said.size > bounds.argument_chars for call in calls):
            over = "argument_chars"
        if not over:
            return 0
        self._unreadable(bounds.over(over))
        return INSPECTION

    def _call_complete(self, call: ToolCall) -> int:
        """A tool call is complete: what its arguments say decoded is content, too."""
        call.open = False
        if not self.reads_calls:
            return CALLS
        escaped = self.wants_content and "\\" in call.arguments
        try:
            decode_call(call)
        except Malformed as failure:
            self._unreadable(failure.reason)
            return CALLS | INSPECTION
        if escaped:
            said = [Segment(ALONE, (), text) for text in call.strings if text]
            self.outbox.look(said)
            self.grown |= self.contents.take(said)
        return CALLS

    def _calls_end(self, response: ResponseFacts) -> int:
        """The body is over: no tool call gets any longer."""
        unknown, hits = [call for call in response.tool_calls if call.open], len(self.outbox.hits)
        touched = 0
        for call in unknown:
            touched |= self._call_complete(call)
        return touched | (self.grown if unknown else 0) | (HITS if len(self.outbox.hits) != hits else 0)

    def _add(self, raw: bytes, reading: Reading) -> int:
        entry = self.outbox.add(raw, reading.segments, reading.ends, reading.closes)
        if not self.passive:
            self.marks.append((entry, self.reader.mark(), self.response.text_chars))
        if reading.last:
            self.last = entry
        return entry

    # ---- judging ---------------------------------------------------------------------------------------------------

    def stirs(self, touched: int) -> bool:
        """Whether this event has to be judged at all: few have."""
        return self.response.output_tokens > self.call.meter.ask_at or self.bench.awake(touched)

    def judge_event(self, entry: int, touched: int, *, forced: bool = False) -> list[Step]:
        response, meter = self.call.facts.response, self.call.meter
        if response.output_tokens > meter.ask_at and not touched & FINISH:
            if response.output_tokens <= meter.stop_at:
                self.extending.ahead(response)
            elif self.extending.covers(response):
                touched, forced = touched | SPEND, True
            else:
                self.waiting = (entry, touched)
                return []
        rules = self.bench.due(touched, forced=forced)
        if not rules:
            return []
        decision = self.bench.judge(rules, max(0, response.events - 1 + self.behind))
        if decision.verdict is Verdict.TERMINATE:
            return self.cut_at(entry)
        if decision.obligations.redactions:
            self.redact_from(entry)
        return []

    def redact_from(self, entry: int) -> None:
        """A redaction that begins with this event."""
        if not self.passive:
            every = [one for one in self.call.decision.obligations.redactions if one.in_response]
            self.outbox.set_redactors(redactors(every), entry)

    # ---- leaving ---------------------------------------------------------------------------------------------------

    @property
    def _paced(self) -> bool:
        return bool(self.call.decision.obligations.pace) and not self.passive

    def _leaving(self) -> bytes:
        """What may leave now; where nothing more can be read, and nothing minds, all of it."""
        if not self.call.facts.unmetered:
            return self.outbox.release()
        self.outbox.close()
        data = self.outbox.release() + self.intake.beyond
        self.intake.beyond.clear()
        return data

    def _release(self, now: float) -> list[Step]:
        data = self._leaving() if self.call.facts.unmetered else self.outbox.release()
        self._forget_marks()
        if self.outbox.pending_bytes > self.call.options.bounds.held_text:
            return self._overfull(data)
        return [Release(data, False, self._pace(now))] if data else []

    def _overfull(self, data: bytes) -> list[Step]:
        self._unreadable(self.call.options.bounds.over("held_text"))
        decision = self.bench.judge(self.bench.due(INSPECTION), self.call.facts.response.events - 1)
        if decision.verdict is Verdict.TERMINATE:
            steps = self.cut_at(self.outbox.added)
            return [Release(data), *steps] if data else steps
        self.outbox.close()
        return [Release(data + self.outbox.release())]

    def _pace(self, now: float) -> float | None:
        pace = self.call.decision.obligations.pace
        if not pace:
            return None
        tokens = self.call.facts.response.output_tokens
        at = max(now, self.paced_until)
        self.paced_until = at + max(0, tokens - self.paced_tokens) / pace
        self.paced_tokens = tokens
        return at

    def _forget_marks(self) -> None:
        released = self.outbox.released_events
        while len(self.marks) > 1 and self.marks[1][0] < released:
            self.marks.popleft()

    def _end(self, now: float) -> list[Step]:
        """The upstream has sent everything."""
        response = self.call.facts.response
        was, self.behind = response.inspection, 1
        self.reader.finish()
        touched = self._calls_end(response) | (INSPECTION if response.inspection != was else 0)
        touched |= FINDS if self.finds.finish() else 0
        if response.events == 0:
            touched = int(Touch.ALL)
        if touched:
            steps = self.judge_event(self.outbox.added, touched)
            if self.done:
                return steps
        self.outbox.close()
        data = self._leaving()
        self.done = True
        return [Release(data, end=True, at=self._pace(now)), WakeAt(None)]

    def cut_at(self, entry: int) -> list[Step]:
        """End the answer properly before this event, with the fallback, and with it the call to the upstream."""
        call = self.call
        if self.turning:
            self.cut_due = True
            return []
        if self.passive:
            self.done = self.broken = self.sealed
            return break_off(call) if self.sealed else []
        winner = call.decision.winner
        assert winner is not None
        said = texts(call, winner)
        call.reason, call.message, call.phase = said.reason, said.message, "response"
        when = winner.bound.rule.when
        data = self.outbox.cut(entry, (*when.watchers, *when.sought) if when is not None else (), self.last)
        self._forget_marks()
        self.reader.rewind(self.marks[0][1])
        if isinstance(self.reader, Repeating):
            self.reader.told(self.outbox.told(), self.outbox.clean)
        data += self.reader.ending(ending(call, said, self._last_text(said.fallback)))
        self.done = self.cut = self.call.trimmed = True
        self.intake.queue.clear()
        return [Release(data, end=True), WakeAt(None)]

    def _last_text(self, fallback: str) -> str:
        """The text of the ending: what may still be released, and the fallback behind a blank line."""
        shown = bool(self.outbox.spared) or self.outbox.partial or self.marks[0][2] > 0
        return self.outbox.spared + ("\n\n" if shown and fallback else "") + fallback


def wake(call: Call, now: float) -> WakeAt:
    """The next point of a grid that begins with the call: so a dry run ticks when the real one did."""
    tick = call.options.tick_s
    return WakeAt(call.began + (int((now - call.began) / tick + 1e-3) + 1) * tick)
