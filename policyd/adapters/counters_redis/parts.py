"""An operation whose counters lie under more than one tag: its parts, and its answer put together again. No I/O.

Counters of `scope: Global` lie with no caller's tenant. In a cluster no script reaches two tags, so each tag is asked
its part of the operation, under the same key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from policyd.adapters.counters_redis.keys import DEFAULT, tag_of
from policyd.core.model.counters import CounterId, Reading, Readings, SessionCharge, SessionId
from policyd.core.model.steps import Extend, Read, Reserve, Settle

Places = Mapping[str, Sequence[int]]
"""Tag -> where its counters stand in the operation."""


def places_of(counters: Sequence[CounterId], session: SessionId | None, known: Iterable[str] = ()) -> Places:
    """Where everything lies. `known`: tags that take part whatever is named; with nothing at all, the default one's."""
    places: dict[str, list[int]] = {tag: [] for tag in known}
    if session is not None:
        places.setdefault(tag_of(session.tenant), [])
    for at, counter in enumerate(counters):
        places.setdefault(tag_of(counter.tenant), []).append(at)
    return places or {tag_of(DEFAULT): []}


def part_of_hold(need: Reserve | Extend, tag: str, places: Sequence[int]) -> Reserve | Extend:
    """What this tag is asked."""
    holds = tuple(need.holds[at] for at in places)
    if isinstance(need, Extend):
        return replace(need, holds=holds, observed=tuple(need.observed[at] for at in places))
    return replace(need, holds=holds, session=_own(need.session, tag))


def part_of_read(need: Read, tag: str, places: Sequence[int]) -> Read:
    return Read(tuple(need.counters[at] for at in places), _own(need.session, tag))


def part_of_settlement(step: Settle, tag: str, places: Sequence[int]) -> Settle:
    charge: SessionCharge | None = step.session
    if charge is not None and tag_of(charge.session.tenant) != tag:
        charge = None
    return replace(step, charges=tuple(step.charges[at] for at in places), session=charge)


def _own(session: SessionId | None, tag: str) -> SessionId | None:
    return session if session is not None and tag_of(session.tenant) == tag else None


def joined(count: int, answers: Sequence[tuple[Sequence[int], Readings]]) -> Readings:
    """The answer of the whole: of the first part that failed, else of all. INVARIANT: refused in one, held in none.

    A part alone is the whole. What was done before answers as it did then, for as many counters as it then had.
    """
    if len(answers) == 1:
        return answers[0][1]
    failures = [found.failure for _, found in answers if found.failure]
    if failures:
        return Readings(failure=failures[0])
    readings = [Reading()] * count
    refused: int | None = None
    for places, found in answers:
        for at, reading in zip(places, found.counters, strict=False):
            readings[at] = reading
        if found.refused is not None and refused is None:
            refused = places[found.refused]
    session = next((found.session for _, found in answers if found.session is not None), None)
    return Readings(tuple(readings), session, refused)
