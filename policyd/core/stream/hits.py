r"""Whether text conditions (`contains`, `matches`) hold, for whoever evaluates an expression.

Rule 1: the value of a condition is the same wherever it is evaluated. A condition that is followed while the text grows
        reads what was found; any other one is searched for in the text as it stands.
Rule 2: a text is searched choice by choice, or channel by channel, as it is where it is followed.
Rule 3: what was searched for is not searched for again until the response has grown.
Rule 4: a match that looks at the character after it (`\b`, `$`) may be none once there is more text: a condition that
        was found is true only while the text still matches.
"""

from __future__ import annotations

from collections.abc import Set
from functools import lru_cache

from policyd.core.model.facts import Facts, ResponseFacts
from policyd.core.model.reach import Watcher, compiled, looks_right, read
from policyd.core.stream.redactor import searchable, subject

_NONE: frozenset[Watcher] = frozenset()


class Hits:
    """What is known of text conditions. `found` and `followed` may be sets that grow."""

    __slots__ = ("_certain", "_length", "_response", "_searched", "_texts", "followed", "found")

    def __init__(self, found: Set[Watcher] = _NONE, followed: Set[Watcher] = _NONE) -> None:
        self.found = found
        self.followed = followed
        self._response: ResponseFacts | None = None  # the response whose texts were searched
        self._length = (0, 0, 0, 0)  # its length at that time, in events and characters
        self._texts: dict[str, list[str]] = {}  # by which text of the response (see VIEWS)
        self._searched: dict[Watcher, bool] = {}
        self._certain: set[Watcher] = set()  # that no further text can make false

    def truth(self, watcher: Watcher, facts: Facts) -> bool:
        """Whether this condition is true of the response so far."""
        if watcher in self.found:
            return not may_cease(watcher) or watcher in self._certain or self._search(watcher, facts.response)
        return watcher not in self.followed and self._search(watcher, facts.response)

    def stays_true(self, watcher: Watcher, facts: Facts) -> bool:
        """Whether this condition is true of the response so far, and of any longer one."""
        return self.truth(watcher, facts) and (watcher in self._certain or not may_cease(watcher))

    def _search(self, watcher: Watcher, response: ResponseFacts) -> bool:
        length = (response.events, response.text_chars, response.contents.size, response.thoughts.size)
        if self._response is not response or self._length != length:
            self._response, self._length = response, length
            self._texts, self._searched = {}, {}
        found = self._searched.get(watcher)
        if found is None:
            texts = self._texts.get(watcher.of)
            if texts is None:
                texts = self._texts[watcher.of] = _texts(response, watcher.of)
            found = self._searched[watcher] = any(self._holds(watcher, text) for text in texts)
        return found

    def _holds(self, watcher: Watcher, text: str) -> bool:
        if watcher.kind == "contains":
            return watcher.pattern in text
        match = compiled(watcher.pattern).search(subject(text))
        if match is not None and match.end() < len(text):
            self._certain.add(watcher)  # whatever it looked at is known
        return match is not None


def _texts(response: ResponseFacts, of: str) -> list[str]:
    """The texts of the choices, or of the channels; an empty one where there is none, which a pattern may match."""
    match of:
        case "content":
            texts = response.contents.each()
        case "reasoning":
            texts = response.thoughts.each()
        case _:
            texts = [response.text(choice) for choice in response.texts]
    return [searchable(text) for text in texts] or [""]


@lru_cache(maxsize=1024)
def may_cease(watcher: Watcher) -> bool:
    """Whether this condition can be true of a text and false of a longer one."""
    return watcher.kind == "matches" and looks_right(read(watcher.pattern))
