"""An answer that comes in one piece: read, judged and edited before its headers leave, so it can still be refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policyd.core.errors import Malformed
from policyd.core.exchange.call import Call
from policyd.core.exchange.contents import Contents, wants_content
from policyd.core.exchange.costing import reprice
from policyd.core.exchange.judging import Bench, Touch
from policyd.core.model.decision import Verdict
from policyd.core.stream import json_text
from policyd.core.stream.alone import alone_changes, redact_alone, veil_changes
from policyd.core.stream.arguments import decode_call
from policyd.core.stream.detections import Finds
from policyd.core.stream.dialects import ALONE, BLANKS, JOINED, AnswerReader, Channel, Edit, Path, Segment
from policyd.core.stream.dialects.stated import header_nano
from policyd.core.stream.holdback import HoldBack, finds_of, redact_text, swapped
from policyd.core.stream.redactor import Redactor, redactors

_EMPTY = frozenset({204, 205, 304})  # statuses of responses that need no body


class Whole:
    """One answer in one piece."""

    def __init__(self, call: Call, reader: AnswerReader) -> None:
        self.call, self.reader = call, reader
        self.bench = Bench(call)
        self.page: str | None = None  # the text of an error page that is no document

    def judge(self, body: bytes | Malformed, now: float) -> bytes | None:
        """The body, or why it cannot be read, as it may leave; None: as it came. Whether it may at all, `call.decision`
        says afterwards."""
        response = self.call.facts.response
        response.elapsed_ms = self.call.elapsed_ms(now)
        response.ttft_ms = response.elapsed_ms
        response.events = 1
        response.delta = ""
        self.reader.want_content(wants_content(self.call))
        self.reader.want_calls(self.call.plan is not None and self.call.plan.reads_calls)
        segments = self._read(body)
        try:
            self._complete(segments)
        except Malformed as failure:
            response.inspection, response.partial_reason = "partial", failure.reason
            self.call.facts.unreadable_response = failure.reason
        if self.call.plan is not None:
            finds = Finds(response.detections)
            finds.look_for(self.call.plan.detectors("response"))
            finds.take(segments, ())
            finds.finish()
        decision = self.bench.judge(self.bench.due(int(Touch.ALL), forced=True), 0)
        if decision.verdict is Verdict.TERMINATE:
            self.call.trimmed = True
            return None
        redacted = None if isinstance(body, Malformed) else self._changed(body, segments)
        self.call.trimmed = redacted is not None
        return redacted

    def _changed(self, body: bytes, segments: Sequence[Segment]) -> bytes | None:
        """The body as the redactions leave it; None when they leave it as it came."""
        search = redactors([one for one in self.call.decision.obligations.redactions if one.in_response])
        if not search:
            return None
        return self._redacted(body, segments, search) if self.page is None else _cleaned(body, self.page, search)

    def _complete(self, segments: Sequence[Segment]) -> None:
        """Fill the facts that the segments tell."""
        response, plan = self.call.facts.response, self.call.plan
        if plan is None:
            return
        escaped = [call for call in response.tool_calls if "\\" in call.arguments]
        for call in response.tool_calls if plan.reads_calls or plan.wants_content else ():
            decode_call(call)
        contents = Contents(response)
        contents.want(plan.texts_read)
        contents.take([*segments, *(Segment(ALONE, (), text) for call in escaped for text in call.strings if text)])

    def _read(self, body: bytes | Malformed) -> Sequence[Segment]:
        response = self.call.facts.response
        if body == b"" and response.status in _EMPTY:
            return ()
        try:
            if isinstance(body, Malformed):
                raise body
            bounds = self.call.options.bounds
            document = json_text.loads(body, bounds)
            response.id = _id_of(document) or response.id
            segments = self.reader.read_json(document).segments
            if response.unreadable:
                raise Malformed(response.unreadable)
            bounds.check("tool_calls", len(response.tool_calls))
            for call in response.tool_calls:
                bounds.check("argument_chars", call.said.size)
            reprice(self.call)
            self._header_cost()
            return segments
        except Malformed as failure:
            response.inspection, response.partial_reason = "partial", failure.reason
            if response.status < 400:
                self.call.facts.unreadable_response = self.call.facts.unmetered = failure.reason
                return ()
            return self._error_page(body, failure.reason)

    def _header_cost(self) -> None:
        """What the headers say that the call cost, where the body does not."""
        response = self.call.facts.response
        if response.stated_nano is None and not response.is_error:
            response.stated_nano = header_nano(self.call.deployment.provider, response.headers)

    def _error_page(self, body: bytes | Malformed, reason: str) -> Sequence[Segment]:
        """An error that is no document: nothing that a model says, but all of it is content."""
        self.call.facts.response.is_error = True
        if not isinstance(body, Malformed):
            self.page = _decoded(body)
            return (Segment(ALONE, (), self.page),)
        if wants_content(self.call):
            self.call.facts.unreadable_response = reason
        return ()

    def _redacted(self, data: bytes, segments: Sequence[Segment], search: tuple[Redactor, ...]) -> bytes | None:
        alone = [one for one in segments if one.channel[0] in ("alone", *JOINED)]
        veils = [one for one in segments if one.channel[0] == "veil"]
        edits = [*_changed_texts(segments, search), *(Edit(*change) for change in alone_changes(alone, search))]
        if edits:
            self._count(segments, {edit.path for edit in edits}, search)
            return json_text.splice(data, [*edits, *(Edit(one.path, BLANKS[one.text]) for one in veils)])
        veiled = [one for one in segments if one.channel[0] == "veiled"]
        changes = veil_changes(veils, veiled, search)
        return json_text.splice(data, [Edit(*change) for change in changes]) if changes else None

    def _count(self, segments: Sequence[Segment], changed: set[Path], search: tuple[Redactor, ...]) -> None:
        """Count by detector what is taken out. A visible text is one text, however many parts it has."""
        texts: dict[Channel, str] = {}
        for one in segments:
            if one.channel[0] == "text" and not one.again:
                texts[one.channel] = texts.get(one.channel, "") + one.text
        others = [one for one in segments if one.path in changed and not one.again and one.channel not in texts]
        found = [name for text in texts.values() for name in finds_of(text, search)]
        for one in others:
            found += finds_of(one.text, search, arguments=one.channel[0] == "args")
        self.call.redacted["response"].update(found)


def _changed_texts(segments: Sequence[Segment], search: tuple[Redactor, ...]) -> Iterable[Edit]:
    """Texts of known kinds that are redacted: the parts of a visible text together, every other one by itself."""
    known = [one for one in segments if one.channel[0] not in ("alone", *JOINED, "veil", "veiled")]
    lanes: dict[Channel, HoldBack] = {}
    for segment in known:
        if segment.channel[0] == "text" and not segment.again:
            lanes.setdefault(segment.channel, HoldBack(search)).push(segment.text)
    for lane in lanes.values():
        lane.close()
    starts = dict.fromkeys(lanes, 0)
    swaps = {channel: list(lane.swaps) for channel, lane in lanes.items()}
    for segment in known:
        path: Path = segment.path
        if segment.channel in lanes and not segment.again:
            start = starts[segment.channel]
            starts[segment.channel] += len(segment.text)
            text = swapped(segment.text, start, swaps[segment.channel])
        elif segment.channel in lanes:
            text = redact_text(segment.text, search)
        else:
            text = redact_alone(segment.text, search, arguments=segment.channel[0] == "args")
        if text != segment.text:
            yield Edit(path, text)


def _decoded(body: bytes) -> str:
    """The text of a page, one character a byte where it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _cleaned(body: bytes, page: str, search: tuple[Redactor, ...]) -> bytes | None:
    text = redact_alone(page, search)
    if text == page:
        return None
    try:
        body.decode()
    except UnicodeDecodeError:
        return text.encode("latin-1", "replace")
    return text.encode()


def _id_of(document: object) -> str:
    name = document.get("id") if isinstance(document, dict) else None
    return name if isinstance(name, str) else ""
