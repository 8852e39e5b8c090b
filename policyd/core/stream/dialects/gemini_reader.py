"""Answers of Google Gemini, whole, as events or as an array, and what policyd says in its voice.

Rule 1: Gemini counts its thoughts beside its candidates, and what its own tools read beside the prompt: output is the
        sum of the one, input of the other. What the cache gave stands within the prompt.
Rule 2: a stream has no event of its own that ends it: it is over when every candidate has its reason, or the prompt was
        refused. Every event repeats the usage so far; the last one's is final.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.model.prices import NONE
from policyd.core.stream import sse
from policyd.core.stream.dialects import UNMARKED, Body, Ending, Path, Reading
from policyd.core.stream.dialects.answer import TOOLS, Answer, Mark, Stand, index_of
from policyd.core.stream.dialects.billing import classes, tier_of
from policyd.core.stream.dialects.complete import inner
from policyd.core.stream.dialects.content import is_id
from policyd.core.stream.dialects.gemini_arguments import GrowingArguments
from policyd.core.stream.dialects.gemini_enums import BLOCKED, MODALITIES, TRAFFIC, enum, finish_words
from policyd.core.stream.dialects.response_others import GEMINI_RESPONSE
from policyd.core.stream.dialects.shared import Bill, count, dumped, listing, mapping, section, text
from policyd.core.stream.dialects.unread_calls import CallPlaces
from policyd.core.stream.json_strict import dumps

KNOWN = frozenset(
    {
        "candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId", "createTime", "modelStatus",
        "automaticFunctionCallingHistory",
    }
)  # fmt: skip
# What a part holds beside its text: no text of the model's, or none that can be read.
SILENT = frozenset(
    {
        "thought",
        "thoughtSignature",
        "inlineData",
        "fileData",
        "videoMetadata",
        "mediaResolution",
        "partMetadata",
        "toolResponse",
    }
)
RESULTS = {"codeExecutionResult": "output"}
JSON = "application/json; charset=UTF-8"
CALLS = frozenset(
    ("candidates", 0, "content", "parts", 0, kind) for kind in ("functionCall", "toolCall", "executableCode")
)
GROWING = 4096  # from here on blocks are numbered that are calls whose arguments come in pieces


class GeminiAnswer(Answer):
    """Reads one answer."""

    ends_by_itself = False
    structure = GEMINI_RESPONSE
    deltas = frozenset({("candidates", 0, "content", "parts", 0)})
    payload = frozenset({"candidates", "promptFeedback"})
    calls = CallPlaces(CALLS, CALLS)

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        super().__init__(request, response)
        self._finish_words = finish_words(request.path)
        self._grown: dict[int, GrowingArguments] = {}

    def read_json(self, doc: object) -> Reading:
        """The whole answer; an array of one is how some errors come."""
        if not isinstance(doc, list) or len(doc) != 1:
            return super().read_json(doc)
        reading = super().read_json(doc[0])
        reading.segments = inner((0,), reading.segments)
        return reading

    def _whole(self, document: dict[str, object]) -> None:
        if not isinstance(document.get("candidates"), list) and "promptFeedback" not in document:
            raise Malformed("the answer has no candidates")
        self._read(document)

    def _event(self, name: str, document: dict[str, object]) -> bool:
        if name not in ("", "message") or not document.keys() & KNOWN:
            self._partial("an unknown event type")
        self._stand = self._stand._replace(begun=True)
        self._read(document)
        return False

    def _read(self, document: dict[str, object]) -> None:
        self._model(text(document.get("modelVersion"), "modelVersion"))
        if isinstance(name := document.get("responseId"), str) and is_id(name):
            self._stand = self._stand._replace(id=name)
        for place, item in enumerate(listing(document.get("candidates"), "candidates")):
            self._candidate(place, mapping(item, "a candidate"))
        if (feedback := document.get("promptFeedback")) is not None:
            self._feedback(mapping(feedback, "promptFeedback"))
        self._usage(document.get("usageMetadata"))

    def _candidate(self, place: int, candidate: dict[str, object]) -> None:
        index, path = index_of(candidate, default=0), ("candidates", place)
        stand = self._stand
        if all(known != index for known, _ in stand.open):
            self._stand = stand._replace(open=(*stand.open, (index, "candidate")))
        content = section(candidate.get("content"), "content")
        for number, item in enumerate(listing(content.get("parts"), "parts")):
            self._part(index, (*path, "content", "parts", number), mapping(item, "a part"))
        self._blank((*path, "logprobsResult"), candidate.get("logprobsResult"))
        if candidate.get("finishReason") is not None:
            self._close_call(GROWING + index)
        if (reason := enum(candidate.get("finishReason"), self._finish_words, "finishReason")) is not None:
            self._reason(index, reason)
            self._stand = self._stand._replace(stopped=self._finished())

    def _finished(self) -> bool:
        return all(index in self._reasons for index, _ in self._stand.open)

    def _part(self, index: int, path: Path, part: dict[str, object]) -> None:
        said = text(part.get("text"), "text")
        if said and index in self._reasons:
            self._partial("text after the end of its candidate")
        if said and part.get("thought") is True:
            self._think((*path, "text"), said, ("reasoning", index, 0))
        elif said:
            self._say((*path, "text"), said, ("text", index, 0))
        for key, value in part.items():
            if key == "functionCall":
                self._function(index, (*path, key), mapping(value, key))
            elif key == "toolCall":
                call = mapping(value, key)
                self._call(
                    text(call.get("toolType"), "toolType") or key,
                    (*path, key, "args"),
                    call.get("args"),
                    index,
                    "hosted",
                )
            elif key == "executableCode":
                self._call("code_execution", (*path, key), mapping(value, key), index, "hosted")
            elif key in RESULTS:
                words = text(mapping(value, key).get(RESULTS[key]), RESULTS[key]) or ""
                self._aside((*path, key, RESULTS[key]), words, ("other", index, 2))
            elif key != "text" and key not in SILENT:
                self._partial("an unknown kind of part")

    def _function(self, index: int, path: Path, call: dict[str, object]) -> None:
        """A call, whole or a piece of one: its pieces name the places that they fill."""
        name = text(call.get("name"), "the name of a function") or ""
        pieces = listing(call.get("partialArgs"), "partialArgs")
        goes_on = call.get("willContinue") is True
        if name and not pieces and not goes_on:
            self._call(name, (*path, "args"), call.get("args"), index)
            return
        block = GROWING + index
        if name:
            self._close_call(block)
            self._open_call(block, name, (*path, "args"), index)
            self._grown[block] = GrowingArguments(call.get("args"))
        elif block not in self._calls:
            if pieces or call.get("args"):
                raise Malformed("arguments outside of a function call")
            return
        self._pieces(block, index, path, pieces)
        if not goes_on:
            self._close_call(block)

    def _pieces(self, block: int, index: int, path: Path, pieces: list[object]) -> None:
        grown = self._grown[block]
        for place, item in enumerate(pieces):
            piece = mapping(item, "a piece of arguments")
            where = text(piece.get("jsonPath"), "jsonPath") or "$"
            if isinstance(said := piece.get("stringValue"), str):
                self._aside((*path, "partialArgs", place, "stringValue"), said, ("other", index, 3 + grown.lane(where)))
            grown.put(where, piece)
        self._segment(self._calls[block][1], (*path, "args"), "")

    def _close_call(self, block: int) -> None:
        self._complete_call(block)
        super()._close_call(block)

    def _close_all(self) -> None:
        for block in list(self._grown):
            self._complete_call(block)
        super()._close_all()

    def _complete_call(self, block: int) -> None:
        """INVARIANT: arguments are put together once, however many pieces they come in."""
        if (grown := self._grown.pop(block, None)) is not None and block in self._calls:
            self._calls[block][0].arguments = dumped(grown.value())
            self._changed |= TOOLS

    def _feedback(self, feedback: dict[str, object]) -> None:
        reason = enum(feedback.get("blockReason"), BLOCKED, "blockReason")
        if reason is not None:
            said = text(feedback.get("blockReasonMessage"), "blockReasonMessage")
            self._refuse(("promptFeedback", "blockReasonMessage"), said or "")
            self.response.refusal = self.response.refusal or reason
            self._stand = self._stand._replace(stopped=True)

    def _usage(self, usage: object) -> None:
        try:
            self._bill(bill_of(usage), final=self._stand.stopped)
        except Malformed as failure:
            self._partial(failure.reason)  # the estimate stays

    def _ending(self, mark: Mark, end: Ending) -> bytes:
        document = dumps(_answer(self.request, mark, end, mark.stand.id or "policyd"))
        kind = self.response.headers.get("content-type", "")
        if "event-stream" in kind or not kind:
            return sse.render(document)
        return ("," if mark.stand.events else "[").encode() + document.encode() + b"]"


def bill_of(usage: object) -> Bill | None:
    """The numbers of a usageMetadata; None when it has none yet. Raises Malformed."""
    if not usage:
        return None
    said = mapping(usage, "usageMetadata")

    def number(*fields: str) -> int | None:
        found = [count(said.get(field), field) for field in fields]
        known = [one for one in found if one is not None]
        return sum(known) if known else None

    given = number("promptTokenCount", "toolUsePromptTokenCount")
    made = number("candidatesTokenCount", "responseTokenCount", "thoughtsTokenCount")
    if given is None and made is None:
        return None
    cached, thoughts = number("cachedContentTokenCount"), number("thoughtsTokenCount")
    return Bill(
        given or 0,
        made or 0,
        cached or 0,
        0,
        thoughts or 0,
        _media(said),
        tier_of(enum(said.get("trafficType"), TRAFFIC, "trafficType")),
    )


def _media(said: dict[str, object]) -> Mapping[str, int]:
    """What is no text, where it may be priced apart; the prompt's details hold what was cached, too."""
    given = _by_modality(said, "promptTokensDetails", "toolUsePromptTokensDetails")
    cached = _by_modality(said, "cacheTokensDetails")
    made = _by_modality(said, "candidatesTokensDetails", "responseTokensDetails")
    if not given.keys() | made.keys() | cached.keys():
        return NONE
    return classes(
        input_audio=max(0, given["AUDIO"] - cached["AUDIO"]),
        cached_audio=cached["AUDIO"],
        output_audio=made["AUDIO"],
        input_image=max(0, given["IMAGE"] - cached["IMAGE"]),
        cached_image=cached["IMAGE"],
        output_image=made["IMAGE"],
        input_video=max(0, given["VIDEO"] - cached["VIDEO"]),
        output_video=made["VIDEO"],
    )


