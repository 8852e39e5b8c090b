"""What cases say of times and of texts, as values."""

from __future__ import annotations

from datetime import datetime

from policyd.core.compile.limits import Mistake, seconds
from policyd.core.compile.words import quoted

START = datetime.fromisoformat("2026-01-05T09:00:00Z").timestamp()  # a Monday morning; when cases begin


def moment(text: str) -> float:
    """RFC 3339 as seconds since 1970, UTC. Raises Mistake."""
    hint = "write it like 2026-01-05T09:00:00Z"
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Mistake(f"{quoted(text)} is not a time", hint) from None
    if at.tzinfo is None:
        raise Mistake(f"{quoted(text)} has no offset from UTC", hint)
    return at.timestamp()


def pause(text: str | None, otherwise: float) -> float:
    """A duration in seconds; `0s` is one here. Raises Mistake."""
    if text is None:
        return otherwise
    return 0.0 if text in ("0s", "0ms") else seconds(text)
