"""Headers as data. Names are lower case; a header may stand several times."""

from __future__ import annotations

from dataclasses import dataclass

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class HeaderEdit:
    """Changes to a header map: `set` overwrites or adds, `remove` drops every occurrence."""

    set: Headers = ()
    remove: tuple[str, ...] = ()
