"""What a call costs, and what that rests on: where its price comes from, and how sure the figure is.

Rule 1: confidence is the product of what is known of the price and of what is known of the usage; 0 without a price.
"""

from __future__ import annotations

from policyd.core.exchange.call import Call
from policyd.core.model.counters import NANO
from policyd.core.model.facts import PriceFacts, RequestFacts
from policyd.core.model.options import Options
from policyd.core.model.prices import Price, Usage

UNPRICED = "unpriced"
_PER_MTOK = 1000  # nano-dollars a token in one USD per million tokens
_WITHOUT_OUTPUT = frozenset({"embedding", "rerank", "moderation", "token_count"})

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
    if (call.price is None or call.price.guess) and call.facts.response.model:
        call.price = call.price_of(call.facts.response.model) or call.price
        begin_cost(call)


def tell_price(request: RequestFacts, price: Price | None, options: Options) -> None:
    """Put the price of the model that will serve before the rules, and what the call would cost at most."""
    if price is None or request.model is None:
        request.price, request.estimated_cost_usd = None, None
        return
    tier = price.tier(request.input_tokens)
    request.price = PriceFacts(float(tier.input / _PER_MTOK), float(tier.output / _PER_MTOK), price.source)
    usage = Usage(input_tokens=request.input_tokens, output_tokens=_most_output(request, options))
    request.estimated_cost_usd = price.cost_nano(usage) / NANO


def _most_output(request: RequestFacts, options: Options) -> int:
    """The largest output that the request permits, or the default where it names none, tokens."""
    if request.operation in _WITHOUT_OUTPUT:
        return 0
    return (request.max_tokens or options.whole_tokens) * max(1, request.choices)


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
