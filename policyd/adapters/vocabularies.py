"""OpenAI's vocabularies, where the extra `tokens` is installed: rs-bpe brings them along and asks no network.

Rule 1: a vocabulary is loaded when the first text is counted by it: a tenth of a second, once a process.
Rule 2: models are known by name alone; a name that nobody knows has no vocabulary, and is estimated.
"""

from __future__ import annotations

import re
from importlib.util import find_spec

from policyd.core.model.tokens import Count, NoVocabularies, Vocabularies

O200K, CL100K = "o200k_base", "cl100k_base"
_NAMES = (  # the first that matches counts; a name may follow `openai/`, or `ft:` for a model of one's own
    (re.compile(r"(chatgpt-4o|gpt-(4o|4\.1|4\.5|5)|o[134])(?![a-z0-9])"), O200K),
    (re.compile(r"(gpt-(4|3\.5|35)|text-embedding-(3|ada-002)|(davinci|babbage)-002)(?![a-z0-9.])"), CL100K),
)
_PREFIX = re.compile(r"(openai/)?(ft:)?")


def vocabulary_of(model: str) -> str:
    """The vocabulary that OpenAI counts this model's tokens by; empty where it is no model of theirs."""
    name = model[:256].lower()
    at = found.end() if (found := _PREFIX.match(name)) else 0
    return next((vocabulary for names, vocabulary in _NAMES if names.match(name, at)), "")


class OpenAIVocabularies:
    """The vocabularies of rs-bpe."""

    def __init__(self) -> None:
        self._counts: dict[str, Count] = {}

    def of(self, model: str) -> str:
        return vocabulary_of(model)

    def count(self, name: str) -> Count | None:
        if name not in (O200K, CL100K):
            return None
        if name not in self._counts:
            self._counts[name] = _loaded(name)
        return self._counts[name]


def _loaded(name: str) -> Count:
    from rs_bpe.bpe import openai

    known: Count = getattr(openai, name)().count

    def count(text: str) -> int:
        try:
            return known(text)
        except UnicodeEncodeError:  # half a surrogate pair: what a client shows for it
            return known(text.encode("utf-8", "replace").decode())

    return count


def load_vocabularies() -> Vocabularies:
    """What is at hand here. Nothing is loaded yet."""
    return OpenAIVocabularies() if find_spec("rs_bpe") is not None else NoVocabularies()
