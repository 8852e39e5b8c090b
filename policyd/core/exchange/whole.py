"""An answer that comes in one piece: read, judged and edited before its headers leave, so it can still be refused."""

from __future__ import annotations

from collections.abc import Sequence

from policyd.core.errors import Malformed
from policyd.core.exchange.call import Call
from policyd.core.exchange.contents import Contents
from policyd.core.exchange.judging import Bench, Touch
from policyd.core.model.decision import Verdict
from policyd.core.stream import json_text
from policyd.core.stream.detections import Finds
from policyd.core.stream.dialects import BLANKS, AnswerReader, Channel, Edit, Segment
from policyd.core.stream.holdback import HoldBack, redact_text, swapped
from policyd.core.stream.redactor import redactors


class Whole:
    """One answer in one piece."""

    def __init__(self, call: Call, reader: AnswerReader) -> None:
        self.call, self.reader = call, reader
        self.bench = Bench(call)

    def judge(self, body: bytes | Malformed, now: float) -> bytes | None:
        """The body, or why it cannot be read, as it may leave; None: as it came. Whether it may at all, `call.decision`
        says afterwards."""
        response = self.call.facts.response
        response.elapsed_ms = self.call.elapsed_ms(now)
        response.ttft_ms = response.elapsed_ms
        response.events = 1
        response.delta = ""
        segments = self._read(body)
        if self.call.plan is not None:
            contents = Contents(response)
            contents.want(self.call.plan.texts_read)
            contents.take(segments)
            finds = Finds(response.detections)
            finds.look_for(self.call.plan.detectors("response"))
            finds.take(segments, ())
            finds.finish()
        decision = self.bench.judge(self.bench.due(int(Touch.ALL), forced=True), 0)
        if decision.verdict is Verdict.TERMINATE:
            self.call.trimmed = True
            return None
        redacted = None if isinstance(body, Malformed) else self._redacted(body, segments)
        self.call.trimmed = redacted is not None
        return redacted

    def _read(self, body: bytes | Malformed) -> Sequence[Segment]:
        response = self.call.facts.response
        try:
            if isinstance(body, Malformed):
                raise body
            document = json_text.loads(body)
            response.id = _id_of(document) or response.id
            segments = self.reader.read_json(document).segments
            most = self.call.options.bounds.tool_calls
            if len(response.tool_calls) > most:
                raise Malformed(f"more than {most} tool calls (bound tool_calls)")
            return segments
        except Malformed as failure:
            response.inspection, response.partial_reason = "partial", failure.reason
            if response.status >= 400:
                response.is_error = True  # an error page says nothing that a model said
            else:
                self.call.facts.unreadable_response = self.call.facts.unmetered = failure.reason
            return ()

    def _redacted(self, data: bytes, segments: Sequence[Segment]) -> bytes | None:
        search = redactors([one for one in self.call.decision.obligations.redactions if one.in_response])
        if not search:
            return None
        edits, lanes = [], dict[Channel, HoldBack]()
        texts = [one for one in segments if one.channel[0] == "text" and not one.again]
        for segment in texts:
            lanes.setdefault(segment.channel, HoldBack(search)).push(segment.text)
        for lane in lanes.values():
            lane.close()
        starts = dict.fromkeys(lanes, 0)
        for segment in segments:
            text = segment.text
            if segment.channel[0] == "veil":
                continue
            if segment.channel in lanes and not segment.again:
                start = starts[segment.channel]
                starts[segment.channel] += len(text)
                text = swapped(text, start, lanes[segment.channel].swaps)
            else:
                text = redact_text(text, search, arguments=segment.channel[0] == "args")
            if text != segment.text:
                edits.append(Edit(segment.path, text))
        veils = [Edit(one.path, BLANKS[one.text]) for one in segments if one.channel[0] == "veil"]
        return json_text.splice(data, edits + veils) if edits else None


def _id_of(document: object) -> str:
    name = document.get("id") if isinstance(document, dict) else None
    return name if isinstance(name, str) else ""
