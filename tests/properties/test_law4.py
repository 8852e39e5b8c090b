"""Law 4: the verdict does not depend on how the network cut the body. Decision, event and bytes out are the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from policyd.adapters.recordings import Recording, read_recordings
from tests.driving import Bed, FlatPrices, policy

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "recorded"

SPECS = {
    "watched text": """rules:
- {name: r, when: 'response.text.contains(" the ") && response.events > 12', terminate: {fallback: stopped}}""",
    "a pattern": """rules:
- {name: r, when: 'response.text.matches("[Oo]pen[A-Z][a-z]{3,12}")', terminate: {fallback: stopped}}""",
    "kept back": """rules:
- {name: r, when: 'response.text.size() > 60', holdBack: 20, terminate: {fallback: stopped}}""",
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
    "redaction and a cut": """rules:
- {name: a, constrain: {redact: {patterns: ["o[a-z]{1,3}"], in: [response]}}}
- {name: b, when: response.output_tokens > 25, terminate: {fallback: stopped}}""",
    "tools": """rules:
- {name: r, when: 'response.tool_calls.exists(t, t.arguments.contains("a"))', terminate: {fallback: stopped}}""",
    "not monotone": """rules:
- {name: r, when: 'response.delta.size() == 4 && response.events > 5', terminate: {fallback: stopped}}""",
    "the end": """rules:
- {name: r, when: 'response.finish_reasons.size() > 0', terminate: {fallback: stopped}}""",
}


def _streams() -> Iterator[Recording]:
    for file in sorted(CORPUS.rglob("*.yaml")):
        for recording in read_recordings(file):
            kind = dict(recording.response_headers).get("content-type", "")
            if "event-stream" in kind and recording.path.split("?")[0].endswith(("/chat/completions", "/v1/messages")):
                yield recording


@cache
def streams() -> tuple[Recording, ...]:
    if not CORPUS.is_dir():
        pytest.skip(f"the recorded corpus is not there: {CORPUS}")
    return tuple(_streams())


def pieces(data: bytes, rng: random.Random) -> list[bytes]:
    """These bytes, cut at random: often small pieces, now and then large ones."""
    out, at = [], 0
    while at < len(data):
        size = rng.choice((1, 2, 3, 7, 40, 300, 2000))
        out.append(data[at : at + size])
        at += size
    return out


def run(name: str, recording: Recording, chunks: list[bytes]) -> tuple[object, ...]:
    bed = Bed(policy(SPECS[name]), prices=Everything(), slice_tokens=16)
    out = bed.call(
        body=recording.body,
        path=recording.path.split("?")[0],
        chunks=chunks,
        response_headers=(("content-type", "text/event-stream"),),
        step_s=0.0,
    )
    record = out.record
    rules = tuple((rule.rule, rule.outcome, rule.enforced) for rule in record.rules)
    return (record.verdict, record.event, record.ended, record.cost_nano, record.usage, rules, out.body)


class Everything(FlatPrices):
    """Every model has a price."""

    def __init__(self) -> None:
        super().__init__("any", output=1_000_000)

    def price(self, _provider: str, _model: str, _at: float):  # type: ignore[no-untyped-def]
        return self._prices["any"]


@pytest.mark.corpus
@pytest.mark.parametrize("name", SPECS)
def test_every_recorded_stream_is_judged_alike_however_it_was_cut(name: str) -> None:
    verdicts = set()
    for index, recording in enumerate(streams()):
        data = b"".join(chunk for _, chunk in recording.chunks)
        rng = random.Random(f"{name}{index}")
        whole = run(name, recording, [data])
        verdicts.add(whole[2])

        ways = 100 if index % 20 == 7 else 4
        for _ in range(ways):
            assert run(name, recording, pieces(data, rng)) == whole, recording.source
        if len(data) < 6_000:
            assert run(name, recording, [data[i : i + 1] for i in range(len(data))]) == whole, recording.source
    assert len(verdicts) > (0 if name in ("tools", "redaction", "the end") else 1), (
        "the policy never told two streams apart"
    )
