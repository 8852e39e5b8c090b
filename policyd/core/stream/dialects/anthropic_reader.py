"""Answers of Anthropic Messages, whole or event by event.

Rule 1: message_start's numbers are not final: its input stands until a later event names another, its output is a
        placeholder. message_delta's output is the total so far, and final with the stop_reason.
Rule 2: `inspection` stays full only while every event, block and delta is of a known type.
Rule 3: `part` of a "text" channel is the index of the first of the text blocks in a row (what is cited divides a text
        into blocks anywhere), of a "reasoning" channel the block's index, of an "args" channel the call's place in
        `response.tool_calls`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts, ToolCall
from policyd.core.stream.dialects import Changed, Channel, Ending, Path, Reading, Segment
from policyd.core.stream.dialects.anthropic_blocks import SILENT_BLOCKS, TOOL_BLOCKS, Block
from policyd.core.stream.dialects.anthropic_ending import Mark, Stand, ending
from policyd.core.stream.dialects.anthropic_usage import Counts
from policyd.core.stream.dialects.complete import Completion
from policyd.core.stream.dialects.content import Structure
from policyd.core.stream.dialects.likeness import Likeness
from policyd.core.stream.dialects.open_calls import OpenCalls
from policyd.core.stream.dialects.response_openai import ANTHROPIC_RESPONSE
from policyd.core.stream.dialects.shared import CHANGES, Tally, dumped, kind_of, listing, mapping, mark_partial, text
from policyd.core.stream.dialects.stated import stated_nano
from policyd.core.stream.dialects.unread_calls import CallPlaces
from policyd.core.stream.json_strict import loads_event

TEXT, TOOLS, FINISH = int(Changed.TEXT), int(Changed.TOOLS), int(Changed.FINISH)
USAGE, MODEL, REFUSAL = int(Changed.USAGE), int(Changed.MODEL), int(Changed.REFUSAL)
INSPECTION, ERROR = int(Changed.INSPECTION), int(Changed.ERROR)

CALLS = CallPlaces(events=frozenset({("content_block",), ("message", "content", 0)}), body=frozenset({("content", 0)}))
MAX_OPEN = 1024  # blocks of one response that are open at once
_FIELDS = {
    "text_delta": "text",
    "input_json_delta": "partial_json",
    "thinking_delta": "thinking",
    "compaction_delta": "content",
}


class AnthropicReader:
    """Reads one answer into its facts. `want_segments` False spares the editable text nobody asks for."""

    structure: ClassVar[Structure] = ANTHROPIC_RESPONSE
    deltas: ClassVar[frozenset[Path]] = frozenset({("delta",)})

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        self.request, self.response = request, response
        self.want_segments = True
        self.completion = Completion(self.structure, self.deltas, request, response, calls=CALLS)
        self._tally = Tally(request, response)
        self._counts, self._stand = Counts(), Stand()
        self._blocks: dict[int, Block] = {}  # open ones
        self._stopped: dict[int, Block] = {}
        self._open_calls: OpenCalls[int] = OpenCalls()
        self._run: Channel | None = None  # of the text blocks in a row
        self._newest: Block | None = None  # of them
        self._segments: list[Segment] = []
        self._closes: list[Channel] = []
        self._ends: list[Channel] = []
        self._past: list[Channel] = []  # of blocks that have stopped, before another one begins
        self._changed = 0
        self._rewound: Mark | None = None
        self._silent = 0  # attempts that were declined before they said anything
        self._unbilled = False  # the request was refused before any output: Anthropic bills nothing for it
        self._like = Likeness("text")
        self._like_name, self._like_index = "", -1  # of its event, and of the block that speaks there

    # ---- the protocol ----------------------------------------------------------------------------------------------

    def read_event(self, name: str, data: str) -> Reading:
        """One event of a stream."""
        self.response.delta = ""
        self._changed = 0
        self._segments, self._closes = [], []
        self._ends = []
        block = self._blocks.get(self._like_index) if name == self._like_name and not self._stand.done else None
        if block is not None and block is self._newest and (said := self._like.text(data)):
            self._visible(block, ("delta", "text"), said)
            return Reading(self._segments, (), CHANGES[self._changed])
        last = False
        event: Any = None
        try:
            event = loads_event(data)
            if type(event) is not dict:
                raise Malformed("an event is not an object")
            kind = event.get("type")
            if name and name != kind:
                self._partial("an event whose name is not its type")
            if self._stand.done:
                self._partial("an event after the end")
            if kind == "content_block_delta":
                self._block_delta(event)
                if self._changed == TEXT and self.completion.plain(event, ("delta", "text")):
                    self._like.learn(data, event["delta"]["text"])
                    self._like_name, self._like_index = name, event["index"]
            else:
                last = self._event(kind, event)
        except Malformed as failure:
            self._partial(failure.reason)
            self._complete(self.completion.event(event, self._segments))
            return Reading(self._segments, self._closes, CHANGES[self._changed], malformed=True, ends=self._ends)
        self._complete(self.completion.event(event, self._segments))
        return Reading(self._segments, self._closes, CHANGES[self._changed], last, ends=self._ends)

    def read_json(self, doc: object) -> Reading:
        """The whole answer, or an error."""
        response = self.response
        response.delta = ""
        self._changed = 0
        self._segments, self._closes = [], []
        document = doc if isinstance(doc, dict) else {}
        if not isinstance(document.get("content"), list) or response.status >= 400:
            if response.status < 400 and document.get("type") != "error" and not document.get("error"):
                raise Malformed("the answer is no message")
            response.is_error = True
            self._tally.nothing()
            self._complete(self.completion.body(doc, self._segments))
            return Reading(self._segments, changed=CHANGES[ERROR | USAGE])
        self._model(document)
        for index, item in enumerate(listing(document["content"], "content")):
            self._start_block(index, mapping(item, "a content block"), ("content", index))
        self._stop_reason(document)
        self._take(document.get("usage"), final=True)
        self._complete(self.completion.body(doc, self._segments))
        self._closes = [block.channel for block in self._blocks.values()]
        self._blocks.clear()
        return Reading(self._segments, self._closes, CHANGES[self._changed], last=True)

    def _complete(self, why: str) -> None:
        """The segments of this event are complete; `why` it makes the response partial, or nothing."""
        if why and not self.response.is_error:
            self._partial(why)

    def want_content(self, wanted: bool) -> None:
        """Whether every string of the response is content that somebody reads."""
        self.completion.wanted = wanted

    def want_calls(self, wanted: bool) -> None:
        """Whether somebody reads the tool calls of the response."""
        self.completion.wants_calls = wanted

    def finish(self) -> None:
        """The body is over."""
        self._tally.settle()
        if not self._stand.done:
            mark_partial(self.response, "the stream ends without its end")

    def mark(self) -> Mark:
        """Where the stream stands."""
        response = self.response
        return Mark(self._stand, response.input_tokens, response.output_tokens, self._open_calls.at)

    def rewind(self, mark: object) -> None:
        """Stand where `mark` was taken."""
        assert isinstance(mark, Mark)
        self._rewound = mark

    def ending(self, end: Ending) -> bytes:
        """The bytes that end the stream from here."""
        mark = self._rewound or self.mark()
        return ending(self.request, mark._replace(half=self._open_calls.half(mark.at)), end)

    # ---- events ----------------------------------------------------------------------------------------------------

    def _event(self, kind: object, event: dict[str, object]) -> bool:
        """Every event but the hot one; whether it is the last."""
        match kind:
            case "message_start":
                self._start(mapping(event.get("message"), "message"))
            case "content_block_start":
                block = mapping(event.get("content_block"), "content_block")
                self._start_block(_index(event), block, ("content_block",))
            case "content_block_stop":
                self._stop_block(_index(event))
            case "message_delta":
                self._message_delta(event)
            case "message_stop":
                self._stop()
                return True
            case "error":
                self.response.is_error = True
                self._changed |= ERROR
                self._stand = self._stand._replace(done=True)
            case "ping":
                pass
            case _:
                self._partial("an unknown event type")
        return False

    def _start(self, message: dict[str, object]) -> None:
        self._model(message)
        self._stand = self._stand._replace(started=True)
        if (usage := message.get("usage")) is not None:
            try:
                self._counts.update(usage)
            except Malformed as failure:
                self._partial(failure.reason)
                return
            self._tally.start(self._counts.bill())
            self._changed |= USAGE
        for index, block in enumerate(listing(message.get("content"), "content")):
            self._start_block(index, mapping(block, "a content block"), ("message", "content", index))

    def _model(self, message: dict[str, object]) -> None:
        self.response.model = text(message.get("model"), "model") or self.response.model
        self._changed |= MODEL

    def _message_delta(self, event: dict[str, object]) -> None:
        self._end_run()
        self._stop_reason(mapping(event.get("delta"), "delta"))
        self._take(event.get("usage"), final=self._stand.stopped)

    def _stop_reason(self, said: dict[str, object]) -> None:
        if (reason := text(said.get("stop_reason"), "stop_reason")) is None:
            return
        self._tally.weigh()
        self.response.finish_reasons = [reason]
        self._changed |= FINISH
        self._stand = self._stand._replace(stopped=True)
        if reason == "refusal":
            self._unbilled = self.request.provider == "anthropic" and not self._tally.said
            details = said.get("stop_details")
            why = mapping(details, "stop_details").get("explanation") if details is not None else None
            self.response.refusal = text(why, "explanation") or reason
            self._changed |= REFUSAL

    def _take(self, usage: object, *, final: bool) -> None:
        if usage is None:
            return
        try:
            has_output = self._counts.update(usage, self._silent)
        except Malformed as failure:
            self._partial(failure.reason)  # the estimate stays
            return
        if has_output:
            bill = self._counts.bill()
            bill.stated_nano = 0 if self._unbilled else stated_nano(self.request.provider, {"usage": usage})
            self._tally.take(bill, final=final)
            self._changed |= USAGE

    def _stop(self) -> None:
        before = self.response.usage_source
        self._tally.settle()
        if self.response.usage_source != before:
            self._changed |= USAGE
        if not self._stand.stopped:
            self._partial("the stream ends without a stop_reason")
        self._end_run()
        self._closes += [block.channel for block in self._blocks.values()]
        self._stopped.update(self._blocks)
        self._blocks.clear()
        self._stand = self._stand._replace(done=True, open=())

    def _partial(self, reason: str) -> None:
        mark_partial(self.response, reason)
        self._changed |= INSPECTION

    # ---- blocks ----------------------------------------------------------------------------------------------------

    def _start_block(self, index: int, said: dict[str, object], path: Path) -> None:
        if len(self._blocks) >= MAX_OPEN:
            raise Malformed(f"more than {MAX_OPEN} open blocks")
        kind = text(said.get("type"), "the type of a content block") or ""
        block = self._block(index, kind, said)
        self._ends += self._past
        self._past.clear()
        self._blocks[index] = block
        stand = self._stand
        self._stand = stand._replace(open=(*stand.open, index), after=max(stand.after, index + 1))
        match kind:
            case "text":
                self._visible(block, (*path, "text"), text(said.get("text"), "text") or "")
            case "fallback":
                self._fallback(said)
            case "thinking":
                self._hidden(block, (*path, "thinking"), text(said.get("thinking"), "thinking") or "")
            case "compaction":
                self._hidden(block, (*path, "content"), text(said.get("content"), "content") or "")
            case _ if block.call is not None:
                self._seed(block, path, said.get("input"))
            case _ if kind not in SILENT_BLOCKS and not kind.endswith("_tool_result"):
                self._partial("an unknown content block")
        if block.call is not None:
            self._open_calls.grew(index, block.call.said)

    def _fallback(self, said: dict[str, object]) -> None:
        """The model so far declined; another one goes on."""
        self._silent += not self._tally.said
        target = said.get("to")
        name = target.get("model") if isinstance(target, dict) else None
        if isinstance(name, str) and name:
            self.response.model = name
            self._changed |= MODEL

    def _block(self, index: int, kind: str, said: dict[str, object]) -> Block:
        if kind == "text":
            self._run = self._run or ("text", 0, index)
            self._newest = Block(kind, self._run, None)
            return self._newest
        self._end_run()
        if kind not in TOOL_BLOCKS:
            return Block(kind, ("reasoning" if kind == "thinking" else "other", 0, index), None)
        name = text(said.get("name"), "the name of a tool") or ""
        call = ToolCall(name, kind=kind_of(self.request, name, TOOL_BLOCKS[kind]))
        self.response.tool_calls.append(call)
        self._changed |= TOOLS
        self._tally.add(call.name)
        return Block(kind, ("args", 0, len(self.response.tool_calls) - 1), call)

    def _seed(self, block: Block, path: Path, given: object) -> None:
        """Arguments that stand in the block itself: whole in an answer that does not stream, else mostly empty."""
        assert block.call is not None
        # INVARIANT: the block's name is part of the call: where arguments are judged first, it must wait with them.
        if self.want_segments:
            self._segments.append(Segment(block.channel, (*path, "input"), ""))
        if given in (None, {}) and path[0] == "content_block":
            return
        block.call.arguments = dumped(given)
        block.seeded = True
        self._tally.add(block.call.arguments)

    def _stop_block(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            self._partial("the end of a block that is not open")
            return
        if len(self._stopped) < MAX_OPEN:
            self._stopped[index] = block
        if block.kind != "text":
            self._closes.append(block.channel)
            self._past.append(block.channel)
        self._open_calls.close(index)
        stand = self._stand
        self._stand = stand._replace(open=tuple(one for one in stand.open if one != index))

    def _end_run(self) -> None:
        """The text blocks in a row are over."""
        if self._run is not None:
            self._closes.append(self._run)
            if all(block.channel != self._run for block in self._blocks.values()):
                self._past.append(self._run)
            self._run = self._newest = None

    def _block_delta(self, event: dict[str, object]) -> None:
        """The hot path."""
        delta = event.get("delta")
        if type(delta) is not dict:
            raise Malformed("delta is not an object")
        index = _index(event)
        block = self._blocks.get(index)
        if block is None:
            self._late(self._stopped.get(index), delta)
            raise Malformed("a delta outside of its block")
        kind = delta.get("type")
        if kind == "text_delta":
            self._visible(block, ("delta", "text"), _said(delta, "text"))
        elif kind == "input_json_delta":
            self._arguments(index, block, _said(delta, "partial_json"))
        elif kind == "thinking_delta":
            self._hidden(block, ("delta", "thinking"), _said(delta, "thinking"))
        elif kind == "compaction_delta":
            self._hidden(block, ("delta", "content"), text(delta.get("content"), "content") or "")
        elif kind not in ("signature_delta", "citations_delta"):
            self._partial("an unknown delta")

    def _late(self, block: Block | None, delta: dict[str, object]) -> None:
        """A delta of a block that has stopped: SDKs append it, so it is redacted with what the block said."""
        field = _FIELDS.get(str(delta.get("type")), "")
        value = delta.get(field)
        if block is not None and isinstance(value, str) and self.want_segments:
            self._segments.append(Segment(block.channel, ("delta", field), value))

    def _visible(self, block: Block, path: Path, value: str) -> None:
        if not value:
            return
        if block.channel[0] != "text":
            raise Malformed("text outside of a text block")
        if block is not self._newest:
            alone = self._newest is None or self._newest.channel != block.channel
            if alone and self.want_segments:  # SDKs append it, so it is redacted with what the block said
                self._segments.append(Segment(block.channel, path, value))
            raise Malformed("text in a block before the newest one")
        response = self.response
        response.texts.setdefault(0, []).append(value)
        response.text_chars += len(value)
        response.delta = response.delta + value if response.delta else value
        self._changed |= TEXT
        self._tally.add(value)
        if self.want_segments:
            self._segments.append(Segment(block.channel, path, value))

    def _hidden(self, block: Block, path: Path, value: str) -> None:
        """Thinking, and the summary that compaction leaves: output, but no visible text."""
        if not value:
            return
        if block.kind == "thinking":
            self._tally.add_reasoning(value)
        else:
            self._tally.add(value)
        if self.want_segments:
            self._segments.append(Segment(block.channel, path, value))

    def _arguments(self, index: int, block: Block, value: str) -> None:
        if block.call is None:
            raise Malformed("arguments outside of a tool call")
        if not value:
            return
        if block.seeded:
            block.call.arguments = ""
            block.seeded = False
        block.call.said.add(value)
        self._open_calls.grew(index, block.call.said)
        self._tally.add(value)
        if self.want_segments:
            self._segments.append(Segment(block.channel, ("delta", "partial_json"), value))


def _index(event: dict[str, object]) -> int:
    index = event.get("index")
    if type(index) is not int or index < 0:
        raise Malformed("the index of a block is no index")
    return index


def _said(delta: dict[str, object], field: str) -> str:
    value = delta.get(field)
    if type(value) is str:
        return value
    raise Malformed(f"{field} is not a string")
