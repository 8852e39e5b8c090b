"""Calls that no dialect of their own describes: every string of the body is content.

Rule 1: `GENERIC` reads calls whose operation is known. `UNKNOWN` reads the request of a call that nobody knows, and
        claims to understand nothing of its response. `Stored` reads a stored response in the dialect of its making.
Rule 2: redactions, headers and sets can be made in any format. A change that needs more knowledge rejects the call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from policyd.core.errors import Malformed
from policyd.core.model.facts import Message, RequestFacts, ResponseFacts
from policyd.core.model.operations import UNBILLED
from policyd.core.stream.dialects import (
    UNMARKED,
    AnswerReader,
    Body,
    Dialect,
    Edit,
    Ending,
    Path,
    RequestChange,
    Segment,
)
from policyd.core.stream.dialects.answer import Answer, Mark
from policyd.core.stream.dialects.complete import Completion
from policyd.core.stream.dialects.content import Structure, base64, leaves
from policyd.core.stream.dialects.endpoints import is_billed
from policyd.core.stream.dialects.models import model_in_path
from policyd.core.stream.dialects.numbers import NUMBERS
from policyd.core.stream.dialects.offers import Offer, hosted, openai_tools, removal, side_doors
from policyd.core.stream.dialects.openai_shared import error
from policyd.core.stream.dialects.parts import with_runs
from policyd.core.stream.dialects.shared import Bill, input_estimate, set_edits
from policyd.core.stream.dialects.stated import stated_nano
from policyd.core.stream.json_strict import MAX_COUNT, dumps, loads_event

MEDIA = Structure(
    {
        "b64_json": base64,
        "partial_image_b64": base64,
        "data[].b64_json": base64,
        "predictions[].bytesBase64Encoded": base64,
        "images[]": base64,
        "artifacts[].base64": base64,
    },
    names=NUMBERS | {"usage"},
)
MODEL: Path = ("model",)
_TOOLS = frozenset({"tools", "functions", "mcp_servers", "toolConfig"})
_RPC = frozenset({"jsonrpc", "id", "method", "params"})


def _offers(document: dict[str, object]) -> list[Offer]:
    """Ways to tools: the lists at the top. One further down cannot be changed, for nobody knows what it belongs to."""
    try:
        found = [*openai_tools(document, "tools", "functions"), *side_doors(document)]
    except Malformed:  # what is called so here is something else, or written otherwise
        return [hosted(name, None) for name in sorted(document) if name in _TOOLS]
    deeper = {leaf.path[-1] for leaf in leaves(document) if leaf.key and len(leaf.path) > 1}
    return [*found, *(hosted(name, None) for name in sorted(_TOOLS & deeper))]


class Generic:
    """A body that is read by its strings alone."""

    def __init__(self, name: str) -> None:
        self.name = name

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """None: endpoints.py tells the operation."""
        return None

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Empty: the endpoint does not tell."""
        return ""

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        texts = [leaf.text for leaf in leaves(doc) if leaf.path != MODEL and not leaf.number]
        if isinstance(doc, dict):
            _read_model(doc, facts)
            facts.stream = doc.get("stream") is True or bool(facts.stream)
            facts.tools = [one.tool for one in _offers(doc)]
        facts.text = with_runs(texts, self.request_segments(doc))
        facts.messages = [Message("user", facts.text)] if texts else []
        facts.input_tokens = input_estimate(texts, 0, 0, ()) if is_billed(facts.operation, facts.path) else 0

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every string of the body."""
        found = [(leaf.path, leaf.text) for leaf in leaves(doc) if not leaf.key and not leaf.number]
        return [Segment(("text", place, 0), path, text) for place, (path, text) in enumerate(found) if path != MODEL]

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """Sets, and the model where the body names it. Raises Malformed for everything else."""
        document = doc if isinstance(doc, dict) else {}
        if change.inject_system:
            raise Malformed("this kind of call has no place for a system prompt")
        out = [*removal(document, _offers(document), change).edits, *set_edits(document, change.sets)]
        if change.model:
            if not isinstance(document.get("model"), str):
                raise Malformed("this kind of call names no model that could be changed")
            out.append(Edit(("model",), change.model))
        return out

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one response."""
        return GenericReader(request, response)

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in OpenAI's shape, which most providers and gateways share."""
        return error(status, reason, message, end)

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:  # noqa: ARG002
        """Raises Malformed: this format has no place for a text."""
        raise Malformed("no well-formed response to this kind of call can hold a text")


