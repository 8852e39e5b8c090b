"""Makes policyd/data/prices.json from the installed genai-prices: `python -m policyd.adapters.prices_snapshot`.

Rule 1: this is the only file that imports genai_prices, and nothing that serves imports this file.
Rule 2: the same genai-prices gives the same bytes; `date` is the day on which the content last changed.
Rule 3: order is meaning: a provider's models stand as genai-prices has them, because the first that matches is taken.

What is kept is what a Price can say: rates for input, output, cached input and cache writes by tier, the classes of
EXTRA where they are priced apart, the service tiers of SERVICE, and the price of a request.
Left out: characters, pages, hours and file searches; variants by route or by kind of search.

Format: {"digest", "date", "source", "providers": [{"id", "match", "makes", "fallback", "models": [[id, match,
prices]]}]}. `match`: which other names the provider goes by; `makes`: which models are its own, whoever sells them.
A match is "=text", "^prefix", "$suffix", "~part" or "/regex", or ["|", …] or ["&", …], over lower case.
Prices are [[when, tiers, per_request, variants]], the first whose `when` holds: null, ["from", epoch seconds] or
["daily", begin, end] in seconds of the UTC day. `tiers`: [[above, input, output, cached input, cache write, extra]],
USD per million tokens; null where tokens are not what is billed. `per_request`: USD. `extra`: class -> USD per million
tokens, or per search. `variants`: service tier -> its tiers. The last two are left out where they are empty.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

from genai_prices import types as source
from genai_prices.data import providers

TARGET = Path(__file__).resolve().parents[1] / "data" / "prices.json"

EXTRA = {
    "cache_write_1h": "cache_write_1h_mtok",
    "input_audio": "input_audio_mtok",
    "cached_audio": "cache_audio_read_mtok",
    "output_audio": "output_audio_mtok",
    "input_image": "input_image_mtok",
    "cached_image": "cache_image_read_mtok",
    "output_image": "output_image_mtok",
    "input_video": "input_video_mtok",
    "output_video": "output_video_mtok",
    "reasoning": "output_reasoning_mtok",
    "citation": "output_citation_mtok",
    "searches": "web_searches_kcount",
}
"""Our classes, and what genai-prices calls their rates."""

SERVICE: dict[str, tuple[dict[str, str], ...]] = {
    "batch": ({"processing": "batch"},),
    "flex": ({"service_tier": "flex"},),
    "priority": ({"service_tier": "priority"},),
    "fast": ({"service_tier": "fast"}, {"speed": "fast"}),
}
"""Service tiers, and what genai-prices selects their rates by."""

Json = str | int | None | list["Json"] | dict[str, "Json"]


def content() -> dict[str, Json]:
    """What the installed genai-prices says, as the file has it; without date and digest."""
    return {"source": f"genai-prices {version('genai-prices')}", "providers": [_provider(each) for each in providers]}


def digest_of(snapshot: Mapping[str, Json]) -> str:
    """The sha256 of the canonical JSON of source and providers."""
    kept = {key: snapshot[key] for key in ("source", "providers")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def render(snapshot: Mapping[str, Json], day: str) -> str:
    """The file: JSON with one line a model, so that a change of prices can be reviewed."""
    head = f'{{"digest":{_dump(digest_of(snapshot))},"date":{_dump(day)},"source":{_dump(snapshot["source"])}'
    listed = snapshot["providers"]
    assert isinstance(listed, list)
    return f'{head},"providers":[\n' + ",\n".join(_provider_lines(each) for each in listed) + "\n]}\n"


def _provider_lines(provider: Json) -> str:
    assert isinstance(provider, dict)
    models = provider["models"]
    assert isinstance(models, list)
    head = ",".join(f"{_dump(key)}:{_dump(provider[key])}" for key in ("id", "match", "makes", "fallback"))
    return f'{{{head},"models":[\n' + ",\n".join(map(_dump, models)) + "\n]}"


def _dump(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"))


def _provider(provider: source.Provider) -> Json:
    return {
        "id": provider.id,
        "match": _match(provider.provider_match) if provider.provider_match else None,
        "makes": _match(provider.model_match) if provider.model_match else None,
        "fallback": list(provider.fallback_model_providers or ()),
        "models": [[model.id, _match(model.match), _prices(model)] for model in provider.models],
    }


def _match(clause: source.MatchLogic) -> Json:
    match clause:
        case source.ClauseEquals():
            return "=" + clause.equals.lower()
        case source.ClauseStartsWith():
            return "^" + clause.starts_with.lower()
        case source.ClauseEndsWith():
            return "$" + clause.ends_with.lower()
        case source.ClauseContains():
            return "~" + clause.contains.lower()
        case source.ClauseRegex():
            return "/" + clause.regex
        case source.ClauseOr():
            return ["|", *map(_match, clause.or_)]
        case source.ClauseAnd():
            return ["&", *map(_match, clause.and_)]
        case _:
            raise TypeError(f"genai-prices has a kind of match that is not known here: {clause!r}")


def _prices(model: source.ModelInfo) -> Json:
    """Newest condition first; the last one holds when no other does."""
    if model.price_variants:
        return _with_variants(model)
    if isinstance(model.prices, source.ModelPrice):
        return [[None, *_rates(model, model.prices)]]
    first, *rest = model.prices
    newest_first: list[Json] = [[_when(each.constraint), *_rates(model, each.prices)] for each in reversed(rest)]
    return [*newest_first, [None, *_rates(model, first.prices)]]


def _with_variants(model: source.ModelInfo) -> Json:
    """One row for each stretch of time in which neither the price nor a service tier's changes."""
    dated = [] if isinstance(model.prices, source.ModelPrice) else model.prices
    constraints = [each.constraint for each in (*dated, *(model.price_variants or ()))]
    days = set()
    for constraint in constraints:
        assert constraint is None or isinstance(constraint, source.StartDateConstraint), "a variant by time of day"
        if constraint is not None:
            days.add(constraint.start_date)
    before = datetime(1970, 1, 1, tzinfo=UTC)
    starts = [*(datetime(day.year, day.month, day.day, tzinfo=UTC) for day in sorted(days, reverse=True)), before]
    rows: list[Json] = []
    for start in starts:
        rates = _rates(model, model.get_prices(start))
        variants = _variants(model, start)
        when: Json = None if start == before else ["from", int(start.timestamp())]
        rows.append([when, *rates, variants] if variants and rates[0] is not None else [when, *rates])
    return rows


