"""Messages and deltas of OpenAI Chat Completions, field by field, into facts and editable text.

Rule 1: `inspection` stays full only while every field of a message or delta is a known one, or holds no text.
Rule 2: `part` of an "args" channel is the call's place in `response.tool_calls`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts, ToolCall
from policyd.core.stream.dialects import Changed, Channel, Path, Segment
from policyd.core.stream.dialects.content import Structure
from policyd.core.stream.dialects.open_calls import OpenCalls
from policyd.core.stream.dialects.openai_reader import VEILS, ChoicesReader, choice_index
from policyd.core.stream.dialects.response_openai import CHAT_RESPONSE
from policyd.core.stream.dialects.shared import dumped, kind_of, listing, mapping, text
from policyd.core.stream.dialects.unread_calls import CallPlaces
from policyd.core.stream.json_strict import loads

TOOLS, REFUSAL, ERROR = int(Changed.TOOLS), int(Changed.REFUSAL), int(Changed.ERROR)

DELTA: Path = ("choices", 0, "delta")
MESSAGE: Path = ("choices", 0, "message")
CALLS: tuple[Path, ...] = (("tool_calls", 0, "function"), ("tool_calls", 0, "custom"), ("function_call",))
MAX_NAME = 1024  # characters of a tool's name, which may come in pieces
REASONING = frozenset({"reasoning_content", "reasoning"})
# Fields that say the same again, point at sources or carry what is not text: nothing is read of them here.
SILENT = frozenset(
    {
        "role",
        "id",
        "name",
        "type",
        "obfuscation",
        "p",
        "padding",
        "tool_call_id",
        "annotations",
        "citations",
        "search_results",
        "images",
        "context",
        "content_filter_results",
        "content_filter_offsets",
        "executed_tools",
        "extra_content",
        "provider_specific_fields",
        "thinking_blocks",
        "copilot_annotations",
        "signature",
        "reasoning_signature",
        "reasoning_steps",
        "channel",
        "prefix",
    }
)


SILENT_PARTS = frozenset(
    {
        "reference", "tool_reference", "image_url", "document_url", "input_audio", "audio", "file", "image",
        "video_url", "redacted_thinking",
    }
)  # fmt: skip
"""Parts of content that point at sources or hold media: all their strings are content, none is the model's text."""


class _Call:
    """One tool call: where it stands in the facts, and its id."""

    __slots__ = ("choice", "fact", "id", "index", "part")

    def __init__(self, choice: int, index: int, part: int, fact: ToolCall) -> None:
        self.choice, self.index, self.part, self.fact = choice, index, part, fact
        self.id = ""


