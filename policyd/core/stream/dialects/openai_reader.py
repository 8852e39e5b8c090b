"""A stream of choices, as Chat Completions and Completions send it: its events, its end, its usage, what it says.

Rule 1: usage is final once every choice is finished; before that the provider's numbers are a running count.
Rule 2: numbers that are no counts are not believed: the estimate stays and the answer is partial.
"""

from __future__ import annotations

from typing import ClassVar

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Changed, Channel, Path, Reading, Segment
from policyd.core.stream.dialects.billing import tier_of
from policyd.core.stream.dialects.complete import NO_CALLS, Completion
from policyd.core.stream.dialects.content import ANYTHING, Structure, is_id
from policyd.core.stream.dialects.openai_shared import Stand
from policyd.core.stream.dialects.openai_usage import bill_of
from policyd.core.stream.dialects.shared import CHANGES, Bill, Tally, mark_partial, text
from policyd.core.stream.dialects.stated import stated_nano
from policyd.core.stream.dialects.unread_calls import CallPlaces
from policyd.core.stream.json_strict import loads_event

TEXT, FINISH, USAGE, MODEL = int(Changed.TEXT), int(Changed.FINISH), int(Changed.USAGE), int(Changed.MODEL)
INSPECTION, ERROR = int(Changed.INSPECTION), int(Changed.ERROR)

EVENT_NAMES = frozenset({"", "message", "data", "error", "ping", "chat.completion.chunk", "text_completion"})
# What tells of a choice's tokens, in numbers or in words.
VEILS = frozenset({"logprobs", "token_ids", "completion_token_ids", "completion_logprobs", "generation_logprobs"})


