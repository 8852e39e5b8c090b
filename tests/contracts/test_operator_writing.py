"""How the operator writes statuses: at a pace, and not at all to a server that has enough. On a clock of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from policyd.adapters.policies_kube.api import Api, Away, Object, Refused
from policyd.adapters.policies_kube.good import Policy, policy_of
from policyd.operator.writing import BURST, RATE, TOGETHER, Writer


def policies(count: int) -> list[tuple[Policy, Object]]:
    metadata = ({"name": f"p{at}", "namespace": "agents", "generation": 1} for at in range(count))
    return [(policy_of({"kind": "LLMPolicy", "metadata": one, "spec": {}}), {}) for one in metadata]


@dataclass(slots=True)
class Desk:
    """A server that takes what is applied, or answers as it is told; and the time that passes."""

    answers: Iterator[Exception | None] = field(default_factory=lambda: iter(()))
    now: float = 100.0
    written: list[tuple[float, str]] = field(default_factory=list)  # when, what
    running: int = 0
    most: int = 0
    leads: bool = True

    def writer(self) -> Writer:
        return Writer(cast(Api, self), lambda: self.leads, self.pause, lambda: self.now)

    async def pause(self, seconds: float) -> None:
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)

    async def apply(self, path: str, _: Object) -> Object:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self.written.append((self.now, path))
        if answer := next(self.answers, None):
            raise answer
        return {}


def test_ten_thousand_are_written_at_a_bounded_pace() -> None:
    desk = Desk()
    assert asyncio.run(desk.writer().write(policies(1000)))
    assert len({path for _, path in desk.written}) == len(desk.written) == 1000
    assert desk.now - 100.0 >= (1000 - BURST - TOGETHER) / RATE
    assert desk.most <= TOGETHER


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(Refused(429, "too many", 7.0), 7.0), (Refused(503, "not now"), 0.5), (Away("gone"), 0.5)],
)
def test_a_server_that_has_enough_is_left_alone(
    error: Exception, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(iter([None, error]))
    writer = desk.writer()
    assert not asyncio.run(writer.write(policies(100)))
    assert len(desk.written) <= 1 + TOGETHER, "what was under way, and no more"
    ended, before = desk.now, len(desk.written)
    assert asyncio.run(writer.write(policies(2)))
    assert desk.written[before][0] >= ended + seconds
    assert len(caplog.records) == 1


def test_the_time_doubles_while_the_server_says_nothing_else_and_is_forgotten_after() -> None:
    desk = Desk(iter([Refused(429, "")] * 20))
    writer, waits = desk.writer(), []
    while not asyncio.run(writer.write(policies(1))):
        waits.append(desk.now)
    gaps = [round(later - sooner, 1) for sooner, later in itertools.pairwise(waits)]
    assert gaps[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert set(gaps[6:]) == {30.0}


def test_one_that_is_refused_keeps_no_other_one_from_being_written(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(iter([Refused(422, "no"), Refused(404, "gone"), None, Refused(422, "no")]))
    writer = desk.writer()
    assert asyncio.run(writer.write(policies(3)))
    assert asyncio.run(writer.write(policies(1)))
    assert len(desk.written) == 4
    assert [record.message for record in caplog.records] == [
        "llmpolicy/agents/p0: its status cannot be written: 422: no"
    ]


def test_who_leads_no_longer_writes_no_longer() -> None:
    desk = Desk(leads=False)
    asyncio.run(desk.writer().write(policies(10)))
    assert desk.written == []
