"""Answers of the models behind InvokeModel that take a prompt and continue it: Titan, Llama, Mistral, AI21, Cohere's
Command, Claude 2, and models that were brought along.

Rule 1: each has its own names for the same four things: the text, the reason, the index and the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from policyd.core.errors import Malformed
from policyd.core.stream import ndjson
from policyd.core.stream.dialects import Ending, Path
from policyd.core.stream.dialects.answer import Answer, Mark, index_of
from policyd.core.stream.dialects.asking import at
from policyd.core.stream.dialects.bedrock_shared import METRICS, bill_of, header_bill
from policyd.core.stream.dialects.response_others import TEXT_RESPONSE
from policyd.core.stream.dialects.shared import Bill, listing, mapping, text, tokens
from policyd.core.stream.json_strict import dumps

# Where the text stands: in the document itself, or in the elements of a list.
TEXTS = ("outputText", "generation", "completion", "text")
LISTS: dict[str, Path] = {
    "results": ("outputText",),
    "completions": ("data", "text"),
    "outputs": ("text",),
    "generations": ("text",),
    "choices": ("text",),
}
LIKELY = "token_likelihoods"
REASONS = ("completionReason", "stop_reason", "finish_reason", "finishReason")
# What tells that nothing more will come, where no reason does: a guardrail ends without one.
LAST = (METRICS, "totalOutputTextTokenCount")
NUMBERS = (
    ("inputTextTokenCount", "totalOutputTextTokenCount"),
    ("prompt_token_count", "generation_token_count"),
)


class TextAnswer(Answer):
    """Reads one answer; in a stream its documents are those within the chunks."""

    structure = TEXT_RESPONSE
    deltas = frozenset({(), ("completions", 0, "data"), ("outputs", 0), ("generations", 0), ("choices", 0)})
    payload = frozenset({*TEXTS, *LISTS})

    def _whole(self, document: dict[str, object]) -> None:
        if not document.keys() & {*TEXTS, *LISTS}:
            raise Malformed("the answer says nothing")
        self._read(document)

    def _event(self, name: str, document: dict[str, object]) -> bool:  # noqa: ARG002 - they have no names
        if not document.keys() & {*TEXTS, *LISTS, *REASONS, *LAST}:
            self._partial("an unknown event type")
        self._stand = self._stand._replace(begun=True)
        self._read(document)
        if not self._reasons and not any(document.get(field) is not None for field in LAST):
            return False
        self._stand = self._stand._replace(stopped=True)
        self._end()
        return True

    def _read(self, document: dict[str, object]) -> None:
        for choice, path, said, reason in _said(document):
            self._say(path, said, ("text", choice, 0))
            if reason is not None:
                self._reason(choice, reason)
        for place, item in enumerate(listing(document.get("completions"), "completions")):  # AI21, token by token
            data = item.get("data") if isinstance(item, dict) else None
            self._blank(
                ("completions", place, "data", "tokens"), data.get("tokens") if isinstance(data, dict) else None, "[]"
            )
        for field, told in ((field, told) for field in ("generations", "choices") for told in ("logprobs", LIKELY)):
            for place, item in enumerate(listing(document.get(field), field)):
                self._blank((field, place, told), item.get(told) if isinstance(item, dict) else None)
        try:
            self._bill(self._numbers(document), final=True)
        except Malformed as failure:
            self._partial(failure.reason)  # the estimate stays

    def _numbers(self, document: dict[str, object]) -> Bill | None:
        """What AWS meters, else what the model names."""
        return bill_of(document.get(METRICS)) or header_bill(self.response.headers) or _own(document)

    def _ending(self, mark: Mark, end: Ending) -> bytes:
        # The shape is that of what came; before anything came every reader of these takes Titan's.
        return ndjson.render(dumps(last(mark.stand.stamp or "outputText", end, mark.bill)))

    def _document(self, name: str, data: str) -> dict[str, object]:
        document = super()._document(name, data)
        shape = next((field for field in (*TEXTS, *LISTS) if field in document), "")
        if shape:
            self._stand = self._stand._replace(stamp=shape)
        return document


def _said(document: dict[str, object]) -> Iterator[tuple[int, Path, str, str | None]]:
    """(choice, path, text, reason) of everything that is said."""
    for field in TEXTS:
        if isinstance(said := document.get(field), str):
            yield index_of(document, default=0), (field,), said, _why(document)
            return
    for field, below in LISTS.items():
        for place, item in enumerate(listing(document.get(field), field)):
            one = mapping(item, field)
            choice = index_of(one, default=place)
            yield choice, (field, place, *below), text(at(one, below), "text") or "", _why(one) or _why(document)
    if not document.keys() & {*TEXTS, *LISTS} and (reason := _why(document)) is not None:
        yield 0, ("text",), "", reason


def _why(said: dict[str, object]) -> str | None:
    for field in REASONS:
        value = said.get(field)
        if isinstance(value, dict):  # AI21
            value = value.get("reason")
        if value is not None:
            return text(value, field)
    return None


def _own(document: dict[str, object]) -> Bill | None:
    usage = document.get("usage")
    if isinstance(usage, dict):
        given, made = (tokens(usage.get(field), field) for field in ("prompt_tokens", "completion_tokens"))
        return None if given is None else Bill(given, made or 0)
    results = [
        tokens(mapping(item, "a result").get("tokenCount"), "tokenCount")
        for item in listing(document.get("results"), "results")
    ]
    counted = [one for one in results if one is not None]
    for asked, answered in NUMBERS:
        given, made = tokens(document.get(asked), asked), tokens(document.get(answered), answered)
        if counted and made is None:
            made = sum(counted)
        if given is not None and made is not None:
            return Bill(given, made)
    return None


def last(shape: str, end: Ending, bill: Bill) -> dict[str, object]:
    """One document that says the text and ends, in the shape of a family."""
    said = end.text
    metrics = {METRICS: {"inputTokenCount": bill.input, "outputTokenCount": bill.output}}
    match shape:
        case "generation":
            document: dict[str, object] = {"generation": said, "stop_reason": _lower(end)}
        case "completion":
            document = {"type": "completion", "completion": said, "stop_reason": _claude(end), "stop": None}
        case "outputs" | "choices":
            reason = "stop_reason" if shape == "outputs" else "finish_reason"
            document = {shape: [{"index": 0, "text": said, reason: _lower(end)}]}
        case "text" | "generations":
            document = {"text": said, "is_finished": True, "finish_reason": _command(end)}
        case _:
            document = {"outputText": said, "index": 0, "completionReason": _titan(end)}
    return end.marked({**document, **metrics})


def _lower(end: Ending) -> str:
    return end.word("content_filter", "length", "stop")


def _claude(end: Ending) -> str:
    return end.word("refusal", "max_tokens", "stop_sequence")


def _command(end: Ending) -> str:
    return end.word("ERROR_TOXIC", "MAX_TOKENS", "COMPLETE")


def _titan(end: Ending) -> str:
    return end.word("CONTENT_FILTERED", "LENGTH", "FINISH")


def whole_text(shape: str, end: Ending) -> dict[str, object]:
    """A response in one piece that says the text, in the shape of a family."""
    return end.marked(_whole_text(shape, end))


def _whole_text(shape: str, end: Ending) -> dict[str, object]:
    said = end.text
    match shape:
        case "generation":
            return {
                "generation": said,
                "prompt_token_count": 0,
                "generation_token_count": 0,
                "stop_reason": _lower(end),
            }
        case "completion":
            return {"type": "completion", "completion": said, "stop_reason": _claude(end), "stop": None}
        case "completions":
            one = {
                "data": {"text": said, "tokens": []},
                "finishReason": {"reason": end.word("content_filter", "length", "endoftext")},
            }
            return {"id": 0, "prompt": {"text": "", "tokens": []}, "completions": [one]}
        case "generations":
            return {"id": "policyd", "prompt": "", "generations": [{"text": said, "finish_reason": _command(end)}]}
        case "outputs":
            return {"outputs": [{"text": said, "stop_reason": _lower(end)}]}
        case "choices":
            return {"choices": [{"index": 0, "text": said, "finish_reason": _lower(end)}]}
        case _:
            result = {"tokenCount": 0, "outputText": said, "completionReason": _titan(end)}
            return {"inputTextTokenCount": 0, "results": [result]}
