"""Arguments of a Gemini function call that come in pieces: each names the place that it fills, or goes on with.

Rule 1: places are simple paths (`$.a.b[0]`). A path of another form is malformed.
Rule 2: text that comes for one place in several pieces is joined.
"""

from __future__ import annotations

import re

from policyd.core.errors import Malformed

MOST_PLACES = 4096  # of one call
MOST_INDEX = 4096
_STEP = re.compile(r"\.([A-Za-z_$][\w$-]*)|\[(\d{1,5})\]|\['([^']*)'\]|\[\"([^\"]*)\"\]")
_VALUES = ("numberValue", "boolValue")


def _steps(path: str) -> tuple[str | int, ...]:
    at, steps = 1, list[str | int]()
    while path[:1] == "$" and at < len(path) and (found := _STEP.match(path, at)):
        name, index, quoted, doubly = found.groups()
        steps.append(
            int(index) if index is not None else next(one for one in (name, quoted, doubly) if one is not None)
        )
        at = found.end()
    if path[:1] != "$" or at != len(path) or any(isinstance(one, int) and one > MOST_INDEX for one in steps):
        raise Malformed("a piece of arguments whose place is no path")
    return tuple(steps)


class GrowingArguments:
    """The arguments so far."""

    def __init__(self, begun: object = None) -> None:
        self._begun = begun if isinstance(begun, dict) else {}
        self._texts: dict[str, list[str]] = {}
        self._places: dict[str, tuple[str | int, ...]] = {}
        self._others: dict[str, object] = {}

    def lane(self, where: str) -> int:
        """The number of a place among those of the call."""
        self._place(where)
        return list(self._places).index(where) if len(self._places) < 64 else 64

    def _place(self, where: str) -> None:
        if where not in self._places:
            if len(self._places) >= MOST_PLACES:
                raise Malformed(f"a call with more than {MOST_PLACES} pieces of arguments")
            self._places[where] = _steps(where)

    def put(self, where: str, piece: dict[str, object]) -> None:
        """One piece. Raises Malformed."""
        self._place(where)
        if isinstance(said := piece.get("stringValue"), str):
            self._texts.setdefault(where, []).append(said)
            return
        self._others[where] = next((piece[name] for name in _VALUES if name in piece), None)

    def value(self) -> object:
        """The arguments as one object."""
        whole: dict[str | int, object] = {**self._begun}
        for where, steps in self._places.items():
            leaf = "".join(self._texts[where]) if where in self._texts else self._others.get(where)
            _set(whole, steps, leaf)
        return _listed(whole)


def _set(whole: dict[str | int, object], steps: tuple[str | int, ...], leaf: object) -> None:
    at = whole
    for step in steps[:-1]:
        below = at.get(step)
        if not isinstance(below, dict):
            below = at[step] = {}
        at = below
    if steps:
        at[steps[-1]] = leaf


def _listed(value: object) -> object:
    """Objects whose members are all numbers, as lists."""
    if not isinstance(value, dict):
        return value
    if value and all(isinstance(name, int) for name in value):
        return [_listed(value[name]) for name in sorted(value)]
    return {str(name): _listed(below) for name, below in value.items()}
