"""Streams for tests: answers read through a dialect, cut in many ways, and as the official SDKs see them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx2

from policyd.core.model.facts import RequestFacts, ResponseFacts
from policyd.core.stream.dialects import AnswerReader, Dialect, Reading
from policyd.core.stream.framing import framing_of
from policyd.core.stream.json_text import dumps, loads
from policyd.core.stream.sse import SseEvent


@dataclass
class Read:
    """One answer as it was read: its facts, and what each protocol event said."""

    response: ResponseFacts
    reader: AnswerReader
    events: list[SseEvent] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    marks: list[object] = field(default_factory=list)  # before each event, and after the last


def read_stream(
    dialect: Dialect, chunks: Iterable[bytes], request: RequestFacts | None = None, kind: str = "text/event-stream"
) -> Read:
    """The whole stream through parser and reader; `kind` is its content type."""
    response = ResponseFacts(status=200, headers={"content-type": kind})
    read = Read(response, dialect.reader(request or RequestFacts(stream=True), response))
    parser = framing_of(kind, dialect.name, asked=True)
    assert parser is not None
    read.marks.append(read.reader.mark())
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    if (left := parser.finish()) is not None:
        events.append(left)
    for event in events:
        if event.data is None:
            continue
        read.events.append(event)
        read.readings.append(read.reader.read_event(event.name, event.data))
        read.marks.append(read.reader.mark())
    read.reader.finish()
    return read


def read_json(
    dialect: Dialect, document: object, status: int = 200, request: RequestFacts | None = None, **headers: str
) -> Read:
    """An answer in one piece."""
    response = ResponseFacts(status=status, headers=headers)
    read = Read(response, dialect.reader(request or RequestFacts(), response))
    read.readings.append(read.reader.read_json(loads(dumps(document))))
    return read


def cuts(data: bytes, times: int = 10) -> Iterator[list[bytes]]:
    """The same bytes whole, byte by byte and cut at random places."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    chance = random.Random(len(data))
    for _ in range(times):
        places = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 9)))
        yield [data[a:b] for a, b in pairwise([0, *places, len(data)])]


def sse(*documents: Any, names: bool = False, done: bool = True) -> bytes:
    """Events of these documents; a string stands as it is."""
    out = b""
    for document in documents:
        data = document if isinstance(document, str) else dumps(document)
        name = f"event: {document['type']}\n" if names and isinstance(document, dict) else ""
        out += f"{name}data: {data}\n\n".encode()
    return out + (b"data: [DONE]\n\n" if done and not names else b"")


def answering(body: bytes, status: int = 200, kind: str = "text/event-stream") -> httpx2.Client:
    """A client whose every call is answered with these bytes."""
    answer = httpx2.MockTransport(lambda _: httpx2.Response(status, content=body, headers={"content-type": kind}))
    return httpx2.Client(transport=answer)


def joined(events: list[SseEvent]) -> list[SseEvent]:
    """The events, what dispatches none between two of them as one: how much of it came together does not matter."""
    found: list[SseEvent] = []
    for event in events:
        if found and idle(event) and idle(found[-1]):
            last = found.pop()
            tidy = b"".join(one.raw if one.tidy is None else one.tidy for one in (last, event))
            raw = last.raw + event.raw
            event = SseEvent(raw, "", None, tidy=None if tidy == raw else tidy)
        found.append(event)
    return found


def idle(event: SseEvent) -> bool:
    return event.data is None and not event.name and event.complete and not event.damage
