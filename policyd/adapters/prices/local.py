"""A local price file: what a company really pays, or models that nobody lists. YAML or JSON.

    models:
      - model: gpt-4o*              # a glob over the whole name, case ignored: as in a policy's match
        provider: openai            # optional; without it any provider
        input_per_mtok: 2.50        # USD per million tokens, required
        output_per_mtok: 10         # required; write 0 where nothing is billed
        cached_input_per_mtok: 1.25 # optional; the price of input when missing
        cache_write_per_mtok: 2.50  # optional; the price of input when missing
        per_request: 0.001          # optional; USD
        cache_write_1h_per_mtok: 5  # optional, as are input_audio, cached_audio, output_audio and reasoning _per_mtok:
                                    # each is a part of another class, and costs what that costs when missing
        per_search: 0.01            # optional; USD for each search of the web

Rule 1: the first entry that matches counts, and it wins over the snapshot.
Rule 2: amounts are read as decimals, exactly as written; a price of a hundred digits is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from policyd.adapters.errors import read_text
from policyd.adapters.prices.table import NANO, NANO_PER_MTOK, Override, rate_of
from policyd.core.compile.places import Document
from policyd.core.compile.select import glob_matches
from policyd.core.compile.source import read_documents
from policyd.core.compile.words import quoted, suggestion
from policyd.core.errors import Issue, PolicyError, Severity, Span
from policyd.core.model.prices import Price, Tier

REQUIRED = ("input_per_mtok", "output_per_mtok")
APART = {
    "cache_write_1h_per_mtok": "cache_write_1h",
    "input_audio_per_mtok": "input_audio",
    "cached_audio_per_mtok": "cached_audio",
    "output_audio_per_mtok": "output_audio",
    "reasoning_per_mtok": "reasoning",
    "per_search": "searches",
}
OPTIONAL = ("cached_input_per_mtok", "cache_write_per_mtok", "per_request", *APART)
AMOUNTS = (*REQUIRED, *OPTIONAL)
FIELDS = ("model", "provider", *AMOUNTS)
DEAREST = 1_000_000  # USD: more than that per million tokens, or per request, is a slip of the pen
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,18})?")


def read_overrides(file: Path) -> tuple[Override, ...]:
    """The entries of a price file, in order. Raises UnreadableInput, or PolicyError with everything wrong in it."""
    documents, issues = read_documents(str(file), read_text(file))
    if not documents and not issues:
        issues.append(Issue(Span(str(file), 1, 1), "PRICE001", Severity.ERROR, "the file has no prices", _HINT))
    found = _Finder(issues)
    overrides = tuple(found.overrides(documents))
    if found.issues:
        raise PolicyError(tuple(found.issues))
    return overrides


class _Finder:
    """Reads entries and collects what is wrong with them."""

    def __init__(self, issues: list[Issue]) -> None:
        self.issues = issues

    def overrides(self, documents: list[Document]) -> Iterator[Override]:
        for document in documents:
            entries = self._entries(document)
            for position, entry in enumerate(entries):
                if isinstance(entry, dict):
                    yield from self._override(document, position, entry)
                else:
                    self._issue(document, ("models", position), "PRICE001", "an entry must be a mapping", _HINT)

    def _entries(self, document: Document) -> list[object]:
        top = document.value
        models = top.get("models") if isinstance(top, dict) else None
        if not isinstance(top, dict) or not isinstance(models, list):
            self._issue(document, ("models",), "PRICE001", "`models` must be a list of prices", _HINT)
            return []
        for key in top:
            if key != "models":
                self._issue(document, (key,), "PRICE002", f"unknown field {quoted(key)}", "did you mean `models`?")
        return models

    def _override(self, document: Document, position: int, entry: dict[str, object]) -> Iterator[Override]:
        before = len(self.issues)
        at = ("models", position)
        for key in entry:
            if key not in FIELDS:
                hint = suggestion(key, FIELDS)
                self._issue(document, (*at, key), "PRICE002", f"unknown field {quoted(key)}", hint)
        model = self._name(document, (*at, "model"), entry.get("model"))
        provider = self._name(document, (*at, "provider"), entry["provider"]) if "provider" in entry else ""
        amounts = {key: self._amount(document, (*at, key), entry[key]) for key in AMOUNTS if key in entry}
        for key in REQUIRED:
            if key not in entry:
                self._issue(document, at, "PRICE003", f"`{key}` is missing", "write 0 where nothing is billed")
        if len(self.issues) == before:
            source = f"{document.file}:{document.span(at).line}"
            yield Override(provider.lower(), _price(model, amounts, source), glob_matches(model.lower()))

    def _name(self, document: Document, path: tuple[str | int, ...], value: object) -> str:
        if isinstance(value, str) and value.strip():
            return value.strip()
        field = path[-1]
        self._issue(document, path, "PRICE003", f"`{field}` must be a name", f"for example `{_EXAMPLES[str(field)]}`")
        return ""

    def _amount(self, document: Document, path: tuple[str | int, ...], value: object) -> Fraction:
        text = _written(value)
        if text is not None and _DECIMAL.fullmatch(text) and Fraction(text) <= DEAREST:
            return Fraction(text)
        message = f"`{path[-1]}` must be a price in USD, not {quoted(value)}"
        self._issue(document, path, "PRICE004", message, f"a decimal from 0 to {DEAREST}, for example 2.50")
        return Fraction(0)

    def _issue(self, document: Document, path: tuple[str | int, ...], code: str, message: str, hint: str) -> None:
        self.issues.append(Issue(document.span(path), code, Severity.ERROR, message, hint))


_HINT = "for example `models: [{model: my-model, input_per_mtok: 1, output_per_mtok: 2}]`"
_EXAMPLES = {"model": "gpt-4o*", "provider": "openai"}


def _written(value: object) -> str | None:
    match value:
        case bool():
            return None
        case int():
            return str(value)
        case float():
            return f"{Decimal(repr(value)):f}"
        case str():
            return value.strip()
        case _:
            return None


def _price(model: str, amounts: dict[str, Fraction], source: str) -> Price:
    plain = amounts["input_per_mtok"]
    tier = Tier(
        0,
        plain * NANO_PER_MTOK,
        amounts["output_per_mtok"] * NANO_PER_MTOK,
        amounts.get("cached_input_per_mtok", plain) * NANO_PER_MTOK,
        amounts.get("cache_write_per_mtok", plain) * NANO_PER_MTOK,
        {name: rate_of(name, amounts[field]) for field, name in APART.items() if field in amounts},
    )
    return Price(model, (tier,), amounts.get("per_request", Fraction(0)) * NANO, source, local=True)
