"""A marker at any place of any request: it is content, or in a listed field; where it is redacted it does not leave.

`POLICYD_CONTENT_EXAMPLES` says how many bodies are tried, over all dialects.
"""

from __future__ import annotations

import copy
import json
import os
import random
from typing import Any

import pytest

from policyd.core.errors import Malformed
from policyd.core.model.bounds import Bounds
from policyd.core.model.decision import Redaction
from policyd.core.stream.dialects.content import content_of
from policyd.core.stream.dialects.redact_content import ContentRedactor
from policyd.core.stream.dialects.request_fields import REQUESTS, request_structure
from policyd.core.stream.json_text import dumps, loads_request, splice
from policyd.core.stream.redactor import redactors
from tests.attempts.in_requests import SKELETONS
from tests.sizes import size

MARKER = "canary-314159 it is"
SEARCH = ContentRedactor(redactors([Redaction((), ("canary-[0-9]{6} it is",))]))
EXAMPLES = int(os.environ.get("POLICYD_CONTENT_EXAMPLES", size(3600)))
OTHERS: dict[str, Any] = {
    "cohere.generate": {"model": "m", "prompt": "hi"},
    "cohere.embed": {"model": "m", "texts": ["hi"], "input_type": "search_query"},
    "gemini.embed": {"content": {"parts": [{"text": "hi"}]}},
    "ollama.embed": {"model": "m", "input": ["hi"]},
}
NAMES = ("x", "role", "type", "id", "content", "text", "metadata", "input", "data", "parameters", "messages", "params")


def skeleton(dialect: str) -> Any:
    return OTHERS[dialect] if dialect in OTHERS else SKELETONS[dialect][1]


def grown(chance: random.Random, document: Any, depth: int = 0) -> Any:
    """The document with fields added at random places."""
    if isinstance(document, dict):
        made = {key: grown(chance, value, depth + 1) for key, value in document.items()}
        if chance.random() < 0.3:
            made.setdefault(chance.choice(NAMES), value(chance, 0))
        return made
    return [grown(chance, one, depth + 1) for one in document] if isinstance(document, list) else document


def value(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(8 if depth < 3 else 5)
    if kind == 5:
        return {chance.choice(NAMES): value(chance, depth + 1) for _ in range(2)}
    if kind == 6:
        return [value(chance, depth + 1) for _ in range(2)]
    if kind == 7:
        return json.dumps(value(chance, depth + 1))
    return chance.choice(["word", "two words", 7, None, True])


def holders(document: Any) -> list[Any]:
    found = [document] if isinstance(document, dict | list) else []
    below = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return [*found, *(one for part in below for one in holders(part))]


def plant(chance: random.Random, document: Any) -> None:
    """The marker as a value, a name, an element, or inside of JSON text, escaped or not."""
    said = {"said": [MARKER], "n": 1}
    text = json.dumps(said)
    escaped = text.replace(MARKER, "".join(f"\\u{ord(one):04x}" for one in MARKER))
    twice = json.dumps({"inner": escaped})
    words = chance.choice([MARKER, f"so {MARKER}.", text, escaped, twice])
    holder = chance.choice([one for one in holders(document) if one] or [document])
    if isinstance(holder, list):
        holder.insert(chance.randrange(len(holder) + 1), words)
    elif chance.random() < 0.2:
        holder[f"{MARKER}"] = "x"
    else:
        holder[chance.choice([*holder, *NAMES])] = words


@pytest.mark.parametrize("dialect", sorted(REQUESTS))
def test_a_marker_is_content_and_can_be_redacted(dialect: str) -> None:
    chance, structure = random.Random(dialect), request_structure(dialect)
    for _ in range(EXAMPLES // len(REQUESTS)):
        document = grown(chance, copy.deepcopy(skeleton(dialect)))
        plant(chance, document)
        data = dumps(document).encode()
        read = loads_request(data)
        # The marker has spaces, so that it fits the shape of no structural field.
        assert MARKER in content_of(read, structure, Bounds()), data
        try:
            left = splice(data, SEARCH.edits(read, structure))
        except Malformed:
            continue
        assert MARKER not in content_of(loads_request(left), structure, Bounds()), data
        assert b"canary" not in left, data
