"""Law 4: the verdict does not depend on how the network cut the body. Decision, event and bytes out are the same.

Rule 1: whole exchanges, over every recorded stream and over a made one of every voice of tests/spoken.py: the whole
        record and all bytes out must be the same, sound or damaged.
Rule 2: POLICYD_LAW4_CUTS says in how many random ways each stream is cut for each policy; every stream then comes byte
        by byte too. Without it a share is run: each policy sees every sixth stream, those up to 8 kB.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Iterator

import pytest

from policyd.core.model.bounds import Bounds
from tests.driving import Outcome
from tests.recorded import CORPUS, MISSING, Lab, Stream, made, pieces, recorded

CUTS = int(os.environ.get("POLICYD_LAW4_CUTS", "0"))
BYTE_BY_BYTE = 100_000 if CUTS else 4_000  # bytes of a stream that also comes a byte at a time
SHARE = 6
SHORT = 8_000

SPECS = {
    "watched text": """rules:
- {name: r, when: 'response.text.contains(" the ") && response.events > 12', terminate: {fallback: stopped}}""",
    "a pattern": """rules:
- {name: r, when: 'response.text.matches("[Oo]pen[A-Z][a-z]{3,12}")', terminate: {fallback: stopped}}""",
    "kept back": """rules:
- {name: r, when: 'response.text.size() > 60', holdBack: 20, terminate: {fallback: stopped}}""",
    "kept back for a word": """rules:
- {name: r, when: 'response.text.contains("lazy")', holdBack: 9, terminate: {fallback: stopped}}
- {name: s, when: 'response.text.contains(" to ")', terminate: {fallback: stopped}}""",
    "the whole text": """rules:
- {name: r, when: 'response.text.lowerAscii().contains("tele")', terminate: {fallback: stopped}}""",
    "a budget": """counters:
- {name: out, key: session.id, charge: OutputTokens, window: {lifetime: 1h}, limit: 40 tokens}""",
    "cost": """counters:
- {name: cost, key: session.id, charge: Cost, window: {lifetime: 1h}, limit: 1 USD}
rules:
- {name: r, when: counters.cost.value > 0.02, terminate: {fallback: stopped}}""",
    "redaction": """rules:
- {name: r, constrain: {redact: {patterns: ["[a-z]{2,5} [a-z]{2,5}", "[A-Z]"], in: [response]}}}""",
    "detectors": """rules:
- {name: r, constrain: {redact: {detectors: [email, phone, card, private_key], patterns: ['"[a-z]'],
                                 in: [response]}}}""",
    "redaction and a cut": """rules:
- {name: a, constrain: {redact: {patterns: ["o[a-z]{1,3}"], in: [response]}}}
- {name: b, when: response.output_tokens > 25, terminate: {fallback: stopped}}""",
    "redaction from an event on": """rules:
- {name: a, when: response.events > 6, constrain: {redact: {patterns: ["o[a-z]{1,3}", "[0-9]"], in: [response]}}}
- {name: b, when: 'response.text.contains("e o")', constrain: {redact: {patterns: [" [a-z]{1,3} "], in: [response]}}}
- {name: c, when: 'response.text.size() > 150', holdBack: 9, terminate: {fallback: stopped}}""",
    "tools": """rules:
- {name: r, when: 'response.tool_calls.exists(t, t.arguments.contains("a"))', terminate: {fallback: stopped}}""",
    "tools and redaction": """rules:
- {name: a, constrain: {redact: {patterns: ["o[a-z]{1,3}"], in: [response]}}}
- {name: r, when: 'response.tool_calls.exists(t, t.arguments.contains("zzzz"))', terminate: {fallback: stopped}}
- {name: s, when: 'response.tool_calls.exists(t, t.name.startsWith("get"))', terminate: {fallback: stopped}}""",
    "not monotone": """rules:
- {name: r, when: 'response.delta.size() == 4 && response.events > 5', terminate: {fallback: stopped}}""",
    "the end": """rules:
- {name: r, when: 'response.finish_reasons.size() > 0', terminate: {fallback: stopped}}""",
    "inspection": """rules:
- {name: r, when: 'response.inspection != "full"', terminate: {fallback: stopped}}""",
    "what cannot be judged passes": """failurePolicy: Ignore
rules:
- {name: a, constrain: {redact: {patterns: ["o[a-z]{1,3}"], in: [response]}}}
- {name: b, when: response.output_tokens > 25, terminate: {fallback: stopped}}""",
    "little may wait": """rules:
- {name: r, when: 'response.text.size() > 2000', holdBack: 900, terminate: {fallback: stopped}}""",
    "little is read": """failurePolicy: Ignore
rules:
- {name: r, when: 'response.text.lowerAscii().contains("tele")', terminate: {fallback: stopped}}""",
    "only watched": """rules:
- {name: r, mode: Monitor, when: 'response.text.contains("lazy")', terminate: {fallback: stopped}}
- {name: s, mode: Monitor, when: 'response.text.contains(" to ")', terminate: {fallback: stopped}}""",
}
OPTIONS = {"little may wait": Bounds(held_text=300), "little is read": Bounds(response_text=80)}


def sees(name: str) -> list[Stream]:
    """The streams that this policy is shown."""
    every = [*made(), *recorded()]
    if CUTS:
        return every
    first = zlib.crc32(name.encode()) % SHARE
    return [stream for stream in every if len(stream.data) <= SHORT][first::SHARE]


def damaged(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """The same bytes sound, broken off, and with one bit flipped."""
    yield data
    yield data[: rng.randrange(1, len(data))]
    at = rng.randrange(len(data))
    yield data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def ways(data: bytes, rng: random.Random, times: int, *, sound: bool) -> Iterator[list[bytes]]:
    """These bytes byte by byte, and cut at random."""
    if len(data) <= BYTE_BY_BYTE and (sound or not CUTS):
        yield [data[at : at + 1] for at in range(len(data))]
    for _ in range(times):
        yield pieces(data, rng)


def told(out: Outcome) -> tuple[object, ...]:
    """Everything that may not depend on how the bytes came."""
    return (out.record, out.ended, out.broken, out.sent, out.response_headers, out.body)


@pytest.mark.corpus
@pytest.mark.timeout(0 if CUTS else 120)
@pytest.mark.parametrize("name", SPECS)
def test_every_stream_is_judged_alike_however_it_was_cut(name: str) -> None:
    lab = Lab('match: {operations: ["*"]}\n' + SPECS[name], bounds=OPTIONS.get(name, Bounds()))
    verdicts = set()
    for stream in sees(name):
        rng = random.Random(f"{name}{stream}")
        for turn, data in enumerate(damaged(stream.data, rng)):
            whole = told(lab.run(stream, [data]))
            verdicts.add((lab.bed.sink.records[0].verdict, lab.bed.sink.records[0].event))
            times = max(1, CUTS if turn == 0 else CUTS // 10)
            for chunks in ways(data, rng, times, sound=turn == 0):
                assert told(lab.run(stream, chunks)) == whole, (stream, turn, len(chunks))
    assert len(verdicts) > 1, "the policy never told two streams apart"


def test_the_recorded_streams_are_among_them() -> None:
    if not CORPUS.is_dir():
        pytest.skip(MISSING)
    assert len(recorded()) > 80
    assert {stream.dialect.name for stream in recorded()} >= {
        "openai.chat", "openai.completions", "openai.responses", "anthropic.messages",
        "bedrock.converse", "bedrock.invoke", "cohere.chat", "ollama.chat", "ollama.generate",
    }  # fmt: skip
