"""Every stream through a whole exchange: what changes nothing changes no byte; what redacts changes what it found, and
nothing else, and the official SDK reads on.

Rule 1: the streams are those of tests/recorded.py. POLICYD_LAW4_CUTS takes them all; without it, of the recorded ones
        those up to 8 kB.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from policyd.core.model.facts import RequestFacts
from policyd.core.stream.alone import redact_alone
from policyd.core.stream.dialects import JOINED, Channel, Edit, Path, Segment
from policyd.core.stream.eventstream import unwrap
from policyd.core.stream.holdback import redact_text
from policyd.core.stream.json_text import loads, splice
from policyd.core.stream.redactor import redactor
from policyd.core.stream.sse import SseEvent
from policyd.core.stream.watches import STANDS_ALONE
from tests.hearing import HEAR
from tests.properties.test_redaction import substituted
from tests.recorded import Lab, Stream, made, recorded
from tests.streams import Read, read_stream

LONGEST = 100_000 if os.environ.get("POLICYD_LAW4_CUTS") else 8_000  # bytes
STREAMS = [*made(), *(one for one in recorded() if len(one.data) <= LONGEST)]
PATTERNS = ["[A-Z][a-z]{2,8}", "[a-z]{2,4} [a-z]{1,3} "]
FOUND = tuple(redactor(pattern, "[x]") for pattern in PATTERNS)
NOTHING = """match: {operations: ["*"]}
rules:
- {name: r, constrain: {redact: {patterns: ["zq[0-9]{4,9}xj"], detectors: [private_key, jwt], in: [request, response]}}}
- {name: c, constrain: {tools: {deny: [nobody]}, headers: {response: {set: {x-seen: "1"}}}}}
- {name: h, when: 'response.text.contains("zq0000xj")', holdBack: 20, terminate: {}}
- {name: t, when: 'response.tool_calls.exists(t, t.arguments.contains("zq0000xj"))', terminate: {}}"""
REDACT = f"""match: {{operations: ["*"]}}
rules:
- {{name: r, constrain: {{redact: {{patterns: {json.dumps(PATTERNS)}, in: [response], replacement: "[x]"}}}}}}"""

pytestmark = pytest.mark.corpus


def read(stream: Stream, data: bytes) -> Read:
    path, _, query = stream.path.partition("?")
    request = RequestFacts(path=path, query=query)
    stream.dialect.read_request(loads(stream.body), request)
    return read_stream(stream.dialect, [data], request, stream.kind or "text/event-stream")


def texts(read: Read) -> dict[Channel, str]:
    said: dict[Channel, str] = defaultdict(str)
    for reading in read.readings:
        for segment in reading.segments:
            if not segment.again and segment.channel[0] not in ("veil", *STANDS_ALONE):
                said[segment.channel] += segment.text
    return said


def alone(read: Read) -> list[Segment]:
    """The strings that are texts by themselves."""
    every = (segment for reading in read.readings for segment in reading.segments)
    return [segment for segment in every if segment.channel[0] in ("alone", *JOINED)]


def redacted_alone(segment: Segment) -> str:
    return redact_text(segment.text, FOUND) if segment.name else redact_alone(segment.text, FOUND)


@pytest.fixture(scope="module")
def redacting() -> Lab:
    return Lab(REDACT)


def test_what_changes_nothing_changes_no_byte() -> None:
    lab = Lab(NOTHING)
    for stream in STREAMS:
        out = lab.run(stream, [stream.data])
        assert (out.sent, out.body, out.record.ended) == (stream.body, stream.data, "complete"), stream
        assert out.response_headers["x-seen"] == "1"


def test_a_redaction_is_the_same_substitution_on_the_whole_text(redacting: Lab) -> None:
    changed = 0
    for stream in STREAMS:
        came, left = read(stream, stream.data), read(stream, redacting.run(stream, [stream.data]).body)
        strings = [one.text for one in alone(left)]
        assert strings == [redacted_alone(one) for one in alone(came)], stream
        before, after = texts(came), texts(left)
        for channel, text in before.items():
            arguments = channel[0] == "args"
            expected = redact_text(text, FOUND, arguments=True) if arguments else substituted(text, FOUND)
            assert after[channel] == expected, (stream, channel)
            changed += expected != text
    assert changed > len(STREAMS) / 2


def documented(event: SseEvent) -> tuple[bytes, str]:
    """What stands around an event's JSON (the same where only its texts differ), and that JSON."""
    if event.raw[:1] == b"\0":  # a message of an event stream: its lengths and checksums follow its payload
        document = json.loads(event.data or "")
        return b"", unwrap(document).decode() if "bytes" in document else event.data or ""
    data = (event.data or "").encode()
    assert event.raw.count(data) == 1
    return event.raw.replace(data, b"?"), event.data or ""


def pointed(document: Any, path: Path) -> Any:
    for key in path:
        document = document[key]
    return document


def undone(document: str, before: str, paths: Sequence[Path]) -> str:
    """The document with the strings at these paths as they were before, every other character as it stands."""
    originals = json.loads(before)
    changes = [Edit(path, pointed(originals, path)) for path in paths]
    return splice(document.encode(), changes).decode()


def test_only_what_was_found_differs(redacting: Lab) -> None:
    """Undo the substitutions where they were made, and every character is as it was."""
    for stream in STREAMS:
        before, after = (read(stream, data) for data in (stream.data, redacting.run(stream, [stream.data]).body))
        assert len(before.events) == len(after.events), stream
        for one, other, reading in zip(before.events, after.events, before.readings, strict=True):
            if one.raw == other.raw:
                continue
            (around, document), (around_after, document_after) = documented(one), documented(other)
            assert (one.name, around) == (other.name, around_after), stream
            paths = [segment.path for segment in reading.segments if not segment.name]
            if any(segment.name and redacted_alone(segment) != segment.text for segment in reading.segments):
                continue  # members that have other names now
            inner = [path[1:] if path[0] == "bytes" else path for path in paths]
            changed = [p for p in inner if pointed(json.loads(document), p) != pointed(json.loads(document_after), p)]
            assert undone(document_after, document, changed) == undone(document, document, changed), stream


@pytest.mark.parametrize("dialect", HEAR)
def test_the_sdk_hears_what_is_left(dialect: str, redacting: Lab) -> None:
    hear, streams = HEAR[dialect], [one for one in STREAMS if one.dialect.name == dialect]
    assert streams
    for stream in streams:
        before = hear(stream.data, stream.kind)
        after = hear(redacting.run(stream, [stream.data]).body, stream.kind)
        assert any(before.values()) and before.keys() == after.keys(), stream
        for place, text in before.items():
            arguments = place.startswith("args")
            expected = redact_text(text, FOUND, arguments=True) if arguments else substituted(text, FOUND)
            assert after[place] == expected, (stream, place)
