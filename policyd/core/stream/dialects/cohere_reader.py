"""Answers of Cohere: both versions of chat, and generate, whole or event by event.

Rule 1: the billed units are the usage; what Cohere's own prompt around the call weighs is not billed. Where none are
        named, the tokens are.
Rule 2: the first version's last event says the whole answer again: it is editable there, and read once.
"""

from __future__ import annotations

from policyd.core.errors import Malformed
from policyd.core.stream.dialects import Channel, Ending, Path
from policyd.core.stream.dialects.answer import SOLE, Answer, Mark, index_of
from policyd.core.stream.dialects.cohere_ending import ending, generation_ending, is_second
from policyd.core.stream.dialects.content import is_id
from policyd.core.stream.dialects.response_others import COHERE_RESPONSE
from policyd.core.stream.dialects.shared import Bill, listing, mapping, section, text, tokens
from policyd.core.stream.dialects.unread_calls import CallPlaces
from policyd.core.stream.json_strict import loads_event

LIKELY = "token_likelihoods"


def billed(usage: object) -> Bill | None:
    """The numbers of a usage, or of a meta. Raises Malformed."""
    if usage is None:
        return None
    said = mapping(usage, "usage")
    units = said.get("billed_units") or said.get("tokens")
    if units is None:
        return None
    numbers = mapping(units, "billed_units")
    given, made = (tokens(numbers.get(field), field) for field in ("input_tokens", "output_tokens"))
    return None if given is None and made is None else Bill(given or 0, made or 0)


class _Cohere(Answer):
    structure = COHERE_RESPONSE
    deltas = frozenset({(), ("delta",), ("delta", "message"), ("delta", "message", "content")})
    calls = CallPlaces(
        events=frozenset(
            [
                ("delta", "message", "tool_calls", "function"),
                ("tool_calls", 0),
                ("tool_call_delta",),
                ("response", "tool_calls", 0),
                ("response", "chat_history", 0, "tool_calls", 0),
            ]
        ),
        body=frozenset(
            [("message", "tool_calls", 0, "function"), ("tool_calls", 0), ("chat_history", 0, "tool_calls", 0)]
        ),
    )
    ends_by_itself = False  # some end with [DONE], some do not

    @property
    def repeats(self) -> bool:
        """The last event of the first version says the text again."""
        return not is_second(self.request.path)

    def _failed(self, name: str, document: dict[str, object]) -> bool:  # noqa: ARG002
        return document.get("event_type") == "stream-error"

    def _usage(self, usage: object) -> None:
        try:
            self._bill(billed(usage), final=True)
        except Malformed as failure:
            self._partial(failure.reason)  # the estimate stays

    def _finish(self, reason: object, choice: int = 0) -> None:
        said = text(reason, "finish_reason")
        if said is not None:
            self._reason(choice, said)


