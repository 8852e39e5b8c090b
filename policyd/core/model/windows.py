"""Window arithmetic: until when a charge counts. Pure: the time is an argument, seconds since 1970, UTC.

Rule 1: a window never under-counts. Where it must round it counts longer, never shorter.
Rule 2: a charge is known by the time at which it stops counting, whatever the window; a counter's value is the sum of
        the charges that still count. So every store can keep few sums, one for each such time.
"""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from policyd.core.model.counters import Window, WindowKind

SUB_WINDOWS = 60  # of a sliding window: it over-counts by at most one of them


def counts_until(window: Window, now: float, running: float | None) -> float:
    """When a charge made now stops counting.

    `running`: when the newest charge that still counts does so; None when nothing counts. A lifetime runs from its
    first charge, an idle window from its last: there the answer holds for all the charges together.
    """
    match window.kind:
        case WindowKind.LIFETIME:
            return now + window.seconds if running is None else running
        case WindowKind.IDLE:
            return now + window.seconds
        case WindowKind.SLIDING:
            return _sub_window_end(window.seconds, now)
        case WindowKind.CALENDAR:
            return period_end(window.calendar, window.time_zone, now)


def _sub_window_end(seconds: float, now: float) -> float:
    """The sub-window of `now` counts whole until the window has left its last moment behind."""
    if seconds <= 0:
        return now
    step = seconds / SUB_WINDOWS
    # INVARIANT: never before now + seconds, even where the division rounds down (Rule 1)
    return max((math.floor(now / step) + SUB_WINDOWS + 1) * step, now + seconds)


def period_end(calendar: str, time_zone: str, now: float) -> float:
    """The first moment of the next Day, Week (Monday), Month or Year in a time zone. Days have 23 to 25 hours there."""
    zone = ZoneInfo(time_zone)
    first = _next_first_day(calendar, datetime.fromtimestamp(now, zone).date())
    return datetime(first.year, first.month, first.day, tzinfo=zone).timestamp()


def _next_first_day(calendar: str, today: date) -> date:
    match calendar:
        case "Day":
            return today + timedelta(days=1)
        case "Week":
            return today + timedelta(days=7 - today.weekday())
        case "Month":
            return date(today.year + today.month // 12, today.month % 12 + 1, 1)
        case "Year":
            return date(today.year + 1, 1, 1)
        case _:
            raise ValueError(f"unknown calendar period `{calendar}`")