def _variants(model: source.ModelInfo, at: datetime) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, selectors in SERVICE.items():
        for selector in selectors:
            known = any(
                each.when == selector and (each.constraint is None or each.constraint.active(at))
                for each in model.price_variants or ()
            )
            if known:
                found[name] = _rates(model, model.get_prices(at, selector))[0]
                break
    return found


def _when(constraint: source.StartDateConstraint | source.TimeOfDateConstraint | None) -> Json:
    match constraint:
        case None:
            return None
        case source.StartDateConstraint():
            begin = constraint.start_date
            return ["from", int(datetime(begin.year, begin.month, begin.day, tzinfo=UTC).timestamp())]
        case source.TimeOfDateConstraint():
            return ["daily", _second_of_day(constraint.start_time), _second_of_day(constraint.end_time)]


def _second_of_day(at: time) -> int:
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    utc = datetime.combine(date(1970, 1, 2), aware).astimezone(UTC)
    return utc.hour * 3600 + utc.minute * 60 + utc.second


def _rates(model: source.ModelInfo, price: source.ModelPrice) -> list[Json]:
    kept = {key: value for key, value in vars(price).items() if value is not None}
    per_request = _usd(kept["requests_kcount"] / 1000) if "requests_kcount" in kept else "0"
    if not kept and model.id.endswith(":free"):
        return [[[0, "0", "0", "0", "0"]], "0"]  # its name says that nothing is billed; other empty ones say nothing
    if "input_mtok" not in kept and "output_mtok" not in kept:
        return [None, per_request]
    starts = {tier.start for value in kept.values() if isinstance(value, source.TieredPrices) for tier in value.tiers}
    return [[_tier(kept, above) for above in sorted(starts | {0})], per_request]


def _tier(kept: Mapping[str, Decimal | source.TieredPrices], above: int) -> Json:
    """What is not priced apart is billed as input (cached, cache writes), or not at all (the output of embeddings)."""
    plain = _rate(kept.get("input_mtok"), above)
    cached = _rate(kept.get("cache_read_mtok", kept.get("input_mtok")), above)
    write = _rate(kept.get("cache_write_mtok", kept.get("input_mtok")), above)
    rates: list[Json] = [above, *map(_usd, (plain, _rate(kept.get("output_mtok"), above), cached, write))]
    extra: dict[str, Json] = {}
    for name, key in EXTRA.items():
        if key in kept:
            extra[name] = _usd(_rate(kept[key], above) / (1000 if name == "searches" else 1))
    return [*rates, extra] if extra else rates


def _rate(value: Decimal | source.TieredPrices | None, above: int) -> Decimal:
    match value:
        case None:
            return Decimal(0)
        case source.TieredPrices():
            return next((tier.price for tier in reversed(value.tiers) if above >= tier.start), value.base)
        case _:
            return value


def _usd(value: Decimal) -> str:
    plain = f"{value:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def main() -> int:
    """Write the snapshot, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(description="make the price snapshot from the installed genai-prices")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is out of date")
    check = parser.parse_args().check
    made = content()
    old = json.loads(TARGET.read_text("utf-8")) if TARGET.exists() else {}
    fresh = old.get("digest") == digest_of(made)
    if check:
        return 0 if fresh else 1
    day = old["date"] if fresh else datetime.now(UTC).date().isoformat()
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(render(made, day), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
