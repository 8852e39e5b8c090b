"""response.content and response.reasoning, collected from the segments of a response where a rule reads them.

Rule 1: nothing is done for calls in which no rule reads either.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from policyd.core.exchange.call import Call
from policyd.core.exchange.judging import Touch, redacts_answer
from policyd.core.model.facts import ResponseFacts
from policyd.core.stream.dialects import JOINED, Segment
from policyd.core.stream.dialects.content import decoded
from policyd.core.stream.watches import STANDS_ALONE, covers

CONTENT, REASONING = int(Touch.CONTENT), int(Touch.REASONING)


def wants_content(call: Call) -> bool:
    """Whether every string of this call's response is content that somebody reads, or that may be redacted."""
    return (call.plan is not None and call.plan.wants_content) or redacts_answer(call)


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
                self._add(segment)
                grown |= CONTENT
            if wanted & REASONING and covers("reasoning", channel[0]):
                self._response.thoughts.add(channel, segment.text)
                grown |= REASONING
        return grown

    def _add(self, segment: Segment) -> None:
        contents, channel = self._response.contents, segment.channel
        if channel[0] not in STANDS_ALONE:
            contents.add(channel, segment.text)
            return
        contents.add(channel if channel[0] in JOINED else None, segment.text)
        for one in decoded(segment.text):
            contents.add(None, one)
