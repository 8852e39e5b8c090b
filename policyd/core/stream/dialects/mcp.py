"""MCP, the Model Context Protocol, over streamable HTTP: JSON-RPC messages that call tools.

Rule 1: a tools/call is a `tool_call`. Handshakes, lists and the known notifications are `other`; what fetches content
        is `retrieval`; every other message is `unknown`. Headers do not make a call MCP: the path, the deployment or
        the body does.
Rule 2: the tool that is called is the one that the request names: to forbid that tool is to refuse the call.
Rule 3: no model speaks here, and no one bills tokens: what is counted is an estimate of what the tool said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from policyd.core.errors import Malformed
from policyd.core.model.facts import Message, RequestFacts, ResponseFacts, ToolResult, functions
from policyd.core.stream import sse
from policyd.core.stream.dialects import UNMARKED, AnswerReader, Body, Edit, Ending, Path, RequestChange, Segment
from policyd.core.stream.dialects.answer import Answer, Mark, strings
from policyd.core.stream.dialects.asking import Fields, Texts, fill, plain_edits, said, said_below
from policyd.core.stream.dialects.offers import function, removal
from policyd.core.stream.dialects.response_others import MCP_RESPONSE
from policyd.core.stream.dialects.shared import has_text, listing, mapping, text
from policyd.core.stream.json_strict import dumps, refuse_twins
from policyd.core.stream.ndjson import unbroken

CALL = "tools/call"
READ = frozenset({"method", "params", "id", "jsonrpc"})
DOORS = ("/mcp", "/sse")
_QUIET = (
    "initialize ping logging/setLevel tools/list prompts/list resources/list resources/templates/list"
    " notifications/initialized notifications/cancelled notifications/progress notifications/roots/list_changed"
)
QUIET = frozenset(_QUIET.split())
FETCHES = frozenset({"resources/read", "prompts/get", "completion/complete", "tasks/get", "tasks/result"})
REFUSED = -32000  # JSON-RPC: the first code that is a server's own
SILENT_PARTS = frozenset({"image", "audio", "resource_link"})


def _messages(doc: object) -> Iterator[tuple[Path, dict[str, object]]]:
    """The messages of a body: one, or a batch."""
    if not isinstance(doc, list):
        yield (), mapping(doc, "the body")
        return
    for index, item in enumerate(doc):
        yield (index,), mapping(item, "a message")


def _calls(doc: object) -> Iterator[tuple[Path, dict[str, object], dict[str, object]]]:
    """Each tools/call: where it stands, the message, its parameters."""
    for path, message in _messages(doc):
        if message.get("method") == CALL:
            yield path, message, mapping(message.get("params"), "params")


class Mcp:
    """The dialect `mcp`."""

    name = "mcp"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """`tool_call` for a POST to .../mcp or .../sse; the body may tell that it is another message."""
        return "tool_call" if method == "POST" and path.endswith(DOORS) else None

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "mcp"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        for _, message in _messages(doc):
            refuse_twins(message, READ)
            text(message.get("method"), "method")
        calls = list(_calls(doc))
        facts.operation = _operation(doc)
        facts.tools = functions([text(params.get("name"), "the name of a tool") or "" for _, _, params in calls])
        facts.rpc_id = next((_id(message) for _, message in _messages(doc) if "id" in message), None)
        results = [result for _, message in _messages(doc) if (result := _given(message)) is not None]
        messages = [Message("tool", one.text) for one in results]
        fill(facts, messages, [], self.request_segments(doc), 0, None, results)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request: the arguments."""
        texts = Texts()
        for path, _, params in _calls(doc):
            texts.add_all(strings((*path, "params", "arguments"), params.get("arguments")), "args")
        for path, message in _messages(doc):
            for field in ("result", "error"):
                texts.add_all(said_below((*path, field), message.get(field)))
        return texts.found

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change, as far as a tool call knows such a thing. Raises Malformed."""
        names = [text(params.get("name"), "the name of a tool") or "" for _, _, params in _calls(doc)]
        removal(doc, [function(name, None) for name in names], change)
        if isinstance(doc, list) and change.sets:
            raise Malformed("a batch has no fields of its own to set")
        document = {} if isinstance(doc, list) else doc
        return plain_edits(document, change, Fields(limit=None, model=None, system=False))[0]

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return McpAnswer(request, response)

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:  # noqa: ARG002 - the status says it all
        """An error in JSON-RPC's shape, to no message in particular."""
        said = {"code": REFUSED, "message": message, "data": end.marked({"reason": reason})}
        return Body("application/json", dumps({"jsonrpc": "2.0", "id": None, "error": said}).encode())

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:  # noqa: ARG002 - it has the caller's id
        """A result that says the text."""
        return Body("application/json", dumps(_result(request, end)).encode())


