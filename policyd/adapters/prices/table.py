"""Prices by provider and model: the snapshot that ships, and a local file whose entries win.

Rule 1: a model that is not known for certain has no price: policies decide what that means. `dearest` is what they may
        charge instead, and says that it is a guess.
Rule 2: what a provider does not list is looked for at those whose models it resells, where the snapshot says so.
Rule 3: a provider that the snapshot does not know (a proxy, a self-hosted server) gets the price of the one main
        provider that lists the model; if several do, of the one that makes it. Else there is none.
Rule 4: names come from outside: they are looked up in lower case, bounded in length, in a cache bounded in size.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from functools import cached_property
from typing import Any

from policyd.core.model.prices import Price, Tier

NANO_PER_MTOK = 1000  # nano-dollars a token in one USD per million tokens
NANO = 1_000_000_000
LONGEST_NAME = 256  # characters; longer ones are no model's name
CACHED = 4096  # (provider, model) pairs
CACHED_GUESSES = 64  # (provider, hour) pairs
CANDIDATES = 16  # rows of a listing that are looked at for its dearest price: some no longer hold

ALIASES = {
    "aws.bedrock": "aws",
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure_openai": "azure",
    "azure-openai": "azure",
    "bedrock": "aws",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "together_ai": "together",
    "vertex_ai": "google",
    "x_ai": "x-ai",
    "xai": "x-ai",
}
"""Other names of providers, OpenTelemetry's among them -> the snapshot's id. The snapshot's own rules come after."""

MAIN = ("anthropic", "cohere", "deepseek", "google", "mistral", "openai", "x-ai")
"""Who is asked for a model of an unknown provider: the makers that sell their own."""

RESOLD, BY_ITS_MAKER = 0.9, 0.8
"""How sure a price is, 0..1: of a provider that sells the model at its maker's price, as the snapshot says; of one that
the snapshot does not know, by what the maker takes."""

GUESSED = 0.1
"""How sure a price is that is another model's."""

Matches = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Dated:
    """A price, and when it holds: seconds since 1970 from which, or seconds of the UTC day between which."""

    price: Price | None
    since: float | None = None
    daily: tuple[int, int] | None = None

    def holds(self, at: float) -> bool:
        if self.since is not None:
            return at >= self.since
        if self.daily is None:
            return True
        begin, end = self.daily
        second = at % 86400
        return begin <= second < end if begin <= end else second >= begin or second < end


@dataclass(frozen=True, slots=True)
class Override:
    """One entry of a local price file. `provider` empty: any."""

    provider: str
    price: Price  # `model` is the glob
    matches: Callable[[str], object]  # over whole names, lower case


