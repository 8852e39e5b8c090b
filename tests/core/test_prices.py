"""Prices: the shipped table against genai-prices' own calculation and against sums made by hand; local files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from genai_prices.data import providers
from genai_prices.types import ModelInfo
from hypothesis import given
from hypothesis import strategies as st

from policyd.adapters import prices_snapshot
from policyd.adapters.errors import UnreadableInput
from policyd.adapters.prices import SNAPSHOT, Prices, load_prices
from policyd.adapters.prices.table import ALIASES, CACHED, MAIN
from policyd.core.errors import PolicyError
from policyd.core.model.prices import Price, PriceTable, Tier, Usage


def _at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOV = _at("2026-11-20T12:00")


@cache
def table() -> PriceTable:
    return load_prices()


def cost(provider: str, model: str, usage: Usage, at: float = NOV) -> int | None:
    price = table().price(provider, model, at)
    return None if price is None else price.cost_nano(usage)


# ---- by hand: USD per million tokens, from the providers' own price lists -------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "usage", "usd"),
    [
        # 1,000 x $2.50 + 500 x $10, a million tokens
        ("openai", "gpt-4o", Usage(1000, 500), "0.0075"),
        # 200 x $2.50 + 800 cached x $1.25 + 500 x $10
        ("openai", "gpt-4o", Usage(1000, 500, cached_input_tokens=800), "0.0065"),
        ("openai", "gpt-4o-mini", Usage(9, 12), "0.00000855"),  # 9 x $0.15 + 12 x $0.60
        ("openai", "GPT-4o-2024-08-06", Usage(1000, 500), "0.0075"),
        ("azure.ai.openai", "gpt-4o", Usage(1000, 500), "0.0075"),
        ("openai", "o3", Usage(1000, 500, reasoning_tokens=400), "0.006"),  # $2, $8; reasoning is output
        # $3 and $15; cached $0.30, cache writes $3.75: 100 x 3 + 600 x 0.3 + 300 x 3.75 + 10 x 15
        ("anthropic", "claude-3-7-sonnet-20250219", Usage(1000, 10, 600, 300), "0.001755"),
        # above 200,000 tokens of input all of it costs $6 and $22.50, cached $0.60
        ("anthropic", "claude-sonnet-4-5", Usage(300_000, 1000, 100_000), "1.2825"),
        ("anthropic", "claude-sonnet-4-5", Usage(200_000, 1000), "0.615"),
        ("anthropic", "claude-sonnet-4-5", Usage(200_001, 0), "1.200006"),
        ("openai", "text-embedding-3-small", Usage(1000, 0), "0.00002"),
        ("openai", "gpt-4o", Usage(), "0"),
    ],
)
def test_a_bill_by_hand(provider: str, model: str, usage: Usage, usd: str) -> None:
    assert cost(provider, model, usage) == int(Decimal(usd) * 10**9)


def test_a_bill_is_rounded_once_and_half_up() -> None:
    tier = Tier(0, Fraction(1, 4), Fraction(1, 4), Fraction(1, 8), Fraction(1, 8))
    price = Price("m", (tier,))
    assert [price.cost_nano(Usage(n)) for n in range(7)] == [0, 0, 1, 1, 1, 1, 2]
    assert price.cost_nano(Usage(2, 0, 2)) == 0, "0.25, rounded after adding up"
    assert price.cost_nano(Usage(2, 1, 2)) == 1


# ---- against genai-prices' own calculation --------------------------------------------------------------------------

USAGES = (Usage(1000, 500), Usage(150_001, 7, 90_000), Usage(1_200_003, 65_537, 300_001, 200_003))
TIMES = ("2024-06-01T00:00", "2026-03-14T02:30", "2026-11-20T20:00")


def _theirs(provider: str, model: str, usage: Usage, at: float) -> Fraction:
    """Nano-dollars, not rounded. Raises LookupError."""
    counted = TheirUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    when = datetime.fromtimestamp(at, UTC)
    return Fraction(calc_price(counted, model, provider_id=provider, genai_request_timestamp=when).total_price) * 10**9


def _a_name(model: ModelInfo) -> str:
    """A name that the model goes by: its id is not always one."""
    text = json.dumps(prices_snapshot._match(model.match))
    literal = re.search(r'"[=^](.+?)"', text)
    return model.id if model.match.is_match(model.id) or literal is None else literal[1]


@pytest.mark.parametrize("provider", [provider.id for provider in providers])
def test_every_model_costs_what_genai_prices_says(provider: str) -> None:
    """The free tokens of models that are billed by the hour or the page have no price here."""
    models = next(each.models for each in providers if each.id == provider)
    compared = 0
    for position, model in enumerate(map(_a_name, models)):
        at = _at(TIMES[position % len(TIMES)])
        for usage in USAGES if position % 5 == 0 else USAGES[position % 3 : position % 3 + 1]:
            ours = cost(provider, model, usage, at)
            if ours is None:
                continue
            compared += 1
            assert abs(ours - _theirs(provider, model, usage, at)) <= Fraction(1, 2), (provider, model, usage, at)
    assert compared >= len(models) * 0.8


def test_nearly_everything_that_genai_prices_knows_is_priced() -> None:
    known = [(provider.id, _a_name(model)) for provider in providers for model in provider.models]
    unpriced = [pair for pair in known if table().price(*pair, NOV) is None]
    assert len(known) > 2000 and len(unpriced) < 60, unpriced


@given(
    name=st.text("abcdefgh0123456789-.:/_ ", max_size=40) | st.from_regex(r"(gpt|claude|gemini|o)-[0-9a-z.-]{0,12}"),
    provider=st.sampled_from([provider.id for provider in providers]),
)
def test_a_name_is_known_here_when_it_is_known_there(name: str, provider: str) -> None:
    usage = Usage(100_000, 100)
    try:
        theirs = _theirs(provider, name, usage, NOV)
    except LookupError:
        assert table().price(provider, name, NOV) is None
        return
    ours = cost(provider, name, usage)
    assert ours is None or abs(ours - theirs) <= Fraction(1, 2)


# ---- whose model it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "no-such-model"),
        ("openai", "claude-3-7-sonnet-latest"),  # openai does not sell it
        ("openai", ""),
        ("anthropic", "claude-3-opus" + "x" * 300),  # no name of a model is that long
        ("no-such-provider", "no-such-model"),
        ("", "llama-3.3-70b"),  # nobody makes a price for it
        ("openai", "whisper-1"),  # billed by the hour
        ("openai", "gpt-4о"),  # a Cyrillic o
        ("openai", "gpt-4o "),
        ("openai", "\x00"),
    ],
)
def test_what_is_not_known_for_certain_has_no_price(provider: str, model: str) -> None:
    assert table().price(provider, model, NOV) is None


@pytest.mark.parametrize(
    ("provider", "model", "like"),
    [
        ("azure", "gpt-4o", ("openai", "gpt-4o")),
        ("gcp.gemini", "gemini-2.5-pro", ("google", "gemini-2.5-pro")),
        ("gcp.vertex_ai", "claude-3-7-sonnet-latest", ("google", "claude-3-7-sonnet")),
        ("azure.ai.openai", "claude-3-7-sonnet-latest", ("anthropic", "claude-3-7-sonnet-latest")),
        ("my-proxy", "gpt-4o", ("openai", "gpt-4o")),
        ("", "claude-3-7-sonnet-latest", ("anthropic", "claude-3-7-sonnet-latest")),
        ("OpenAI", "GPT-4O", ("openai", "gpt-4o")),
        ("openai", "gpt-5.4-20260305", ("openai", "gpt-5.4-2026-03-05")),  # a compact date
    ],
)
def test_other_names_of_the_same(provider: str, model: str, like: tuple[str, str]) -> None:
    found, expected = table().price(provider, model, NOV), table().price(*like, NOV)
    assert expected is not None
    assert found == expected


@pytest.mark.parametrize(("makers", "priced"), [((), False), (MAIN[:1], True), (MAIN[:2], False)])
def test_a_model_that_several_list_needs_a_provider_or_one_maker(makers: tuple[str, ...], priced: bool) -> None:
    model = ["m", "=m", [[None, [[0, "1", "1", "1", "1"]], "0"]]]
    listed = [
        {"id": id, "match": None, "makes": "^m" if id in makers else None, "fallback": [], "models": [model]}
        for id in MAIN
    ]
    price = Prices({"digest": "", "source": "", "providers": listed}).price("x", "m", 0)
    assert (price is not None) == priced


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("ab", "first"),
        ("abc", "second"),
        ("abx", "third"),
        ("b", "fourth"),
        ("xb", "fourth"),
        ("dd", "sixth"),
        ("d", None),
    ],
)
def test_the_first_model_that_matches_is_taken(name: str, model: str | None) -> None:
    rates = [[None, [[0, "1", "1", "1", "1"]], "0"]]
    matches = {"first": "=ab", "second": ["|", "=abc", "=ab"], "third": "^ab", "fourth": ["|", "$b", "=abc"]}
    matches |= {"fifth": ["&", "^d", "$d", "~ddd"], "sixth": "/^d+d$"}
    models = [[id, match, rates] for id, match in matches.items()]
    listed = [{"id": "p", "match": None, "makes": None, "fallback": [], "models": models}]
    price = Prices({"digest": "", "source": "", "providers": listed}).price("p", name, 0)
    assert (price and price.model) == model


def test_names_from_outside_do_not_fill_the_cache() -> None:
    prices = load_prices()
    assert isinstance(prices, Prices)
    for n in range(CACHED + 10):
        prices.price("openai", f"gpt-4o-{n}", NOV)
        prices.price("openai", "x" * 300 + str(n), NOV)
    assert 0 < prices.remembered <= CACHED


def test_every_alias_leads_to_a_provider() -> None:
    known = {provider.id for provider in providers}
    assert set(ALIASES.values()) | set(MAIN) <= known


# ---- as of a time ---------------------------------------------------------------------------------------------------


def test_a_price_is_the_one_in_force_at_its_time() -> None:
    dated = [
        (provider.id, model.id, constraint.start_date)
        for provider in providers
        for model in provider.models
        if isinstance(model.prices, list)
        for each in model.prices
        if (constraint := each.constraint) is not None and hasattr(constraint, "start_date")
    ]
    assert len(dated) > 100
    for provider, model, day in dated:
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
        for at in (midnight - 1, midnight):
            ours = cost(provider, model, Usage(300_000, 100), at)
            if ours is not None:
                assert abs(ours - _theirs(provider, model, Usage(300_000, 100), at)) <= Fraction(1, 2)


@pytest.mark.parametrize("time", ["00:29:59", "00:30", "16:29:59", "16:30", "23:59:59"])
def test_a_price_by_the_time_of_day(time: str) -> None:
    at, usage = _at(f"2026-11-20T{time}"), Usage(1_000_000, 1_000_000)
    ours = cost("deepseek", "deepseek-chat", usage, at)
    assert ours is not None
    assert abs(ours - _theirs("deepseek", "deepseek-chat", usage, at)) <= Fraction(1, 2)


def test_prices_really_change_with_the_time_of_day() -> None:
    by_hour = {
        cost("deepseek", "deepseek-chat", Usage(1_000_000), _at(f"2026-11-20T{hour:02}:00")) for hour in range(24)
    }
    assert len(by_hour) == 2


# ---- the snapshot ---------------------------------------------------------------------------------------------------


def test_the_snapshot_is_what_the_locked_genai_prices_gives() -> None:
    """When this fails: python -m policyd.adapters.prices_snapshot"""
    kept = SNAPSHOT.read_text("utf-8")
    day = json.loads(kept)["date"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", day)
    assert prices_snapshot.render(prices_snapshot.content(), day) == kept


def test_the_digest_names_the_content() -> None:
    snapshot = json.loads(SNAPSHOT.read_text("utf-8"))
    assert table().digest == snapshot["digest"] == prices_snapshot.digest_of(snapshot)
    snapshot["providers"][0]["models"][0][2][0][1][0][1] = "999"
    assert prices_snapshot.digest_of(snapshot) != snapshot["digest"]


def test_serving_never_imports_genai_prices() -> None:
    code = (
        "import sys; from policyd.adapters.prices import load_prices; "
        "assert load_prices().price('openai', 'gpt-4o', 1.79e9); "
        "print([name for name in ('genai_prices', 'pydantic', 'yaml', 'httpx2') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


# ---- a local file ---------------------------------------------------------------------------------------------------

LOCAL = """\
models:
  - model: gpt-4o-mini-*
    provider: openai
    input_per_mtok: 0.10
    output_per_mtok: "0.20"
  - {model: "GPT-4o*", input_per_mtok: 1, output_per_mtok: 2, cached_input_per_mtok: 0.5, cache_write_per_mtok: 3,
     per_request: 0.000000001}
  - model: house-model
    provider: Vllm
    input_per_mtok: 0
    output_per_mtok: 0