class ChoicesReader:
    """Reads one answer into its facts. `want_segments` False spares the editable text nobody asks for.

    A dialect brings `_choices`, the names of its objects, its structural fields, and its ending.
    """

    objects: ClassVar[frozenset[str]] = frozenset({""})
    structure: ClassVar[Structure] = ANYTHING
    deltas: ClassVar[frozenset[Path]] = frozenset()
    calls: ClassVar[CallPlaces] = NO_CALLS
    deep: ClassVar[bool] = False  # an official SDK merges the deltas at every depth

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        self.request, self.response = request, response
        self.want_segments = True
        self.completion = Completion(self.structure, self.deltas, request, response, deep=self.deep, calls=self.calls)
        self._tally = Tally(request, response)
        self._stand = Stand()
        self._channels: dict[int, dict[Channel, None]] = {}  # open ones, by choice
        self._reasons: dict[int, str] = {}
        self._segments: list[Segment] = []
        self._closes: list[Channel] = []
        self._changed = 0

    def _choices(self, choices: list[object], *, whole: bool) -> None:
        """The choices of an event, or of a whole answer. Raises Malformed."""
        raise NotImplementedError

    # ---- the protocol ------------------------------------------------------------------------------------------

    def read_event(self, name: str, data: str) -> Reading:
        """One event of a stream."""
        response = self.response
        response.delta = ""
        self._changed = 0
        self._segments, self._closes = [], []
        if data.startswith("[DONE]"):
            return self._end(data)
        document: object = None
        try:
            document = loads_event(data)
            if type(document) is not dict:
                raise Malformed("an event is not an object")
            if self._stand.done:
                self._partial("an event after the end")
            choices = document.get("choices")
            if type(choices) is not list or name not in EVENT_NAMES or "error" in document:
                self._odd_event(name, document, choices)
            elif not self._is_known(document.get("object")):
                self._partial("an unknown event type")
            if not self._stand.id or self.response.model is None:
                self._begin(document)
            if choices:
                self._choices(choices, whole=False)
            if "x_groq" in document:
                self._groq_veil(document["x_groq"])
            if (usage := document.get("usage")) is not None or "x_groq" in document:
                self._usage(usage or _groq_usage(document), alone=not choices, document=document)
                if usage and choices == []:
                    self._complete(self.completion.event(document, self._segments))
                    return Reading(self._segments, self._closes, CHANGES[self._changed], extra=True)
        except Malformed as failure:
            self._partial(failure.reason)
            self._complete(self.completion.event(document, self._segments))
            return Reading(self._segments, self._closes, CHANGES[self._changed], malformed=True)
        self._complete(self.completion.event(document, self._segments))
        return Reading(self._segments, self._closes, CHANGES[self._changed])

    def read_json(self, doc: object) -> Reading:
        """The whole answer, or an error."""
        response = self.response
        self._changed = 0
        self._segments, self._closes = [], []
        response.delta = ""
        document = doc if isinstance(doc, dict) else {}
        choices = document.get("choices")
        if not isinstance(choices, list):
            if response.status < 400 and not document.get("error"):
                raise Malformed("the answer is no completion")
            response.is_error = True
            self._tally.nothing()
            if isinstance(document.get("usage"), dict):
                self._usage(document["usage"], alone=True, document=document)
            self._complete(self.completion.body(doc, self._segments))
            return Reading(self._segments, changed=CHANGES[ERROR | USAGE])
        self._begin(document)
        self._choices(choices, whole=True)
        self._groq_veil(document.get("x_groq"))
        usage = document.get("usage") or _groq_usage(document)
        self._usage(usage, alone=True, document=document)
        self._complete(self.completion.body(doc, self._segments))
        self._close_all()
        return Reading(self._segments, self._closes, CHANGES[self._changed], last=True)

    def want_content(self, wanted: bool) -> None:
        """Whether every string of the response is content that somebody reads."""
        self.completion.wanted = wanted

    def want_calls(self, wanted: bool) -> None:
        """Whether somebody reads the tool calls of the response."""
        self.completion.wants_calls = wanted

    def finish(self) -> None:
        """The body is over."""
        self._tally.settle()
        if self.response.is_error or self._stand.done:
            return
        # Some who speak this dialect leave [DONE] out: an answer whose choices all have their reason is whole.
        if not self._stand.begun or self._unfinished():
            mark_partial(self.response, "the stream ends without its end")

    # ---- events ----------------------------------------------------------------------------------------------------

    def _end(self, data: str) -> Reading:
        malformed = data.strip() != "[DONE]"
        if malformed:
            self._partial("data after the end")
        before = self.response.usage_source
        self._tally.settle()
        if self.response.usage_source != before:
            self._changed |= USAGE
        if not self._stand.done and not self.response.is_error and (not self._stand.begun or self._unfinished()):
            self._partial("the stream ends before its choices do")
        self._stand = self._stand._replace(done=True)
        self._close_all()
        return Reading(self._segments, self._closes, CHANGES[self._changed], last=True, malformed=malformed)

    def _odd_event(self, name: str, document: dict[str, object], choices: object) -> None:
        """What is no ordinary chunk: an error, a chunk without choices, or something unknown."""
        if document.get("error") or name == "error":
            self.response.is_error = True
            self._changed |= ERROR
            self._stand = self._stand._replace(failed=True)
            return
        if name not in EVENT_NAMES:
            self._partial("an unknown event type")
        elif choices is not None and not isinstance(choices, list):
            raise Malformed("choices is not a list")
        elif choices is None and name != "ping" and not self._is_chunk(document):
            self._partial("an unknown event type")

    def _is_chunk(self, document: dict[str, object]) -> bool:
        kind = document.get("object")
        return self._is_known(kind) and (bool(kind) or isinstance(document.get("usage"), dict))

    def _is_known(self, kind: object) -> bool:
        return kind is None or (type(kind) is str and kind in self.objects)

    def _begin(self, document: dict[str, object]) -> None:
        model = text(document.get("model"), "model")
        if model and self.response.model is None:
            self.response.model = model
            self._changed |= MODEL
        self.response.service_tier = tier_of(document.get("service_tier"))
        name, created = document.get("id"), document.get("created")
        if not is_id(model):
            model = ""  # of an ending, which repeats nothing that may be text
        if isinstance(name, str) and not self.response.id:
            self.response.id = name
        if isinstance(name, str) and is_id(name) and not self._stand.id:
            when = created if isinstance(created, int) else 0
            self._stand = self._stand._replace(id=name, created=when, model=model or self._stand.model)
        elif model and not self._stand.model:
            self._stand = self._stand._replace(model=model)

    def _usage(self, usage: object, *, alone: bool, document: dict[str, object]) -> None:
        try:
            bill = bill_of(usage, document.get("service_tier"), stated_nano(self.request.provider, document))
        except Malformed as failure:
            self._partial(failure.reason)  # the estimate stays
            return
        if bill is not None:
            self._tally.take(bill, final=alone or not self._unfinished())
            self._changed |= USAGE
            self._stand = self._stand._replace(usage=True)

    def _bill(self) -> Bill:
        said = self.response
        return Bill(said.input_tokens, said.output_tokens, said.cached_input_tokens, 0, said.reasoning_tokens)

    def _unfinished(self) -> bool:
        return any(choice not in self._reasons for choice in self._stand.begun)

    # ---- choices ---------------------------------------------------------------------------------------------------

    def _partial(self, reason: str) -> None:
        mark_partial(self.response, reason)
        self._changed |= INSPECTION

    def _complete(self, why: str) -> None:
        """The segments of this event are complete; `why` it makes the response partial, or nothing."""
        if why and not self.response.is_error:
            self._partial(why)

    def _start_choice(self, index: int) -> None:
        self._channels[index] = {}
        self._stand = self._stand._replace(begun=(*self._stand.begun, index))

    def _reopen(self, index: int) -> None:
        if index in self._reasons:
            self._partial("text after the end of its choice")

    def _say(self, channel: Channel, path: Path, value: str) -> None:
        """The hot path: visible text."""
        index = channel[1]
        channels = self._channels[index]
        if channel not in channels:
            self._reopen(index)
            channels[channel] = None
        response = self.response
        pieces = response.texts.get(index)
        if pieces is None:
            pieces = response.texts[index] = []
        pieces.append(value)
        response.text_chars += len(value)
        response.delta = response.delta + value if response.delta else value
        self._changed |= TEXT
        self._tally.add(value, channel)
        if self.want_segments:
            self._segments.append(Segment(channel, path, value))

    def _segment(self, channel: Channel, path: Path, value: str) -> None:
        if channel not in self._channels[channel[1]]:
            self._reopen(channel[1])
            self._channels[channel[1]][channel] = None
        if self.want_segments:
            self._segments.append(Segment(channel, path, value))

    def _veil(self, index: int, place: int, choice: dict[str, object]) -> None:
        """What tells the text's tokens: none of it may tell what was taken out of the text."""
        if not VEILS.isdisjoint(choice):
            self._veils(index, ("choices", place), choice)

    def _veils(self, index: int, path: Path, told: dict[str, object]) -> None:
        for field in sorted(told.keys() & {"token_id", *VEILS}) if self.want_segments else ():
            if told[field]:
                self._segments.append(Segment(("veil", index, 0), (*path, field), "null"))

    def _groq_veil(self, extra: object) -> None:
        """With `debug` Groq tells the tokens of request and answer, as numbers and as text."""
        told = extra.get("debug") if isinstance(extra, dict) else None
        if not isinstance(told, dict) or not self.want_segments:
            return
        for field in sorted(field for field in told if told[field]):
            self._segments.append(Segment(("veil", 0, 0), ("x_groq", "debug", field), "null"))

    def _finish(self, index: int, reason: object) -> None:
        said = text(reason, "finish_reason") or ""
        self._tally.weigh()
        if index not in self._channels:
            self._start_choice(index)
        self._reasons[index] = said
        self.response.finish_reasons = [self._reasons[choice] for choice in sorted(self._reasons)]
        self._changed |= FINISH
        self._closes += self._channels[index]
        self._channels[index] = {}
        self._stand = self._stand._replace(finished=self._stand.finished | {index})

    def _close_all(self) -> None:
        for index, channels in self._channels.items():
            self._closes += channels
            self._channels[index] = {}


def choice_index(choice: dict[str, object], place: int) -> int:
    """The index of a choice. Raises Malformed."""
    index = choice.get("index", place)
    if type(index) is not int or not 0 <= index < 1024:
        raise Malformed("the index of a choice is no index")
    return index


def _groq_usage(document: dict[str, object]) -> object:
    extra = document.get("x_groq")
    return extra.get("usage") if isinstance(extra, dict) else None
