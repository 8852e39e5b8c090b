"""What most requests have in common: their texts, what they weigh, and the edits that every dialect makes alike.

Rule 1: a cap lowers, or sets where nothing is; it never raises.
Rule 2: where the model stands in the path no edit of the body can change it: departure.py changes the path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from policyd.core.errors import Malformed
from policyd.core.model.facts import Message, RequestFacts, ToolResult
from policyd.core.stream.dialects import Edit, Path, RequestChange, Segment
from policyd.core.stream.dialects.parts import with_runs
from policyd.core.stream.dialects.shared import count, input_estimate, mapping, set_edits, with_sets

LIMIT_NAMES = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})


def samplings(document: dict[str, object], most: int = 1024) -> int:
    """How many texts a request makes its model write, whichever of them come back. Raises Malformed."""
    wanted = [count(document.get(field), field) for field in ("n", "best_of", "num_return_sequences")]
    if any(one is not None and not 1 <= one <= most for one in wanted):
        raise Malformed("n or best_of is not a number of responses")
    return max((one for one in wanted if one is not None), default=1)


@dataclass(frozen=True, slots=True)
class Fields:
    """Where a dialect keeps what policies change; `model` None: it stands in the path. `system`: it has a place for a
    system prompt, which the dialect itself knows."""

    limit: tuple[str, ...] | None  # None: there is no such thing
    temperature: tuple[str, ...] = ("temperature",)
    model: tuple[str, ...] | None = ("model",)
    system: bool = True


def at(document: object, path: Iterable[str | int]) -> object:
    """What stands at this path; None for nothing."""
    for key in path:
        if isinstance(document, dict):
            document = document.get(str(key))
        elif isinstance(document, list) and isinstance(key, int) and key < len(document):
            document = document[key]
        else:
            return None
    return document


def plain_edits(doc: object, change: RequestChange, fields: Fields) -> tuple[list[Edit], dict[str, object]]:
    """Sets, model and caps; and the document as the sets leave it. Raises Malformed."""
    document = mapping(doc, "the body")
    out = set_edits(document, change.sets)
    document = with_sets(document, change.sets)
    if change.model:
        if fields.model is None:
            raise Malformed("the model of this call stands in its path, where no edit of the body can change it")
        out.append(Edit(fields.model, change.model))
    if change.inject_system and not fields.system:
        raise Malformed("this kind of call has no place for a system prompt")
    for field, cap in change.caps:
        out += _cap(document, field, cap, fields)
    return out, document


def _cap(document: dict[str, object], field: str, cap: int, fields: Fields) -> list[Edit]:
    path: tuple[str, ...] | None = (field,)
    if field in LIMIT_NAMES:
        path = fields.limit
    elif field == "temperature":
        path = fields.temperature
    if path is None:
        return []
    value = at(document, path)
    # Below zero means no limit, to those who allow it.
    lower = value is None or (isinstance(value, int | float) and (value > cap or value < 0))
    return [Edit(path, cap)] if lower else []


# ---- texts ----------------------------------------------------------------------------------------------------------


class Texts:
    """Collects the editable texts of a request; each is a channel of its own."""

    def __init__(self) -> None:
        self.found: list[Segment] = []

    def add(self, path: Path, value: object, kind: str = "text") -> None:
        """A text, if it is one."""
        if isinstance(value, str) and value:
            self.found.append(Segment((kind, len(self.found), 0), path, value))

    def add_all(self, texts: Iterator[tuple[Path, str]], kind: str = "text") -> None:
        """Texts and where they stand."""
        for path, value in texts:
            self.add(path, value, kind)


_NO_TEXT = (
    "type id role status call_id tool_use_id toolUseId tool_call_id item_id file_id fileId image_url imageUrl url uri"
    " fileUri data bytes signature thoughtSignature thought_signature encrypted_content encrypted_index"
    " encrypted_stdout redactedContent media_type mimeType mime_type format detail error_code page_age"
)
NO_TEXT = frozenset(_NO_TEXT.split())  # fields of ids, types, links and data: no text where they hold one word
_SPACE = re.compile(r"\s")


def said_below(path: Path, value: object) -> Iterator[tuple[Path, str]]:
    """Every string below a value that may be text, and where it stands."""
    if isinstance(value, str):
        if value:
            yield path, value
    elif isinstance(value, dict):
        plain = value.get("type") == "text"  # a plain text document keeps its text among the data
        for key, below in value.items():
            word = key in NO_TEXT and isinstance(below, str) and _SPACE.search(below) is None
            if not word or (plain and key == "data"):
                yield from said_below((*path, key), below)
    elif isinstance(value, list):
        for place, below in enumerate(value):
            yield from said_below((*path, place), below)


def said(value: object) -> str:
    """The text below a value, one string a line: of what a tool gave back."""
    return "\n".join(words for _, words in said_below((), value))


def fill(
    facts: RequestFacts, messages: list[Message], system: Sequence[str], segments: Sequence[Segment], parts: int,
    tools: object, results: Sequence[ToolResult] = (),
) -> None:  # fmt: skip
    """The facts that follow from the texts of a request. `parts`: how much in it is no text."""
    facts.tool_results = list(results)
    facts.messages = messages
    facts.system = "\n".join(system) if system else None
    texts = [segment.text for segment in segments]
    facts.text = with_runs(texts, segments)
    facts.input_tokens = input_estimate(texts, len(messages), parts, tools)
