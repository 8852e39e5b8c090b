"""Answers of Bedrock's Converse, whole or event by event, and what policyd says in its voice.

Rule 1: some models put every word into a block of its own: the text of all blocks is one channel.
Rule 2: what a guardrail tells in its trace is the text again, and text that it took away: content, but no text.
"""

from __future__ import annotations

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream import eventstream
from policyd.core.stream.dialects import Body, Ending, Path
from policyd.core.stream.dialects.answer import HIDDEN, Answer, Mark, Stand, index_of
from policyd.core.stream.dialects.bedrock_shared import bill_of, header_bill, is_exception
from policyd.core.stream.dialects.billing import tier_of
from policyd.core.stream.dialects.half_json import remainder
from policyd.core.stream.dialects.response_others import CONVERSE_RESPONSE
from policyd.core.stream.dialects.shared import Bill, listing, mapping, section, text
from policyd.core.stream.dialects.unread_calls import CallPlaces
from policyd.core.stream.json_strict import dumps

EVENTS = frozenset(
    {"messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"}
)
SILENT = frozenset({"cachePoint", "image", "video", "audio", "document", "guardContent", "searchResult", "toolResult"})
Event = tuple[str, dict[str, object]]


class ConverseAnswer(Answer):
    """Reads one answer."""

    structure = CONVERSE_RESPONSE
    deltas = frozenset({("delta",)})
    calls = CallPlaces(
        events=frozenset(
            (*place, kind, "toolUse")
            for kind in ("start", "delta")
            for place in ((), (f"contentBlock{kind.title()}",))  # in InvokeModel the event stands in a chunk
        ),
        body=frozenset({("output", "message", "content", 0, "toolUse")}),
    )

    _metered = False  # the stream's usage has come
    _newest = -1  # the block that text came in last

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        super().__init__(request, response)
        self._spoken: set[int] = set()  # blocks with text

    def _failed(self, name: str, document: dict[str, object]) -> bool:
        return is_exception(name) or bool(self.response.status >= 400 and document.get("message"))

    def _document(self, name: str, data: str) -> dict[str, object]:
        return {} if is_exception(name) and not data.strip() else super()._document(name, data)

    # ---- in one piece ------------------------------------------------------------------------------------------------

    def _whole(self, document: dict[str, object]) -> None:
        message = mapping(mapping(document.get("output"), "output").get("message"), "message")
        for place, item in enumerate(listing(message.get("content"), "content")):
            self._block(mapping(item, "a block"), ("output", "message", "content", place))
        if (reason := text(document.get("stopReason"), "stopReason")) is not None:
            self._reason(0, reason)
        self._usage(document.get("usage"), document.get("serviceTier"))

    def _block(self, block: dict[str, object], path: Path) -> None:
        for key, value in block.items():
            match key:
                case "text":
                    self._say((*path, key), text(value, key) or "")
                case "toolUse":
                    said = mapping(value, key)
                    name = text(said.get("name"), "the name of a tool") or ""
                    self._call(name, (*path, key, "input"), said.get("input"))
                case "reasoningContent":
                    self._thought(mapping(value, key), (*path, key))
                case "citationsContent":
                    self._cited(mapping(value, key), (*path, key))
                case _ if key not in SILENT:
                    self._partial("an unknown kind of block")

    def _thought(self, said: dict[str, object], path: Path) -> None:
        inner = said.get("reasoningText")
        if inner is not None:
            said, path = mapping(inner, "reasoningText"), (*path, "reasoningText")
        self._think((*path, "text"), text(said.get("text"), "text") or "")

    def _cited(self, said: dict[str, object], path: Path) -> None:
        for place, item in enumerate(listing(said.get("content"), "content")):
            words = text(mapping(item, "a cited text").get("text"), "text") or ""
            self._say((*path, "content", place, "text"), words)

    # ---- event by event ----------------------------------------------------------------------------------------------

    def _event(self, name: str, document: dict[str, object]) -> bool:
        return self._read(name, document, ())

    def _read(self, name: str, document: dict[str, object], path: Path) -> bool:
        """One event whose document stands at `path`."""
        if self._stand.stopped and name != "metadata":
            self._partial("an event after the end")
        match name:
            case "messageStart":
                self._stand = self._stand._replace(begun=True)
            case "contentBlockStart":
                self._start(document, section(document.get("start"), "start"), (*path, "start"))
            case "contentBlockDelta":
                self._delta(document, mapping(document.get("delta"), "delta"), (*path, "delta"))
            case "contentBlockStop":
                self._stop(index_of(document, "contentBlockIndex"))
            case "messageStop":
                self._reason(0, text(document.get("stopReason"), "stopReason") or "")
                self._close_all()
                return self._ended(known=self._metered)
            case "metadata":
                self._usage(document.get("usage"), document.get("serviceTier"))
                self._metered = True
                return self._ended(known=self._stand.stopped)
            case _:
                self._partial("an unknown event type")
        return False

    def _ended(self, *, known: bool) -> bool:
        """Whether the stream is over: it is with its stop reason and its usage, in whichever order they come."""
        if known:
            self._end()
        return known

    def _open_block(self, index: int, kind: str) -> None:
        stand = self._stand
        if all(known != index for known, _ in stand.open):
            self._next_block()
            self._stand = stand._replace(open=(*stand.open, (index, kind)), after=max(stand.after, index + 1))

    def _start(self, document: dict[str, object], start: dict[str, object], path: Path) -> None:
        index = index_of(document, "contentBlockIndex")
        self._open_block(index, "tool" if "toolUse" in start else "text")
        for key, value in start.items():
            if key == "toolUse":
                name = text(mapping(value, key).get("name"), "the name of a tool") or ""
                # INVARIANT: the name waits with its arguments: the place of the empty segment is never written to.
                self._open_call(index, name, (*path, key, "input"))
            elif key not in SILENT:
                self._partial("an unknown kind of block")

    def _delta(self, document: dict[str, object], delta: dict[str, object], path: Path) -> None:
        index = index_of(document, "contentBlockIndex")
        self._open_block(index, "text")
        for key, value in delta.items():
            if key == "text":
                self._speaks(index)
                self._say((*path, key), text(value, key) or "")
            elif key == "toolUse":
                words = text(mapping(value, key).get("input"), "input") or ""
                self._argue(index, (*path, key, "input"), words)
            elif key == "reasoningContent":
                said = mapping(value, key)
                self._think((*path, key, "text"), text(said.get("text"), "text") or "", HIDDEN)
            elif key != "citation" and key not in SILENT:
                self._partial("an unknown delta")

    def _speaks(self, index: int) -> None:
        """Text comes in this block. Raises Malformed where another block has spoken since: clients join what the events
        do not tell in a row."""
        if index != self._newest and index in self._spoken:
            raise Malformed("text in a block before the newest one")
        self._newest = index
        self._spoken.add(index)

    def _stop(self, index: int) -> None:
        stand = self._stand
        if all(known != index for known, _ in stand.open):
            # Nova ends blocks that it never filled.
            self._stand = stand._replace(after=max(stand.after, index + 1))
        self._stand = self._stand._replace(open=tuple(one for one in stand.open if one[0] != index))
        self._close_call(index)

    def _usage(self, usage: object, tier: object) -> None:
        try:
            bill = bill_of(usage) or header_bill(self.response.headers)
            if bill is not None:
                bill.tier = tier_of(tier)
            self._bill(bill, final=True)
        except Malformed as failure:
            self._partial(failure.reason)  # the estimate stays

    def _ending(self, mark: Mark, end: Ending) -> bytes:
        return b"".join(eventstream.render(dumps(document), name) for name, document in ending(mark, end))


