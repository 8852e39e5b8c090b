"""Dialects: how one provider's bytes become facts, and how policyd speaks that provider's own language.

Rule 1: a dialect never guesses. What it does not understand raises `Malformed`, or marks the answer `partial`.
Rule 2: no two dialects import each other; what they share lives in shared.py.
Rule 3: policyd never translates between dialects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import NamedTuple, Protocol, runtime_checkable

from policyd.core.model.facts import RequestFacts, ResponseFacts

Path = tuple[str | int, ...]
"""Where a value stands in a JSON document: keys and indexes from the top."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change to a JSON document; every other byte stays as it came.

    `value` replaces or, where the last key is missing, adds; `remove` drops the member or element; `insert` puts
    `value` before the element at the path's last index (an index equal to the length appends). A `value` that is a
    `Rename` gives the member another name and leaves what stands there.
    """

    path: Path
    value: object = None
    remove: bool = False
    insert: bool = False


@dataclass(frozen=True, slots=True)
class Rename:
    """The new name of a member. Another member of that name stays apart: the new one is made longer."""

    name: str


@dataclass(frozen=True, slots=True)
class RequestChange:
    """What the winning obligations ask of a request body, in policyd's words."""

    model: str = ""
    caps: tuple[tuple[str, int], ...] = ()
    sets: tuple[tuple[tuple[str, ...], object], ...] = ()
    tools_allow: tuple[frozenset[str], ...] = ()  # each of these lists must allow a tool
    tools_deny: frozenset[str] = frozenset()
    inject_system: tuple[str, ...] = ()
    include_usage: bool = False


Channel = tuple[str, int, int]
"""Where a run of editable text belongs: (kind, choice, part); kind is "text", "args" (of tool call `part`), "refusal",
"reasoning", or "other" for what no rule reads. Text of one channel is one string, however many events carry it.

"alone" is every string that is one text by itself, at whatever event and place: see ALONE.

"veil" is no text: it tells of the texts beside it in a form that cannot be edited (log probabilities of their tokens).
So it leaves blank where one of them is changed, or where it stands alone after one was; its segment's text is the
blank, as JSON."""

ALONE: Channel = ("alone", 0, 0)
"""The channel of all strings that begin and end where they stand."""

LOOSE = "loose"
"""The kind of channels of strings that each begin and end where they stand, and that rules also read as one text."""

SCATTERED = "scattered"
"""The same, of strings that no official SDK joins: redaction takes each by itself, and none waits for the next."""

JOINED = frozenset({LOOSE, SCATTERED})

BLANKS: dict[str, object] = {"null": None, "[]": [], "0": 0}
"""What may take the place of a veil, by its segment's text."""


class Segment(NamedTuple):
    """A run of editable text inside one event (or JSON answer): `text` is the value at `path` of its document.

    `again`: it is the whole of its channel so far, told once more; what leaves of that channel stands here too.
    `name`: it is the name of the member at `path`.
    """

    channel: Channel
    path: Path
    text: str
    again: bool = False
    name: bool = False


class Changed(IntFlag):
    """Which facts an event touched."""

    NOTHING = 0
    TEXT = 1
    TOOLS = 2
    FINISH = 4
    USAGE = 8
    MODEL = 16
    REFUSAL = 32
    INSPECTION = 64
    ERROR = 128


@dataclass(slots=True)
class Reading:
    """What one event said: its editable text, the channels that it closes, and which facts it touched."""

    segments: Sequence[Segment] = ()
    closes: Sequence[Channel] = ()  # what stands here is complete, by the protocol
    changed: Changed = Changed.NOTHING
    last: bool = False  # the protocol's own end ([DONE], message_stop)
    malformed: bool = False  # this event's data could not be read at all: what reads the answer cannot be judged
    extra: bool = False  # comes only to who asked for usage
    ends: Sequence[Channel] = ()  # closed before, and the protocol has gone on to another block: held text may leave


