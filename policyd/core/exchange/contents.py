"""response.content and response.reasoning, collected from the segments of a response where a rule reads them.

Rule 1: nothing is done for calls in which no rule reads either.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from policyd.core.decide.concern import Touch
from policyd.core.model.facts import ResponseFacts
from policyd.core.stream.dialects import ALONE, Segment
from policyd.core.stream.watches import covers

CONTENT, REASONING = int(Touch.CONTENT), int(Touch.REASONING)


class Contents:
    """Fills the two texts of one response. `wanted`: the bits of `Touch` of those that are collected."""

    __slots__ = ("_response", "wanted")

    def __init__(self, response: ResponseFacts) -> None:
        self._response = response
        self.wanted = 0

    def want(self, texts: Collection[str]) -> None:
        """From now on these texts of the response are collected."""
        response = self._response
        if "content" in texts:
            self.wanted |= CONTENT
            response.contents.kept = True
        if "reasoning" in texts:
            self.wanted |= REASONING
            response.thoughts.kept = True

    @property
    def longest(self) -> int:
        """Characters of the longer text of the two, where a rule reads it."""
        response, wanted = self._response, self.wanted
        return max(
            response.contents.size if wanted & CONTENT else 0,
            response.thoughts.size if wanted & REASONING else 0,
        )

    def take(self, segments: Sequence[Segment]) -> int:
        """The texts of one event: which of the two grew."""
        grown, wanted = 0, self.wanted
        if not wanted:
            return 0
        for segment in segments:
            channel = segment.channel
            if not segment.text or segment.again:
                continue
            if wanted & CONTENT and covers("content", channel[0]):
                self._response.contents.add(None if channel == ALONE else channel, segment.text)
                grown |= CONTENT
            if wanted & REASONING and covers("reasoning", channel[0]):
                self._response.thoughts.add(channel, segment.text)
                grown |= REASONING
        return grown
