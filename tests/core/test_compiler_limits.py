"""Durations, windows and limits as authors write them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.compile.limits import Mistake, amount, seconds, window
from policyd.core.model.counters import MAX_AMOUNT, NANO, Charge, Window, WindowKind
from policyd.core.model.policy import WindowSpec


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("24h", 86_400),
        ("30m", 1_800),
        ("1d", 86_400),
        ("1h30m", 5_400),
        ("500ms", 0.5),
        ("1.5h", 5_400),
        ("2w", 1_209_600),
        ("1m1s", 61),
    ],
)
def test_durations(written: str, meant: float) -> None:
    assert seconds(written) == meant


@pytest.mark.parametrize("written", ["", "24", "h", "24 h", "-1h", "1y", "1e3s", "0s", "999999d", "1h ", "１h"])
def test_what_is_no_duration(written: str) -> None:
    with pytest.raises(Mistake) as raised:
        seconds(written)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("written", "charge", "units"),
    [
        ("2.00 USD", Charge.COST, 2 * NANO),
        ("0.000000001 USD", Charge.COST, 1),
        ("5USD", Charge.COST, 5 * NANO),
        ("9007199.254740991 USD", Charge.COST, MAX_AMOUNT),
        ("100000 tokens", Charge.TOTAL_TOKENS, 100_000),
        ("1 token", Charge.OUTPUT_TOKENS, 1),
        ("60 requests", Charge.REQUESTS, 60),
        ("0 requests", Charge.REQUESTS, 0),
        ("2.5", Charge.EXPRESSION, 2_500_000),
        ("10 units", Charge.EXPRESSION, 10_000_000),
    ],
)
def test_limits(written: str, charge: Charge, units: int) -> None:
    assert amount(written, charge) == units


@pytest.mark.parametrize(
    ("written", "charge", "word"),
    [
        ("2.00", Charge.COST, "no unit"),
        ("2 EUR", Charge.COST, "`EUR`"),
        ("2 usd", Charge.COST, "`usd`"),
        ("5 tokens", Charge.COST, "`tokens`"),
        ("5 USD", Charge.REQUESTS, "`USD`"),
        ("1.5 requests", Charge.REQUESTS, "finer"),
        ("0.0000000001 USD", Charge.COST, "finer"),
        ("9007199.254740992 USD", Charge.COST, "more than"),
        ("9007199254740992 tokens", Charge.TOTAL_TOKENS, "more than"),
        ("-1 USD", Charge.COST, "not a limit"),
        ("1e3 USD", Charge.COST, "not a limit"),
        ("1,000 USD", Charge.COST, "not a limit"),
        ("NaN USD", Charge.COST, "not a limit"),
        ("1 USD 2", Charge.COST, "not a limit"),
    ],
)
def test_what_is_no_limit(written: str, charge: Charge, word: str) -> None:
    with pytest.raises(Mistake) as raised:
        amount(written, charge)
    assert word in raised.value.message
    assert raised.value.hint


@given(st.decimals(0, 9_000_000, places=9))
def test_a_cost_is_exact_to_the_nano_dollar(dollars: Decimal) -> None:
    assert Decimal(amount(f"{dollars:f} USD", Charge.COST)) == dollars * NANO


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        (WindowSpec(lifetime="24h"), Window(WindowKind.LIFETIME, 86_400)),
        (WindowSpec(idle="5m"), Window(WindowKind.IDLE, 300)),
        (WindowSpec(sliding="1m"), Window(WindowKind.SLIDING, 60)),
        (WindowSpec(calendar="Month"), Window(WindowKind.CALENDAR, calendar="Month")),
        (
            WindowSpec(calendar="Day", timeZone="Europe/Berlin"),
            Window(WindowKind.CALENDAR, calendar="Day", time_zone="Europe/Berlin"),
        ),
    ],
)
def test_windows(spec: WindowSpec, meant: Window) -> None:
    assert window(spec) == meant


@pytest.mark.parametrize(
    "spec",
    [
        WindowSpec(),
        WindowSpec(lifetime="1h", idle="1h"),
        WindowSpec(calendar="Day", sliding="1h"),
        WindowSpec(idle="1h", timeZone="UTC"),
        WindowSpec(calendar="Day", timeZone="Mars/Olympus"),
        WindowSpec(calendar="Day", timeZone="../../etc/passwd"),
        WindowSpec(lifetime="forever"),
    ],
)
def test_what_is_no_window(spec: WindowSpec) -> None:
    with pytest.raises(Mistake) as raised:
        window(spec)
    assert raised.value.hint
