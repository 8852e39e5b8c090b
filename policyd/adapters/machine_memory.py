"""How much memory this process may have, and how it is given back."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
UNKNOWN = 2 << 30  # bytes, where the machine does not tell
SHARE = 2  # calls in flight may take one part in so many


def default_budget(limits: tuple[Path, ...] = _LIMITS) -> int:
    """Half of what the container, or else the machine, has."""
    return min(_machine(), *map(_limit, limits)) // SHARE


def _machine() -> int:
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return UNKNOWN


def _limit(file: Path) -> int:
    """The limit of a control group; what is no number is none."""
    with contextlib.suppress(ValueError, OSError):
        return int(file.read_text())
    return 1 << 62


def trimmer() -> Callable[[], None]:
    """What gives the memory that is free in this process back to the machine: the C library keeps it otherwise."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return lambda: None
    return lambda: trim(0)
