"""Chunks that come together change nothing: every record and every byte is what it is chunk by chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from policyd.adapters.counters_memory import MemoryCounters
from policyd.adapters.prices import load_prices
from policyd.adapters.recordings import Recording, read_recordings
from policyd.adapters.records import fields
from policyd.cli import dry_run
from policyd.cli.dry_run import DryRun
from policyd.cli.gathering import gathered
from policyd.cli.replay import compiled
from policyd.core.model.counters import CounterId, SessionId, Window, WindowKind
from policyd.core.model.options import Options
from policyd.core.model.steps import Settle
from tests.cli.desk import Desk, event, exchange, stream
from tests.cli.desk import desk as desk

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "recorded"

HEAD = """
apiVersion: policyd.dev/v1alpha1
kind: LLMPolicy
metadata: {name: p, namespace: agents}
spec:
  mode: MODE
  match: {operations: [chat, unknown]}
"""
SPECS = {  # name -> (spec, whether a call that is not stopped is gathered)
    "nothing": ("rules: [{name: r, when: 'request.model == \"none\"', terminate: {}}]", True),
    "event": ("rules: [{name: r, when: response.events >= 4, terminate: {fallback: enough}}]", True),
    "text": ("rules: [{name: r, holdBack: 9, when: 'response.text.contains(\"brown f\")', terminate: {}}]", True),
    "redact": ("rules: [{name: r, constrain: {redact: {patterns: [quick], in: [response]}}}]", True),
    "tokens": (
        "counters: [{name: c, key: session.id, charge: OutputTokens, window: {sliding: 1m}, limit: 30 tokens}]",
        True,
    ),
    "requests": (
        "counters: [{name: c, key: session.id, charge: Requests, window: {lifetime: 2s}, limit: 3 requests}]",
        True,
    ),
    "goes on": (
        "counters: [{name: c, key: session.id, charge: TotalTokens, window: {idle: 1s}, limit: 40 tokens, "
        "onExceeded: Continue}]\n  rules: [{name: r, when: counters.c.exceeded, terminate: {}}]",
        True,
    ),
    "usage": ("rules: [{name: r, when: response.output_tokens == 12, terminate: {}}]", True),
    "session": ("rules: [{name: r, when: session.calls > 4 && session.tokens > 50, terminate: {}}]", True),
    "elapsed": ("rules: [{name: r, when: response.elapsed_ms > 455.0, terminate: {}}]", False),
    "first": ("rules: [{name: r, when: response.ttft_ms > 205.0, terminate: {}}]", False),
    "pace": ("rules: [{name: r, constrain: {pace: {tokens_per_second: 50}}}]", False),
    "charge": (
        "counters: [{name: c, key: session.id, charge: {expression: response.elapsed_ms}, window: {lifetime: 1h}}]",
        False,
    ),
}


def calls() -> list[dict[str, object]]:
    """Calls half a second apart, each of them 0.4 s long, some of many events, one that breaks, one in one piece."""
    long = [stream()[0], *(event({"content": f"word{number} "}) for number in range(40)), *stream()[-3:]]
    made: list[dict[str, object]] = []
    for number in range(16):
        pieces = long if number % 4 == 1 else stream()
        chunks = [(200.0 + 200.0 * index / len(pieces), data) for index, data in enumerate(pieces)]
        if number == 6:
            chunks = [*chunks[:4], (900.0, b"")]
        if number == 7:
            chunks = [(300.0, b"".join(pieces))]
        made.append(exchange(chunks, time=f"2026-03-01T10:00:{number // 2:02}.{number % 2 * 5}Z"))
    return made


def told(policies: Path, recordings: Sequence[Recording], *, gather: bool) -> list[tuple[object, ...]]:
    run = DryRun(compiled([policies]), load_prices(None), Options(observe_all=True), gather=gather)

    async def play() -> list[tuple[object, ...]]:
        played = [await run.play(recording) for recording in recordings]
        learned = run._enforcer.estimates.rate("openai", "gpt-4o")
        told = [(fields(one.record) | {"id": ""}, one.output_sha256, one.facts.response.text()) for one in played]
        return [*told, (learned,)]

    return asyncio.run(play())


@pytest.mark.parametrize("mode", ["Full", "Monitor"])
@pytest.mark.parametrize("name", SPECS)
def test_what_comes_together_is_judged_as_it_came(
    desk: Desk, name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, may_gather = SPECS[name]
    desk.policies.write_text(f"{HEAD.replace('MODE', mode)}  {spec}\n")
    desk.record(*calls())
    recordings = list(read_recordings(desk.recorded))
    apart = told(desk.policies, recordings, gather=False)
    together: list[int] = []
    monkeypatch.setattr(dry_run, "gathered", lambda chunks: together.append(len(chunks)) or gathered(chunks))
    assert told(desk.policies, recordings, gather=True) == apart
    assert bool(together) is may_gather
    stops = [record for record, *_ in apart if isinstance(record, dict) and record["would"] == "terminate"]
    assert bool(stops) is (name not in ("nothing", "redact", "pace", "charge"))


def test_no_message_grows_without_bound() -> None:
    chunks = [(float(at), b"x" * 1000) for at in range(200)]
    made = list(gathered(chunks))
    assert b"".join(data for _, data in made) == b"".join(data for _, data in chunks)
    assert max(len(data) for _, data in made) < 2**16 + 1000
    assert [at for at, _ in made] == [65.0, 131.0, 197.0, 199.0]


def test_what_time_changes_is_not_steady() -> None:
    now = 0.0
    counters = MemoryCounters(lambda: now)
    counter = CounterId("a/p", "c", ("k",), "Requests", Window(WindowKind.LIFETIME, 60.0))
    session = SessionId("default", "s")
    assert counters.steady([counter], session, 1e12)
    counters.settle_now(Settle("op", "call", ((counter, 1),)))
    assert counters.steady([counter], session, 59.9)
    assert not counters.steady([counter], session, 60.0)
    assert counters.steady([], session, 60.0)


@pytest.mark.corpus
def test_the_corpus_is_the_same_together(desk: Desk) -> None:
    if not CORPUS.is_dir():
        pytest.skip("no recorded corpus: ../shared is not there")
    desk.policies.write_text(f"{HEAD.replace('MODE', 'Full')}  {SPECS['event'][0]}\n")
    streamed = [one for file in sorted(CORPUS.rglob("*stream*.yaml")) for one in read_recordings(file)]
    recordings = [_in_lines(one) for one in streamed]
    assert sum(len(one.chunks) > 3 for one in recordings) > 30
    assert told(desk.policies, recordings, gather=True) == told(desk.policies, recordings, gather=False)


def _in_lines(recording: Recording) -> Recording:
    """The answer a line a chunk, 10 ms apart."""
    lines = b"".join(data for _, data in recording.chunks).splitlines(keepends=True)
    return replace(recording, chunks=tuple((10.0 * at, line) for at, line in enumerate(lines)))