def _given(message: dict[str, object]) -> ToolResult | None:
    """What the client gives back to a question of the server's: a sample of its model, a form that was filled in."""
    if "method" in message or not message.keys() & {"result", "error"}:
        return None
    id_ = message.get("id")
    return ToolResult("", str(id_ or ""), said([message.get("result"), message.get("error")]), "error" in message)


def _operation(doc: object) -> str:
    """The operation of the message that matters most."""
    kinds = {_kind(message) for _, message in _messages(doc)}
    return next((kind for kind in ("tool_call", "unknown", "retrieval") if kind in kinds), "other")


def _kind(message: dict[str, object]) -> str:
    method = message.get("method")
    if method == CALL:
        return "tool_call"
    if method in FETCHES:
        return "retrieval"
    return "other" if method in QUIET else "unknown"


def _id(message: dict[str, object]) -> str | int | None:
    value = message["id"]
    if value is None or isinstance(value, str) or type(value) is int:
        return value
    raise Malformed("the id of a message is neither a string nor a whole number")


def _result(request: RequestFacts, end: Ending) -> dict[str, object]:
    """What the tool's caller gets in its place, marked as no success."""
    content = [{"type": "text", "text": end.text}] if end.text else []
    meta = {"_meta": {"policyd.dev/decision": dict(end.origin)}} if end.origin else {}
    return {"jsonrpc": "2.0", "id": request.rpc_id, "result": {"content": content, "isError": True, **meta}}


class McpAnswer(Answer):
    """Reads one answer: a message, a batch, or a stream of messages that ends with the result."""

    structure = MCP_RESPONSE
    payload = frozenset({"result"})

    def _listed(self, doc: object) -> dict[str, object]:
        return {"batch": doc} if isinstance(doc, list) else {}

    def _document(self, name: str, data: str) -> dict[str, object]:
        # An event without data only gives the stream an id to be taken up again by.
        return super()._document(name, data) if data else {"method": "", "params": None}

    def _failed(self, name: str, document: dict[str, object]) -> bool:
        return isinstance(document.get("error"), dict) and super()._failed(name, document)

    def _whole(self, document: dict[str, object]) -> None:
        if not isinstance(batch := document.get("batch"), list):
            self._message((), document)
            return
        for index, item in enumerate(batch):
            self._message((index,), mapping(item, "a message"))

    def _event(self, name: str, document: dict[str, object]) -> bool:
        if name not in ("", "message"):
            self._partial("an unknown event type")
        self._message((), document)
        return self._stand.done

    def _message(self, path: Path, message: dict[str, object]) -> None:
        if "method" in message:  # progress, a log line, or a question of the server's
            self._aside_of_text(message)
            return
        if isinstance(message.get("error"), dict):
            self.response.is_error = True
        if "result" in message:
            self._said((*path, "result"), mapping(message["result"], "result"))
        elif not isinstance(message.get("error"), dict):
            raise Malformed("the message is neither a result nor an error nor a call")
        if message.get("id") == self.request.rpc_id:
            self._stand = self._stand._replace(stopped=True)
            self._end()

    def _aside_of_text(self, message: dict[str, object]) -> None:
        """A question that the server puts to the caller's own model is a call of its own, on the wrong way."""
        if "id" in message and has_text(message.get("params")):
            self._partial("a call by the server")

    def _said(self, path: Path, result: dict[str, object]) -> None:
        for place, item in enumerate(listing(result.get("content"), "content")):
            part, where = mapping(item, "a part of content"), (*path, "content", place)
            match part.get("type"):
                case "text":
                    self._say((*where, "text"), text(part.get("text"), "text") or "")
                case "resource":
                    inner = mapping(part.get("resource"), "resource")
                    self._say((*where, "resource", "text"), text(inner.get("text"), "text") or "")
                case str(kind) if kind in SILENT_PARTS:
                    pass
                case _:
                    self._partial("an unknown part of content")

    def _ending(self, mark: Mark, end: Ending) -> bytes:  # noqa: ARG002 - it stands nowhere but before the result
        return sse.render(unbroken(dumps(_result(self.request, end))), "message")
