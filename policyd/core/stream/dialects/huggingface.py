"""Hugging Face's text generation: /generate and /generate_stream of its server, and the root of its hosted endpoints.

Rule 1: the server counts what it generates, and the prompt only where it was asked to; what it does not name stays an
        estimate.
Rule 2: the details tell the text again, token by token: they leave blank where the text leaves changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyd.core.errors import Malformed
from policyd.core.model.facts import Message, RequestFacts, ResponseFacts
from policyd.core.stream import sse
from policyd.core.stream.dialects import UNMARKED, AnswerReader, Body, Edit, Ending, RequestChange, Segment
from policyd.core.stream.dialects.answer import SOLE, Answer, Mark
from policyd.core.stream.dialects.asking import Fields, Texts, fill, plain_edits, samplings
from policyd.core.stream.dialects.response_others import HUGGINGFACE_RESPONSE
from policyd.core.stream.dialects.shared import count, flag, mapping, number, section, text
from policyd.core.stream.json_strict import dumps, refuse_twins

READ = frozenset({"inputs", "parameters", "stream"})
FIELDS = Fields(
    limit=("parameters", "max_new_tokens"), temperature=("parameters", "temperature"), model=None, system=False
)
HOSTS = (".huggingface.cloud", ".huggingface.co")


class HuggingFaceText:
    """The dialect `huggingface.text`."""

    name = "huggingface.text"

    def operation(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:
        """`completion` for a POST to the server's doors, or to the root of a hosted endpoint."""
        host = headers.get(":authority", headers.get("host", "")).partition(":")[0].lower()
        hosted = path == "/" and host.endswith(HOSTS)
        return "completion" if method == "POST" and (hosted or path in ("/generate", "/generate_stream")) else None

    def provider(self, host: str, path: str, headers: Mapping[str, str]) -> str:  # noqa: ARG002
        """Who is meant when the host does not tell."""
        return "huggingface"

    def read_request(self, doc: object, facts: RequestFacts) -> None:
        """Fills the body facts. Raises Malformed."""
        document = mapping(doc, "the body")
        refuse_twins(document, READ)
        parameters = section(document.get("parameters"), "parameters")
        streams = flag(document.get("stream"), "stream")
        facts.stream = True if facts.path.endswith("/generate_stream") else streams
        facts.max_tokens = count(parameters.get("max_new_tokens"), "max_new_tokens")
        facts.choices = samplings(parameters)
        facts.temperature = number(parameters.get("temperature"), "temperature")
        prompt = text(document.get("inputs"), "inputs") or ""
        fill(facts, [Message("user", prompt)], [], self.request_segments(document), 0, None)

    def request_segments(self, doc: object) -> Sequence[Segment]:
        """Every editable text of a request."""
        texts = Texts()
        texts.add(("inputs",), mapping(doc, "the body").get("inputs"))
        return texts.found

    def edits(self, doc: object, change: RequestChange) -> Sequence[Edit]:
        """The change in this dialect's fields."""
        return plain_edits(doc, change, FIELDS)[0]

    def reader(self, request: RequestFacts, response: ResponseFacts) -> AnswerReader:
        """A reader of one answer."""
        return HuggingFaceAnswer(request, response)

    def error(self, status: int, reason: str, message: str, end: Ending = UNMARKED) -> Body:  # noqa: ARG002 - the status says it all
        """An error in this server's shape."""
        return Body("application/json", dumps(end.marked({"error": message, "error_type": reason})).encode())

    def completion(self, request: RequestFacts, end: Ending, id: str) -> Body:  # noqa: ARG002 - it has no id
        """An answer that says the text."""
        if request.stream:
            return Body("text/event-stream", sse.render(dumps(_last(end, end.text))))
        return Body("application/json", dumps([end.marked({"generated_text": end.text})]).encode())


class HuggingFaceAnswer(Answer):
    """Reads one answer. `repeats`: the last event says the whole text."""

    repeats = True
    structure = HUGGINGFACE_RESPONSE
    deltas = frozenset({(), ("token",)})
    payload = frozenset({"generated_text", "token"})

    def _listed(self, doc: object) -> dict[str, object]:
        return {"answers": doc} if isinstance(doc, list) else {}

    def _whole(self, document: dict[str, object]) -> None:
        answers = document.get("answers")
        if not isinstance(answers, list):
            self._generated(0, (), document)
        for index, item in enumerate(answers if isinstance(answers, list) else ()):
            self._generated(index, (index,), mapping(item, "an answer"))

    def _generated(self, choice: int, path: tuple[str | int, ...], said: dict[str, object]) -> None:
        if not isinstance(said.get("generated_text"), str):
            raise Malformed("the answer says nothing")
        self._say((*path, "generated_text"), str(said["generated_text"]), ("text", choice, 0))
        self._details(choice, path, said.get("details"))

    def _event(self, name: str, document: dict[str, object]) -> bool:
        token = document.get("token")
        if name not in ("", "message") or not isinstance(token, dict):
            self._partial("an unknown event type")
        elif token.get("special") is not True:
            self._say(("token", "text"), text(token.get("text"), "text") or "")
            self._blank(("token", "id"), token.get("id"), "0")
        self._blank(("top_tokens",), document.get("top_tokens"), "[]")
        if document.get("generated_text") is None:
            return False
        self._once_more(("generated_text",), document["generated_text"])
        self._details(0, (), document.get("details"))
        self._stand = self._stand._replace(stopped=True)
        self._end()
        return True

    def _details(self, choice: int, path: tuple[str | int, ...], details: object) -> None:
        if details is None:
            return
        said = mapping(details, "details")
        if (reason := text(said.get("finish_reason"), "finish_reason")) is not None:
            self._reason(choice, reason)
        for field in ("tokens", "top_tokens"):
            self._blank((*path, "details", field), said.get(field), "[]")
        made = count(said.get("generated_tokens"), "generated_tokens")
        if made is not None:
            self.response.output_tokens = made

    def _ending(self, mark: Mark, end: Ending) -> bytes:  # noqa: ARG002 - it does not matter where it stands
        return sse.render(dumps(_last(end, self._told.get(SOLE, "") + end.text)))


def _last(end: Ending, whole: str) -> dict[str, object]:
    token = {"id": 0, "text": end.text, "logprob": 0.0, "special": False}
    reason = end.word("content_filter", "length", "eos_token")
    details = {"finish_reason": reason, "generated_tokens": 0, "seed": None}
    return end.marked({"index": 0, "token": token, "generated_text": whole, "details": details})