class CohereChatAnswer(_Cohere):
    """Reads one answer of chat."""

    def _document(self, name: str, data: str) -> dict[str, object]:
        return {"type": "[DONE]"} if data == "[DONE]" else super()._document(name, data)

    def _event(self, name: str, document: dict[str, object]) -> bool:
        if self._stand.stopped and document.get("type") != "[DONE]":
            self._partial("an event after the end")
        if "event_type" in document:
            return self._first_event(document)
        if name and name != document.get("type") and document.get("type") != "[DONE]":
            self._partial("an event whose name is not its type")
        return self._second_event(document)

    def _whole(self, document: dict[str, object]) -> None:
        if "message" in document:
            self._second_whole(document)
        elif "text" in document:
            self._first_whole(document)
        else:
            raise Malformed("the answer says nothing")

    def _ending(self, mark: Mark, end: Ending) -> bytes:
        return ending(self.request, self.response, mark, end, self._told.get(SOLE, ""))

    # ---- the first version -------------------------------------------------------------------------------------------

    def _first_event(self, document: dict[str, object]) -> bool:
        kind = document["event_type"]
        match kind:
            case "stream-start":
                name = document.get("generation_id")
                self._stand = self._stand._replace(begun=True, id=name if isinstance(name, str) and is_id(name) else "")
            case "text-generation":
                self._say(("text",), text(document.get("text"), "text") or "")
            case "tool-calls-chunk":
                self._first_chunk(document)
            case "tool-calls-generation":
                self._first_calls(document)
            case "search-queries-generation" | "search-results" | "citation-generation" | "debug":
                self._around((), document)
            case "stream-end":
                self._first_end(document)
                return True
            case _:
                self._partial("an unknown event type")
        return False

    def _first_chunk(self, document: dict[str, object]) -> None:
        """A plan in words, or a piece of a call, which `tool-calls-generation` says again."""
        self._aside(("text",), text(document.get("text"), "text") or "")
        if (delta := document.get("tool_call_delta")) is None:
            return
        said = mapping(delta, "tool_call_delta")
        block = index_of(said, default=0)
        path: Path = ("tool_call_delta", "parameters")
        if (name := text(said.get("name"), "the name of a tool")) and block not in self._calls:
            self._open_call(block, name, path)
        if parameters := text(said.get("parameters"), "parameters"):
            self._argue(block, path, parameters)

    def _first_calls(self, document: dict[str, object], above: Path = ()) -> None:
        """Calls, of which those that were told before are not told again."""
        told = bool(self.response.tool_calls)
        for block in list(self._calls):
            self._close_call(block)
        for place, item in enumerate(listing(document.get("tool_calls"), "tool_calls")):
            said = mapping(item, "a tool call")
            name, parameters = text(said.get("name"), "the name of a tool") or "", said.get("parameters")
            if not any(call.name == name and _says(call.arguments, parameters) for call in self.response.tool_calls):
                if told:
                    self._partial("a tool call is told in two ways")
                self._call(name, (*above, "tool_calls", place, "parameters"), parameters)

    def _first_end(self, document: dict[str, object]) -> None:
        said = section(document.get("response"), "response")
        self._once_more(("response", "text"), said.get("text"))
        self._first_calls(said, ("response",))
        self._around(("response",), said)
        self._finish(document.get("finish_reason") or said.get("finish_reason"))
        self._usage(said.get("meta"))
        self._end()

    def _first_whole(self, document: dict[str, object]) -> None:
        self._say(("text",), text(document.get("text"), "text") or "")
        self._first_calls(document)
        self._around((), document)
        self._finish(document.get("finish_reason"))
        self._usage(document.get("meta"))

    def _around(self, path: Path, document: dict[str, object]) -> None:
        """Sources, and what has been said before: this very answer too."""
        history = listing(document.get("chat_history"), "chat_history")
        for index, item in enumerate(history):
            where = (*path, "chat_history", index)
            said = mapping(item, "a message")
            self._once_more((*where, "message"), said.get("message"))
            if index == len(history) - 1:
                self._first_calls(said, where)

    # ---- the second version ------------------------------------------------------------------------------------------

    def _second_whole(self, document: dict[str, object]) -> None:
        message = mapping(document["message"], "message")
        for place, item in enumerate(listing(message.get("content"), "content")):
            self._part(mapping(item, "a part of content"), ("message", "content", place), ("text", 0, place))
        self._aside(("message", "tool_plan"), text(message.get("tool_plan"), "tool_plan") or "")
        for place, item in enumerate(listing(message.get("tool_calls"), "tool_calls")):
            said = section(mapping(item, "a tool call").get("function"), "function")
            name = text(said.get("name"), "the name of a tool") or ""
            path = ("message", "tool_calls", place, "function", "arguments")
            self._call(name, path, text(said.get("arguments"), "arguments"))
        self._blank(("logprobs",), document.get("logprobs"))
        self._finish(document.get("finish_reason"))
        self._usage(document.get("usage") or document.get("meta"))

    def _part(self, part: dict[str, object], path: Path, channel: Channel) -> None:
        for field, value in part.items():
            if field == "text":
                self._say((*path, "text"), text(value, "text") or "", channel)
            elif field == "thinking":
                self._think((*path, "thinking"), text(value, "thinking") or "", ("reasoning", 0, 2 + channel[2]))
            elif field != "type":
                self._partial("an unknown part of content")

    def _second_event(self, document: dict[str, object]) -> bool:
        kind = document.get("type")
        message = _message(document)
        match kind:
            case "[DONE]":
                self._end()
                return True
            case "message-start":
                name = document.get("id")
                self._stand = self._stand._replace(begun=True, id=name if isinstance(name, str) and is_id(name) else "")
            case "content-start" | "content-delta":
                self._content(str(kind), document, section(message.get("content"), "content"))
            case "content-end" | "tool-call-end":
                self._stop_block(index_of(document, default=0), str(kind).removesuffix("-end"))
            case "tool-plan-delta":
                path = ("delta", "message", "tool_plan")
                self._aside(path, text(message.get("tool_plan"), "tool_plan") or "")
            case "tool-call-start" | "tool-call-delta":
                self._tool(str(kind), document, section(message.get("tool_calls"), "tool_calls"))
            case "citation-start" | "citation-end" | "debug":
                pass
            case "message-end":
                self._message_end(section(document.get("delta"), "delta"))
            case _:
                self._partial("an unknown event type")
        self._blank(("logprobs",), document.get("logprobs"))
        return False

    def _content(self, kind: str, document: dict[str, object], content: dict[str, object]) -> None:
        index = index_of(document, default=0)
        if kind == "content-start":
            self._start_block(index, "content")
        self._part(content, ("delta", "message", "content"), ("text", 0, index))

    def _tool(self, kind: str, document: dict[str, object], call: dict[str, object]) -> None:
        index, path = index_of(document, default=0), ("delta", "message", "tool_calls", "function", "arguments")
        said = section(call.get("function"), "function")
        if kind == "tool-call-start":
            self._start_block(index, "tool-call")
            self._open_call(index, text(said.get("name"), "the name of a tool") or "", path)
        elif (name := text(said.get("name"), "the name of a tool")) and name != self._name_of(index):
            raise Malformed("a tool call is named in two ways")
        self._argue(index, path, text(said.get("arguments"), "arguments") or "")

    def _name_of(self, index: int) -> str:
        known = self._calls.get(index)
        return known[0].name if known is not None else ""

    def _start_block(self, index: int, kind: str) -> None:
        self._next_block()
        stand = self._stand
        after = max(stand.after, index + 1) if kind == "content" else stand.after
        self._stand = stand._replace(open=(*stand.open, (index, kind)), after=after)

    def _stop_block(self, index: int, kind: str) -> None:
        stand = self._stand
        if (index, kind) not in stand.open:
            self._partial("the end of a block that is not open")
        self._stand = stand._replace(open=tuple(one for one in stand.open if one != (index, kind)))
        if kind == "content":
            self._close(("text", 0, index))
            self._close(("reasoning", 0, 2 + index))
        else:
            self._close_call(index)

    def _message_end(self, delta: dict[str, object]) -> None:
        self._finish(delta.get("finish_reason"))
        self._usage(delta.get("usage"))
        self._stand = self._stand._replace(stopped=True)


