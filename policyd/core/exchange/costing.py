"""What a call costs, and what that rests on: where its price comes from, and how sure the figure is.

Rule 1: confidence is the product of what is known of the price and of what is known of the usage; 0 without a price.
"""

from __future__ import annotations

from dataclasses import replace

from policyd.core.exchange.call import Call
from policyd.core.model.counters import NANO
from policyd.core.model.facts import PriceFacts, RequestFacts
from policyd.core.model.names import same_model
from policyd.core.model.options import Options
from policyd.core.model.prices import FREE, Price, Usage, cost_of

UNPRICED = "unpriced"
STATED = "provider"  # the provider states what the call cost
_PER_MTOK = 1000  # nano-dollars a token in one USD per million tokens
_WITHOUT_OUTPUT = frozenset({"embedding", "rerank", "moderation", "token_count"})

# How sure a figure is, 0..1, by what its tokens rest on. An estimate that has been compared with bills is as sure as
# those comparisons say.
_BY_SOURCE = {"provider": 1.0, "tokenizer": 0.95, "estimate": 0.7}
ASSUMED = 0.3  # the price of a model that the request names; another one without a price answered
_NO_RATE = 0.5  # something was used that the price says nothing about: a service tier, a class, another model


def begin_cost(call: Call) -> None:
    """What is known of the price before anything was spent."""
    response, price = call.facts.response, call.price
    response.price_digest = call.ground.prices.digest if price else ""
    response.price_source = price.source if price else ""
    response.cost_source = "estimate" if price else UNPRICED


def bill_fetched(call: Call) -> None:
    """A response that was made in the background, or in a batch, is charged by the call that fetches it first."""
    response = call.facts.response
    if response.fetched and not call.fetched_before:
        response.unbilled = False


def reprice(call: Call) -> bool:
    """Price the call by the model that the response names, where that is not the one that was asked for: a deployment's
    name has no price, a router or a fallback runs another model. Returns whether the price changed. The name comes too
    late for the first hold, and in time for what is extended, charged and recorded."""
    bill_fetched(call)
    model = call.facts.response.model
    if not model or model == call.priced_by or call.facts.response.unbilled or call.elsewhere:
        return False
    if call.facts.request.dialect.startswith("bedrock.") and call.price is not None and not call.price.guess:
        return False  # the path names what serves; a response repeats it in its maker's words
    call.priced_by = model
    price = _price_of_served(call, call.served_model or call.facts.request.model or "", model)
    if price is call.price:
        return False
    call.price = price
    call.meter.reprice(price)
    begin_cost(call)
    return True


def _price_of_served(call: Call, asked: str, served: str) -> Price | None:
    """The price of the model that serves. One that has no price costs what the dearest model of the request does, and
    where that is nothing, what the provider's dearest does."""
    known = None if call.price is FREE else call.price
    if served == asked and known is not None and known.confidence == 1.0:
        return known
    found = call.price_of(served)
    if known is None or known.guess:
        return found or known
    alike = same_model(asked, served)
    if found is not None:
        return known if alike and known.local and not found.local else found
    if alike or (known.local and known.free):
        return known
    named = [price for name in call.facts.request.models if (price := call.price_of(name)) is not None]
    dearest = max([known, *named], key=lambda price: price.tiers[0].input + price.tiers[0].output)
    if dearest.free and (guess := call.guess_price(call.facts.request.provider)) is not None:
        return guess
    return replace(dearest, source=f"estimate:{dearest.model or asked}", confidence=ASSUMED, guess=True)


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
    response.cost_nano = cost_of(price, usage)
    response.cost_source = cost_source(call, usage)
    response.cost_confidence = confidence(call, usage)


def cost_source(call: Call, usage: Usage) -> str:
    """What the cost of this usage rests on."""
    if usage.stated_nano is not None:
        return STATED
    return usage.source if call.price else UNPRICED


def confidence(call: Call, usage: Usage) -> float:
    """How sure the cost of this usage is, 0..1."""
    if usage.stated_nano is not None:
        return 1.0
    price, rate = call.price, call.facts.response.rate
    if price is None:
        return 0.0
    sure = _BY_SOURCE.get(usage.source, 0.0)
    if usage.source == "estimate" and rate.known:
        sure = max(0.0, 1 - rate.error)
    return round(price.confidence * (1.0 if price.knows(usage) else _NO_RATE) * sure, 4)