class Stored(Generic):
    """A stored response, which is fetched as its dialect made it."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect.name)
        self._dialect = dialect

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one response."""
        return self._dialect.reader(request, response)

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:
        """An error in the provider's own shape."""
        return self._dialect.error(status, reason, message, end)


GENERIC = Generic("generic")
UNKNOWN = Generic("")


def is_generic(dialect: Dialect | None) -> bool:
    """Whether this dialect cannot write responses of its own."""
    return isinstance(dialect, Generic)


def fitting(change: RequestChange, operation: str, document: object) -> RequestChange:
    """What of a change is about a call of this operation: where no model speaks there is nothing to instruct, and where
    none is named there is none to replace."""
    if operation not in UNBILLED:
        return change
    named = isinstance(document, dict) and "model" in document
    return replace(change, inject_system=(), model=change.model if named else "")


def is_tool_call(doc: object) -> bool:
    """Whether a body is nothing but JSON-RPC messages, and one of them calls a tool."""
    messages = doc if isinstance(doc, list) else [doc]
    found = [one for one in messages if isinstance(one, dict) and one.get("jsonrpc") == "2.0" and one.keys() <= _RPC]
    return len(found) == len(messages) and any(one.get("method") == "tools/call" for one in found)


def _read_model(document: dict[str, object], facts: RequestFacts) -> None:
    named = model_in_path(facts.path) or document.get("model")
    if isinstance(named, str) and facts.model is None:
        facts.model = named


class GenericReader(Answer):
    """Reads one response by its strings."""

    ends_by_itself = False
    structure = MEDIA
    _bare = False  # the document is no object: it stands alone in one of ours

    def __init__(self, request: RequestFacts, response: ResponseFacts) -> None:
        super().__init__(request, response)
        self.completion = Completion(self.structure, self.deltas, request, response, spelled=False)

    def _listed(self, doc: object) -> dict[str, object]:
        return self._wrapped(doc)

    def _came(self, document: dict[str, object]) -> object:
        return document[""] if self._bare else document

    def _document(self, name: str, data: str) -> dict[str, object]:  # noqa: ARG002
        self._bare = False
        if not data.strip() or data.strip() == "[DONE]":
            return {}
        return self._wrapped(loads_event(data))

    def _wrapped(self, document: object) -> dict[str, object]:
        self._bare = not isinstance(document, dict)
        return document if isinstance(document, dict) else {"": document}

    def _whole(self, document: dict[str, object]) -> None:
        self._read(document)

    def _event(self, name: str, document: dict[str, object]) -> bool:  # noqa: ARG002
        self._read(document)
        return False

    def _failed(self, name: str, document: dict[str, object]) -> bool:  # noqa: ARG002
        """An `error` member fails a response only where there is nothing else: stored objects have one."""
        return document.keys() == {"error"} and bool(document["error"])

    def _complete(self, why: str) -> None:
        """No field is unknown where all of them are read alike."""

    def _read(self, document: dict[str, object]) -> None:
        said = [leaf for leaf in leaves(document, MEDIA) if not leaf.key and not leaf.number]
        for place, leaf in enumerate(said):  # a text by itself; in a stream, what stands at its place in other events
            self._say(leaf.path[1:] if self._bare else leaf.path, leaf.text, ("text", place, 0))
        model = document.get("model")
        self._model(model if isinstance(model, str) else None)
        if (bill := _bill_of(document.get("usage"))) is not None:
            bill.stated_nano = stated_nano(self.request.provider, document)
        self._bill(bill, final=True)
        self._stand = self._stand._replace(stopped=True)

    def _ending(self, mark: Mark, end: Ending) -> bytes:  # noqa: ARG002
        said = {"error": end.marked({"message": end.text, "type": "policy_refusal"})}
        return b"event: error\ndata: " + dumps(said).encode() + b"\n\n"


def _bill_of(usage: object) -> Bill | None:
    if not isinstance(usage, dict):
        return None
    given = _tokens(usage, "input_tokens", "prompt_tokens")
    made = _tokens(usage, "output_tokens", "completion_tokens")
    total = _tokens(usage, "total_tokens")
    if given is None and made is None:
        return None if total is None else Bill(total, 0)
    return Bill(given or 0, made or 0)


def _tokens(usage: Mapping[str, object], *names: str) -> int | None:
    values = (usage.get(name) for name in names)
    return next((value for value in values if type(value) is int and 0 <= value <= MAX_COUNT), None)
