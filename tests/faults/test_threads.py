"""Many large messages at once, in threads that take turns at every few instructions, while the policies change: every
call comes out as it would alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from policyd.enforcer import LARGE
from tests.driving import Bed, FlatPrices, Outcome, answer_of, chat, policy, stream_of

CALLS = 30
LONG = "some words of no meaning " * (LARGE // 20)
SPEC = """description: {edition}
counters:
- {{name: calls, key: caller.key, charge: Requests, window: {{sliding: 1h}}, limit: 1000000 requests}}
- {{name: spend, key: caller.team, charge: Cost, window: {{lifetime: 1h}}, limit: 1000000 USD}}
rules:
- {{name: words, when: 'request.text.contains("forbidden")', terminate: {{status: 403}}}}
- {{name: cards, constrain: {{redact: {{detectors: [card, email], in: [request, response], replacement: "#"}}}}}}
- name: many
  when: 'request.messages.exists(m, m.text.matches("(?i)number 1[0-9] "))'
  constrain: {{cap: {{max_tokens: 7}}}}
- {{name: ends, when: 'response.text.contains("the very end")', holdBack: 20, terminate: {{fallback: over}}}}
- {{name: content, when: 'response.content.contains("very secret")', terminate: {{status: 451}}}}"""


@pytest.fixture(autouse=True)
def _eager() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def made(edition: str = "one") -> Bed:
    return Bed(policy(SPEC.format(edition=edition)), prices=FlatPrices("gpt-4o"))


async def ask(bed: Bed, number: int) -> Outcome:
    """Call so many: what it says, and what it gets, is its own."""
    text = f"number {number} {LONG} mail-{number}@example.org"
    text += " forbidden" if number % 5 == 0 else " 4111 1111 1111 1111"
    streams = number % 2 == 1
    said = f"response {number} " + LONG + (" the very end" if number % 7 == 0 else f" to{number}@example.org")
    pieces = [said[at : at + 200] for at in range(0, len(said), 200)]
    chunks = [b"".join(stream_of(*pieces))] if streams else [answer_of(said + " very secret" * (number % 11 == 0))]
    headers = (("authorization", f"Bearer key-{number % 4}"), ("x-team-id", f"team-{number % 3}"))
    return await bed.acall(body=chat(text, stream=streams), headers=headers, chunks=chunks, step_s=0.0)


def told(out: Outcome) -> tuple[object, ...]:
    """What was decided, and every byte. Not what is learned from the calls before, or takes time."""
    (record,) = out.records
    decided = [record.verdict, record.rules, record.determined_by, record.event, record.status, record.ended]
    read = [record.inspection, record.detections, record.finish_reasons, record.events, record.session_source]
    return (decided, read, out.sent, out.body.replace(record.id.encode(), b"ID"), out.ended, out.broken)


async def alone() -> tuple[list[tuple[object, ...]], Bed]:
    bed = made()
    return [told(await ask(bed, number)) for number in range(CALLS)], bed


async def together() -> tuple[list[tuple[object, ...]], Bed]:
    bed, over, some = made(), asyncio.Event(), asyncio.Semaphore(12)

    async def change() -> None:
        edition = 0
        while not over.is_set():
            edition += 1
            bed.put(policy(SPEC.format(edition=f"edition {edition}")))
            await asyncio.sleep(0.005)

    async def one(number: int) -> tuple[object, ...]:
        async with some:
            out = await ask(bed, number)
        ours = [record for record in out.records if record.id == out.response_headers.get("x-policyd-decision")]
        rejected = dict(out.rejected.headers).get("x-policyd-decision") if out.rejected else ""
        out.records = ours or [record for record in out.records if record.id == rejected]
        return told(out)

    changing = asyncio.ensure_future(change())
    found = await asyncio.gather(*(one(number) for number in range(CALLS)))
    over.set()
    await changing
    return found, bed


def test_calls_in_threads_come_out_as_they_would_alone() -> None:
    expected, quiet = asyncio.run(alone())

    found, bed = asyncio.run(together())

    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours == theirs, number
    assert len(bed.sink.records) == CALLS
    assert len({record.id for record in bed.sink.records}) == CALLS
    assert len({record.digest for record in bed.sink.records}) > 1
    assert bed.enforcer.memory.used == 0
    assert bed.enforcer.open_calls == 0
    assert spent(bed) == spent(quiet)


def spent(bed: Bed) -> dict[str, int]:
    """Calls by key; what they cost is an estimate that learns."""
    sums: dict[str, int] = {}
    for record in bed.sink.records:
        for counter in record.counters:
            if counter.name == "calls":
                sums[counter.key] = sums.get(counter.key, 0) + counter.spent
    return sums
