"""What a call costs before it leaves, and what a model without a price means: `onUnpriced`, `request.price`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policyd.adapters.prices import load_prices
from policyd.core.model.prices import PriceTable
from tests.driving import Bed, FlatPrices, answer_of, chat, policy

COUNTER = "counters:\n- {{name: spend, key: session.id, charge: Cost, window: {{lifetime: 1h}}, limit: {limit}{more}}}"


def spec(more: str = "", limit: str = "1 USD") -> str:
    return COUNTER.format(limit=limit, more=more)


def flat() -> PriceTable:
    return FlatPrices("gpt-4o", input=1_000, output=10_000)


NEW = chat(model="unheard-of", max_tokens=5)


def test_by_default_a_model_without_a_price_is_charged_as_the_dearest_that_is_known() -> None:
    bed = Bed(policy(spec()), prices=flat())

    out = bed.call(body=NEW, chunks=[answer_of("x").replace(b"gpt-4o", b"unheard-of")])

    assert out.rejected is None
    assert sum(bed.memory.snapshot().values()) == out.record.cost_nano == 10 * 1_000 + 5 * 10_000
    assert (out.record.price_source, out.record.cost_confidence) == ("estimate:flat", 0.1)


def test_an_estimate_holds_and_refuses() -> None:
    out = Bed(policy(spec(limit="0.000001 USD")), prices=flat()).call(body=NEW)

    assert out.record.reason == "spend_exceeded"


def test_the_price_of_the_model_that_responds_replaces_the_estimate() -> None:
    prices = FlatPrices("gpt-4o", "dear", input=1, output=1)

    out = Bed(policy(spec()), prices=prices).call(body=NEW, chunks=[answer_of("x")])

    assert (out.record.price_source, out.record.cost_nano, out.record.cost_confidence) == ("flat", 15, 1.0)


def test_refuse_cannot_be_judged_and_skip_does_not_count() -> None:
    refused = Bed(policy(spec(", onUnpriced: Refuse")), prices=flat()).call(body=NEW)
    bed = Bed(policy(spec(", onUnpriced: Skip", limit="0.000000001 USD")), prices=flat())
    skipped = [bed.call(body=NEW, chunks=[answer_of("x").replace(b"gpt-4o", b"unheard-of")]) for _ in range(2)]

    assert (refused.record.reason, refused.rejected and refused.rejected.status) == ("policy_error", 503)
    assert [out.rejected for out in skipped] == [None, None]
    assert not bed.memory.snapshot()
    assert skipped[0].record.cost_source == "unpriced"


def test_a_known_price_is_never_replaced_by_an_estimate() -> None:
    out = Bed(policy(spec()), prices=flat()).call(body=chat(), chunks=[answer_of("x")])

    assert (out.record.price_source, out.record.cost_confidence) == ("flat", 1.0)


def test_a_charge_by_expression_over_the_cost_is_estimated_too() -> None:
    counter = spec(limit="'1000'").replace("Cost", "{expression: response.cost_usd * 1000000.0}")
    bed = Bed(policy(counter), prices=flat())

    bed.call(body=NEW, chunks=[answer_of("x").replace(b"gpt-4o", b"unheard-of")])

    assert sum(bed.memory.snapshot().values()) == 60_000_000  # millionths of 60


@pytest.mark.parametrize(
    ("provider", "source"),
    [("openai", "estimate:openai"), ("Anthropic", "estimate:anthropic"), ("azure_openai", "estimate:azure")],
)
def test_the_snapshot_guesses_by_the_dearest_of_the_provider(provider: str, source: str) -> None:
    table = load_prices()
    guess = table.dearest(provider, 1.78e9)

    assert guess is not None
    assert (guess.source, guess.guess, guess.confidence) == (source, True, 0.1)
    for model in ("gpt-4o", "claude-opus-4-1", "gpt-4"):
        known = table.price(provider, model, 1.78e9)
        assert known is None or known.tiers[0].output <= guess.tiers[0].output


def test_the_snapshot_guesses_by_the_dearest_of_all_for_an_unknown_provider() -> None:
    table = load_prices()
    guess, dearest = table.dearest("a-proxy", 1.78e9), table.dearest("openai", 1.78e9)

    assert guess is not None and dearest is not None
    assert guess.tiers[0].output >= dearest.tiers[0].output


# ---- before the call ------------------------------------------------------------------------------------------------


def rule(when: str) -> str:
    return f"rules:\n- {{name: no, when: '{when}', terminate: {{}}}}"


@pytest.mark.parametrize(
    "when",
    [
        'request.price.input == 1.0 && request.price.output == 10.0 && request.price.source == "flat"',
        "has(request.price) && has(request.estimated_cost_usd)",
        "request.estimated_cost_usd > 0.00005 && request.estimated_cost_usd < 0.00006",
    ],
)
def test_the_price_and_the_highest_cost_are_known_before_the_call(when: str) -> None:
    assert Bed(policy(rule(when)), prices=flat()).call(body=chat(max_tokens=5)).rejected is not None


def test_the_highest_cost_multiplies_by_the_choices_and_has_a_default() -> None:
    few = "request.estimated_cost_usd > 0.0001 && request.estimated_cost_usd < 0.00011"
    most = "request.estimated_cost_usd > 4096.0 * 0.00001 && request.estimated_cost_usd < 4097.0 * 0.00001"

    assert Bed(policy(rule(few)), prices=flat()).call(body=chat(max_tokens=5, n=2)).rejected is not None
    assert Bed(policy(rule(most)), prices=flat()).call(body=chat()).rejected is not None


@pytest.mark.parametrize(
    "when", ["has(request.price)", "has(request.estimated_cost_usd)", "request.price.input != 0.0"]
)
def test_without_a_price_neither_is_there(when: str) -> None:
    bed = Bed(policy(rule(when) + "\n" + spec()), prices=flat())

    assert bed.call(body=NEW, chunks=[answer_of("x")]).rejected is None


def test_the_facts_follow_a_reroute() -> None:
    class Two(FlatPrices):
        def price(self, provider: str, model: str, at: float):  # type: ignore[no-untyped-def]
            return FlatPrices(model, input=1, output=1 if model == "cheap" else 10_000).price(provider, model, at)

    rules = """rules:
