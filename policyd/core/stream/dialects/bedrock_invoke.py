"""Bedrock's InvokeModel: bodies of the model's own family, and their chunks in base64.

Rule 1: the family is told by the shape of the body, for an ARN does not tell it. A body of no known shape is refused.
Rule 2: what AWS adds to a family's own words (metrics, a guardrail's trace) is read here, once for all families.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream import eventstream
from policyd.core.stream.dialects import AnswerReader, Body, Changed, Ending, Reading, Segment
from policyd.core.stream.dialects.bedrock_families import reader_of, voice
from policyd.core.stream.dialects.bedrock_shared import METRICS, bill_of, header_bill, is_exception
from policyd.core.stream.dialects.complete import Completion, inner
from policyd.core.stream.dialects.response_others import CHUNK
from policyd.core.stream.dialects.shared import CHANGES, Bill, Tally, mark_partial
from policyd.core.stream.json_strict import dumps, loads, loads_event
from policyd.core.stream.ndjson import Ndjson
from policyd.core.stream.sse import SseParser

USAGE, ERROR, INSPECTION = int(Changed.USAGE), int(Changed.ERROR), int(Changed.INSPECTION)
STREAM = "application/vnd.amazon.eventstream"


class InvokeAnswer:
    """Reads one answer with its family's reader."""

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        self.request, self.response = request, response
        self._inner: AnswerReader = reader_of(request, response)
        self._failed = False
        self._rewound: tuple[object, bool] | None = None
        self._around = Completion(CHUNK, response=response)

    def want_content(self, wanted: bool) -> None:
        """Whether every string of the response is content that somebody reads."""
        self._around.wanted = wanted
        self._inner.want_content(wanted)

    def want_calls(self, wanted: bool) -> None:
        """Whether somebody reads the tool calls of the response."""
        self._around.wants_calls = wanted
        self._inner.want_calls(wanted)

    @property
    def repeats(self) -> bool:
        """Whether the family says its texts again."""
        return bool(getattr(self._inner, "repeats", False))

    def read_json(self, doc: object) -> Reading:
        """The whole answer, or an error. Raises Malformed."""
        reading = self._inner.read_json(_with_reasons(doc))
        if self.response.is_error:
            return reading
        if self.response.usage_source != "provider":
            self._bill(reading, header_bill(self.response.headers))
        return reading

    def read_event(self, name: str, data: str) -> Reading:
        """One chunk of a stream."""
        if is_exception(name):
            return self._exception(data)
        if name != "chunk":
            return self._odd("an unknown event type", malformed=True)
        try:
            outer: Any = loads_event(data)
            text = eventstream.unwrap(outer).decode()
            document = loads_event(text)
        except Malformed as failure:
            return self._odd(failure.reason, malformed=True)
        except UnicodeDecodeError:
            return self._odd("the bytes of an event are not utf-8", malformed=True)
        beside: list[Segment] = []
        if why := self._around.event({key: value for key, value in outer.items() if key != "bytes"}, beside):
            mark_partial(self.response, why)
        reading = self._chunk(document, text)
        reading.segments = [*reading.segments, *beside]
        return reading

    def _exception(self, data: str) -> Reading:
        """An error in the place of a chunk: what it says is content."""
        self.response.delta = ""
        self.response.is_error = self._failed = True
        said: list[Segment] = []
        try:
            self._around.event(loads_event(data), said)
        except Malformed:
            mark_partial(self.response, "an error that is no json")
            return Reading(changed=CHANGES[ERROR | INSPECTION], malformed=bool(data.strip()))
        return Reading(said, changed=CHANGES[ERROR])

    def _chunk(self, document: object, text: str) -> Reading:
        whole = _with_reasons(document)
        reading = self._inner.read_event("", text if whole is document else dumps(whole))
        reading.segments = inner(("bytes",), reading.segments)
        if isinstance(document, dict) and METRICS in document:
            self._metered(reading, document[METRICS])
        return reading

    def _odd(self, reason: str, *, malformed: bool) -> Reading:
        self.response.delta = ""
        mark_partial(self.response, reason)
        return Reading(changed=CHANGES[INSPECTION], malformed=malformed)

    def _metered(self, reading: Reading, metrics: object) -> None:
        """AWS' own numbers come with the last chunk: they are the bill where the family names none that is final."""
        if self.response.usage_source == "provider":
            return
        try:
            self._bill(reading, bill_of(metrics))
        except Malformed as failure:
            mark_partial(self.response, failure.reason)

    def _bill(self, reading: Reading, bill: Bill | None) -> None:
        if bill is not None:
            Tally(self.request, self.response).take(bill, final=True)
            reading.changed = CHANGES[int(reading.changed) | USAGE]

    def ending(self, end: Ending) -> bytes:
        """The bytes that end the stream from here."""
        failed = self._rewound[1] if self._rewound else self._failed
        return b"" if failed else chunks(self._inner.ending(end))

    def mark(self) -> object:
        """Where the stream stands."""
        return self._inner.mark(), self._failed

    def rewind(self, mark: object) -> None:
        """Stand where `mark` was taken."""
        assert isinstance(mark, tuple)
        self._rewound = mark
        self._inner.rewind(mark[0])

    def finish(self) -> None:
        """The body is over."""
        if not self._failed:
            source = self.response.usage_source
            self._inner.finish()
            if source == "provider":
                self.response.usage_source = source


def _with_reasons(document: object) -> object:
    """Mistral says `stop_reason` where the others of its family say `finish_reason`."""
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not any(isinstance(one, dict) and "stop_reason" in one for one in choices):
        return document
    assert isinstance(document, dict)
    renamed = [
        {"finish_reason": one["stop_reason"], **one} if isinstance(one, dict) and "stop_reason" in one else one
        for one in choices
    ]
    return {**document, "choices": renamed}


def chunks(data: bytes) -> bytes:
    """Events or lines of a family, as chunks of a stream of binary messages."""
    framing = Ndjson() if data.startswith(b"{") else SseParser()
    events = framing.feed(data)
    said = [event.data for event in events if event.data and event.data != "[DONE]"]
    return b"".join(_framed(one) for one in said)


def _framed(data: str) -> bytes:
    loads(data)  # INVARIANT: what is ours is JSON
    return eventstream.render(dumps({"bytes": b64encode(data.encode()).decode()}), "chunk")


def completion(request: RequestFacts, end: Ending, id: str) -> Body:
    """A response that says the text, in the words of the request's family."""
    said = voice(request, end, id)
    if request.stream:
        return Body(STREAM, chunks(said.data))
    return Body("application/json", said.data)
