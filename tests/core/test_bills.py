"""Calls worked out by hand from the providers' public price pages, through the whole path: answer in, record out.

A bill is the sum of its lines: so many tokens at so many dollars a million. The sums are made here, by hand, of the
page's numbers; nothing of policyd's takes part in them. Where the shipped prices say something else than the page, the
call stands in DISAGREE, and docs/LIMITS.md names it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest

from policyd.adapters.prices import load_prices
from policyd.adapters.recordings import Recording
from policyd.cli.dry_run import DryRun
from policyd.core.compile.compiler import compile_documents
from policyd.core.model.decision import DecisionRecord
from policyd.core.model.options import Options

OPENAI = "developers.openai.com/api/docs/pricing, 2026-10-14"
CLAUDE = "platform.claude.com/docs/en/about-claude/pricing, 2026-11-20"
GEMINI = "ai.google.dev/gemini-api/docs/pricing, 2026-10-14"
DEEPSEEK = "api-docs.deepseek.com/quick_start/pricing, 2026-10-27"
SONAR = "docs.perplexity.ai/getting-started/pricing, before 2026-09-27"
LISTS = "the provider's own list, as of 2026-11-20"
FRIDAY, SATURDAY = "2026-11-20T12:00:00", "2026-11-21T02:00:00"

Line = tuple[int, str]  # tokens, USD per million of them
FEE = 1_000_000  # a line of so many "tokens" is one thing at that price


@dataclass(frozen=True)
class Bill:
    """One call, and what its provider's page makes of it."""

    page: str
    host: str
    model: str
    usage: dict[str, object]
    lines: tuple[Line, ...]
    kind: str = "chat"
    answer: dict[str, object] = field(default_factory=dict)  # beside the usage
    asked: dict[str, object] = field(default_factory=dict)  # of the request
    stream: bool = False
    at: str = FRIDAY

    @property
    def nano(self) -> int:
        exact = sum((Fraction(many) * Fraction(usd) * 1000 for many, usd in self.lines), Fraction(0))
        return int(exact + Fraction(1, 2))  # half up: nothing here is negative


def chat(prompt: int, completion: int, **more: object) -> dict[str, object]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def claude(given: int, made: int, read: int = 0, written: int = 0, hour: int = 0, **more: object) -> dict[str, object]:
    created = {"ephemeral_5m_input_tokens": written - hour, "ephemeral_1h_input_tokens": hour}
    return {
        "input_tokens": given,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "cache_creation": created,
        "output_tokens": made,
        **more,
    }


def cached(tokens: int, **more: int) -> dict[str, object]:
    return {"prompt_tokens_details": {"cached_tokens": tokens, **more}}


def thought(tokens: int) -> dict[str, object]:
    return {"completion_tokens_details": {"reasoning_tokens": tokens}}


def gemini(prompt: int, made: int, **more: object) -> dict[str, object]:
    return {"promptTokenCount": prompt, "candidatesTokenCount": made, **more}


API, ANT, GOOGLE = "api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com"
TWO_MODELS = claude(
    3000,
    900,
    iterations=[
        {"type": "message", "model": "claude-haiku-4-5", **claude(3000, 900)},
        {"type": "advisor_message", "model": "claude-opus-4-5", **claude(4000, 250, read=1000)},
    ],
)
COMPACTED = claude(
    12_000,
    700,
    iterations=[
        {"type": "compaction", **claude(180_000, 3_500)},
        {"type": "message", **claude(12_000, 700, written=8_000, hour=8_000)},
    ],
)