# ---- our own voice --------------------------------------------------------------------------------------------------


def ending(mark: Mark, end: Ending) -> list[Event]:
    """The events that end a stream that stands here."""
    stand, half = mark.stand, mark.half
    out: list[Event] = [] if stand.begun else [("messageStart", {"role": "assistant"})]
    for index, _ in stand.open:
        if rest := remainder(half[index]) if index in half else "":
            out.append(("contentBlockDelta", {"contentBlockIndex": index, "delta": {"toolUse": {"input": rest}}}))
        out.append(("contentBlockStop", {"contentBlockIndex": index}))
    if end.text:
        out.append(("contentBlockDelta", {"contentBlockIndex": stand.after, "delta": {"text": end.text}}))
        out.append(("contentBlockStop", {"contentBlockIndex": stand.after}))
    if end.text or not stand.stopped:
        out.append(("messageStop", {"stopReason": stop_reason(end)}))
    return [*out, ("metadata", end.marked({"usage": _numbers(mark.bill), "metrics": {"latencyMs": 0}}))]


def stop_reason(end: Ending) -> str:
    """Converse's word for the finish."""
    return end.word("content_filtered", "max_tokens", "end_turn")


def _numbers(bill: Bill) -> dict[str, object]:
    plain = bill.input - bill.cached - bill.cache_write
    return {
        "inputTokens": plain,
        "outputTokens": bill.output,
        "totalTokens": bill.input + bill.output,
        "cacheReadInputTokens": bill.cached,
        "cacheWriteInputTokens": bill.cache_write,
    }


def whole(end: Ending) -> dict[str, object]:
    """An answer in one piece."""
    message = {"role": "assistant", "content": [{"text": end.text}] if end.text else []}
    head: dict[str, object] = {"output": {"message": message}, "stopReason": stop_reason(end)}
    return end.marked({**head, "usage": _numbers(Bill(0, 0)), "metrics": {"latencyMs": 0}})


def completion(request: RequestFacts, end: Ending) -> Body:
    """A response that says the text: JSON, or a stream where the path asks for one."""
    if not request.stream:
        return Body("application/json", dumps(whole(end)).encode())
    events = ending(Mark(Stand(), Bill(0, 0)), end)
    data = b"".join(eventstream.render(dumps(document), name) for name, document in events)
    return Body("application/vnd.amazon.eventstream", data)