"""


def _local(tmp_path: Path, text: str, name: str = "prices.yaml") -> Path:
    file = tmp_path / name
    file.write_text(text, "utf-8")
    return file


@pytest.mark.parametrize(
    ("provider", "model", "usage", "nano"),
    [
        ("openai", "gpt-4o-mini-2024", Usage(10, 10, 5, 5), 3000),  # cached and written at the price of input
        ("openai", "gpt-4o", Usage(100, 10, 50, 20), 30 * 1000 + 50 * 500 + 20 * 3000 + 10 * 2000 + 1),
        ("azure", "GPT-4o", Usage(1), 1001),  # any provider
        ("azure", "gpt-4o-mini-2024", Usage(10), 10001),  # the first entry is openai's alone
        ("vllm", "house-model", Usage(10**6, 10**6), 0),  # free is a price
        ("openai", "o3", Usage(1000), 2_000_000),  # the snapshot still stands
    ],
)
def test_a_local_entry_wins(tmp_path: Path, provider: str, model: str, usage: Usage, nano: int) -> None:
    price = load_prices(_local(tmp_path, LOCAL)).price(provider, model, NOV)
    assert price is not None
    assert price.cost_nano(usage) == nano


def test_a_local_entry_of_one_provider_is_not_anothers(tmp_path: Path) -> None:
    assert load_prices(_local(tmp_path, LOCAL)).price("openai", "house-model", NOV) is None


def test_a_local_price_says_where_it_stands(tmp_path: Path) -> None:
    file = _local(tmp_path, LOCAL)
    price = load_prices(file).price("openai", "gpt-4o", NOV)
    assert price is not None
    assert (price.model, price.source) == ("GPT-4o*", f"{file}:6")


def test_a_local_file_may_be_json_and_changes_the_digest(tmp_path: Path) -> None:
    entry = {"model": "gpt-4o", "input_per_mtok": 1.5, "output_per_mtok": 2}
    prices = load_prices(_local(tmp_path, json.dumps({"models": [entry]}), "prices.json"))
    price = prices.price("openai", "gpt-4o", NOV)
    assert price is not None and price.tiers[0].input == 1500
    entry["input_per_mtok"] = 1.25
    other = load_prices(_local(tmp_path, json.dumps({"models": [entry]}), "prices.json"))
    assert len({table().digest, prices.digest, other.digest}) == 3


@pytest.mark.parametrize("amount", ["0.1", "0.15", "1.1", "12345.678901234567", "1e-7", "0.000000000000000001"])
def test_a_local_amount_is_exact(tmp_path: Path, amount: str) -> None:
    text = f'models: [{{model: m, input_per_mtok: {amount}, output_per_mtok: "{Decimal(amount):f}"}}]'
    price = load_prices(_local(tmp_path, text)).price("", "m", NOV)
    assert price is not None
    assert price.tiers[0].input == price.tiers[0].output == Fraction(amount) * 1000


def _lines(error: PolicyError) -> list[tuple[int, str]]:
    return [(issue.span.line, issue.message) for issue in error.issues]


def test_everything_wrong_in_a_local_file_is_told_at_once(tmp_path: Path) -> None:
    text = """\
