"""Streams whose text goes on after the provider said that it was over."""

from __future__ import annotations

from collections.abc import Iterator

from policyd.core.stream.framing import framing_of
from tests.attempts.attempt import holds
from tests.spoken import Voice


def events_of(voice: Voice, data: bytes) -> list[bytes]:
    """The events of this stream, as the bytes that they came in."""
    framing = framing_of(voice.kind, voice.dialect.name, asked=True)
    assert framing is not None
    raws = [event.raw for event in framing.feed(data)]
    left = framing.finish()
    return [*raws, left.raw] if left is not None else raws


def interrupted(voice: Voice, head: str, tail: str) -> Iterator[tuple[str, list[bytes]]]:
    """A text in two pieces, and between them each of the events that follow a text, and all of them."""
    events, short = events_of(voice, voice.say([head, tail])), events_of(voice, voice.say([head]))
    first = next(place for place, raw in enumerate(events) if holds(raw, head)) + 1
    ends = short[next(place for place, raw in enumerate(short) if holds(raw, head)) + 1 :]
    for number, end in enumerate(ends):
        yield f"event {number}", [*events[:first], end, *events[first:]]
    yield "all", [*events[:first], *ends, *events[first:]]