class MessageReader(ChoicesReader):
    """Reads choices into the facts of one answer."""

    structure: ClassVar[Structure] = CHAT_RESPONSE
    deltas: ClassVar[frozenset[Path]] = frozenset({DELTA})
    calls: ClassVar[CallPlaces] = CallPlaces(
        events=frozenset((*DELTA, *call) for call in CALLS), body=frozenset((*MESSAGE, *call) for call in CALLS)
    )
    deep: ClassVar[bool] = True

    objects: ClassVar[frozenset[str]] = ChoicesReader.objects | {
        "chat.completion.chunk",
        "chat.completion",
        "chat.completion.done",  # this and the next two are Perplexity's
        "chat.reasoning",
        "chat.reasoning.done",
    }

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        super().__init__(request, response)
        self._calls: dict[tuple[int, int], _Call] = {}
        self._open: dict[_Call, None] = {}  # calls of choices that are not finished
        self._open_calls: OpenCalls[_Call] = OpenCalls()
        self._paths: dict[tuple[int, int], tuple[Channel, Path]] = {}

    # ---- choices ---------------------------------------------------------------------------------------------------

    def _choices(self, choices: list[object], *, whole: bool) -> None:
        field = "message" if whole else "delta"
        for place, choice in enumerate(choices):
            if type(choice) is not dict:
                raise Malformed("a choice is not an object")
            index = choice_index(choice, place)
            delta = choice.get(field)
            if type(delta) is dict:
                self._fields(index, place, field, delta)
            elif delta is not None:
                raise Malformed(f"{field} is not an object")
            if len(choice) > ("index" in choice) + (field in choice) + ("finish_reason" in choice):
                self._odd_choice(index, place, field, choice)
            if (reason := choice.get("finish_reason")) not in (None, ""):  # some gateways send "" with every piece
                self._finish(index, reason)

    def _fields(self, index: int, place: int, field: str, delta: dict[str, object]) -> None:
        """The fields of a message or of a delta."""
        if index not in self._channels:
            self._start_choice(index)
        for key, value in delta.items():
            if key == "content":
                if type(value) is str:
                    if value:
                        self._text(index, place, field, value)
                elif value is not None:
                    self._content_parts(index, ("choices", place, field, key), value)
            elif value is None:
                continue
            elif key not in SILENT:
                self._field(index, ("choices", place, field, key), key, value)

    def _text(self, index: int, place: int, field: str, value: str) -> None:
        known = self._paths.get((index, place))
        if known is None:
            known = (("text", index, 0), ("choices", place, field, "content"))
            self._paths[index, place] = known
        self._say(known[0], known[1], value)

    def _visible(self, index: int, part: int, path: Path, value: str) -> None:
        """Visible text that is not plain `content`."""
        if value:
            self._say(("text", index, part), path, value)

    def _content_parts(self, index: int, path: Path, parts: object) -> None:
        """Content as a list of parts: Mistral's reasoning models, some gateways."""
        for number, part in enumerate(listing(parts, "content")):
            item = mapping(part, "a part of content")
            match item.get("type"):
                case "text" | "output_text":
                    self._visible(index, 0, (*path, number, "text"), text(item.get("text"), "text") or "")
                case "thinking":
                    self._thinking(index, (*path, number, "thinking"), item.get("thinking"))
                case "reasoning":
                    self._thinking(index, (*path, number, "summary"), item.get("summary"))
                case str(kind) if kind in SILENT_PARTS:
                    pass
                case _:
                    self._partial("an unknown part of content")

    def _thinking(self, index: int, path: Path, value: object) -> None:
        if isinstance(value, str):
            self._reasoning(index, path, value)
            return
        for number, part in enumerate(listing(value, "thinking")):
            self._reasoning(index, (*path, number, "text"), text(mapping(part, "thinking").get("text"), "text") or "")

    def _reasoning(self, index: int, path: Path, value: str) -> None:
        if value:
            self._tally.add_reasoning(value, ("reasoning", index, 0))
            self._segment(("reasoning", index, 0), path, value)

    def _field(self, index: int, path: Path, key: str, value: object) -> None:
        """A field that is neither content nor silent."""
        if key == "tool_calls":
            for place, call in enumerate(listing(value, key)):
                self._tool_call(index, (*path, place), mapping(call, "a tool call"), place)
        elif key == "function_call":
            if not _is_empty(said := mapping(value, key)) or (index, -1) in self._calls:
                self._function(self._call(index, -1, None), path, said, "arguments")
        elif key == "refusal":
            self._refusal(index, path, text(value, key) or "")
        elif key in REASONING and isinstance(value, str):
            self._reasoning(index, path, value)
        elif key == "reasoning_details":
            self._reasoning_details(index, path, listing(value, key))
        elif key == "token_id" or key in VEILS:
            self._veils(index, path[:-1], {key: value})
        elif key == "audio":
            spoken = text(mapping(value, key).get("transcript"), "transcript")
            self._visible(index, 1, (*path, "transcript"), spoken or "")

    def _refusal(self, index: int, path: Path, value: str) -> None:
        if value:
            self.response.refusal = (self.response.refusal or "") + value
            self._changed |= REFUSAL
            self._tally.add(value, ("refusal", index, 0))
            self._segment(("refusal", index, 0), path, value)

    def _reasoning_details(self, index: int, path: Path, details: list[object]) -> None:
        """OpenRouter says here again, in structure, what `reasoning` says: editable, but not counted twice."""
        told = any(one.channel == ("reasoning", index, 0) for one in self._segments)
        channel: Channel = ("other", index, 1) if told else ("reasoning", index, 1)
        for number, detail in enumerate(details):
            for key in ("text", "summary"):
                value = mapping(detail, "a detail").get(key)
                if isinstance(value, str) and value:
                    self._segment(channel, (*path, number, key), value)

    def _odd_choice(self, index: int, place: int, field: str, choice: dict[str, object]) -> None:
        """Fields beside index, delta and finish_reason."""
        where: Path = ("choices", place)
        self._veil(index, place, choice)
        again = choice.get("text")
        if isinstance(again, str) and again:  # Together says its text twice: rules read it once
            self._open_choice(index)
            self._segment(("other", index, 2), (*where, "text"), again)
        if field == "delta" and isinstance(message := choice.get("message"), dict):
            self._so_far(index, (*where, "message"), message)
        if (raw := choice.get("raw_output")) is not None:  # Fireworks says it once more, as it was made
            self._raw(index, (*where, "raw_output"), mapping(raw, "raw_output"))
        if isinstance(usage := choice.get("usage"), dict):  # Moonshot
            self._usage(usage, alone=False, document={})
        if choice.get("error"):  # OpenRouter: this choice broke off
            self.response.is_error = True
            self._changed |= ERROR

    def _raw(self, index: int, path: Path, raw: dict[str, object]) -> None:
        """As it was made: piece by piece beside the deltas, or whole at the end."""
        self._open_choice(index)
        if said := text(raw.get("completion"), "completion"):
            self._segment(("other", index, 0), (*path, "completion"), said)
        self._veils(index, path, raw)

    def _so_far(self, index: int, path: Path, message: dict[str, object]) -> None:
        """Perplexity's way: beside the delta, the whole message as far as it has come."""
        content = message.get("content")
        self._open_choice(index)
        piece = "".join(one.text for one in self._segments if one.channel == ("text", index, 0))
        if content and self.request.provider == "writer" and content == (piece or self.response.delta):
            self._segment(("other", index, 3), (*path, "content"), str(content))  # Writer says each piece twice
        elif content and content == self.response.text(index):
            if self.want_segments:
                self._segments.append(Segment(("text", index, 0), (*path, "content"), str(content), again=True))
        elif content:
            self._partial("a message beside a delta that says something else")

    def _open_choice(self, index: int) -> None:
        if index not in self._channels:
            self._start_choice(index)

    def _finish(self, index: int, reason: object) -> None:
        super()._finish(index, reason)
        self._close_calls([call for call in self._open if call.choice == index])

    def _close_all(self) -> None:
        super()._close_all()
        self._close_calls(list(self._open))

    def _close_calls(self, calls: Iterable[_Call]) -> None:
        for call in calls:
            del self._open[call]
            self._open_calls.close(call)

    # ---- tool calls ------------------------------------------------------------------------------------------------

    def _tool_call(self, choice: int, path: Path, item: dict[str, object], place: int) -> None:
        known = (choice, _index_of(item, place)) in self._calls
        if not known and not item.get("id") and _is_empty(item.get("function")) and _is_empty(item.get("custom")):
            return
        call = self._call(choice, _index_of(item, place), item.get("id"))
        kind = item.get("type")
        if isinstance(kind, str) and kind not in ("", "function"):
            call.fact.kind = "hosted" if kind == "builtin_function" else kind
        for kind, field in (("function", "arguments"), ("custom", "input")):
            if (said := item.get(kind)) is not None:
                self._function(call, (*path, kind), mapping(said, kind), field)

    def _call(self, choice: int, index: int, name: object) -> _Call:
        """The call at this index; another id there is another call: some number all their calls 0. Raises Malformed
        where the one before it is not complete: SDKs that merge by index make one text of both."""
        call = self._calls.get((choice, index))
        reused = call is not None and isinstance(name, str) and bool(name) and bool(call.id) and name != call.id
        if call is not None and reused and not _complete(call.fact.arguments):
            raise Malformed("two tool calls at one index")
        if call is None or reused:
            fact = ToolCall("")
            call = _Call(choice, index, len(self.response.tool_calls), fact)
            self.response.tool_calls.append(fact)
            self._calls[choice, index] = call
            self._open[call] = None
            self._open_calls.grew(call, fact.said)
            self._changed |= TOOLS
        if isinstance(name, str) and name:
            call.id = name
        return call

    def _function(self, call: _Call, path: Path, said: dict[str, object], field: str) -> None:
        name = text(said.get("name"), "the name of a tool")
        if name and name != call.fact.name:
            if call.fact.name and (call.fact.said.size or self._offers(name)):
                raise Malformed("a tool call is named in two ways")
            if len(call.fact.name) + len(name) > MAX_NAME:
                raise Malformed("the name of a tool is too long")
            call.fact.name += name
            call.fact.kind = kind_of(self.request, call.fact.name, call.fact.kind)
            self._changed |= TOOLS
            self._tally.add(name, ("args", call.choice, call.part))
        arguments = said.get(field)
        whole = isinstance(arguments, dict | list)  # some gateways send the value itself
        value = dumped(arguments) if whole else text(arguments, field) or ""
        if value:
            call.fact.said.add(value)
            self._open_calls.grew(call, call.fact.said)
            self._tally.add(value, ("args", call.choice, call.part))
        # INVARIANT: an event that only names a tool is part of the call too, so it carries a segment, if an empty one:
        # where arguments are judged before they leave, the name must wait with them.
        self._segment(("args", call.choice, call.part), (*path, field), "" if whole else value)

    def _offers(self, name: str) -> bool:
        """Whether the request offers a tool of this name: then it is no piece of another name."""
        return any(tool.name == name for tool in self.request.tools or ())


def _is_empty(said: object) -> bool:
    """Whether a call says nothing: some providers send one in every message."""
    return not isinstance(said, dict) or not any(said.values())


def _complete(arguments: str) -> bool:
    """Whether the arguments of a call are a JSON document, or not there."""
    try:
        return not arguments or loads(arguments) is not None
    except Malformed:
        return False


def _index_of(item: dict[str, object], place: int) -> int:
    index = item.get("index")
    if index is None:
        return place
    if type(index) is not int or not 0 <= index < 1024:
        raise Malformed("the index of a tool call is no index")
    return index
