"""Detectors with a finder: it finds what patterns and validator find, and looks at each character a few times."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable

import pytest

from policyd.core.model.decision import Redaction
from policyd.core.model.detectors import DETECTOR_NAMES, DETECTORS
from policyd.core.model.reach import compiled_unlimited
from policyd.core.stream.holdback import HoldBack, redact_text, swapped
from policyd.core.stream.redactor import redactors
from tests.growth import LINEAR, grows
from tests.sizes import size

WITH_FINDER = [name for name in DETECTOR_NAMES if DETECTORS[name].finder is not None]
SAMPLES = {
    "card": [
        "4111 1111 1111 1111",
        "378282246310005",
        "3782 822463 10005",
        "4111111111111111 123",
        "４１１１1111 1111-1111",
    ],
    "iban": ["BE68539007547034", "DE89 3704 0044 0532 0130 00", "NO93 8601 1117 947", "ＤＥ89370400440532013000"],
    "openai_key": ["sk-" + "a1" * 20, "sk-" + "a" * 299 + "1", "sk-" + "a" * 301 + "1", "sk-" + "ab-" * 12],
}  # fmt: skip
PARTS = {
    "card": [
        "4",
        "4",
        "1",
        "5",
        "2",
        "9",
        "0",
        "０",
        "４",
        "５",
        " ",
        "-",
        ".",
        "\u00a0",
        "\u2011",
        "\u200b",
        "a",
        "x",
        "_",
        "é",
    ],
    "iban": ["DE", "89", "AL", "11", "al", "ＡＬ", "１", "Ａ", "0", "X", " ", "-", "\u00a0", "_", "é", "a"],
    "openai_key": ["sk-", "sk", "-", "a", "b1", "9", "\u2011", " ", "_", "é", "abcdefghijklmnop", "ask-"],
}  # fmt: skip


def one_by_one(name: str, text: str) -> list[tuple[int, int]]:
    """At each place the match that begins there and is accepted: that of the first pattern."""
    detector = DETECTORS[name]
    assert detector.validator is not None
    found: dict[int, int] = {}
    for pattern in detector.patterns:
        search = compiled_unlimited(pattern).search if name != "card" else bare(pattern).search
        at = 0
        while (match := search(text, at)) is not None:
            if detector.validator(match.group()):
                found.setdefault(match.start(), match.end())
            at = match.start() + 1
    return sorted(found.items())


def bare(pattern: str) -> re.Pattern[str]:
    """A pattern of cards, with what may stand beside a number."""
    number = pattern.removesuffix("[0-9A-Fa-f]?")
    return re.compile(f"(?:(?<![0-9])|(?=[０-９])){number}(?:(?![0-9A-Fa-f])|(?<=[０-９]))")


@pytest.mark.parametrize("name", WITH_FINDER)
def test_a_finder_finds_what_the_patterns_find(name: str) -> None:
    rng, finder, many = random.Random(3), DETECTORS[name].finder, 0
    assert finder is not None
    for turn in range(size(1500)):
        parts = rng.sample(PARTS[name], rng.randint(2, 9))
        text = "".join(rng.choice(parts) for _ in range(rng.randint(0, 60)))
        if turn % 2:
            at = rng.randint(0, len(text))
            text = text[:at] + rng.choice(SAMPLES[name]) + text[at:]
        found = list(finder(text))
        assert found == one_by_one(name, text), repr(text)
        many += len(found)
    assert many > size(1500) // 20


ATTACKS = {
    "single digits": "4 ",
    "digits": "4",
    "fullwidth": "４ ",
    "dashes": "4-",
    "no-break spaces": "4 4\u00a04 ",
    "groups": "4444 4444 4444 4441 ",
    "refused numbers": "4111111111111112,",
    "numbers": "4111111111111111 ",
    "addresses": "1.1.1.1 ",
    "mail": "a@b.cc ",
    "no mail": "a@a.",
    "keys": "sk-",
    "other keys": "sk-ant-",
    "slack": "xoxb-",
    "tokens": "eyJ",
    "ibans": "AL11 ",
    "no ssn": "000-00-0000 ",
    "dashed": "-----BEGIN ",
    "phones": "555 555 5555 ",
}


@pytest.mark.parametrize("unit", ATTACKS.values(), ids=ATTACKS)
def test_no_text_costs_more_than_its_length(unit: str) -> None:
    search = redactors([Redaction(detectors=DETECTOR_NAMES)])
    redact_text(unit * 2000, search)  # RE2 makes its states when they are first needed

    def work(size: int) -> object:
        return redact_text((unit * size)[:size], search)

    assert grows(work, 40_000) < LINEAR


def test_a_refused_number_costs_no_search_of_its_own() -> None:
    search, size = redactors([Redaction(detectors=("card",))]), 200_000

    def calls(text: str) -> int:
        return counted(lambda: redact_text(text, search))

    for unit in ("4 ", "4444 4444 4444 4441 ", "4111111111111112,", "４ "):
        assert calls((unit * size)[:size]) < 1.5 * size, unit[:40]


def counted(work: Callable[[], object]) -> int:
    """How many functions of Python, or of C, were called."""
    many = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal many
        many += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return many


def test_a_list_of_replacements_serves_every_piece() -> None:
    search = redactors([Redaction(detectors=("card",), replacement="#")])
    text = "x 4111111111111111 y " * 50
    hold = HoldBack(search)
    hold.push(text)
    hold.close()
    swaps = list(hold.swaps)

    for step in (1, 7, 30, len(text)):
        pieces = [swapped(text[at : at + step], at, swaps) for at in range(0, len(text), step)]
        assert "".join(pieces) == "x # y " * 50
