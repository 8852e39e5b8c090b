"""Limits and durations that authors write in the words of other systems, as policyd wants them.

Rule 1: only a hint is made of it: `$5` stays an error, whose hint is `5 USD`.
"""

from __future__ import annotations

import re
from decimal import Decimal

from policyd.core.compile.synonyms import plainly, singular

_NUMBER = re.compile(r"[0-9][0-9_,]*(?:\.[0-9]+)?(?:[eE][0-9]+)?")
_SCALE = {"k": 1_000, "m": 1_000_000, "mio": 1_000_000, "b": 1_000_000_000, "bn": 1_000_000_000}
_RATE = re.compile(r"(?:/|\bper\b|\ban?\b)\s*([A-Za-z]+)|(?:rp|tp|qp)([smhd])\b", re.IGNORECASE)
_UNITS = {
    "ms": "ms", "millisecond": "ms", "milli": "ms",
    "s": "s", "sec": "s", "second": "s",
    "m": "m", "min": "m", "minute": "m",
    "h": "h", "hr": "h", "hour": "h", "hourly": "h",
    "d": "d", "day": "d", "daily": "d",
    "w": "w", "wk": "w", "week": "w", "weekly": "w",
}  # fmt: skip
_DAYS = {"mo": 30, "month": 30, "monthly": 30, "y": 365, "yr": 365, "year": 365, "yearly": 365}
_ISO = re.compile(r"P(?:([0-9]+)D)?(?:T(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)S)?)?")
_CLOCK = re.compile(r"([0-9]{1,3}):([0-5][0-9])(?::([0-5][0-9]))?")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def plain_number(text: str) -> str:
    """The number in a text such as `1_000`, `$5`, `100k tokens`, in plain digits; empty without one."""
    found = _NUMBER.search(text)
    if found is None:
        return ""
    number = Decimal(re.sub("[_,]", "", found[0]))
    letters = re.match(r"\s?([A-Za-z]+)", text[found.end() :])
    scale = _SCALE.get(letters[1].lower(), 1) if letters else 1
    return f"{(number * scale).normalize():f}"


def per(text: str) -> str:
    """The duration of a rate such as `60/min` or `60 rpm`; empty when it is none."""
    found = _RATE.search(text)
    if found is None:
        return ""
    return duration(f"1{found[1] or found[2]}")


def duration(text: object) -> str:
    """The duration that was meant by `60`, `1 hour`, `24 Hours`, `PT1H`, `1:30`; empty when none was."""
    words = str(text).strip()
    if iso := _ISO.fullmatch(words.upper()):
        return "".join(f"{part}{unit}" for part, unit in zip(iso.groups(), "dhms", strict=True) if part)
    if clock := _CLOCK.fullmatch(words):
        return "".join(
            f"{int(part)}{unit}" for part, unit in zip(clock.groups(), "hms", strict=True) if part and int(part)
        )
    if singular(plainly(words)) in _UNITS and not words[:1].isdigit():
        return f"1{_UNITS[singular(plainly(words))]}"
    rest = _PART.sub("", words)
    parts = [_part(number, unit) for number, unit in _PART.findall(words)]
    return "".join(parts) if parts and all(parts) and re.fullmatch(r"[\s,.-]*(?:and)?[\s,.]*", rest) else ""


def _part(number: str, unit: str) -> str:
    name = singular(unit.lower()) if len(unit) > 2 else unit.lower()
    if not unit:
        return f"{number}s"
    if name in _DAYS:
        return f"{int(float(number) * _DAYS[name])}d"
    return f"{number}{_UNITS[name]}" if name in _UNITS else ""


def seconds_text(text: object) -> str:
    """The same as CEL's duration() takes it, which knows hours but no days."""
    short = duration(text)
    return re.sub(r"([0-9.]+)([dw])", lambda found: f"{float(found[1]) * (24 if found[2] == 'd' else 168):g}h", short)