BILLS: dict[str, Bill] = {
    "plain": Bill(OPENAI, API, "gpt-4o", chat(1017, 333), ((1017, "2.50"), (333, "10"))),
    "smallest": Bill(OPENAI, API, "gpt-4o-mini", chat(9, 12), ((9, "0.15"), (12, "0.60"))),
    "cached": Bill(OPENAI, API, "gpt-4o", chat(2006, 300, **cached(1920)), ((86, "2.50"), (1920, "1.25"), (300, "10"))),
    "cached, a quarter": Bill(
        OPENAI, API, "gpt-4.1", chat(5000, 77, **cached(4096)), ((904, "2"), (4096, "0.50"), (77, "8"))
    ),
    "half a nano-dollar rounds up": Bill(
        OPENAI,
        API,
        "gpt-5",
        chat(1281, 1, **cached(1281)),
        ((1281, "0.0625"), (1, "5")),  # 80,062.5 and 5,000 nano-dollars
        answer={"service_tier": "flex"},
    ),
    "reasoning inside": Bill(OPENAI, API, "o3", chat(75, 1186, **thought(1024)), ((75, "2"), (1024, "8"), (162, "8"))),
    "flex": Bill(
        OPENAI,
        API,
        "o3",
        chat(4000, 1001, **cached(1024)),
        ((2976, "1"), (1024, "0.25"), (1001, "4")),
        answer={"service_tier": "flex"},
        asked={"service_tier": "flex"},
    ),
    "flex, rounded rate": Bill(
        OPENAI,
        API,
        "o4-mini",
        chat(2049, 11, **cached(2048)),
        ((1, "0.55"), (2048, "0.138"), (11, "2.20")),
        answer={"service_tier": "flex"},
    ),
    "priority": Bill(
        OPENAI,
        API,
        "gpt-4.1",
        chat(1000, 1000, **cached(200)),
        ((800, "3.50"), (200, "0.875"), (1000, "14")),
        answer={"service_tier": "priority"},
        stream=True,
    ),
    "priority asked for, default given": Bill(
        OPENAI,
        API,
        "gpt-4.1",
        chat(1000, 1000),
        ((1000, "2"), (1000, "8")),
        asked={"service_tier": "priority"},
        answer={"service_tier": "default"},
    ),
    "batch": Bill(
        OPENAI,
        API,
        "gpt-5",
        chat(3333, 1111, **cached(1280), **thought(640)),
        ((2053, "0.625"), (1280, "0.0625"), (1111, "5")),
        answer={"service_tier": "batch"},
    ),
    "long": Bill(
        OPENAI, API, "gpt-5.4", chat(272_001, 100, **cached(1000)), ((271_001, "5"), (1000, "0.50"), (100, "22.50"))
    ),
    "not yet long": Bill(OPENAI, API, "gpt-5.4", chat(272_000, 100), ((272_000, "2.50"), (100, "15"))),
    "sound": Bill(
        LISTS,
        API,
        "gpt-audio",
        chat(700, 500, prompt_tokens_details={"audio_tokens": 600}, completion_tokens_details={"audio_tokens": 450}),
        ((100, "2.50"), (600, "32"), (50, "10"), (450, "64")),
    ),
    "searched, with responses": Bill(
        OPENAI,
        API,
        "gpt-5",
        {"input_tokens": 8000, "output_tokens": 400, "input_tokens_details": {"cached_tokens": 0}},
        ((8000, "1.25"), (400, "10"), (2 * FEE, "0.01")),
        kind="responses",
    ),
    "claude": Bill(CLAUDE, ANT, "claude-opus-4-5", claude(1500, 211), ((1500, "5"), (211, "25"))),
    "claude, streamed": Bill(CLAUDE, ANT, "claude-haiku-4-5", claude(37, 5), ((37, "1"), (5, "5")), stream=True),
    "claude, cache read and written": Bill(
        CLAUDE,
        ANT,
        "claude-haiku-4-5",
        claude(11, 503, read=10_007, written=2_001),
        ((11, "1"), (10_007, "0.10"), (2_001, "1.25"), (503, "5")),
    ),
    "claude, for an hour": Bill(
        CLAUDE,
        ANT,
        "claude-opus-4-5",
        claude(10, 20, written=3_000, hour=2_500),
        ((10, "5"), (500, "6.25"), (2_500, "10"), (20, "25")),
    ),
    "claude, for an hour, streamed": Bill(
        CLAUDE,
        ANT,
        "claude-opus-5-5",
        claude(10, 20, read=777, written=2_500, hour=2_500),
        ((10, "4"), (777, "0.20"), (2_500, "8"), (20, "20")),
        stream=True,
    ),
    "claude, in a batch": Bill(
        CLAUDE,
        ANT,
        "claude-opus-4-5",
        claude(999, 333, read=111, service_tier="batch"),
        ((999, "2.50"), (111, "0.25"), (333, "12.50")),
    ),
    "claude, long": Bill(
        CLAUDE,
        ANT,
        "claude-haiku-5-5",
        claude(60_000, 50, read=40_001),
        ((60_000, "0.50"), (40_001, "0.05"), (50, "2.50")),
    ),
    "claude, fast": Bill(
        CLAUDE,
        ANT,
        "claude-opus-5-5",
        claude(500, 100, speed="fast"),
        ((500, "8"), (100, "40")),
        asked={"speed": "fast"},
    ),
    "claude, searching": Bill(
        CLAUDE,
        ANT,
        "claude-haiku-4-5",
        claude(6000, 300, server_tool_use={"web_search_requests": 3}),
        ((6000, "1"), (300, "5"), (3 * FEE, "0.01")),
    ),
    "claude, advised by another model": Bill(
        CLAUDE,
        ANT,
        "claude-haiku-4-5",
        TWO_MODELS,
        ((3000, "1"), (900, "5"), (4000, "5"), (1000, "0.50"), (250, "25")),
    ),
    "claude, compacted on the way": Bill(
        CLAUDE,
        ANT,
        "claude-haiku-4-5",
        COMPACTED,
        ((180_000, "1"), (3_500, "5"), (12_000, "1"), (8_000, "2"), (700, "5")),
    ),
    "gemini, long": Bill(
        GEMINI,
        GOOGLE,
        "gemini-2.5-pro",
        gemini(250_000, 1000, thoughtsTokenCount=500, cachedContentTokenCount=100_000),
        ((150_000, "2.50"), (100_000, "0.25"), (1500, "15")),
        kind="gemini",
    ),
    "gemini, thinking and using tools": Bill(
        GEMINI,
        GOOGLE,
        "gemini-2.5-pro",
        gemini(1234, 56, thoughtsTokenCount=789, toolUsePromptTokenCount=4321),
        ((1234, "1.25"), (4321, "1.25"), (56, "10"), (789, "10")),
        kind="gemini",
        stream=True,
    ),
    "gemini, listening": Bill(
        GEMINI,
        GOOGLE,
        "gemini-2.5-flash",
        gemini(
            1000,
            40,
            cachedContentTokenCount=300,
            promptTokensDetails=[{"modality": "TEXT", "tokenCount": 200}, {"modality": "AUDIO", "tokenCount": 800}],
            cacheTokensDetails=[{"modality": "AUDIO", "tokenCount": 300}],
        ),
        ((200, "0.30"), (500, "1"), (300, "0.10"), (40, "2.50")),
        kind="gemini",
    ),
    "gemini, in a batch": Bill(
        GEMINI,
        GOOGLE,
        "gemini-2.5-flash",
        gemini(1001, 41, trafficType="BATCH"),
        ((1001, "0.15"), (41, "1.25")),
        kind="gemini",
    ),
    "deepseek, off-peak, cached": Bill(
        DEEPSEEK,
        "api.deepseek.com",
        "deepseek-flash",
        chat(1000, 200, prompt_cache_hit_tokens=640, prompt_cache_miss_tokens=360),
        ((360, "0.15"), (640, "0.003"), (200, "0.60")),
    ),
    "deepseek, at a peak": Bill(
        DEEPSEEK,
        "api.deepseek.com",
        "deepseek-v4-pro",
        chat(1000, 200, prompt_cache_hit_tokens=640),
        ((360, "1.32"), (640, "0.044"), (200, "3.96")),
        at="2026-11-20T03:59:59",
    ),
    "xai, reasoning beside": Bill(
        LISTS,
        "api.x.ai",
        "grok-4",
        {**chat(100, 20, **thought(300)), "total_tokens": 420},
        ((100, "3"), (320, "15")),
    ),
    "perplexity, citations, thoughts and searches": Bill(
        SONAR,
        "api.perplexity.ai",
        "sonar-deep-research",
        chat(33, 7163, citation_tokens=20_016, num_search_queries=18, reasoning_tokens=73_997),
        ((33, "2"), (7163, "8"), (20_016, "2"), (73_997, "3"), (18 * FEE, "0.005")),
    ),
    "perplexity, few thoughts": Bill(
        SONAR,
        "api.perplexity.ai",
        "sonar-deep-research",
        chat(33, 7163, citation_tokens=7, num_search_queries=1, reasoning_tokens=99),
        ((33, "2"), (7163, "8"), (7, "2"), (99, "3"), (1 * FEE, "0.005")),
    ),
    "perplexity, a request": Bill(
        SONAR,
        "api.perplexity.ai",
        "sonar",
        chat(26, 832, search_context_size="low", cost={"request_cost": 0.005, "total_cost": 0.005858}),
        ((26, "1"), (832, "1"), (1 * FEE, "0.005")),
    ),
}

