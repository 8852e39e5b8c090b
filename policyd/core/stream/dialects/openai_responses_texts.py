"""The texts of OpenAI Responses: each is told several times, and has to be known again each time.

Rule 1: what repeats what is known is neither counted nor judged twice, but edited like it.
Rule 2: what should repeat and does not is new text: it is judged by itself, and makes the answer partial.
"""

from __future__ import annotations

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import Channel, Path, Segment
from policyd.core.stream.dialects.answer import REFUSAL, TOOLS, Answer
from policyd.core.stream.dialects.openai_responses_ending import ItemStand, PartStand
from policyd.core.stream.dialects.openai_responses_items import CALLS, plain_strings

LONE = 1 << 20  # from here on channels are numbered that are no tool call's


class Part:
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


class Item:
    """One item of the output."""

    __slots__ = ("index", "names", "open", "parts", "type")

    def __init__(self, index: int, kind: str, names: tuple[tuple[str, str], ...]) -> None:
        self.index, self.type, self.names = index, kind, names
        self.parts: dict[tuple[str, int], Part] = {}
        self.open = True


class Telling(Answer):
    """The items of one answer, and what was told of their texts."""

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        super().__init__(request, response)
        self._items: dict[int, Item] = {}
        self._shape: tuple[ItemStand, ...] = ()
        self._fresh = 0
        self._journal: list[tuple[Channel, str]] = []

    # ---- parts -----------------------------------------------------------------------------------------------------

    def _part(self, item: Item, kind: str, place: int) -> Part:
        part = item.parts.get((kind, place))
        if part is None:
            lane = "reasoning" if kind == "summary" else kind
            part = item.parts[kind, place] = Part(kind, place, (lane, 0, LONE + self._number()))
            self._reshape()
        return part

    def _number(self) -> int:
        self._fresh += 1
        return self._fresh - 1

    def _close_item(self, item: Item) -> None:
        for part in item.parts.values():
            self._close_part(part, 0)
        if item.open:
            item.open = False
            self._calls.pop(item.index, None)
            self._reshape()

    def _close_part(self, part: Part, left: int) -> None:
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

    # ---- texts -----------------------------------------------------------------------------------------------------

    def _new(self, item: Item, part: Part, path: Path, value: str) -> None:
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

    def _repeat(self, item: Item, part: Part, path: Path, value: str) -> None:
        """A whole text: what is known of it already, or all of it at once."""
        known = part.text()
        if not known:
            self._new(item, part, path, value)
        elif value == known:
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

    def _veil(self, told: object, path: Path) -> None:
        """Log probabilities tell the text's tokens: none may tell what was taken out of the text."""
        if isinstance(told, dict) and told.get("logprobs") and self.want_segments:
            self._segments.append(Segment(("veil", 0, 0), (*path, "logprobs"), "[]"))

    def _lone(self, channel: Channel, path: Path, value: str) -> None:
        """A text that begins and ends here."""
        if self.want_segments and value:
            self._segments.append(Segment(channel, path, value))
            self._closes.append(channel)
