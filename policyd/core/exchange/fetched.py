"""Responses that are charged when they are fetched: those made in the background, results of batches, runs.

Rule 1: each is charged once, whoever fetches it and however often: the counter store remembers its id.
Rule 2: background responses that this deployment began are held in the meantime: see background.py.
Rule 3: where the store cannot tell, it is charged: a poll that counts twice is better than one that never counts.
"""

from __future__ import annotations

from collections.abc import Generator

from policyd.core.exchange.call import Call
from policyd.core.model.counters import Charge, CounterId, Readings, Window, WindowKind
from policyd.core.model.credentials import pseudonym
from policyd.core.model.steps import Need, Read, Settle
from policyd.core.stream.dialects.stored import stored_as, stored_id

KEPT_S = 30 * 24 * 3600.0  # how long an id is kept
_CHARGED = frozenset({"openai.responses", "openai.runs", "google.interactions", "batch.results"})
_OWNER = "policyd/fetched_responses"  # the name of no policy


def look_up_fetched(call: Call) -> Generator[Need, Readings, None]:
    """Learn whether the response that this call fetches was charged before."""
    request = call.facts.request
    if request.operation != "retrieval" or stored_as(request.path.lower()) not in _CHARGED:
        return
    readings = yield Read((_counter(stored_id(request.path)),))
    known = not readings.failure and bool(readings.counters) and readings.counters[0].available
    call.fetched_before = known and bool(readings.counters[0].value)


def remember_fetched(call: Call) -> Settle | None:
    """What remembers that this response has been charged."""
    id = call.facts.response.fetched
    if not id or call.fetched_before or not call.left:
        return None
    name = f"{call.id}:paid"
    return Settle(name, name, ((_counter(id), 1),))


def _counter(id: str) -> CounterId:
    window = Window(WindowKind.LIFETIME, KEPT_S)
    return CounterId(_OWNER, "id", (pseudonym(id),), Charge.REQUESTS, window, scope="Global")
