"""The texts of OpenAI Responses: each is told several times, and has to be known again each time.

Rule 1: what repeats what is known is neither counted nor judged twice, but edited like it.
Rule 2: what should repeat and does not is new text: it is judged by itself, and makes the answer partial.
"""

from __future__ import annotations

from policyd.core.model.facts import RequestFacts, ResponseFacts, ToolCall
from policyd.core.model.growing import Growing
from policyd.core.stream.arguments import decode_call
from policyd.core.stream.dialects import Channel, Path, Segment
from policyd.core.stream.dialects.answer import REFUSAL, TOOLS, Answer
from policyd.core.stream.dialects.openai_responses_ending import ItemStand, PartStand
from policyd.core.stream.dialects.openai_responses_items import plain_strings
from policyd.core.stream.dialects.shared import kind_of

LONE = 1 << 20  # from here on channels are numbered that are no tool call's


class Part:
    """One growing text: what was told of it, and where."""

    __slots__ = ("channel", "kind", "left", "place", "told")

    def __init__(self, kind: str, place: int, channel: Channel) -> None:
        self.kind, self.place, self.channel = kind, place, channel
        self.told = Growing()
        self.left = 2

    def is_said(self, text: str) -> bool:
        """Whether this is the whole of what was told. Texts of another length are not read for it."""
        return len(text) == self.told.size and text == self.told.text()


class Item:
    """One item of the output."""

    __slots__ = ("call", "index", "names", "open", "others", "parts", "type")

    def __init__(self, index: int, kind: str, names: tuple[tuple[str, str], ...]) -> None:
        self.index, self.type, self.names = index, kind, names
        self.parts: dict[tuple[str, int], Part] = {}
        self.call: ToolCall | None = None
        self.others: dict[str, tuple[ToolCall, Channel]] = {}  # the same call by the other names that it was given
        self.open = True