DISAGREE: dict[str, tuple[Bill, str]] = {
    "a peak is no peak at the weekend": (
        Bill(
            DEEPSEEK,
            "api.deepseek.com",
            "deepseek-flash",
            chat(1_000_000, 0),
            ((1_000_000, "0.15"),),
            at=SATURDAY,
        ),
        "0.30",  # genai-prices knows hours, and no days of the week
    ),
    "a request that does not say what it cost": (
        Bill(SONAR, "api.perplexity.ai", "sonar", chat(0, 0), ((1 * FEE, "0.005"),)),
        "0.012",  # the dearest search context: the cheapest is the default
    ),
}


def call(bill: Bill) -> DecisionRecord:
    """Plays the call as `policyd replay` does."""
    match bill.kind:
        case "gemini":
            door = "streamGenerateContent?alt=sse" if bill.stream else "generateContent"
            path, body = f"/v1beta/models/{bill.model}:{door}", {"contents": [{"parts": [{"text": "hi"}]}]}
        case "responses":
            path, body = "/v1/responses", {"model": bill.model, "input": "hi"}
        case _:
            path = "/v1/messages" if bill.host == ANT else "/v1/chat/completions"
            said = [{"role": "user", "content": "hi"}]
            body = {"model": bill.model, "max_tokens": 9999, "messages": said, "stream": bill.stream}
    recording = Recording(
        source="bill#0",
        time=datetime.fromisoformat(bill.at).replace(tzinfo=UTC).timestamp(),
        method="POST",
        path=path,
        host=bill.host,
        scheme="https",
        headers=(("host", bill.host), ("content-type", "application/json")),
        body=json.dumps({**body, **bill.asked}).encode(),
        status=200,
        response_headers=(("content-type", "text/event-stream" if bill.stream else "application/json"),),
        chunks=tuple((float(at), data) for at, data in enumerate(answer(bill), 1)),
    )
    policies = compile_documents([]).policy_set
    assert policies is not None
    run = DryRun(policies, load_prices(), Options(observe_all=True))
    return asyncio.run(run.play(recording)).record


