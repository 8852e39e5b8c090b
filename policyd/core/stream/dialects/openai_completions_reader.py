"""Answers of OpenAI Completions, and what policyd says in that voice.

Rule 1: `inspection` stays full only while every field of a choice is a known one, or holds no text.
Rule 2: a stream is ended from what its client has seen; every choice that has no reason yet ends with "stop".
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts
from policyd.core.stream.dialects import Body, Ending, Path
from policyd.core.stream.dialects.content import Structure
from policyd.core.stream.dialects.openai_chat_ending import finish_reason
from policyd.core.stream.dialects.openai_reader import ChoicesReader, choice_index
from policyd.core.stream.dialects.openai_shared import DONE, Stand, usage
from policyd.core.stream.dialects.response_openai import COMPLETIONS_RESPONSE
from policyd.core.stream.dialects.shared import Bill, text
from policyd.core.stream.json_strict import dumps
from policyd.core.stream.sse import render


class CompletionReader(ChoicesReader):
    """Reads one answer, whole or event by event."""

    structure: ClassVar[Structure] = COMPLETIONS_RESPONSE
    deltas: ClassVar[frozenset[Path]] = frozenset({("choices", 0)})
    objects: ClassVar[frozenset[str]] = ChoicesReader.objects | {"text_completion", "text.completion"}
    _rewound: Mark | None = None

    def _choices(self, choices: list[object], *, whole: bool) -> None:  # noqa: ARG002 - both look the same
        for place, choice in enumerate(choices):
            if type(choice) is not dict:
                raise Malformed("a choice is not an object")
            index = choice_index(choice, place)
            if index not in self._channels:
                self._start_choice(index)
            if said := text(choice.get("text"), "text"):
                self._say(("text", index, 0), ("choices", place, "text"), said)
            if len(choice) > ("text" in choice) + ("index" in choice) + ("finish_reason" in choice):
                self._odd_choice(index, place, choice)
            if (reason := choice.get("finish_reason")) not in (None, ""):  # some gateways send "" with every piece
                self._finish(index, reason)

    def _odd_choice(self, index: int, place: int, choice: dict[str, object]) -> None:
        self._veil(index, place, choice)
        for field in ("reasoning", "reasoning_content"):
            if said := text(choice.get(field), field):
                self._tally.add_reasoning(said, ("reasoning", index, 0))
                self._segment(("reasoning", index, 0), ("choices", place, field), said)

    def mark(self) -> Mark:
        """Where the stream stands."""
        return Mark(self._stand, self._bill())

    def rewind(self, mark: object) -> None:
        """Stand where `mark` was taken."""
        assert isinstance(mark, Mark)
        self._rewound = mark

    def ending(self, end: Ending) -> bytes:
        """The bytes that end the stream from here."""
        return ending(self.request, self._rewound or self.mark(), end)


# ---- our own words ----------------------------------------------------------------------------------------------


class Mark(NamedTuple):
    """What an ending is made from."""

    stand: Stand
    bill: Bill


def ending(request: RequestFacts, mark: Mark, end: Ending) -> bytes:
    """The events that end a stream that stands here."""
    stand = mark.stand
    if stand.done:
        return b""
    if stand.failed:
        return DONE
    asked = range(max(request.choices, 1, *(choice + 1 for choice in stand.begun)))
    # A choice that has its reason already still gets the words when no other can carry them.
    choices = [choice for choice in asked if choice not in stand.finished] or [0]
    head = _head(request, stand)
    out = b""
    last: dict[str, object] = {}
    for choice in choices:
        out += render(dumps(last)) if last else b""
        if end.text:
            out += render(dumps({**head, "choices": [_choice(choice, end.text, None)]}))
        last = {**head, "choices": [_choice(choice, "", finish_reason(end))]}
    if request.wants_usage and not stand.usage:
        out += render(dumps(last))
        last = {**head, "choices": [], "usage": usage(mark.bill)}
    return out + render(dumps(end.marked(last))) + DONE


def _head(request: RequestFacts, stand: Stand) -> dict[str, object]:
    return {
        "id": stand.id or "cmpl-policyd",
        "object": "text_completion",
        "created": stand.created,
        "model": stand.model or request.model or "",
    }


def _choice(choice: int, text: str, reason: str | None) -> dict[str, object]:
    return {"text": text, "index": choice, "logprobs": None, "finish_reason": reason}


def completion(request: RequestFacts, end: Ending, id: str) -> Body:
    """A response that says the text in every choice: JSON, or a stream when one was asked for."""
    stand = Stand(id=f"cmpl-{id}")
    if request.stream:
        return Body("text/event-stream; charset=utf-8", ending(request, Mark(stand, Bill(0, 0)), end))
    choices = [_choice(choice, end.text, finish_reason(end)) for choice in range(max(1, request.choices))]
    document = {**_head(request, stand), "choices": choices, "usage": usage(Bill(0, 0))}
    return Body("application/json", dumps(end.marked(document)).encode())
