"""Exact counts of tokens, for models whose vocabulary is at hand: who counts is handed in, as prices are.

Rule 1: pure: a vocabulary is a name and a function from a text to its number of tokens, the same on every machine.
Rule 2: bounded: what is counted again with each piece of text is no more than OPEN characters and that piece, and no
        text longer than LONGEST is counted whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Count = Callable[[str], int]

OPEN = 64  # characters: a run without a place to cut it exactly is cut here
LONGEST = 256 * 1024  # characters that are counted at once, about seven milliseconds
MESSAGE = 4  # tokens that a message costs beside its text: its role and its two marks
REPLY = 3  # tokens that open the answer

# Where no token reaches across, in whatever follows: before a space behind what is none, and behind a letter or a digit
# before a space or a sign that no word holds (an apostrophe may be part of the word).
_LAST_CUT = re.compile(r".*(?:(?<=\S)(?= )|(?<=[^\W_])(?=[\s!-&(-/:-@\[-`{-~、。，：；？！「」]))", re.DOTALL).match


class Vocabularies(Protocol):
    """The vocabularies at hand. `of` is cheap; `count` may load one."""

    def of(self, model: str) -> str:
        """The name of the vocabulary that this model counts by; empty where none is known, or none is at hand."""
        ...

    def count(self, name: str) -> Count | None:
        """What counts by this vocabulary; None where it is not at hand."""
        ...


class NoVocabularies:
    """None is at hand: every answer is estimated."""

    def of(self, model: str) -> str:  # noqa: ARG002
        return ""

    def count(self, name: str) -> Count | None:  # noqa: ARG002
        return None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as far as its tokens can be counted."""

    texts: Sequence[str]
    messages: int = 0
    tools: Sequence[object] = ()  # their definitions
    ids: int = 0  # tokens that came as their numbers
    whole: bool = True  # it holds nothing but these

    def tokens(self, count: Count) -> int | None:
        """The request's tokens; None where they cannot be told. Tools count as the JSON that defines them."""
        if not self.whole or sum(map(len, self.texts)) > LONGEST:
            return None
        texts = [*self.texts, *(json.dumps(tool, ensure_ascii=False, separators=(",", ":")) for tool in self.tools)]
        if sum(map(len, texts)) > LONGEST:
            return None
        return sum(map(count, texts)) + MESSAGE * self.messages + (REPLY if self.messages else 0) + self.ids


class Running:
    """The tokens of a text that comes in pieces. Exact at each cut that no token crosses, see `_LAST_CUT`; behind the
    last one, what the open end is by itself. A run without such a cut is cut every OPEN characters: about a token too
    many each."""

    __slots__ = ("_closed", "_count", "_end", "tokens")

    def __init__(self, count: Count) -> None:
        self._count = count
        self._end = ""
        self._closed = 0
        self.tokens = 0

    def add(self, text: str) -> int:
        """The tokens so far."""
        end = self._end + text
        if (found := _LAST_CUT(end)) is not None:
            at = found.end()
            self._closed += self._count(end[:at])
            end = end[at:]
        open_ = self._count(end) if end else 0
        if len(end) > OPEN:
            self._closed, open_, end = self._closed + open_, 0, ""
        self._end = end
        self.tokens = self._closed + open_
        return self.tokens