def answer(bill: Bill) -> list[bytes]:
    events = {"gemini": _gemini, "responses": _responses}.get(bill.kind, _claude if bill.host == ANT else _chat)(bill)
    if not bill.stream:
        return [json.dumps(events[-1]).encode()]
    done = b"data: [DONE]\n\n" if bill.kind == "chat" and bill.host != ANT else b""
    named = [(f"event: {one['type']}\n" if bill.host == ANT else "", one) for one in events]
    return [*(f"{name}data: {json.dumps(one)}\n\n".encode() for name, one in named), done]


def _chat(bill: Bill) -> list[dict[str, object]]:
    head = {"id": "c", "created": 1, "model": bill.model, **bill.answer}
    if bill.stream:
        head["object"] = "chat.completion.chunk"
        choice = {"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}
        return [{**head, "choices": [choice]}, {**head, "choices": [], "usage": bill.usage}]
    head["object"] = "chat.completion"
    said = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    return [{**head, "choices": [said], "usage": bill.usage}]


def _claude(bill: Bill) -> list[dict[str, object]]:
    message = {"id": "m", "type": "message", "role": "assistant", "model": bill.model}
    if not bill.stream:
        return [
            {**message, "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn", "usage": bill.usage}
        ]
    begun = {**bill.usage, "output_tokens": 1}
    done = {"input_tokens": bill.usage["input_tokens"], "output_tokens": bill.usage["output_tokens"]}
    return [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "usage": begun}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": done},
        {"type": "message_stop"},
    ]