- {name: move, when: request.estimated_cost_usd > 0.001, reroute: {model: cheap}}
- {name: still, when: 'request.model == "cheap" && request.estimated_cost_usd > 0.001', terminate: {}}
- {name: later, when: response.events > 0 && request.price.output > 1.0, terminate: {}}"""

    out = Bed(policy(rules), prices=Two("any")).call(body=chat(), chunks=[answer_of("x")])

    assert out.record.served_model == "cheap"
    assert out.rejected is None


def test_a_match_condition_may_read_the_price() -> None:
    spec = "matchConditions: [{name: dear, expression: request.price.output > 5.0}]\nrules: [{name: no, terminate: {}}]"

    assert Bed(policy(spec), prices=flat()).call(body=chat()).rejected is not None
    assert Bed(policy(spec), prices=flat()).call(body=NEW, chunks=[answer_of("x")]).rejected is None


def test_a_request_that_cannot_be_read_errs_the_readers() -> None:
    assert Bed(policy(rule("request.estimated_cost_usd > 1.0"))).call(body=b"no json").record.reason == "policy_error"


# ---- service tiers --------------------------------------------------------------------------------------------------


class Tiers(FlatPrices):
    """A model with a cheaper and a dearer service tier."""

    def __init__(self) -> None:
        super().__init__("gpt-4o", input=1_000, output=10_000)
        cheap, dear = (FlatPrices("x", input=each, output=each).price("", "x", 0) for each in (1, 100_000))
        assert cheap is not None and dear is not None
        variants = {"flex": cheap.tiers, "batch": cheap.tiers, "priority": dear.tiers}
        self._prices = {name: replace(price, variants=variants) for name, price in self._prices.items()}


def cost_of(named: str = "", **more: object) -> int:
    chunk = answer_of("x")
    if named:
        chunk = chunk.replace(b'"created"', b'"service_tier": "%s", "created"' % named.encode())
    return Bed(policy(spec()), prices=Tiers()).call(body=chat(**more), chunks=[chunk]).record.cost_nano


STANDARD, CHEAP, DEAR = 60_000, 15, 1_500_000


@pytest.mark.parametrize(
    ("asked", "named", "cost"),
    [
        ({}, "", STANDARD),
        ({"service_tier": "flex"}, "", STANDARD),  # whether it was granted only the response tells
        ({"service_tier": "flex"}, "flex", CHEAP),
        ({"service_tier": "flex"}, "default", STANDARD),
        ({"service_tier": "priority"}, "", DEAR),
        ({"service_tier": "priority"}, "default", STANDARD),
        ({"speed": "batch"}, "", STANDARD),
        ({"serviceTier": "priority"}, "", STANDARD),  # another dialect's field
        ({"speed": "priority"}, "", STANDARD),
    ],
)
def test_the_dearer_tier_counts_until_the_response_names_one(asked: dict[str, object], named: str, cost: int) -> None:
    assert cost_of(named, **asked) == cost
