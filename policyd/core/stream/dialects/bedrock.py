"""AWS Bedrock: Converse and InvokeModel, whole and as a stream of binary messages.

Rule 1: the model and whether the answer streams stand in the path; no edit of the body changes either.
Rule 2: InvokeModel carries what the model's own family speaks: that family is told by the body, and reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.model.paths import resolve
from policyd.core.stream.dialects import UNMARKED, AnswerReader, Body, Edit, Ending, RequestChange, Segment
from policyd.core.stream.dialects import bedrock_converse_request as converse
from policyd.core.stream.dialects import bedrock_invoke as invoke
from policyd.core.stream.dialects import bedrock_invoke_request as requests
from policyd.core.stream.dialects.bedrock_converse_reader import ConverseAnswer, completion
from policyd.core.stream.dialects.bedrock_shared import error
from policyd.core.stream.dialects.shared import mapping

_CALL = re.compile(
    r"(?:^|/)model/(.+)/(converse|converse-stream|invoke|invoke-with-response-stream)$",
    re.IGNORECASE,
)
# Models that paint, speak or film: InvokeModel too, in languages that are not read here.
_OTHER_MODELS = re.compile(r"stability\.|titan-image|nova-(?:canvas|reel|sonic)|twelvelabs\.|luma\.", re.IGNORECASE)


def call_of(path: str) -> tuple[str, str]:
    """(model, verb in lower case) of a path; empty for another's. An ARN is a model too."""
    found = _CALL.search(resolve(path))
    return (found[1], found[2].lower()) if found else ("", "")


class _Bedrock:
    """What the doors share."""

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "bedrock"

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in AWS' shape."""
        return error(status, reason, message, end)


class BedrockConverse(_Bedrock):
    """The dialect `bedrock.converse`."""

    name = "bedrock.converse"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`chat` for a POST to a model's converse or converse-stream."""
        return "chat" if method == "POST" and call_of(path)[1].startswith("converse") else None

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        model, verb = call_of(facts.path)
        facts.model, facts.stream = model or None, verb.endswith("stream")
        converse.read_request(doc, facts)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        return converse.segments(mapping(doc, "the body"))

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        return converse.edits(doc, change)

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return ConverseAnswer(request, response)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:  # noqa: ARG002 - it has no id
        """An answer that says the text."""
        return completion(request, end)


class BedrockInvoke(_Bedrock):
    """The dialect `bedrock.invoke`."""

    name = "bedrock.invoke"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """By the model's name: `embedding`, or `chat` for all others that are read here."""
        model, verb = call_of(path)
        if method != "POST" or not verb.startswith("invoke") or _OTHER_MODELS.search(model):
            return None
        return "embedding" if "embed" in model else "chat"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        model, verb = call_of(facts.path)
        requests.read_request(doc, facts, model)
        facts.model, facts.stream = model or None, verb.endswith("stream")

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        return requests.segments(doc)

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in the family's fields."""
        return requests.edits(doc, change)

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return invoke.InvokeAnswer(request, response)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:
        """An answer that says the text."""
        return invoke.completion(request, end, id)
