"""Names of models: when two names mean the same model.

Rule 1: a region's or a maker's prefix, a date, a revision and an alias (`latest`) do not make another model. The order
        of the words, and whether numbers are joined by a point or a dash, do not either.
Rule 2: a variant that is billed apart (`:free`) does.
"""

from __future__ import annotations

import re
from functools import lru_cache

_REVISION = re.compile(
    r"[-@](?:latest|preview|exp|beta|default|\d{8}|\d{4}-\d\d-\d\d|\d\d-\d{4}|\d\d-\d\d|\d{3,4}|v\d+)$"
)
_VENDOR = re.compile(r"^(?:[a-z]{2,6}\.)?[a-z0-9]{2,16}\.(?=[a-z])")  # Bedrock's region and maker: us.anthropic.
_FREE = ":free"


@lru_cache(maxsize=1024)
def _words(name: str) -> tuple[str, ...]:
    plain = _VENDOR.sub("", name.lower().rpartition("/")[2].partition(":")[0])
    while (shorter := _REVISION.sub("", plain)) != plain:
        plain = shorter
    return tuple(sorted(re.split(r"[-._@]", plain)))


def same_model(one: str, other: str) -> bool:
    """Whether both names mean one model, as far as names tell."""
    if len(one) > 256 or len(other) > 256:
        return one == other
    return one.lower().endswith(_FREE) == other.lower().endswith(_FREE) and _words(one) == _words(other)