class Telling(Answer):
    """The items of one answer, and what was told of their texts."""

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        super().__init__(request, response)
        self._items: dict[int, Item] = {}
        # What was known of an item, or of a part of one, after each change: a mark is a place in it.
        self._shapes: list[tuple[int, ItemStand | PartStand]] = []
        self._fresh = 0
        self._journal: list[tuple[Channel, str]] = []

    # ---- parts -----------------------------------------------------------------------------------------------------

    def _part(self, item: Item, kind: str, place: int) -> Part:
        part = item.parts.get((kind, place))
        if part is None:
            self._next_block()
            lane = "reasoning" if kind == "summary" else kind
            part = item.parts[kind, place] = Part(kind, place, (lane, 0, LONE + self._number()))
            self._shape_part(item, part)
        return part

    def _number(self) -> int:
        self._fresh += 1
        return self._fresh - 1

    def _close_item(self, item: Item) -> None:
        for part in item.parts.values():
            self._close_part(item, part, 0)
        if item.open:
            item.open = False
            self._calls.pop(item.index, None)
            self._open_calls.close(item.index)
            self._shape_item(item)
        for _, channel in item.others.values():
            self._close(channel)

    def _close_part(self, item: Item, part: Part, left: int) -> None:
        if part.left > left:
            part.left = left
            self._close(part.channel)
            self._shape_part(item, part)

    def _shape_item(self, item: Item) -> None:
        self._shapes.append((item.index, ItemStand(item.index, item.type, item.names, (), item.open)))

    def _shape_part(self, item: Item, part: Part) -> None:
        self._shapes.append((item.index, PartStand(part.kind, part.place, part.channel, part.left)))

    def _items_until(self, at: int) -> tuple[ItemStand, ...]:
        """The items as they were at this place of `_shapes`."""
        items: dict[int, ItemStand] = {}
        parts: dict[int, dict[tuple[str, int], PartStand]] = {}
        for index, shape in self._shapes[:at]:
            if isinstance(shape, ItemStand):
                items[index] = shape
            else:
                parts.setdefault(index, {})[shape.kind, shape.place] = shape
        return tuple(item._replace(parts=tuple(parts.get(index, {}).values())) for index, item in items.items())

    # ---- texts -----------------------------------------------------------------------------------------------------

    def _new(self, item: Item, part: Part, path: Path, value: str) -> None:
        """Text that was not told before."""
        if not value:
            return
        if part.left < 2:
            self._partial("text after its end")
        part.told.add(value)
        self._journal.append((part.channel, value))
        match part.kind:
            case "text":
                self._say(path, value, part.channel)
            case "refusal":
                self._refuse(path, value, part.channel)
            case "args" if item.index in self._calls:
                self._argue(item.index, path, value)
                for other, _ in item.others.values():
                    other.said.add(value)
            case "args" if item.call is not None:
                item.call.arguments += value
                self._changed |= TOOLS
                decode_call(item.call)
                self._renew(item, item.call.arguments)
                self._aside(path, value, part.channel)
            case "summary" | "reasoning":
                self._think(path, value, part.channel)
            case _:
                self._aside(path, value, part.channel)

    def _repeat(self, item: Item, part: Part, path: Path, value: str) -> None:
        """A whole text: what is known of it already, or all of it at once."""
        if not part.told.size:
            self._new(item, part, path, value)
        elif part.is_said(value):
            if self.want_segments:
                self._segments.append(Segment(part.channel, path, value, again=True))
        elif value:
            self._otherwise(item, part, path, value)

    def _otherwise(self, item: Item, part: Part, path: Path, value: str) -> None:
        """A repetition that says something else: it is judged too, by itself."""
        self._partial("a text is told in two ways")
        channel: Channel = (part.channel[0], 0, LONE + self._number())
        if part.kind == "text":
            self._say(path, value, channel)
            self._close(channel)
            self._ends.append(channel)
            return
        if part.kind == "args" and item.call is not None:
            item.call.arguments = value
            self._changed |= TOOLS
            if not item.open:
                decode_call(item.call)
            self._renew(item, value)
        elif part.kind == "refusal":
            self.response.refusal = value
            self._changed |= REFUSAL
        self._lone(channel, path, value)

    def _name_call(self, item: Item, name: str | None, path: Path) -> None:
        """The name of a call, given once more. Clients take the first one or the last one, so under another name it is
        another call, with the same arguments. `path`: where its arguments stand, or would."""
        call = item.call
        if not name or call is None or name == call.name or name in item.others:
            return
        self._changed |= TOOLS
        self._tally.add(name)
        if not call.name:
            call.name = name
            return
        self._partial("a tool call is named in two ways")
        other = ToolCall(name, call.arguments, kind_of(self.request, name, call.kind))
        channel: Channel = ("args", 0, len(self.response.tool_calls))
        self.response.tool_calls.append(other)
        item.others[name] = (other, channel)
        self._segment(channel, path, "")
        if not item.open:
            self._close(channel)

    def _renew(self, item: Item, arguments: str) -> None:
        """The arguments of a call under its other names."""
        for other, _ in item.others.values():
            other.arguments = arguments
            if not item.open:
                decode_call(other)

    def _count(self, value: object) -> None:
        """Output that no rule reads as text: all strings below a value."""
        for _, said in plain_strings((), value):
            self._tally.add(said)

    def _veil(self, told: object, path: Path) -> None:
        """Log probabilities tell the text's tokens: none may tell what was taken out of the text."""
        if isinstance(told, dict) and told.get("logprobs") and self.want_segments:
            self._segments.append(Segment(("veil", 0, 0), (*path, "logprobs"), "[]"))

    def _lone(self, channel: Channel, path: Path, value: str) -> None:
        """A text that begins and ends here."""
        if self.want_segments and value:
            self._segments.append(Segment(channel, path, value))
            self._closes.append(channel)
            self._ends.append(channel)