def _says(arguments: str, parameters: object) -> bool:
    """Whether the arguments of a call are these parameters."""
    try:
        return bool(loads_event(arguments or "null") == parameters)
    except Malformed:
        return arguments == parameters


def _message(document: dict[str, object]) -> dict[str, object]:
    delta = document.get("delta")
    message = delta.get("message") if isinstance(delta, dict) else None
    return message if isinstance(message, dict) else {}


class CohereGenerateAnswer(_Cohere):
    """Reads one answer of generate."""

    def _whole(self, document: dict[str, object]) -> None:
        for choice, item in enumerate(listing(document.get("generations"), "generations")):
            said = mapping(item, "a generation")
            path: Path = ("generations", choice, "text")
            self._say(path, text(said.get("text"), "text") or "", ("text", choice, 0))
            self._blank((*path[:-1], LIKELY), said.get(LIKELY))
            self._finish(said.get("finish_reason"), choice)
        if "generations" not in document:
            raise Malformed("the answer says nothing")
        self._usage(document.get("meta"))

    def _event(self, name: str, document: dict[str, object]) -> bool:  # noqa: ARG002 - lines have no names
        if document.get("is_finished") is not True:
            if not isinstance(document.get("text"), str):
                self._partial("an unknown event type")
            choice = index_of(document, default=0)
            self._stand = self._stand._replace(begun=True)
            self._say(("text",), text(document.get("text"), "text") or "", ("text", choice, 0))
            return False
        said = section(document.get("response"), "response")
        for choice, item in enumerate(listing(said.get("generations"), "generations")):
            one = mapping(item, "a generation")
            self._once_more(("response", "generations", choice, "text"), one.get("text"), ("text", choice, 0))
            self._blank(("response", "generations", choice, LIKELY), one.get(LIKELY))
            self._finish(one.get("finish_reason"), choice)
        if not self._reasons:
            self._finish(document.get("finish_reason"))
        self._usage(document.get("meta") or said.get("meta"))
        self._end()
        return True

    def _ending(self, mark: Mark, end: Ending) -> bytes:
        before = [text for (kind, _, _), text in sorted(self._told.items()) if kind == "text"]
        return generation_ending(self.request, mark, end, before)
