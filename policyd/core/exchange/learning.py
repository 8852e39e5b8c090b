"""What a finished call teaches about its model, and how far off its running cost was.

Rule 1: only an answer that streamed, came to its end and was counted by its provider teaches.
Rule 2: what was not seen is not learned from: reasoning that no event showed is taken out of the truth.
"""

from __future__ import annotations

from dataclasses import replace

from policyd.core.exchange.call import Call
from policyd.core.exchange.metering import usage_of
from policyd.core.model.prices import Usage


def learn(call: Call) -> None:
    """Take over what this call says about its model."""
    request, response = call.facts.request, call.facts.response
    if not request.stream or response.usage_source != "provider" or response.is_error:
        return
    model = call.served_model or request.model or ""
    estimates, seen = call.ground.estimates, response.seen
    hidden = 0 if seen.reasoned else response.reasoning_tokens
    estimates.learn_output(call.rate_place, model, seen, response.output_tokens - hidden)
    if not response.parts:
        estimates.learn_input(
            call.rate_place, model, request.plain_input, response.input_tokens, tools=bool(request.tools)
        )


def estimate_error(call: Call) -> float | None:
    """How far the cost was off just before the provider's last numbers came, as a part of it; None where it cannot be
    told. 0.1: a tenth too much was believed."""
    response, price = call.facts.response, call.price
    if not call.facts.request.stream or response.usage_source != "provider" or not price or not response.seen.before:
        return None
    true = price.cost_nano(replace(usage_of(response), stated_nano=None))
    given, made, cached, written = response.seen.before
    before = price.cost_nano(Usage(given, made, cached, written, service_tier=response.service_tier))
    return round(before / true - 1, 6) if true else None
