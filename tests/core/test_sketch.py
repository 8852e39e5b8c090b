"""Likeness of answers: exact where it can be, near where it cannot, and never of another session."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.core.model.counters import SessionId
from policyd.core.model.sketch import LEAST, MOST, SIZE, likeness, sketch

HERE = SessionId("default", "s")
WORDS = (
    "agent",
    "asked",
    "for",
    "file",
    "that",
    "is",
    "not",
    "there",
    "tries",
    "once",
    "more",
    "with",
    "other",
    "words",
)


def like(one: str, other: str) -> float:
    return likeness(sketch(one, HERE), sketch(other, HERE))


def pieces(text: str) -> set[bytes]:
    """As the module's first lines say it, the slow way."""
    data = " ".join(text.lower().split()).encode("utf-8", "surrogatepass").ljust(4, b"\0")
    return {data[at : at + 4] for at in range(len(data) - 3)}


def prose(seed: int, words: int) -> list[str]:
    draw = random.Random(seed)
    return [f"{draw.choice(WORDS)}{draw.randrange(50)}" for _ in range(words)]


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_short_answers_are_compared_exactly(one: str, other: str) -> None:
    if not one.split() or not other.split():
        return
    a, b = pieces(one), pieces(other)

    assert like(one, other) == pytest.approx(2 * len(a & b) / (len(a) + len(b)))


@given(st.text(max_size=5000), st.text(max_size=5000))
def test_likeness_is_a_share(one: str, other: str) -> None:
    assert 0.0 <= like(one, other) == like(other, one) <= 1.0
    assert like(one, one) == (1.0 if one.split() else 0.0)
    assert len(sketch(one, HERE)) <= SIZE


@pytest.mark.parametrize("changed", [0, 2, 5, 10, 20, 40])
def test_long_answers_are_compared_nearly(changed: int) -> None:
    errors = []
    for seed in range(20):
        one = prose(seed, 200)
        other = list(one)
        for at in random.Random(seed + 1000).sample(range(200), changed):
            other[at] = f"other{at}"
        a, b = pieces(" ".join(one)), pieces(" ".join(other))
        errors.append(like(" ".join(one), " ".join(other)) - 2 * len(a & b) / (len(a) + len(b)))

    assert max(map(abs, errors)) < 0.08
    assert abs(sum(errors) / len(errors)) < 0.015


TABLE = [
    ("I could not find the file. Let me try again.", "I could not find the file. Let me try again.", 1.0, 1.0),
    ("I could not find the file.  Let me try again.", "i could not find the file. let me\ntry again.", 1.0, 1.0),
    ("I did not find the file a.txt. Let me try again.", "I did not find the file b.txt. Let me try again.", 0.9, 0.99),
    ("The capital of France is Paris.", "Twelve times twelve is one hundred and forty-four.", 0.0, 0.2),
    ("ok", "ok", 1.0, 1.0),
    ("ok", "no", 0.0, 0.0),
    ("", "", 0.0, 0.0),
    ("ok", "", 0.0, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "least", "most"), TABLE)
def test_what_people_would_say(one: str, other: str, least: float, most: float) -> None:
    assert least <= like(one, other) <= most


def test_of_a_long_answer_four_parts_are_looked_at() -> None:
    long = " ".join(prose(1, 4000))
    assert len(long) > 10 * MOST
    assert like(long, long) == 1.0
    assert like(long, " ".join(prose(2, 4000))) < 0.7
    assert like(long, long[:-300] + " ".join(prose(3, 60))[:300]) < 1.0


def test_sketches_of_two_sessions_have_nothing_in_common() -> None:
    text = " ".join(prose(1, 100))
    other = SessionId("default", "t")

    assert likeness(sketch(text, HERE), sketch(text, other)) < 0.05
    assert sketch(text, HERE) != sketch(text, SessionId("acme", "s"))
    assert len(sketch(text, HERE)) == 4 * LEAST
