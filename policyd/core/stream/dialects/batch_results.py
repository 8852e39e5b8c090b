"""Results of a batch: a response a line, as OpenAI's, Anthropic's, Mistral's and Google's files hold them.

Rule 1: a batch is charged when its results are fetched, once, each line by its own model, at the batch's tier.
Rule 2: every string is content.
"""

from __future__ import annotations

from dataclasses import replace

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.model.prices import NONE, Usage
from policyd.core.stream.dialects import AnswerReader, Channel, Path
from policyd.core.stream.dialects.answer import SOLE, TEXT, USAGE
from policyd.core.stream.dialects.anthropic_usage import Counts
from policyd.core.stream.dialects.gemini_reader import bill_of as gemini_bill
from policyd.core.stream.dialects.generic import Generic, GenericReader
from policyd.core.stream.dialects.openai_usage import bill_of, responses_bill
from policyd.core.stream.dialects.run_reader import below
from policyd.core.stream.dialects.shared import Bill
from policyd.core.stream.dialects.stored import stored_id

MOST_PARTS = 100_000  # responses of one batch that are priced each by its own model
BATCH = "batch"


class BatchResults(Generic):
    """The dialect `batch.results`."""

    def __init__(self) -> None:
        super().__init__("batch.results")

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one response."""
        return ResultsReader(request, response)


class ResultsReader(GenericReader):
    """Reads the lines of one file."""

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        super().__init__(request, response)
        self._parts: list[tuple[str, Usage]] = []
        self._sum = Bill(0, 0)

    def _say(self, path: Path, value: str, channel: Channel = SOLE) -> None:
        """Text, which is no output of this call: nothing is counted of it."""
        if value:
            response = self.response
            response.texts.setdefault(channel[1], []).append(value)
            response.text_chars += len(value)
            response.delta = response.delta + value if response.delta else value
            self._changed |= TEXT
            self._segment(channel, path, value)

    def _read(self, document: dict[str, object]) -> None:
        super()._read(document)
        body = below(below(document, "response"), "body") or below(below(document, "result"), "message")
        body = body or below(document, "response")
        try:
            bill = _bill(body)
        except Malformed:
            return
        if bill is not None and len(self._parts) < MOST_PARTS:
            self._add(body, bill)

    def _add(self, body: dict[str, object], bill: Bill) -> None:
        model = next((one for name in ("model", "modelVersion") if isinstance(one := body.get(name), str)), "")
        self._model(model)
        extra = {name: many for name, many in bill.extra.items() if name != "searches"} if bill.extra else NONE
        cached = min(bill.cached, bill.input)
        part = Usage(bill.input, bill.output, cached, min(bill.cache_write, bill.input - cached), extra=extra)
        self._parts.append((model, replace(part, service_tier=BATCH)))
        total, own = self._sum, self.response
        self._sum = Bill(
            total.input + bill.input,
            total.output + bill.output,
            total.cached + cached,
            total.cache_write + part.cache_write_tokens,
            total.reasoning + bill.reasoning,
        )
        own.fetched = stored_id(self.request.path)
        self._changed |= USAGE

    def settled(self) -> None:
        """Put the sum of all lines as the usage."""
        if self._parts:
            self._sum.tier, self._sum.parts = BATCH, tuple(self._parts)
            self._bill(self._sum, final=True)

    def _whole(self, document: dict[str, object]) -> None:
        super()._whole(document)
        self.settled()

    def finish(self) -> None:
        """The body is over."""
        self.settled()
        super().finish()


def _bill(body: dict[str, object]) -> Bill | None:
    """The usage of one response, in whichever dialect it is. Raises Malformed."""
    if "usageMetadata" in body:
        return gemini_bill(body["usageMetadata"])
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    if body.get("type") == "message":
        counts = Counts()
        counts.update(usage)
        return counts.bill()
    if "input_tokens" in usage:
        return responses_bill(usage, None, body.get("output"))
    if body.get("object") == "list":  # embeddings
        return bill_of({"completion_tokens": 0, **usage})
    return bill_of(usage)
