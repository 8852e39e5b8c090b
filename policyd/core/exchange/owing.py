"""What a call owes its counters."""

from __future__ import annotations

from policyd.core.exchange.background import goes_on
from policyd.core.exchange.call import Call
from policyd.core.exchange.costing import tell_cost
from policyd.core.exchange.estimating import units
from policyd.core.exchange.gauge import Gauge, amount_of
from policyd.core.exchange.metering import usage_of
from policyd.core.model.counters import MAX_AMOUNT, Charge
from policyd.core.model.decision import Verdict
from policyd.core.model.prices import Usage

_MEDIA = ("audio/", "image/", "video/")
NOTHING = Usage(fee_nano=0)
"""Of a call that the provider bills nothing for, not even a fee for the request."""


def final_usage(call: Call) -> Usage:
    """What the call is taken to have used: the provider's numbers, or the best estimate; nothing for an error answer
    that names none, and for a call that never left."""
    response = call.facts.response
    if not call.left or goes_on(call):
        return NOTHING
    if _output_unknown(call):
        return _held(call)
    if response.status == 0:  # there is no response yet: whoever serves the call has read the input
        return Usage(input_tokens=call.facts.request.input_tokens)
    # A stream that had said something before it failed has used something: there the estimate stands.
    failed = response.status >= 400 or (response.is_error and not response.output_tokens)
    return NOTHING if failed and response.usage_source != "provider" else usage_of(response)


def _output_unknown(call: Call) -> bool:
    """Whether the upstream may have produced output that policyd has seen nothing of."""
    response = call.facts.response
    if response.status >= 400 or response.is_error or response.usage_source == "provider":
        return False
    if response.headers.get("content-type", "").lower().startswith(_MEDIA):
        return False  # sound and pictures are not billed by tokens that could be held
    return call.unseen or (bool(call.facts.unmetered) and not response.output_tokens)


def _held(call: Call) -> Usage:
    """The input, and the output that the call's holds cover."""
    output = call.meter.slice_tokens if call.meter.counted else 0
    return Usage(input_tokens=call.facts.request.input_tokens, output_tokens=output)


def is_refused(call: Call) -> bool:
    """Whether the call was rejected or cut: by a rule, by a limit, or because it could not be judged."""
    return call.failed_closed or call.decision.verdict is Verdict.TERMINATE


def charged(call: Call, gauge: Gauge, usage: Usage) -> int | None:
    """What a counter is charged for this usage, in store units; a counter whose policy would have ended the call, for
    what had been used by then. None: nothing, or it cannot be told."""
    fate = call.fates.get(gauge.policy.qualified)
    match gauge.counter.charge:
        case Charge.ATTEMPTS:
            return 1
        case Charge.REFUSALS:
            return int(fate is not None or is_refused(call))
        case _ if not call.left:
            return None
    return fate.charges.get(gauge.counter.name) if fate else owed(call, gauge, usage)


def owed(call: Call, gauge: Gauge, usage: Usage) -> int | None:
    """None: it cannot be told, and the record says so."""
    amount = gauge.counter.amount
    if gauge.counter.charge is Charge.DISTINCT:
        return 1  # of a value that counts already, too: it may count longer
    if _output_unknown(call):
        held = gauge.spent(usage, call.price)
        return min(held, gauge.granted) if gauge.granted else held
    if gauge.counter.charge is not Charge.EXPRESSION or amount is None or call.plan is None:
        return min(MAX_AMOUNT, amount_of(gauge.counter.charge, usage, call.price))
    # What rules saw last of the cost may be older than the answer, or further on: see Bench.
    tell_cost(call, usage)
    owed = units(call.plan.batch([amount]).evaluate(call.facts, call.world.counters, call.world.hits)[0])
    call.degraded = call.degraded or owed is None
    return owed
