"""How often Python looks for garbage that refers in circles.

What a call makes is free when it ends, without the collector; yet by its usual measure it looks through all that is
young several times a call, and through what is old again and again.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 10_000  # objects more than before: about what six calls make


def look_seldom() -> None:
    """Take what exists now, which lives as long as the process, out of the collector's sight, and look seldom from here
    on: that is a twelfth of what a call costs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)


@contextmanager
def looking_seldom() -> Iterator[None]:
    """Look seldom for as long as this block runs."""
    usual = gc.get_threshold()
    gc.set_threshold(YOUNG)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
