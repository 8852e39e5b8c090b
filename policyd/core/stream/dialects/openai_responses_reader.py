"""Answers of OpenAI Responses, whole or event by event.

Rule 1: a text is told several times (delta, done, its part's end, its item's end, the closing response). What repeats
        what is known is neither counted nor judged twice, but edited like it; what does not repeat it is new text, is
        judged as such, and makes the answer partial.
Rule 2: calls of functions and custom tools are `tool_calls`; what hosted tools do is not.
Rule 3: the finish reason is what the response says of itself: its status, or why it is incomplete.
Rule 4: `inspection` stays full only while every event, item and part is of a known type.
"""

from __future__ import annotations

from collections.abc import Mapping

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Channel, Path, Reading, Segment
from policyd.core.stream.dialects.answer import ERROR, REFUSAL, TOOLS, USAGE, Answer, index_of
from policyd.core.stream.dialects.openai_responses_ending import ItemStand, Mark, PartStand, ending
from policyd.core.stream.dialects.openai_responses_events import DELTAS, is_silent
from policyd.core.stream.dialects.openai_responses_items import (
    CALLS,
    KNOWN,
    Said,
    known_part,
    plain_strings,
    said_in,
    said_in_part,
    unknown_parts,
)
from policyd.core.stream.dialects.openai_usage import responses_bill
from policyd.core.stream.dialects.shared import Bill, listing, mapping, text

ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
BEGINS = frozenset({"response.created", "response.queued", "response.in_progress"})
LONE = 1 << 20  # from here on channels are numbered that are no tool call's
_NAMES = ("id", "call_id", "name", "namespace", "server_label")


class _Part:
    """One growing text: what was told of it, and where."""

    __slots__ = ("channel", "kind", "left", "place", "told")

    def __init__(self, kind: str, place: int, channel: Channel) -> None:
        self.kind, self.place, self.channel = kind, place, channel
        self.told: list[str] = []
        self.left = 2

    def text(self) -> str:
        if len(self.told) > 1:
            self.told[:] = ["".join(self.told)]
        return self.told[0] if self.told else ""


class _Item:
    """One item of the output."""

    __slots__ = ("index", "names", "open", "parts", "type")

    def __init__(self, index: int, kind: str, names: tuple[tuple[str, str], ...]) -> None:
        self.index, self.type, self.names = index, kind, names
        self.parts: dict[tuple[str, int], _Part] = {}
        self.open = True


