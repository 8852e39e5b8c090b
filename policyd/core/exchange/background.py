"""Background responses: a provider goes on producing them when the call that began them is over, and bills them.

Rule 1: what such a response may cost stays held in the name of its id, for LEASE_S seconds at most. Whoever fetches it
        complete is charged what it used, in the place of the hold. If nobody does, the hold is charged.
Rule 2: it is charged once, however often it is fetched.
"""

from __future__ import annotations

from policyd.core.exchange.call import Call
from policyd.core.exchange.gauge import Gauge
from policyd.core.model.counters import MAX_AMOUNT, Charge, CounterId, Hold, Window, WindowKind
from policyd.core.model.credentials import pseudonym
from policyd.core.model.prices import Usage
from policyd.core.model.steps import Extend, Settle

LEASE_S = 3600.0  # for which a response is expected to be fetched
_KEPT_S = 30 * 24 * 3600.0  # as long as OpenAI keeps a stored response
_BEGUN, _CHARGED = 1, 2
# The name of no policy: Kubernetes' names have no underscores.
_OWNER = "policyd/background_responses"


def goes_on(call: Call) -> bool:
    """Whether the response is still produced when the call is over."""
    document, response = call.document, call.facts.response
    asked = isinstance(document, dict) and document.get("background") is True
    return asked and call.left and response.pending and bool(response.id) and not response.is_error


def stage_of(id: str) -> CounterId:
    """What tells of a response whether it was begun in the background, and whether it has been charged."""
    window = Window(WindowKind.LIFETIME, _KEPT_S)
    return CounterId(_OWNER, "stage", (pseudonym(id),), Charge.REQUESTS, window, scope="Global")


def keep_held(call: Call) -> list[Settle | Extend]:
    """What holds, beyond the call, what its response may use: the input, and the output that was asked for."""
    id, request, holds = call.facts.response.id, call.facts.request, []
    output = (request.max_tokens or call.options.whole_tokens) * request.choices
    most = Usage(input_tokens=request.input_tokens, output_tokens=output)
    for gauge in call.meter.counted:
        if gauge.id is not None and gauge.holds and not gauge.counter.charge.per_call:
            amount = min(MAX_AMOUNT, gauge.spent(most, call.price))
            holds.append(Hold(gauge.id, amount, amount, None))
    begun = Settle(f"{call.id}:background", f"{call.id}:background", ((stage_of(id), _BEGUN),))
    if not holds:
        return [begun]
    observed = tuple(hold.most for hold in holds)
    return [begun, Extend(f"{call.id}:begun", _holder(id), tuple(holds), observed, LEASE_S)]


def begun_before(stage: int) -> bool:
    """Whether the response was begun in the background and is not charged yet."""
    return stage == _BEGUN


def bill(call: Call) -> bool:
    """Whether this call fetches such a response complete. From here on the call is billed as the one that made it."""
    response = call.facts.response
    if not call.fetches_unbilled or response.pending or response.usage_source != "provider" or not response.model:
        return False
    response.unbilled = False
    return True


def settle_fetched(call: Call, charges: list[tuple[Gauge, int]]) -> list[Settle]:
    """What charges the fetched response in the place of the hold."""
    id = call.facts.response.id
    paid = tuple((gauge.id, amount) for gauge, amount in charges if gauge.id is not None)
    done = f"{call.id}:fetched"
    return [
        Settle(f"{call.id}:billed", _holder(id), paid),
        Settle(done, done, ((stage_of(id), _CHARGED - _BEGUN),)),
    ]


def _holder(id: str) -> str:
    return f"background:{pseudonym(id)}"