def _gemini(bill: Bill) -> list[dict[str, object]]:
    said = {"content": {"parts": [{"text": "hi"}], "role": "model"}, "index": 0}
    first = {"candidates": [said], "usageMetadata": {"promptTokenCount": bill.usage["promptTokenCount"]}}
    return [first, {"candidates": [{**said, "finishReason": "STOP"}], "usageMetadata": bill.usage}]


def _responses(bill: Bill) -> list[dict[str, object]]:
    text = {"type": "output_text", "text": "hi", "annotations": []}
    actions = ({"type": "search", "query": "a"}, {"type": "open_page", "url": "b"}, {"type": "search", "query": "c"})
    searches = [
        {"type": "web_search_call", "id": f"w{at}", "status": "completed", "action": action}
        for at, action in enumerate(actions)
    ]
    said = {"type": "message", "id": "x", "role": "assistant", "status": "completed", "content": [text]}
    head = {"id": "r", "object": "response", "status": "completed", "model": bill.model, "usage": bill.usage}
    return [{**head, "output": [*searches, said]}]


@pytest.mark.parametrize("name", BILLS)
def test_a_call_costs_what_the_page_says(name: str) -> None:
    bill = BILLS[name]
    record = call(bill)
    assert record.inspection == "full", record.inspection_reason
    assert record.cost_source == "provider"
    assert record.cost_nano == bill.nano, f"{bill.page}: {bill.lines}"


@pytest.mark.parametrize("name", BILLS)
def test_what_was_priced_in_full_is_certain_and_says_where_its_price_comes_from(name: str) -> None:
    record = call(BILLS[name])
    assert record.cost_confidence == 1.0
    stated = "total_cost" in str(BILLS[name].usage)
    assert record.price_source == "provider" if stated else record.price_source.startswith("genai-prices ")
    assert record.price_digest == load_prices().digest


@pytest.mark.parametrize("name", DISAGREE)
def test_where_the_shipped_prices_say_something_else_than_the_page(name: str) -> None:
    """When this fails the source has been mended: move the call to BILLS, and its line out of docs/LIMITS.md."""
    bill, theirs = DISAGREE[name]
    nano = call(bill).cost_nano
    assert nano == Fraction(theirs) * 10**9 != bill.nano


def test_enough_of_them_and_of_each_kind() -> None:
    assert len(BILLS) >= 30
    for kind in ("cached", "long", "reasoning", "batch"):
        assert any(kind in name for name in BILLS)


def test_the_limits_name_every_disagreement() -> None:
    limits = (Path(__file__).resolve().parents[2] / "docs" / "LIMITS.md").read_text("utf-8")
    assert "weekend" in limits and "search context" in limits
