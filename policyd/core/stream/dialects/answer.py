"""What most readers of answers have in common: where a stream stands, what it said, and what that touched.

Rule 1: a reader says what it read by the verbs below, so that text is counted once and is editable wherever it stands.
Rule 2: the INVARIANTs of `Tally` and of `Reading` are kept here, not in each dialect. What a dialect gives no segment
        gets one here: see complete.py.
Rule 3: a stream is ended from what its client has seen: a `Mark` is what has been released.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, NamedTuple

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts, ToolCall
from policyd.core.stream.dialects import Changed, Channel, Ending, Path, Reading, Segment
from policyd.core.stream.dialects.complete import NO_CALLS as NO_CALL_PLACES
from policyd.core.stream.dialects.complete import Completion
from policyd.core.stream.dialects.content import ANYTHING, Structure, is_id
from policyd.core.stream.dialects.open_calls import NO_CALLS, OpenCalls
from policyd.core.stream.dialects.shared import CHANGES, Bill, Tally, dumped, kind_of, mark_partial
from policyd.core.stream.dialects.unread_calls import CallPlaces
from policyd.core.stream.json_strict import loads_event

TEXT, TOOLS, FINISH = int(Changed.TEXT), int(Changed.TOOLS), int(Changed.FINISH)
USAGE, MODEL, REFUSAL = int(Changed.USAGE), int(Changed.MODEL), int(Changed.REFUSAL)
INSPECTION, ERROR = int(Changed.INSPECTION), int(Changed.ERROR)

MAX_INDEX = 1024  # choices, blocks and calls of one answer
SOLE: Channel = ("text", 0, 0)
HIDDEN: Channel = ("reasoning", 0, 0)


class Stand(NamedTuple):
    """Where a stream stands: what its client knows of it."""

    id: str = ""
    model: str = ""
    stamp: str = ""  # when it was made, in the provider's own words
    begun: bool = False  # its opening event has been sent
    open: tuple[tuple[int, str], ...] = ()  # blocks: index and kind, in order of appearance
    after: int = 0  # the first index that no block has
    events: int = 0
    stopped: bool = False  # its finish reason has been sent
    usage: bool = False  # the provider's numbers have been sent
    done: bool = False  # its own end, or an error, has been sent


class Mark(NamedTuple):
    """What an ending is made from."""

    stand: Stand
    bill: Bill
    at: int = 0  # the place in the journal of open tool calls
    half: Mapping[int, str] = NO_CALLS  # of an ending: open tool calls, the block's index and its arguments so far


class Answer:
    """Reads one answer into its facts. `want_segments` False spares the editable text nobody asks for.

    A dialect brings `_event` (one document of a stream), `_whole` (an answer in one piece) and `_ending`.
    `structure`: its structural fields; `deltas`, `calls`: see Completion; `payload`: the fields that no error has.
    """

    ends_by_itself = True  # the stream has an event that says it is over
    structure: ClassVar[Structure] = ANYTHING
    deltas: ClassVar[frozenset[Path]] = frozenset()
    payload: ClassVar[frozenset[str]] = frozenset()
    calls: ClassVar[CallPlaces] = NO_CALL_PLACES

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        self.request, self.response = request, response
        self.want_segments = True
        self.completion = Completion(self.structure, self.deltas, request, response, calls=self.calls)
        self._tally = Tally(request, response)
        self._stand = Stand()
        self._calls: dict[int, tuple[ToolCall, Channel]] = {}  # open ones, by block
        self._open_calls: OpenCalls[int] = OpenCalls()
        self._channels: dict[Channel, None] = {}  # open ones
        self._reasons: dict[int, str] = {}
        self._segments: list[Segment] = []
        self._closes: list[Channel] = []
        self._ends: list[Channel] = []
        self._past: list[Channel] = []  # closed ones; a text that comes next may still belong to them
        self._changed = 0
        self._rewound: Mark | None = None
        self._told: Mapping[Channel, str] = {}  # what has left, for an ending that says it all again

    # ---- for a dialect to bring --------------------------------------------------------------------------------------

    def _event(self, name: str, document: dict[str, object]) -> bool:
        """One event of a stream; whether it is the last. Raises Malformed."""
        raise NotImplementedError

    def _whole(self, document: dict[str, object]) -> None:
        """An answer in one piece. Raises Malformed when it is none."""
        raise NotImplementedError

    def _came(self, document: dict[str, object]) -> object:
        """What of this document came in the event."""
        return document

    def _listed(self, doc: object) -> dict[str, object]:  # noqa: ARG002 - for those who need it
        """The answer as a document, where its body is none."""
        return {}

    def _failed(self, name: str, document: dict[str, object]) -> bool:  # noqa: ARG002 - for those who need it
        """Whether this document, or this event, is an error. One that also holds a response is read as both."""
        if not document.get("error"):
            return False
        if any(document.get(field) is not None for field in self.payload):
            self.response.is_error = True
            self._changed |= ERROR
            self._partial("an error beside a response")
            return False
        return True

    def _ending(self, mark: Mark, end: Ending) -> bytes:
        """The events that end a stream that stands here."""
        raise NotImplementedError

    # ---- the protocol ------------------------------------------------------------------------------------------------

    def read_event(self, name: str, data: str) -> Reading:
        """One event of a stream."""
        self._begin_reading()
        last, document = False, dict[str, object]()
        try:
            document = self._document(name, data)
            if self._stand.done:
                self._partial("an event after the end")
            if self._failed(name, document):
                self._fail()
            else:
                last = self._event(name, document)
        except Malformed as failure:
            self._partial(failure.reason)
            self._complete(self.completion.event(self._came(document), self._segments))
            return self._reading(malformed=True)
        self._complete(self.completion.event(self._came(document), self._segments))
        self._stand = self._stand._replace(events=self._stand.events + 1)
        return self._reading(last=last)

    def _document(self, name: str, data: str) -> dict[str, object]:  # noqa: ARG002
        document = loads_event(data)
        if type(document) is not dict:
            raise Malformed("an event is not an object")
        return document

    def read_json(self, doc: object) -> Reading:
        """The whole answer, or an error."""
        self._begin_reading()
        document = doc if isinstance(doc, dict) else self._listed(doc)
        if self.response.status >= 400 or self._failed("", document):
            self._fail()
            self._tally.nothing()
            self._changed |= USAGE
            self._complete(self.completion.body(doc, self._segments))
            return self._reading()
        self._whole(document)
        self._complete(self.completion.body(doc, self._segments))
        self._tally.settle()
        self._close_all()
        return self._reading(last=True)

    def want_content(self, wanted: bool) -> None:
        """Whether every string of the response is content that somebody reads."""
        self.completion.wanted = wanted

    def want_calls(self, wanted: bool) -> None:
        """Whether somebody reads the tool calls of the response."""
        self.completion.wants_calls = wanted

    def finish(self) -> None:
        """The body is over."""
        self._tally.settle()
        if not self._stand.done and not (self._stand.stopped and not self.ends_by_itself):
            mark_partial(self.response, "the stream ends without its end")

    def mark(self) -> Mark:
        """Where the stream stands."""
        said = self.response
        bill = Bill(
            said.input_tokens,
            said.output_tokens,
            said.cached_input_tokens,
            said.cache_write_tokens,
            said.reasoning_tokens,
        )
        return Mark(self._stand, bill, self._open_calls.at)

    def rewind(self, mark: object) -> None:
        """Stand where `mark` was taken."""
        assert isinstance(mark, Mark)
        self._rewound = mark

    def told(self, texts: Mapping[Channel, str], clean: Callable[[str], str]) -> None:  # noqa: ARG002
        """What has left of each channel."""
        self._told = texts

    def ending(self, end: Ending) -> bytes:
        """The bytes that end the stream from here."""
        mark = self._rewound or self.mark()
        return b"" if mark.stand.done else self._ending(mark._replace(half=self._open_calls.half(mark.at)), end)

    def _begin_reading(self) -> None:
        self.response.delta = ""
        self._changed = 0
        self._segments, self._closes, self._ends = [], [], []

    def _complete(self, why: str) -> None:
        """The segments of this event are complete; `why` it makes the response partial, or nothing."""
        if why and not self.response.is_error:
            self._partial(why)

    def _reading(self, *, last: bool = False, malformed: bool = False) -> Reading:
        return Reading(self._segments, self._closes, CHANGES[self._changed], last, malformed, ends=self._ends)

    # ---- verbs: what was read ----------------------------------------------------------------------------------------

    def _partial(self, reason: str) -> None:
        mark_partial(self.response, reason)
        self._changed |= INSPECTION

    def _fail(self) -> None:
        self.response.is_error = True
        self._changed |= ERROR
        self._stand = self._stand._replace(done=True)
        self._close_all()

    def _say(self, path: Path, value: str, channel: Channel = SOLE) -> None:
        """Visible text."""
        if not value:
            return
        response = self.response
        response.texts.setdefault(channel[1], []).append(value)
        response.text_chars += len(value)
        response.delta = response.delta + value if response.delta else value
        self._changed |= TEXT
        self._tally.add(value, channel)
        self._segment(channel, path, value)

    def _think(self, path: Path, value: str, channel: Channel = HIDDEN) -> None:
        """Reasoning."""
        if value:
            self._tally.add_reasoning(value, channel)
            self._segment(channel, path, value)

    def _aside(self, path: Path, value: str, channel: Channel = HIDDEN) -> None:
        """Output that is neither visible text nor counted as reasoning."""
        if value:
            self._tally.add(value, channel)
            self._segment(channel, path, value)

    def _once_more(self, path: Path, value: object, channel: Channel = SOLE) -> None:
        """A text that is the whole of its choice's visible text once more: what leaves of that stands here too."""
        if isinstance(value, str) and value and value == self.response.text(channel[1]) and self.want_segments:
            self._channels[channel] = None
            self._segments.append(Segment(channel, path, value, again=True))

    def _blank(self, path: Path, value: object, blank: str = "null") -> None:
        if value and self.want_segments:
            self._segments.append(Segment(("veil", 0, 0), path, blank))

    def _refuse(self, path: Path, value: str, channel: Channel = ("refusal", 0, 0)) -> None:
        if value:
            self.response.refusal = (self.response.refusal or "") + value
            self._changed |= REFUSAL
            self._tally.add(value, channel)
            self._segment(channel, path, value)

    def _open_call(self, block: int, name: str, path: Path, choice: int = 0, kind: str = "function") -> None:
        """A tool call begins; `path` is where its arguments stand, or would.

        INVARIANT: an event that only names a tool carries a segment too, if an empty one: where arguments are judged
        before they leave, the name must wait with them.
        """
        call = ToolCall(name, kind=kind_of(self.request, name, kind))
        channel: Channel = ("args", choice, len(self.response.tool_calls))
        self.response.tool_calls.append(call)
        self._calls[block] = (call, channel)
        self._open_calls.grew(block, call.said)
        self._changed |= TOOLS
        self._tally.add(name, channel)
        self._segment(channel, path, "")

    def _argue(self, block: int, path: Path, value: str) -> None:
        """More of a call's arguments. Raises Malformed."""
        if block not in self._calls:
            raise Malformed("arguments outside of a tool call")
        if value:
            call, channel = self._calls[block]
            call.said.add(value)
            self._open_calls.grew(block, call.said)
            self._tally.add(value, channel)
            self._segment(channel, path, value)

    def _call(self, name: str, path: Path, arguments: object, choice: int = 0, kind: str = "function") -> None:
        """A whole tool call whose arguments stand at `path`: as JSON text, or as the value itself."""
        self._open_call(-1, name, path, choice, kind)
        call, channel = self._calls[-1]
        if isinstance(arguments, str):
            self._argue(-1, path, arguments)
        elif arguments is not None:
            call.arguments = dumped(arguments)
            self._tally.add(call.arguments, channel)
        self._close_call(-1)
        self._ends.append(channel)  # no other call has this channel

    def _close_call(self, block: int) -> None:
        if (known := self._calls.pop(block, None)) is not None:
            self._open_calls.close(block)
            self._close(known[1])

    def _reason(self, choice: int, reason: str) -> None:
        """The finish reason of a choice."""
        self._tally.weigh()
        self._reasons[choice] = reason
        self.response.finish_reasons = [self._reasons[one] for one in sorted(self._reasons)]
        self._changed |= FINISH
        self._stand = self._stand._replace(stopped=True)

    def _bill(self, bill: Bill | None, *, final: bool) -> None:
        """The provider's numbers."""
        if bill is not None:
            self._tally.take(bill, final=final)
            self._changed |= USAGE
            self._stand = self._stand._replace(usage=True)

    def _model(self, name: str | None) -> None:
        if name and self.response.model is None:
            self.response.model = name
            self._changed |= MODEL
        if name and not self._stand.model and is_id(name):
            self._stand = self._stand._replace(model=name)

    def _end(self) -> None:
        """The stream's own end."""
        before = self.response.usage_source
        self._tally.settle()
        if self.response.usage_source != before:
            self._changed |= USAGE
        if not self._stand.stopped and not self.response.is_error:
            self._partial("the stream ends without a finish reason")
        self._stand = self._stand._replace(done=True, open=())
        self._close_all()

    # ---- channels ----------------------------------------------------------------------------------------------------

    def _segment(self, channel: Channel, path: Path, value: str) -> None:
        self._channels[channel] = None
        if self.want_segments:
            self._segments.append(Segment(channel, path, value))

    def _close(self, channel: Channel) -> None:
        if channel in self._channels:
            del self._channels[channel]
            self._closes.append(channel)
            self._past.append(channel)

    def _next_block(self) -> None:
        """Another block, item or part begins: no more text is expected in those that were closed."""
        self._ends += self._past
        self._past.clear()

    def _close_all(self) -> None:
        self._closes += self._channels
        self._channels.clear()
        for block in self._calls:
            self._open_calls.close(block)
        self._calls.clear()


def strings(path: Path, value: object) -> Iterator[tuple[Path, str]]:
    """Every string below a value, and where it stands."""
    if isinstance(value, str):
        if value:
            yield path, value
        return
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield from strings((*path, key), below)


def index_of(document: dict[str, object], field: str = "index", default: int | None = None) -> int:
    """An index. Raises Malformed."""
    value = document.get(field, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value < MAX_INDEX:
        raise Malformed(f"{field} is no index")
    return value