models:
  - model: a
    input_per_mtok: -1
    output_per_mtok: 1
  - model: b
    input_per_mtok: 1
  - {model: 7, input_per_mtok: yes, output_per_mtok: [1]}
  - input_per_mtok: 1
    output_per_mtok: 9999999999
    ouput_per_mtok: 1
  - text
  - {model: c, provider: [], input_per_mtok: true, output_per_mtok: 1, per_request: "1 USD"}
"""
    file = _local(tmp_path, text)
    with pytest.raises(PolicyError) as caught:
        load_prices(file)
    assert _lines(caught.value) == [
        (3, "`input_per_mtok` must be a price in USD, not `-1`"),
        (5, "`output_per_mtok` is missing"),
        (7, "`model` must be a name"),
        (7, "`input_per_mtok` must be a price in USD, not `yes`"),
        (7, "`output_per_mtok` must be a price in USD, not `[1]`"),
        (10, "unknown field `ouput_per_mtok`"),
        (8, "`model` must be a name"),
        (9, "`output_per_mtok` must be a price in USD, not `9999999999`"),
        (11, "an entry must be a mapping"),
        (12, "`provider` must be a name"),
        (12, "`input_per_mtok` must be a price in USD, not `True`"),
        (12, "`per_request` must be a price in USD, not `1 USD`"),
    ]
    assert str(caught.value.issues[0]).startswith(f"{file}:3:"), "file:line:column"
    assert all(issue.hint for issue in caught.value.issues)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "[]",
        "models: 5",
        "models: {}",
        "model: []",
        "models: [{model: m, input_per_mtok: 1e400, output_per_mtok: 1}]",
        "{",
        "prices:\n\t- a",
        "a: &a [*a]",
    ],
)
def test_a_local_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_prices(_local(tmp_path, text))
    assert caught.value.issues[0].span.line >= 1


def test_a_local_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match=r"nowhere\.yaml: no such file"):
        load_prices(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"models: [\xe9]")
    with pytest.raises(UnreadableInput, match="not UTF-8: byte 10"):
        load_prices(tmp_path / "latin.yaml")