class ResponsesReader(Answer):
    """Reads one answer into its facts. `repeats`: its ending tells again what was told, so it must know what left."""

    repeats = True

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        super().__init__(request, response)
        self._items: dict[int, _Item] = {}
        self._shape: tuple[ItemStand, ...] = ()
        self._head: Mapping[str, object] | None = None
        self._sequence = -1
        self._fresh = 0
        self._journal: list[tuple[Channel, str]] = []
        self._texts: Mapping[Channel, str] | None = None
        self._back: Mark | None = None

    # ---- the protocol ------------------------------------------------------------------------------------------------

    def read_event(self, name: str, data: str) -> Reading:
        """One event of a stream. Some end theirs with `[DONE]`, as chat does."""
        if data != "[DONE]":
            return super().read_event(name, data)
        self._begin_reading()
        if not self._stand.done:
            self._end()
        return self._reading(last=True)

    def mark(self) -> Mark:  # type: ignore[override]  # an ending needs more here than elsewhere
        """Where the stream stands."""
        said = self.response
        bill = Bill(said.input_tokens, said.output_tokens, said.cached_input_tokens, 0, said.reasoning_tokens)
        return Mark(self._head, self._shape, self._sequence, len(self._journal), bill, self._stand.done)

    def rewind(self, mark: object) -> None:
        """Stand where `mark` was taken."""
        assert isinstance(mark, Mark)
        self._back = mark

    def told(self, texts: Mapping[Channel, str]) -> None:
        """What has left of each channel, where that is not what came."""
        self._texts = texts

    def ending(self, text: str, reason: str) -> bytes:  # noqa: ARG002 - the dialect has no place for the reason
        """The bytes that end the stream from here."""
        mark = self._back or self.mark()
        return ending(self.request, mark, self._said_until(mark) if self._texts is None else self._texts, text)

    def _said_until(self, mark: Mark) -> dict[Channel, str]:
        pieces: dict[Channel, list[str]] = {}
        for channel, said in self._journal[: mark.told]:
            pieces.setdefault(channel, []).append(said)
        return {channel: "".join(said) for channel, said in pieces.items()}

    # ---- documents ---------------------------------------------------------------------------------------------------

    def _failed(self, name: str, document: dict[str, object]) -> bool:
        if document.get("object") == "response":
            return False  # one that failed still says what it used
        return document.get("type", name) == "error" or (not document.get("type") and bool(document.get("error")))

    def _whole(self, document: dict[str, object]) -> None:
        if not isinstance(document.get("output"), list):
            raise Malformed("the answer is no response")
        self._output(document, ())
        self._status(document, "")

    def _event(self, name: str, document: dict[str, object]) -> bool:
        kind = document.get("type")
        if not isinstance(kind, str):
            raise Malformed("an event without a type")
        if name and name != kind:
            self._partial("an event whose name is not its type")
        if type(number := document.get("sequence_number")) is int:
            self._sequence = number
        base, _, verb = kind.rpartition(".")
        if verb == "delta" and base in DELTAS:
            self._delta(base, document)
        elif verb == "done" and base in DELTAS:
            self._done(base, document)
        elif kind in BEGINS:
            self._begin(mapping(document.get("response"), "response"), ("response",))
        elif kind in ENDS:
            response = mapping(document.get("response"), "response")
            self._output(response, ("response",))
            self._status(response, verb)
            self._end()
            return True
        else:
            self._structure(kind, document)
        return False

    def _structure(self, kind: str, document: dict[str, object]) -> None:
        match kind:
            case "response.output_item.added" | "response.output_item.done":
                said = mapping(document.get("item"), "item")
                item = self._item(index_of(document, "output_index"), said, ("item",))
                self._read_item(item, said, ("item",))
                if kind.endswith("done"):
                    self._close_item(item)
            case "response.content_part.added" | "response.reasoning_summary_part.added":
                self._read_part(document)
            case "response.content_part.done" | "response.reasoning_summary_part.done":
                part = self._read_part(document)
                if part is not None:
                    self._close_part(part, 0)
            case "response.output_text.annotation.added":
                self._aside_all(("annotation",), document.get("annotation"))
            case _ if not is_silent(kind):
                self._partial("an unknown event type")
                self._aside_all((), document)

    # ---- the response itself -----------------------------------------------------------------------------------------

    def _begin(self, response: dict[str, object], path: Path) -> None:
        self._model(text(response.get("model"), "model"))
        if self._head is None:
            self._head = {**response, "output": []}
        self._aside_all((*path, "instructions"), response.get("instructions"), known=True)

    def _output(self, response: dict[str, object], path: Path) -> None:
        self._begin(response, path)
        known = {dict(item.names).get("id"): index for index, item in self._items.items()}
        for place, one in enumerate(listing(response.get("output"), "output")):
            said = mapping(one, "an item")
            name = said.get("id")
            where = (*path, "output", place)
            item = self._item(known.get(name, place) if isinstance(name, str) else place, said, where)
            self._read_item(item, said, where)
            self._close_item(item)

    def _status(self, response: dict[str, object], verb: str) -> None:
        status = text(response.get("status"), "status") or verb
        details = response.get("incomplete_details")
        why = mapping(details, "incomplete_details").get("reason") if details else None
        if status not in ("", "queued", "in_progress"):
            self._reason(0, text(why, "reason") or status)
        if status == "failed" or response.get("error"):
            self.response.is_error = True
            self._changed |= ERROR
        try:
            self._bill(responses_bill(response.get("usage")), final=True)
        except Malformed as failure:
            self._partial(failure.reason)  # the estimate stays
            return
        if self.response.is_error and not self._stand.usage:
            self._tally.nothing()
            self._changed |= USAGE

    # ---- items -------------------------------------------------------------------------------------------------------

    def _item(self, index: int, said: dict[str, object], path: Path) -> _Item:
        item = self._items.get(index)
        if item is not None:
            return item
        kind = text(said.get("type"), "the type of an item") or ""
        if kind not in KNOWN:
            self._partial("an unknown item")
        names = tuple((name, value) for name in _NAMES if isinstance(value := said.get(name), str))
        item = self._items[index] = _Item(index, kind, names)
        if kind in CALLS:
            part = self._part(item, "args", 0)
            self._open_call(index, text(said.get("name"), "the name of a tool") or "", (*path, CALLS[kind]))
            part.channel = self._calls[index][1]
        self._reshape()
        return item

    def _read_item(self, item: _Item, said: dict[str, object], path: Path) -> None:
        if unknown_parts(said):
            self._partial("an unknown part of a message")
        for one in said_in(said):
            self._read_said(item, one, path)

    def _read_said(self, item: _Item, said: Said, path: Path) -> _Part | None:
        if said.kind == "other":
            self._lone(("other", 0, LONE + self._number()), (*path, *said.path), said.text)
            return None
        part = self._part(item, said.kind, said.place)
        self._repeat(item, part, (*path, *said.path), said.text)
        return part

    def _read_part(self, document: dict[str, object]) -> _Part | None:
        item = self._item_of(document)
        field = "summary_index" if "summary_index" in document else "content_index"
        part = mapping(document.get("part"), "part")
        if not known_part(part):
            self._partial("an unknown part of a message")
        said = said_in_part(part, index_of(document, field, 0))
        return self._read_said(item, said, ("part",)) if said is not None else None

    def _item_of(self, document: dict[str, object]) -> _Item:
        index = index_of(document, "output_index", 0)
        if index not in self._items:
            raise Malformed("an event outside of its item")
        return self._items[index]

    def _part(self, item: _Item, kind: str, place: int) -> _Part:
        part = item.parts.get((kind, place))
        if part is None:
            lane = "reasoning" if kind == "summary" else kind
            part = item.parts[kind, place] = _Part(kind, place, (lane, 0, LONE + self._number()))
            self._reshape()
        return part

    def _number(self) -> int:
        self._fresh += 1
        return self._fresh - 1

    def _close_item(self, item: _Item) -> None:
        for part in item.parts.values():
            self._close_part(part, 0)
        if item.open:
            item.open = False
            self._calls.pop(item.index, None)
            self._reshape()

    def _close_part(self, part: _Part, left: int) -> None:
        if part.left > left:
            part.left = left
            self._close(part.channel)
            self._reshape()

    def _reshape(self) -> None:
        self._shape = tuple(
            ItemStand(
                item.index,
                item.type,
                item.names,
                tuple(PartStand(part.kind, part.place, part.channel, part.left) for part in item.parts.values()),
                item.open,
            )
            for item in self._items.values()
        )

    # ---- texts -------------------------------------------------------------------------------------------------------

    def _delta(self, base: str, document: dict[str, object]) -> None:
        """The hot path."""
        kind, place, _ = DELTAS[base]
        value = document.get("delta")
        item = self._item_of(document)
        if type(value) is not str:
            self._aside_all(("delta",), mapping(value, "delta"))
            return
        self._new(item, self._part(item, kind, index_of(document, place, 0) if place else 0), ("delta",), value)

    def _done(self, base: str, document: dict[str, object]) -> None:
        kind, place, field = DELTAS[base]
        item = self._item_of(document)
        if not isinstance(value := document.get(field), str):
            self._aside_all((field,), value)
            return
        part = self._part(item, kind, index_of(document, place, 0) if place else 0)
        self._repeat(item, part, (field,), value)
        self._close_part(part, 1)

    def _new(self, item: _Item, part: _Part, path: Path, value: str) -> None:
        """Text that was not told before."""
        if not value:
            return
        if part.left < 2:
            self._partial("text after its end")
        part.told.append(value)
        self._journal.append((part.channel, value))
        match part.kind:
            case "text":
                self._say(path, value, part.channel)
            case "refusal":
                self._refuse(path, value, part.channel)
            case "args" if item.index in self._calls:
                self._argue(item.index, path, value)
            case "summary" | "reasoning":
                self._think(path, value, part.channel)
            case _:
                self._aside(path, value, part.channel)

    def _repeat(self, item: _Item, part: _Part, path: Path, value: str) -> None:
        """A whole text: what is known of it already, or all of it at once."""
        known = part.text()
        if not known:
            self._new(item, part, path, value)
        elif value == known:
            if self.want_segments:
                self._segments.append(Segment(part.channel, path, value, again=True))
        elif value:
            self._otherwise(item, part, path, value)

    def _otherwise(self, item: _Item, part: _Part, path: Path, value: str) -> None:
        """A repetition that says something else: it is judged too, by itself."""
        self._partial("a text is told in two ways")
        channel: Channel = (part.channel[0], 0, LONE + self._number())
        if part.kind == "text":
            self._say(path, value, channel)
            self._close(channel)
            return
        if part.kind == "args" and item.type in CALLS:
            self.response.tool_calls[part.channel[2]].arguments = value
            self._changed |= TOOLS
        elif part.kind == "refusal":
            self.response.refusal = value
            self._changed |= REFUSAL
        self._lone(channel, path, value)

    def _aside_all(self, path: Path, value: object, *, known: bool = False) -> None:
        """Every string below a value that nobody reads. `known`: it is the caller's own."""
        for where, said in plain_strings(path, value):
            if not known:
                self._tally.add(said)
            self._lone(("other", 0, LONE + self._number()), where, said)

    def _lone(self, channel: Channel, path: Path, value: str) -> None:
        """A text that begins and ends here."""
        if self.want_segments and value:
            self._segments.append(Segment(channel, path, value))
            self._closes.append(channel)
