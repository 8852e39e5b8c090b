"""A large message is worked on in a thread: the loop that serves the other calls goes on meanwhile."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from policyd.core.model.steps import Ended, RequestBody, RequestHeaders
from tests.driving import Bed, chat, policy

SPEC = """rules:
- name: r
  constrain: {redact: {detectors: [card], in: [request], replacement: "#"}}"""
CARDS = "4 " * 50_000
PLAIN, ZIPPED = chat(CARDS), gzip.compress(chat(CARDS))


@pytest.mark.parametrize(
    ("data", "headers"), [(PLAIN, ()), (ZIPPED, (("content-encoding", "gzip"),))], ids=["plain", "compressed"]
)
def test_another_call_is_served_while_a_large_body_is_judged(data: bytes, headers: tuple[tuple[str, str], ...]) -> None:
    async def run() -> list[str]:
        bed, order = Bed(policy(SPEC)), list[str]()

        async def large() -> None:
            out = await bed.acall(body=data, headers=headers, chunks=[])
            assert out.sent is not None
            order.append("large")

        async def small() -> None:
            await asyncio.sleep(0)
            out = await bed.acall(body=chat("pay 4111111111111111"), chunks=[])
            assert out.sent is not None
            assert b"#" in out.sent
            order.append("small")

        await asyncio.gather(large(), small())
        return order

    assert asyncio.run(run()) == ["small", "large"]


def test_a_call_that_is_cancelled_waits_for_its_thread() -> None:
    async def run() -> tuple[int, bool]:
        bed = Bed(policy(SPEC))
        call = bed.enforcer.open()
        await call.handle(RequestHeaders(((":method", "POST"), (":path", "/v1/chat/completions")), False, 0.0, 0.0))
        task = asyncio.ensure_future(call.handle(RequestBody(PLAIN, 0.0)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await call.handle(Ended(0.0, cancelled=True))
        return len(bed.sink.records), call.done

    assert asyncio.run(run()) == (1, True)
