"""Metrics agree with the records they are made from, and no caller can add a label."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from http import HTTPStatus

import pytest

from policyd.adapters.admin import METRICS, Admin, Answer, text
from policyd.adapters.errors import NotAvailable
from policyd.adapters.telemetry import Telemetry
from policyd.core.model.decision import Mode, Verdict
from tests.contracts.test_records import RECORD


def value(telemetry: Telemetry, series: str) -> float:
    """The value of one series on the page; 0 where it is not there."""
    for line in telemetry.page().decode().splitlines():
        if line.rpartition(" ")[0] == series:
            return float(line.rpartition(" ")[2])
    return 0.0


def test_counters_agree_with_the_records() -> None:
    telemetry = Telemetry()
    allowed = dataclasses.replace(
        RECORD,
        verdict=Verdict.ALLOW,
        mode=Mode.MONITOR,
        enforced=False,
        degraded=True,
        inspection="none",
        ended="complete",
    )
    for record in (RECORD, RECORD, allowed):
        telemetry.write(record)
    expected = {
        'policyd_decisions_total{enforced="true",mode="Full",verdict="terminate"}': 2,
        'policyd_decisions_total{enforced="false",mode="Monitor",verdict="allow"}': 1,
        'policyd_would_total{verdict="terminate"}': 3,
        'policyd_would_total{verdict="reroute"}': 0,
        "policyd_degraded_total": 1,
        'policyd_inspection_total{inspection="full"}': 2,
        'policyd_inspection_total{inspection="none"}': 1,
        'policyd_ended_total{ended="cut"}': 2,
        "policyd_events_total": 15,
        'policyd_tokens_total{class="input"}': 27,
        'policyd_tokens_total{class="output"}': 36,
    }
    assert {series: value(telemetry, series) for series in expected} == expected
    assert value(telemetry, "policyd_cost_usd_total") == pytest.approx(3 * 0.000142)


def test_calls_messages_sets_and_losses() -> None:
    telemetry = Telemetry()
    running = [1, 2]
    telemetry.open_calls(lambda: len(running))
    running.pop()
    telemetry.message(0.00015)
    telemetry.policy_set("sha256:one", 1)
    telemetry.policy_set("sha256:two", 7)
    telemetry.reload("loaded")
    telemetry.records_dropped(3)
    telemetry.captures_dropped(2)
    page = telemetry.page().decode()
    assert value(telemetry, "policyd_open_calls") == 1
    assert value(telemetry, 'policyd_added_latency_seconds_bucket{le="0.0002"}') == 1
    assert value(telemetry, 'policyd_added_latency_seconds_bucket{le="0.0001"}') == 0
    assert value(telemetry, 'policyd_policy_set_info{digest="sha256:two"}') == 1
    assert "sha256:one" not in page
    assert value(telemetry, "policyd_policies") == 7
    assert value(telemetry, 'policyd_reload_total{result="loaded"}') == 1
    assert value(telemetry, "policyd_records_dropped_total") == 3
    assert value(telemetry, "policyd_captures_dropped_total") == 2


def test_labels_come_from_closed_sets() -> None:
    telemetry = Telemetry()
    words = {"model", "served_model", "provider", "dialect", "tenant", "session", "caller_key", "operation", "reason"}
    strange: dict[str, str] = dict.fromkeys(words, "from a caller") | {"inspection": "odd", "ended": "odd"}
    telemetry.write(dataclasses.replace(RECORD, **strange))  # type: ignore[arg-type]
    telemetry.reload("odd")
    page = telemetry.page().decode()
    assert "from a caller" not in page
    assert not re.search(r'="odd"', page)


@pytest.mark.parametrize("amount", [None, "many", -5, float("nan"), True])
def test_a_providers_nonsense_is_no_amount(amount: object) -> None:
    telemetry = Telemetry()
    telemetry.write(dataclasses.replace(RECORD, usage={"input_tokens": amount}))
    assert value(telemetry, 'policyd_tokens_total{class="input"}') in (0, 1)


# ---- the admin server -----------------------------------------------------------------------------------------------


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def asked(*requests: bytes) -> list[bytes]:
    telemetry = Telemetry()
    admin = Admin(
        {
            "/metrics": lambda: Answer(HTTPStatus.OK, telemetry.page(), METRICS),
            "/readyz": lambda: text(HTTPStatus.SERVICE_UNAVAILABLE, "no policy set"),
        }
    )
    port = await admin.start("127.0.0.1", 0)
    try:
        return [await ask(port, request) for request in requests]
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", b"200 OK", b"policyd_open_calls 0.0"),
        (b"GET /readyz?verbose HTTP/1.0\r\n\r\n", b"503 Service Unavailable", b"no policy set"),
        (b"GET /other HTTP/1.1\r\n\r\n", b"404 Not Found", b"/metrics"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed", b"GET only"),
        (b"nonsense\r\n\r\n", b"400 Bad Request", b"not HTTP/1"),
    ],
)
def test_admin_pages(request_: bytes, status: bytes, words: bytes) -> None:
    (answer,) = asyncio.run(asked(request_))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert words in body
    assert b"content-length: %d\r\n" % len(body) in head


def test_a_head_request_has_no_body() -> None:
    (answer,) = asyncio.run(asked(b"HEAD /metrics HTTP/1.1\r\n\r\n"))
    assert answer.endswith(b"\r\n\r\n")


def test_a_peer_that_says_too_much_is_let_go_and_the_next_is_served() -> None:
    _, answer = asyncio.run(asked(b"GET /" + b"a" * 40_000, b"GET /metrics HTTP/1.1\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_a_port_in_use_is_said_in_words() -> None:
    async def twice() -> None:
        first, second = Admin({}), Admin({})
        port = await first.start("127.0.0.1", 0)
        try:
            await second.start("127.0.0.1", port)
        finally:
            await first.close()

    with pytest.raises(NotAvailable, match=r"--admin 127\.0\.0\.1:\d+: cannot listen"):
        asyncio.run(twice())
