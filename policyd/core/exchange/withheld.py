"""Stored responses that policyd has cut, rejected or redacted: providers keep them whole, so nobody may fetch them.

Rule 1: their ids are kept in the counter store, so every replica knows them. It holds pseudonyms, not ids.
Rule 2: where nothing is enforced nothing is asked.
Rule 3: where the store cannot tell, the retrieval cannot be judged: `failurePolicy` decides.
"""

from __future__ import annotations

from collections.abc import Generator

from policyd.core.decide.combine import CANNOT_JUDGE
from policyd.core.exchange.background import begun_before, stage_of
from policyd.core.exchange.call import Call
from policyd.core.model.counters import Charge, CounterId, Readings, Window, WindowKind
from policyd.core.model.credentials import pseudonym
from policyd.core.model.decision import Terminate
from policyd.core.model.steps import Need, Read, Settle
from policyd.core.stream.dialects.stored import STORING, is_stored, stored_id

KEPT_S = 30 * 24 * 3600.0  # how long an id is kept: as long as OpenAI keeps a stored response
_MESSAGE = "This stored response was stopped or changed by a policy, and cannot be fetched."
WITHHELD = Terminate(403, "response_withheld", _MESSAGE, _MESSAGE)
# The name of no policy: Kubernetes' names have no underscores.
_OWNER = "policyd/withheld_responses"


def withhold(call: Call) -> Settle | None:
    """What remembers the response of this call, where the client did not get all of it."""
    request = call.facts.request
    if request.dialect not in STORING or request.operation == "retrieval" or not call.facts.response.id:
        return None
    if not is_stored(call.document):
        return None
    name = f"{call.id}:withheld"
    return Settle(name, name, ((_counter(call.facts.response.id), 1),))


def withheld(call: Call) -> Generator[Need, Readings, Terminate | None]:
    """Why a stored response may not be fetched; None: it may, or the call fetches none."""
    request = call.facts.request
    id = stored_id(request.path) if request.operation == "retrieval" else ""
    if not id or not call.ground.plans.enforces(call.ground.policies):
        return None
    readings = yield Read((_counter(id), stage_of(id)))
    if readings.failure or len(readings.counters) < 2 or not all(one.available for one in readings.counters):
        return CANNOT_JUDGE if call.fails_closed(known=True) else None
    kept, stage = readings.counters
    call.fetches_unbilled = begun_before(stage.value)
    return WITHHELD if kept.value else None


def _counter(id: str) -> CounterId:
    window = Window(WindowKind.LIFETIME, KEPT_S)
    return CounterId(_OWNER, "id", (pseudonym(id),), Charge.REQUESTS, window, scope="Global")