def _by_modality(said: dict[str, object], *fields: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for field in fields:
        for item in listing(said.get(field), field):
            one = mapping(item, "a modality")
            name = enum(one.get("modality"), MODALITIES, "modality") or ""
            if name not in ("", "TEXT"):
                counts[name] += count(one.get("tokenCount"), "tokenCount") or 0
    return counts


def embed_bill(document: dict[str, object], response: ResponseFacts) -> Bill | None:  # noqa: ARG001
    """The numbers of an embedding: of the answer, or of each of its vectors. Raises Malformed."""
    if (bill := bill_of(document.get("usageMetadata"))) is not None:
        return Bill(bill.input, 0)
    vectors = [document.get("embedding"), *listing(document.get("embeddings"), "embeddings")]
    counted = [
        count(section(one.get("statistics"), "statistics").get("tokenCount"), "tokenCount")
        for one in vectors
        if isinstance(one, dict)
    ]
    known = [one for one in counted if one is not None]
    return Bill(sum(known), 0) if known else None


# ---- our own voice --------------------------------------------------------------------------------------------------


def _answer(request: RequestFacts, mark: Mark, end: Ending, id: str) -> dict[str, object]:
    """One answer that ends every candidate that is not ended, and the first when all are."""
    begun = [index for index, _ in mark.stand.open]
    parts = [{"text": end.text}] if end.text else []
    reason = end.word("SAFETY", "MAX_TOKENS", "STOP")
    candidates = [
        {"content": {"parts": parts, "role": "model"}, "finishReason": reason, "index": index}
        for index in sorted({*range(max(1, request.choices)), *begun})
    ]
    bill = mark.bill
    usage = {
        "promptTokenCount": bill.input,
        "candidatesTokenCount": bill.output - bill.reasoning,
        "totalTokenCount": bill.input + bill.output,
        "cachedContentTokenCount": bill.cached,
        "thoughtsTokenCount": bill.reasoning,
    }
    model = mark.stand.model or request.model or ""
    return end.marked({"candidates": candidates, "usageMetadata": usage, "modelVersion": model, "responseId": id})


def completion(request: RequestFacts, end: Ending, id: str) -> Body:
    """A response that says the text: one document, events, or an array of one."""
    document = dumps(_answer(request, Mark(Stand(), Bill(0, 0)), end, id))
    if not request.stream:
        return Body(JSON, document.encode())
    if "alt=sse" in request.query:
        return Body("text/event-stream", sse.render(document))
    return Body(JSON, f"[{document}]".encode())


_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error(status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
    """An error in Google's shape."""
    kind = _STATUS.get(status, "INTERNAL" if status >= 500 else "FAILED_PRECONDITION")
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "policyd"}
    said = {"error": end.marked({"code": status, "message": message, "status": kind, "details": [info]})}
    return Body(JSON, dumps(said).encode())
