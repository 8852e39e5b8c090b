"""What authors write about amounts and times, as numbers: durations, windows, limits.

Rule 1: amounts are exact (Decimal) on the way to integer store units; nothing is rounded in silence.
Rule 2: a mistake raises Mistake, whose text says what to write instead.
"""

from __future__ import annotations

import re
from decimal import Decimal
from zoneinfo import ZoneInfo

from policyd.core.compile.amounts import duration
from policyd.core.compile.shape_fix import amount_fix
from policyd.core.compile.synonyms import VALUES, plainly
from policyd.core.compile.words import nearest, quoted
from policyd.core.model.counters import DISTINCT_MOST, MAX_AMOUNT, Charge, Window, WindowKind
from policyd.core.model.policy import WindowSpec

MAX_DURATION_S = 3_660 * 86_400.0
TOKEN_CHARGES = frozenset(
    (
        Charge.TOTAL_TOKENS,
        Charge.INPUT_TOKENS,
        Charge.OUTPUT_TOKENS,
        Charge.CACHED_INPUT_TOKENS,
        Charge.REASONING_TOKENS,
    )
)
CLAMPABLE = frozenset((Charge.COST, Charge.TOTAL_TOKENS, Charge.OUTPUT_TOKENS))

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d|w))+")
_DURATION_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d|w)")
_AMOUNT = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,12})?)(?:[ ]*([A-Za-z]+))?")


class Mistake(Exception):  # noqa: N818 - the author's, an ordinary value to us
    """Something that cannot be meant; `hint` says what to write, `field` which of several it is."""

    def __init__(self, message: str, hint: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.hint = hint


def seconds(text: str) -> float:
    """A duration like `24h`, `1h30m` or `500ms` in seconds. Raises Mistake."""
    if not _DURATION.fullmatch(text):
        short = duration(text)
        if re.fullmatch(r"[0-9]+M", text.strip()):
            short = (
                f"{text.strip()[:-1]}m` for minutes, `{int(text.strip()[:-1]) * 30}d` for months, `{text.strip()[:-1]}m"
            )
            raise Mistake(f"{quoted(text)} is not a duration", f"write `{short.rpartition(', ')[0]}")
        if plainly(text) in ("forever", "infinite", "unlimited", "never", "always", "permanent"):
            raise Mistake(f"{quoted(text)} is not a duration", "the longest is `3660d`, ten years")
        hint = f"write `{short}`" if short else "write it like 24h, 30m, 1d, 1h30m or 500ms"
        raise Mistake(f"{quoted(text)} is not a duration", hint)
    total = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if not 0.001 <= total <= MAX_DURATION_S:
        raise Mistake(f"{quoted(text)} is out of range", "a window lasts from 1ms to 3660d")
    return total


def window(spec: WindowSpec) -> Window:
    """The window that exactly one of the fields names. Raises Mistake."""
    kinds = {WindowKind.LIFETIME: spec.lifetime, WindowKind.IDLE: spec.idle, WindowKind.SLIDING: spec.sliding}
    named = [(kind, text) for kind, text in kinds.items() if text is not None]
    if len(named) + (spec.calendar is not None) != 1:
        hint = "for example {lifetime: 24h} or {calendar: Month, timeZone: UTC}"
        raise Mistake("a window is exactly one of lifetime, idle, sliding or calendar", hint)
    if spec.calendar is not None:
        return Window(WindowKind.CALENDAR, calendar=spec.calendar, time_zone=_time_zone(spec.time_zone or "UTC"))
    if spec.time_zone is not None:
        hint = "remove it, or write {calendar: Day, timeZone: …}"
        raise Mistake("`timeZone` belongs to a calendar window only", hint, "timeZone")
    kind, text = named[0]
    try:
        return Window(kind, seconds(text))
    except Mistake as mistake:
        raise Mistake(mistake.message, mistake.hint, kind.value) from None


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # unknown, a folder, or no name at all
        hint = "write it like UTC or Europe/Berlin"
        raise Mistake(f"no time zone is called {quoted(name)}", hint, "timeZone") from None
    return name


def amount(text: str, charge: Charge) -> int:
    """A limit like `2.00 USD`, `100000 tokens` or `60 requests` in store units. Raises Mistake."""
    unit, example = _unit(charge)
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise Mistake(f"{quoted(text)} is not a limit", amount_fix(text, unit[0]) or f"write it like {example}")
    number, written = found.groups()
    if (written or "") not in unit:
        given = f"{quoted(written)} does not measure" if written else f"{quoted(text)} has no unit for"
        raise Mistake(f"{given} a counter that charges {charge}", _unit_hint(text, written or "", unit[0], example))
    return _store_units(Decimal(number), text, charge)


def _unit_hint(text: str, written: str, unit: str, example: str) -> str:
    """What to write instead of a limit in another unit: the same one, or the charge that has this unit."""
    charge = nearest(written, ("Cost", "Requests", "TotalTokens"), VALUES) if written else None
    if charge is None:
        return amount_fix(text, unit)
    spelt = {"Cost": "USD", "Requests": "requests"}.get(charge, "tokens")
    if spelt == unit:
        return amount_fix(text, unit)
    return f"write it like {example}, or `charge: {charge}`"


def _unit(charge: Charge) -> tuple[tuple[str, ...], str]:
    """The units that may stand beside a number, and an example."""
    match charge:
        case Charge.COST:
            return ("USD",), "`2.00 USD`"
        case Charge.REQUESTS:
            return ("requests", "request"), "`60 requests`"
        case Charge.ATTEMPTS:
            return ("attempts", "attempt", "requests", "request", ""), "`60 attempts`"
        case Charge.REFUSALS:
            return ("refusals", "refusal", "requests", "request", ""), "`5 refusals`"
        case Charge.DISTINCT:
            return ("values", "value", "units", "unit", ""), "`10 values`"
        case Charge.EXPRESSION:
            return ("", "units", "unit"), "`100`, without a unit"
        case _:
            return ("tokens", "token"), "`100000 tokens`"


def _store_units(number: Decimal, text: str, charge: Charge) -> int:
    exact = number * charge.scale
    if exact != exact.to_integral_value():
        least = {Charge.COST: "0.000000001 USD", Charge.EXPRESSION: "0.000001"}.get(charge, "1")
        raise Mistake(f"{quoted(text)} is finer than can be counted", f"the smallest step is {least}")
    if charge is Charge.DISTINCT and exact > DISTINCT_MOST:
        hint = f"the highest limit is {DISTINCT_MOST:,} values"
        raise Mistake(f"{quoted(text)} is more than a counter of different values tells apart", hint)
    if exact > MAX_AMOUNT:
        most = Decimal(MAX_AMOUNT) / charge.scale
        raise Mistake(f"{quoted(text)} is more than can be counted", f"the highest limit is {most:,.0f}")
    return int(exact)