@dataclass(frozen=True, slots=True)
class Ending:
    """What a caller gets at the end of a call that policyd terminates.

    `finish`: `refusal`, `length` or `stop`, which each dialect writes in its own words. `origin`: the `policyd` member
    of the last event or error object: decision, policy, rule, reason. Official SDKs pass it on or ignore it.
    """

    text: str = ""
    finish: str = "refusal"
    origin: Mapping[str, str] = field(default_factory=dict)

    def marked(self, document: Mapping[str, object]) -> dict[str, object]:
        """The document with the `policyd` member."""
        return {**document, "policyd": dict(self.origin)} if self.origin else dict(document)

    @property
    def refusal(self) -> str:
        """Why the response ends, as a sentence, where it ends as a refusal; else empty."""
        if self.finish != "refusal" or not self.origin:
            return ""
        rule, policy = self.origin.get("rule"), self.origin.get("policy")
        whose = f"rule {rule} of policy {policy}" if rule else "a policy"
        return f"The response was stopped by {whose}."

    def word(self, refusal: str, length: str, stop: str) -> str:
        """The dialect's word for `finish`."""
        return {"refusal": refusal, "length": length}.get(self.finish, stop)


UNMARKED = Ending()
"""Without a text, and without the `policyd` member."""


@dataclass(frozen=True, slots=True)
class Body:
    """A whole HTTP body of our own."""

    content_type: str
    data: bytes
    headers: tuple[tuple[str, str], ...] = field(default=())


class AnswerReader(Protocol):
    """Reads one answer into its ResponseFacts, and can end it properly at any event boundary.

    One whose stream says texts again (`Segment.again`) also has `repeats`, true; one whose ending does is `Repeating`.
    """

    def read_json(self, doc: object) -> Reading:
        """The whole answer of a call that does not stream (or an error answer). Raises Malformed."""
        ...

    def read_event(self, name: str, data: str) -> Reading:
        """One event of a stream: its SSE event name (may be empty) and data. Malformed data never raises here: the
        answer becomes `partial` and the reading says INSPECTION."""
        ...

    def want_content(self, wanted: bool) -> None:
        """Whether every string of the response is content that somebody reads. Without it, only texts of known kinds
        get segments."""
        ...

    def want_calls(self, wanted: bool) -> None:
        """Whether somebody reads the tool calls of the response: then `unread_calls` says where some are not known."""
        ...

    def ending(self, end: Ending) -> bytes:
        """The bytes that end the stream properly from here, with the ending's text as the last visible text: open
        blocks closed, finish/stop reason, usage so far, the protocol's own end. Reads what has been *released*: see
        `mark`."""
        ...

    def mark(self) -> object:
        """Where the reader stands after the event just read; cheap. Given back to `rewind` by a cut at an earlier
        event, so that `ending` closes what the client has really seen open."""
        ...

    def rewind(self, mark: object) -> None: ...

    def finish(self) -> None:
        """The body is over: an answer that lacks its proper end becomes `partial`."""
        ...


@runtime_checkable
class Repeating(Protocol):
    """A reader whose stream says its texts again, also in its ending: it must be told what of them has left."""

    @property
    def repeats(self) -> bool: ...

    def told(self, texts: Mapping[Channel, str], clean: Callable[[str], str]) -> None:
        """What has left of each channel; asked for before an ending, after `rewind`. `clean`: any other string as it
        left."""
        ...


class Dialect(Protocol):
    """One provider's language."""

    @property
    def name(self) -> str: ...

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:
        """The operation that this path stands for, or None when it is not this dialect's. Path without query."""
        ...

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str: ...

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed when a field that policies read has a type it cannot have."""
        ...

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request, for redaction."""
        ...

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's own fields. A cap lowers, or sets when absent; never raises a value."""
        ...

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader: ...

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error answer in the provider's own shape, such that its SDK raises its own exception with `message`."""
        ...

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:
        """A well-formed answer (a stream when one was asked for) that says the ending's text."""
        ...
