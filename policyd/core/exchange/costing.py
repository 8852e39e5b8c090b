"""What a call costs, and what that rests on: where its price comes from, and how sure the figure is.

Rule 1: confidence is the product of what is known of the price and of what is known of the usage; 0 without a price.
"""

from __future__ import annotations

from policyd.core.exchange.call import Call
from policyd.core.model.prices import Usage

UNPRICED = "unpriced"

# How sure a figure is, 0..1, by what its tokens rest on. An estimate that has been compared with bills is as sure as
# those comparisons say.
_BY_SOURCE = {"provider": 1.0, "tokenizer": 0.95, "estimate": 0.7}
_NO_RATE = 0.5  # something was used that the price says nothing about: a service tier, a class, another model


def begin_cost(call: Call) -> None:
    """What is known of the price before anything was spent."""
    response, price = call.facts.response, call.price
    response.price_digest = call.ground.prices.digest if price else ""
    response.price_source = price.source if price else ""
    response.cost_source = "estimate" if price else UNPRICED


def price_by_answer(call: Call) -> None:
    """What was asked for may have no price, as a deployment's name has none; the model that answered may have one. It
    comes too late to hold by, and in time for what is charged and recorded."""
    if call.price is None and call.facts.response.model:
        call.price = call.price_of(call.facts.response.model)
        begin_cost(call)


def tell_cost(call: Call, usage: Usage) -> None:
    """Put the cost of this usage before the rules, and what it rests on."""
    response, price = call.facts.response, call.price
    response.cost_nano = price.cost_nano(usage) if price else 0
    response.cost_source = usage.source if price else UNPRICED
    response.cost_confidence = confidence(call, usage)


def confidence(call: Call, usage: Usage) -> float:
    """How sure the cost of this usage is, 0..1."""
    price, rate = call.price, call.facts.response.rate
    if price is None:
        return 0.0
    sure = _BY_SOURCE.get(usage.source, 0.0)
    if usage.source == "estimate" and rate.known:
        sure = max(0.0, 1 - rate.error)
    return round(price.confidence * (1.0 if price.knows(usage) else _NO_RATE) * sure, 4)
