"""What providers do with their own numbers, each trap once: what is told twice, or elsewhere, is counted once."""

from __future__ import annotations

import pytest

from tests.core.test_bills import ANT, API, COMPACTED, GOOGLE, TWO_MODELS, Bill, call, chat, claude, gemini

USAGE = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
SONAR = "api.perplexity.ai"

TRAPS: dict[str, tuple[Bill, tuple[int, ...], dict[str, int]]] = {
    "cached is a part of the prompt": (
        Bill("", API, "gpt-4o", chat(100, 5, prompt_tokens_details={"cached_tokens": 60}), ()),
        (100, 5, 60, 0, 0),
        {},
    ),
    "reasoning inside the completion": (
        Bill("", API, "o3", chat(9, 50, completion_tokens_details={"reasoning_tokens": 40}), ()),
        (9, 50, 0, 0, 40),
        {},
    ),
    "reasoning beside it, told by the total": (
        Bill(
            "",
            "api.x.ai",
            "grok-4",
            {**chat(9, 10, completion_tokens_details={"reasoning_tokens": 40}), "total_tokens": 59},
            (),
        ),
        (9, 50, 0, 0, 40),
        {},
    ),
    "reasoning beside it, told by nothing but its kind": (
        Bill("", SONAR, "sonar-deep-research", chat(9, 100, reasoning_tokens=40, citation_tokens=7), ()),
        (9, 140, 0, 0, 40),
        {"citation": 7},
    ),
    "searches are no tokens": (
        Bill("", SONAR, "sonar-deep-research", chat(9, 10, num_search_queries=3), ()),
        (9, 10, 0, 0, 0),
        {"searches": 3},
    ),
    "sound is a part of both": (
        Bill(
            "",
            API,
            "gpt-audio",
            chat(90, 50, prompt_tokens_details={"audio_tokens": 80}, completion_tokens_details={"audio_tokens": 45}),
            (),
        ),
        (90, 50, 0, 0, 0),
        {"input_audio": 80, "output_audio": 45},
    ),
    "more sound than there is": (
        Bill("", API, "gpt-audio", chat(90, 50, prompt_tokens_details={"audio_tokens": 800}), ()),
        (90, 50, 0, 0, 0),
        {"input_audio": 90},
    ),
    "a cache beside the input": (
        Bill("", ANT, "claude-haiku-4-5", claude(10, 5, read=70, written=20), ()),
        (100, 5, 70, 20, 0),
        {},
    ),
    "kept for an hour": (
        Bill("", ANT, "claude-haiku-4-5", claude(10, 5, written=20, hour=15), ()),
        (30, 5, 0, 20, 0),
        {"cache_write_1h": 15},
    ),
    "numbers told twice in a stream": (
        Bill("", ANT, "claude-haiku-4-5", claude(10, 5, read=70, written=20, hour=20), (), stream=True),
        (100, 5, 70, 20, 0),
        {"cache_write_1h": 20},
    ),
    "compaction stands in no other number": (
        Bill("", ANT, "claude-haiku-4-5", COMPACTED, ()),
        (200_000, 4200, 0, 8000, 0),
        {"cache_write_1h": 8000},
    ),
    "an advisor's tokens neither": (Bill("", ANT, "claude-haiku-4-5", TWO_MODELS, ()), (8000, 1150, 1000, 0, 0), {}),
    "a fallback that answered": (
        Bill(
            "",
            ANT,
            "claude-opus-4-5",
            claude(
                100,
                20,
                iterations=[
                    {"type": "message", "model": "claude-opus-4-5", **claude(100, 1)},
                    {"type": "fallback_message", "model": "claude-haiku-4-5", **claude(100, 20)},
                ],
            ),
            (),
        ),
        (200, 21, 0, 0, 0),
        {},
    ),
    "thoughts and tools beside gemini's own": (
        Bill(
            "",
            GOOGLE,
            "gemini-2.5-pro",
            gemini(10, 5, thoughtsTokenCount=7, toolUsePromptTokenCount=90),
            (),
            kind="gemini",
        ),
        (100, 12, 0, 0, 7),
        {},
    ),
    "usage in every event of a stream": (
        Bill("", GOOGLE, "gemini-2.5-pro", gemini(10, 5, thoughtsTokenCount=7), (), kind="gemini", stream=True),
        (10, 12, 0, 0, 7),
        {},
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_what_is_used_is_counted_once(name: str) -> None:
    bill, usage, apart = TRAPS[name]
    record = call(bill)
    assert record.inspection == "full", record.inspection_reason
    assert tuple(record.usage[field] for field in USAGE) == usage
    assert {key: value for key, value in record.usage.items() if key not in (*USAGE, "source")} == apart


def test_a_fallback_is_billed_as_the_model_that_it_fell_back_to() -> None:
    bill = TRAPS["a fallback that answered"][0]
    # 100 x $5 + 1 x $25, and 100 x $1 + 20 x $5, a million tokens
    assert call(bill).cost_nano == 500_000 + 25_000 + 100_000 + 100_000