class Prices:
    """The PriceTable. Providers are compiled when first asked for."""

    def __init__(self, snapshot: Mapping[str, Any], overrides: Sequence[Override] = ()) -> None:
        self._source: str = snapshot["source"]
        self._raw: dict[str, Mapping[str, Any]] = {each["id"]: each for each in snapshot["providers"]}
        self._overrides = tuple(overrides)
        self._digest = _digest(snapshot["digest"], self._overrides)
        self._listings: dict[str, _Listing] = {}
        self._found: dict[tuple[str, str], tuple[Dated, ...]] = {}
        self._dearest: dict[tuple[str, int], Price | None] = {}

    @property
    def digest(self) -> str:
        """The snapshot's own, or with local prices one of both."""
        return self._digest

    @property
    def remembered(self) -> int:
        """How many look-ups are cached."""
        return len(self._found)

    def price(self, provider: str, model: str, at: float) -> Price | None:
        """The price of a model at a time (seconds since 1970, UTC); None when it is not known."""
        found = self._found.get((provider, model))
        if found is None:
            found = self._remember(provider, model)
        for dated in found:
            if dated.holds(at):
                return dated.price
        return None

    def dearest(self, provider: str, at: float) -> Price | None:
        """The dearest price of a provider in the hour of `at`, as a guess; of all makers where it has none."""
        key = (provider[:LONGEST_NAME], int(at // 3600))
        if key not in self._dearest:
            if len(self._dearest) >= CACHED_GUESSES:
                self._dearest.clear()
            self._dearest[key] = self._guess(key[0].lower().strip(), at)
        return self._dearest[key]

    def _guess(self, provider: str, at: float) -> Price | None:
        known = self._provider_id(provider)
        own = [each for each in self._overrides if each.provider and each.provider in (provider, known)]
        sellers = (known, *self._raw[known]["fallback"]) if known else ()
        if found := _highest(own, [self._raw[each]["models"] for each in sellers], at, self._source):
            return _guessed(found, known or provider)
        every = [(id, _highest((), [self._raw[id]["models"]], at, self._source)) for id in MAIN if id in self._raw]
        every += [(each.provider or "local", each.price) for each in self._overrides]
        priced = [(id, price) for id, price in every if price is not None]
        return _guessed(*max(((price, id) for id, price in priced), key=lambda one: _rate(one[0]))) if priced else None

    def _remember(self, provider: str, model: str) -> tuple[Dated, ...]:
        if len(model) > LONGEST_NAME or len(provider) > LONGEST_NAME:
            return ()
        if len(self._found) >= CACHED:
            self._found.clear()
        found = self._found[provider, model] = tuple(self._look_up(provider.lower().strip(), model.lower()))
        return found

    def _look_up(self, provider: str, model: str) -> Sequence[Dated]:
        provider, model = _sold_through(provider, model)
        known = self._provider_id(provider)
        for override in self._overrides:
            if override.provider in ("", provider, known) and override.matches(model):
                return (Dated(override.price),)
        if known:
            return self._sold_by(known, model)
        return [_less_sure(dated, BY_ITS_MAKER) for dated in self._sold_by_one(model) or self._sold_by_maker(model)]

    def _provider_id(self, name: str) -> str:
        """The snapshot's id of a provider; empty when it has none."""
        name = ALIASES.get(name, name)
        if not name or name in self._raw:
            return name
        claims = (id for id, raw in self._raw.items() if raw["match"] and _matcher(raw["match"])(name))
        return next(claims, "")

    def _sold_by(self, provider: str, model: str) -> Sequence[Dated]:
        sellers = [self._listing(each) for each in (provider, *self._raw[provider]["fallback"])]
        for name in _spellings(model):
            for seller in sellers:
                if (found := seller.find(name)) is not None:
                    return found if seller is sellers[0] else [_less_sure(dated, RESOLD) for dated in found]
        return ()

    def _sold_by_one(self, model: str) -> Sequence[Dated]:
        for name in _spellings(model):
            found = {id: each for id in MAIN if (each := self._listing(id).find(name)) is not None}
            if len(found) > 1:
                found = {id: each for id, each in found.items() if self._makes(id, name)}
            if found:
                return next(iter(found.values())) if len(found) == 1 else ()
        return ()

    def _sold_by_maker(self, model: str) -> Sequence[Dated]:
        """The price of `maker/model`, as routers name models."""
        maker, _, name = model.partition("/")
        known = self._provider_id(maker) if name else ""
        return self._sold_by(known, name) if known in MAIN else ()

    def _makes(self, provider: str, model: str) -> bool:
        makes = self._raw[provider]["makes"]
        return makes is not None and _matcher(makes)(model)

    def _listing(self, provider: str) -> _Listing:
        listing = self._listings.get(provider)
        if listing is None:
            listing = self._listings[provider] = _Listing(self._raw[provider]["models"], self._source)
        return listing


class _Listing:
    """The models of one provider. INVARIANT: the first one in its order that matches a name is the one found."""

    def __init__(self, models: Sequence[Sequence[Any]], source: str) -> None:
        self._models = models
        self._source = source

    def find(self, name: str) -> tuple[Dated, ...] | None:
        """The prices of the model that goes by this name (lower case), newest first; None when none does."""
        best = self._exact.get(name, len(self._models))
        for position, matches in self._patterns:
            if position >= best:
                break
            if matches(name):
                best = position
                break
        if best == len(self._models):
            return None
        id, _, prices = self._models[best]
        return tuple(_dated(id, entry, self._source) for entry in prices)

    @cached_property
    def _exact(self) -> dict[str, int]:
        """Whole names, and the first model that has each."""
        exact: dict[str, int] = {}
        for position, (_, match, _) in enumerate(self._models):
            for clause in _alternatives(match):
                if isinstance(clause, str) and clause[0] == "=":
                    exact.setdefault(clause[1:], position)
        return exact

    @cached_property
    def _patterns(self) -> list[tuple[int, Matches]]:
        """Everything that is not a whole name, in order."""
        return [
            (position, _matcher(clause))
            for position, (_, match, _) in enumerate(self._models)
            for clause in _alternatives(match)
            if not (isinstance(clause, str) and clause[0] == "=")
        ]


def _sold_through(provider: str, model: str) -> tuple[str, str]:
    """Hugging Face's router sells each provider's models at that provider's price: `model:provider`."""
    name, _, seller = model.rpartition(":")
    return (f"{provider}_{seller}", name) if provider == "huggingface" and name else (provider, model)


def _alternatives(match: Any) -> Iterator[Any]:
    if isinstance(match, list) and match[0] == "|":
        for clause in match[1:]:
            yield from _alternatives(clause)
    else:
        yield match


def _matcher(match: Any) -> Matches:
    """A match of the snapshot (see prices_snapshot) as a function over lower-case names."""
    if isinstance(match, list):
        clauses = [_matcher(clause) for clause in match[1:]]
        combine = any if match[0] == "|" else all
        return lambda name: combine(clause(name) for clause in clauses)
    kind, text = match[0], match[1:]
    match kind:
        case "=":
            return lambda name: name == text
        case "^":
            return lambda name: name.startswith(text)
        case "$":
            return lambda name: name.endswith(text)
        case "~":
            return lambda name: text in name
        case "/":
            # not RE2: two of the data's own patterns look ahead. They are ours, short and linear; names are bounded.
            search = re.compile(text).search
            return lambda name: search(name) is not None
        case _:
            raise ValueError(f"unknown match `{kind}` in the price snapshot")


def _spellings(model: str) -> Iterator[str]:
    """The name as it is, then with a compact date (-20251211) written out, as some proxies shorten it."""
    yield model
    written_out = re.sub(r"-(20\d\d)(\d\d)(\d\d)(?=-|:|$)", _written_out, model)
    if written_out != model:
        yield written_out
    if model.startswith("openai.gpt-oss-"):  # Bedrock's OpenAI door leaves the revision out
        yield f"{model}-1:0"


def _written_out(found: re.Match[str]) -> str:
    try:
        return f"-{date(int(found[1]), int(found[2]), int(found[3])).isoformat()}"
    except ValueError:
        return found[0]


def _dated(model: str, entry: Sequence[Any], source: str) -> Dated:
    when, tiers, per_request, *more = entry
    price = None
    if tiers is not None:
        variants = {name: tuple(map(_tier, rates)) for name, rates in more[0].items()} if more else {}
        price = Price(model, tuple(map(_tier, tiers)), Fraction(per_request) * NANO, source, variants)
    match when:
        case ["from", since]:
            return Dated(price, since=since)
        case ["daily", begin, end]:
            return Dated(price, daily=(begin, end))
        case _:
            return Dated(price)


def _tier(tier: Sequence[Any]) -> Tier:
    above, input_, output, cached, write, *more = tier
    plain, made, read, written = (Fraction(rate) * NANO_PER_MTOK for rate in (input_, output, cached, write))
    extra = {name: rate_of(name, rate) for name, rate in more[0].items()} if more else {}
    return Tier(above, plain, made, read, written, extra)


def rate_of(name: str, usd: str | Fraction) -> Fraction:
    """The rate of a class that is priced apart, nano-dollars a unit, from USD per million tokens or per search."""
    return Fraction(usd) * (NANO if name == "searches" else NANO_PER_MTOK)


def _highest(
    overrides: Sequence[Override], listings: Sequence[Sequence[Sequence[Any]]], at: float, source: str
) -> Price | None:
    """The dearest of these local prices and of the models of these listings."""
    found = [each.price for each in overrides]
    rows = [(_raw_rate(entry), row) for listing in listings for row in listing for entry in row[2]]
    for rate, (id, _, entries) in sorted(rows, key=_first, reverse=True)[:CANDIDATES]:
        now = next((dated.price for dated in (_dated(id, entry, source) for entry in entries) if dated.holds(at)), None)
        if now is not None:
            found.append(now)
            if _rate(now) >= rate * NANO_PER_MTOK * 0.999:
                break  # it holds now: those that follow cost less
    return max(found, key=_rate, default=None)


def _first(row: tuple[float, object]) -> float:
    return row[0]


def _raw_rate(entry: Sequence[Any]) -> float:
    """What a row of the snapshot costs, input and output, without making it a price."""
    return max((float(tier[1]) + float(tier[2]) for tier in entry[1] or ()), default=0.0)


def _rate(price: Price) -> Fraction:
    return max(tier.input + tier.output for tier in price.tiers)


def _guessed(price: Price, provider: str) -> Price:
    return replace(price, source=f"estimate:{provider}", confidence=GUESSED, guess=True, variants={})


def _less_sure(dated: Dated, confidence: float) -> Dated:
    if dated.price is None:
        return dated
    return replace(dated, price=replace(dated.price, confidence=confidence))


def _digest(snapshot: str, overrides: Sequence[Override]) -> str:
    if not overrides:
        return snapshot
    entries = [
        (each.provider, each.price.model, each.price.tiers, each.price.per_request, each.price.variants)
        for each in overrides
    ]
    kept = [snapshot, *map(repr, entries)]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()
