"""Answers of OpenAI Responses, whole or event by event.

Rule 1: calls that the client carries out, and calls of MCP servers, are `tool_calls`; what hosted tools do is not.
Rule 2: the finish reason is what the response says of itself: its status, or why it is incomplete.
Rule 3: `inspection` stays full only while every event, item and part is of a known type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.arguments import decode_call
from policyd.core.stream.dialects import Channel, Ending, Path, Reading
from policyd.core.stream.dialects.answer import ERROR, TOOLS, USAGE, index_of
from policyd.core.stream.dialects.content import is_id
from policyd.core.stream.dialects.openai_responses_ending import Mark, ending
from policyd.core.stream.dialects.openai_responses_events import DELTAS, is_silent
from policyd.core.stream.dialects.openai_responses_items import (
    KNOWN,
    Said,
    Tool,
    known_part,
    said_in,
    said_in_part,
    tool_of,
    unknown_parts,
)
from policyd.core.stream.dialects.openai_responses_texts import Item, Part, Telling
from policyd.core.stream.dialects.openai_usage import responses_bill
from policyd.core.stream.dialects.response_openai import RESPONSES_RESPONSE
from policyd.core.stream.dialects.shared import Bill, dumped, listing, mapping, text
from policyd.core.stream.dialects.stated import stated_nano
from policyd.core.stream.dialects.unread_calls import CallPlaces

ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
BEGINS = frozenset({"response.created", "response.queued", "response.in_progress"})
_GIVEN = frozenset({"user", "system", "developer"})  # roles of messages that a compaction repeats
_NAMES = ("id", "call_id", "name", "namespace", "server_label")


class ResponsesReader(Telling):
    """Reads one answer into its facts. `repeats`: its ending tells again what was told, so it must know what left."""

    repeats = True
    structure = RESPONSES_RESPONSE
    deltas = frozenset({()})
    calls = CallPlaces(events=frozenset({(), ("item",), ("response", "output", 0)}), body=frozenset({("output", 0)}))

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        super().__init__(request, response)
        self._head: Mapping[str, object] | None = None
        self._sequence = -1
        self._texts: Mapping[Channel, str] | None = None
        self._clean: Callable[[str], str] = str
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
        told, shaped = len(self._journal), len(self._shapes)
        return Mark(self._head, (), self._sequence, told, bill, self._stand.done, shaped)

    def rewind(self, mark: object) -> None:
        """Stand where `mark` was taken."""
        assert isinstance(mark, Mark)
        self._back = mark

    def told(self, texts: Mapping[Channel, str], clean: Callable[[str], str]) -> None:
        """What has left of each channel, where that is not what came."""
        self._texts, self._clean = texts, clean

    def ending(self, end: Ending) -> bytes:
        """The bytes that end the stream from here."""
        mark = self._back or self.mark()
        items = self._items_until(mark.shaped)
        left = (one._replace(names=self._left(one.names), type=self._type_left(one.type)) for one in items)
        mark = mark._replace(items=tuple(left))
        return ending(self.request, mark, self._said_until(mark) if self._texts is None else self._texts, end)

    def _left(self, names: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """The names of an item as they left."""
        return tuple((key, said if is_id(said) and key != "name" else self._clean(said)) for key, said in names)

    def _type_left(self, kind: str) -> str:
        """The type of an item as it left."""
        return kind if kind in KNOWN else self._clean(kind)

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
        elif verb == "added" and base in DELTAS:  # what is there of a text when it begins, mostly nothing
            self._delta(base, {**document, "delta": document.get(DELTAS[base][2]) or ""})
        elif kind in BEGINS:
            self._begin(mapping(document.get("response"), "response"))
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
                if kind.endswith("added"):
                    self._reuse(index_of(document, "output_index"), said)
                item = self._item(index_of(document, "output_index"), said, ("item",))
                self._read_item(item, said, ("item",))
                if kind.endswith("done"):
                    self._close_item(item)
            case (
                "response.content_part.added"
                | "response.reasoning_summary_part.added"
                | "response.reasoning_part.added"
            ):
                self._read_part(document)
            case "response.content_part.done" | "response.reasoning_summary_part.done" | "response.reasoning_part.done":
                part = self._read_part(document)
                if part is not None:
                    self._close_part(self._item_of(document), part, 0)
            case "response.output_text.annotation.added":
                self._count(document.get("annotation"))
            case _ if not is_silent(kind):
                self._partial("an unknown event type")
                self._count(document)

    # ---- the response itself -----------------------------------------------------------------------------------------

    def _begin(self, response: dict[str, object]) -> None:
        self._model(text(response.get("model"), "model"))
        self.response.pending = response.get("status") in ("queued", "in_progress")
        if self._head is None:
            self._head = {**response, "output": []}
            name = response.get("id")
            self.response.id = name if isinstance(name, str) else ""

    def _output(self, response: dict[str, object], path: Path) -> None:
        self._begin(response)
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
        self.response.pending = status in ("queued", "in_progress")
        if status and not self.response.pending:
            self._reason(0, text(why, "reason") or status)
        if status == "failed" or response.get("error"):
            self.response.is_error = True
            self._changed |= ERROR
        try:
            stated = stated_nano(self.request.provider, response)
            bill = responses_bill(response.get("usage"), response.get("service_tier"), response.get("output"), stated)
            self._bill(bill, final=True)
        except Malformed as failure:
            self._partial(failure.reason)  # the estimate stays
            return
        if response.get("background") is True and self._stand.usage and not self.response.pending:
            self.response.fetched = str(response.get("id", ""))
        if self.response.pending and not self._stand.usage:
            self._tally.later()
        if self.response.is_error and not self._stand.usage:
            self._tally.nothing()
            self._changed |= USAGE

    # ---- items -------------------------------------------------------------------------------------------------------

    def _item(self, index: int, said: dict[str, object], path: Path) -> Item:
        item = self._items.get(index)
        if item is not None:
            return item
        kind = text(said.get("type"), "the type of an item") or ""
        if kind not in KNOWN:
            self._partial("an unknown item")
        names = tuple((name, value) for name in _NAMES if isinstance(value := said.get(name), str))
        item = self._items[index] = Item(index, kind, names)
        if (tool := tool_of(said)) is not None:
            self._begin_call(item, tool, said, path)
        self._shape_item(item)
        return item

    def _reuse(self, index: int, said: dict[str, object]) -> None:
        """An item begins at this index. Where another one stands it is over."""
        known = self._items.get(index)
        if known is None:
            return
        self._partial("an item begins at an index that is taken")
        if said.get("id") != dict(known.names).get("id") or said.get("type") != known.type:
            self._close_item(known)
            del self._items[index]

    def _begin_call(self, item: Item, tool: Tool, said: dict[str, object], path: Path) -> None:
        part = self._part(item, "args", 0)
        name = text(said.get("name"), "the name of a tool") or tool.name
        self._open_call(item.index, name, (*path, tool.field), kind=tool.kind)
        item.call, part.channel = self._calls[item.index]
        self._shape_part(item, part)

    def _read_item(self, item: Item, said: dict[str, object], path: Path) -> None:
        content = said.get("content")
        for place, part in enumerate(content if isinstance(content, list) else []):
            self._veil(part, (*path, "content", place))
        if unknown_parts(said):
            self._partial("an unknown part of a message")
        if (tool := tool_of(said)) is not None:
            self._read_call(item, tool, said, path)
        elif said.get("type") in ("message", "reasoning"):
            given = self.request.path.endswith("/compact") and said.get("role") in _GIVEN
            for one in said_in(said):
                self._read_said(item, one._replace(kind="other") if given else one, path)

    def _read_call(self, item: Item, tool: Tool, said: dict[str, object], path: Path) -> None:
        if item.call is None:
            self._partial("an item that becomes a tool call")
            self._begin_call(item, tool, said, path)
        self._name_call(item, text(said.get("name"), "the name of a tool") or tool.name, (*path, tool.field))
        value = said.get(tool.field)
        if isinstance(value, str):
            self._repeat(item, self._part(item, "args", 0), (*path, tool.field), value)
        elif isinstance(value, dict | list) and tool.kind not in ("function", "custom"):
            self._act(item, dumped(value))
        elif value is not None:
            raise Malformed(f"{tool.field} is not a string")

    def _act(self, item: Item, action: str) -> None:
        """The action of a call that is no text, as far as it is known."""
        call = item.call
        assert call is not None
        if action == call.arguments:
            return
        if not item.open:
            self._partial("a tool call is told in two ways")
        if not call.arguments:
            self._tally.add(action)
        call.arguments = action
        self._changed |= TOOLS
        if not item.open:
            decode_call(call)
        self._renew(item, action)

    def _read_said(self, item: Item, said: Said, path: Path) -> Part:
        part = self._told_as(item, said)
        self._repeat(item, part, (*path, *said.path), said.text)
        return part

    def _told_as(self, item: Item, said: Said) -> Part:
        """The part that a text repeats. Some count the parts of an item otherwise in events than they stand in it."""
        known = item.parts.get((said.kind, said.place))
        if known is None or (known.told.size and not known.is_said(said.text)):
            same = (one for (kind, _), one in item.parts.items() if kind == said.kind and one.is_said(said.text))
            if said.text and (other := next(same, None)) is not None:
                return other
        return known or self._part(item, said.kind, said.place)

    def _read_part(self, document: dict[str, object]) -> Part | None:
        item = self._item_of(document)
        field = "summary_index" if "summary_index" in document else "content_index"
        part = mapping(document.get("part"), "part")
        self._veil(part, ("part",))
        if not known_part(part):
            self._partial("an unknown part of a message")
        said = said_in_part(part, index_of(document, field, 0))
        return self._read_said(item, said, ("part",)) if said is not None else None

    def _item_of(self, document: dict[str, object]) -> Item:
        index = index_of(document, "output_index", 0)
        if index not in self._items:
            raise Malformed("an event outside of its item")
        return self._items[index]

    def _delta(self, base: str, document: dict[str, object]) -> None:
        """The hot path."""
        kind, place, _ = DELTAS[base]
        value = document.get("delta")
        self._veil(document, ())
        item = self._item_of(document)
        if "name" in document and kind == "args":
            self._name_call(item, text(document["name"], "the name of a tool"), ("delta",))
        if type(value) is not str:
            self._count(mapping(value, "delta"))
            return
        self._new(item, self._part(item, kind, index_of(document, place, 0) if place else 0), ("delta",), value)

    def _done(self, base: str, document: dict[str, object]) -> None:
        kind, place, field = DELTAS[base]
        self._veil(document, ())
        item = self._item_of(document)
        if "name" in document and kind == "args":
            self._name_call(item, text(document["name"], "the name of a tool"), (field,))
        if not isinstance(value := document.get(field), str):
            self._count(value)
            return
        part = self._told_as(item, Said(kind, index_of(document, place, 0) if place else 0, (field,), value))
        self._repeat(item, part, (field,), value)
        if kind != "input":  # a call is complete with its item
            self._close_part(item, part, 1)
