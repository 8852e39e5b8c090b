"""The families behind InvokeModel: how each is told, read, and spoken.

Rule 1: a family that has a door of its own elsewhere is read by the very reader of that door.
"""

from __future__ import annotations

from policyd.core.errors import Malformed
from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream import ndjson
from policyd.core.stream.dialects import AnswerReader, Body, Ending, anthropic_ending, cohere_ending, openai_chat_ending
from policyd.core.stream.dialects.answer import Mark, Stand
from policyd.core.stream.dialects.anthropic_reader import AnthropicReader
from policyd.core.stream.dialects.bedrock_converse_reader import EVENTS, ConverseAnswer, ending, whole
from policyd.core.stream.dialects.bedrock_shared import header_bill
from policyd.core.stream.dialects.bedrock_text_reader import TextAnswer, last, whole_text
from policyd.core.stream.dialects.cohere_reader import CohereChatAnswer
from policyd.core.stream.dialects.embeddings import EmbeddingAnswer
from policyd.core.stream.dialects.openai_chat_reader import OpenAIChatReader
from policyd.core.stream.dialects.response_others import NOVA_RESPONSE
from policyd.core.stream.dialects.shared import Bill, mapping, tokens
from policyd.core.stream.json_strict import dumps

CLAUDE, CHAT, NOVA, COHERE, EMBEDDING = "claude", "chat", "nova", "cohere", "embedding"
# Those that continue a prompt, by the field that holds their text.
TITAN, LLAMA, MISTRAL, CLAUDE_2, AI21, COMMAND, OTHER = (
    "outputText",
    "generation",
    "outputs",
    "completion",
    "completions",
    "generations",
    "choices",
)
_BY_NAME = (("llama", LLAMA), ("mistral", MISTRAL), ("mixtral", MISTRAL), ("claude", CLAUDE_2), ("ai21", AI21))


def family_of(document: dict[str, object], model: str) -> str:
    """The family whose body this is. Raises Malformed."""
    if "embed" in model:
        return EMBEDDING
    if "anthropic_version" in document:
        return CLAUDE
    if "inputText" in document:
        return TITAN
    if "messages" in document:
        return NOVA if "schemaVersion" in document or _plain_blocks(document["messages"]) else CHAT
    if "message" in document:
        return COHERE
    if "prompt" in document:
        return _continuing(document, model.lower())
    raise Malformed("the body is of no family that is known")


def _plain_blocks(messages: object) -> bool:
    """Whether contents are blocks without a type: so Nova says them, and nobody else."""
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else []:
            return isinstance(block, dict) and "type" not in block
    return False


def _continuing(document: dict[str, object], model: str) -> str:
    if "max_gen_len" in document:
        return LLAMA
    if "max_tokens_to_sample" in document:
        return CLAUDE_2
    if "cohere" in model:
        return COMMAND
    return next((family for name, family in _BY_NAME if name in model), OTHER)


# ---- readers --------------------------------------------------------------------------------------------------------


class NovaAnswer(ConverseAnswer):
    """Converse's own words, each event under its name in one document."""

    structure = NOVA_RESPONSE
    deltas = frozenset({("contentBlockDelta", "delta")})

    def _event(self, name: str, document: dict[str, object]) -> bool:  # noqa: ARG002 - they have no names
        found = [key for key in document if key in EVENTS]
        if len(found) != 1:
            self._partial("an unknown event type")
            return False
        return self._read(found[0], mapping(document[found[0]], found[0]), (found[0],))

    def _ending(self, mark: Mark, end: Ending) -> bytes:
        return b"".join(ndjson.render(dumps({name: document})) for name, document in ending(mark, end))


def _embedding_bill(document: dict[str, object], response: ResponseFacts) -> Bill | None:
    given = tokens(document.get("inputTextTokenCount"), "inputTextTokenCount")
    if given is None and (bill := header_bill({"x-amzn-bedrock-output-token-count": "0", **response.headers})):
        return Bill(bill.input, 0)
    return None if given is None else Bill(given, 0)


def reader_of(request: RequestFacts, response: ResponseFacts) -> AnswerReader:
    """The reader of a request's family; of an unreadable one, of those that continue a prompt."""
    match request.shape:
        case "claude":
            return AnthropicReader(request, response)
        case "chat":
            return OpenAIChatReader(request, response)
        case "nova":
            return NovaAnswer(request, response)
        case "cohere":
            return CohereChatAnswer(request, response)
        case "embedding":
            return EmbeddingAnswer(request, response, _embedding_bill)
        case _:
            return TextAnswer(request, response)


# ---- voices ---------------------------------------------------------------------------------------------------------

_NOTHING = Mark(Stand(), Bill(0, 0))


def voice(request: RequestFacts, end: Ending, id: str) -> Body:
    """A response of the family that says the text: JSON, or a stream in its own framing."""
    match request.shape:
        case "claude":
            return anthropic_ending.completion(request, end, id)
        case "chat":
            return openai_chat_ending.completion(request, end, id)
        case "cohere":
            return cohere_ending.completion(request, end, id)
        case "nova" if request.stream:
            return Body("", b"".join(ndjson.render(dumps({name: one})) for name, one in ending(_NOTHING, end)))
        case "nova":
            return Body("", dumps(whole(end)).encode())
        case "embedding":
            return Body("", b'{"embedding":[],"inputTextTokenCount":0}')
        case shape if request.stream:
            return Body("", ndjson.render(dumps(last(shape, end, Bill(0, 0)))))
        case shape:
            return Body("", dumps(whole_text(shape, end)).encode())
