"""Monotone conditions: which are, and that none of them ever turns back while an answer grows."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.core.compile.cel import CelEngine, CompiledProgram
from policyd.core.compile.cel_trend import has_anchor
from policyd.core.compile.policyset import CounterRef
from policyd.core.model.facts import CounterFacts, Facts, ToolCall
from policyd.core.stream.hits import Hits
from tests.expressions import POLICY, compiled, scope
from tests.sizes import size

YES = [
    "true",
    "request.model == 'gpt-4o'",
    "!(request.model == 'gpt-4o')",
    "session.cost_usd > 2",
    "response.cost_usd > 2",
    "response.cost_usd >= 2",
    "2 < response.cost_usd",
    "!(response.cost_usd < 2)",
    "session.cost_usd + response.cost_usd > 2",
    "response.cost_usd * 100 > 5",
    "response.cost_usd / 2 > 0.5",
    "2 * response.events > 5",
    "response.output_tokens > request.max_tokens",
    "response.output_tokens - request.input_tokens > 3",
    "double(response.output_tokens) > 3.5",
    "response.events > 3 && response.elapsed_ms > 30",
    "response.events > 3 || request.stream",
    "request.stream ? response.events > 3 : response.elapsed_ms > 30",
    "counters.spend.exceeded",
    "counters.spend.used >= 0.8 && request.model in params.dear",
    "counters.spend.value > counters.spend.limit",
    "response.text.contains('ab')",
    "response.text.contains('b') && response.events > 2",
    "response.text.matches('a[b^$]')",
    "response.text.size() > 3",
    "response.tool_calls.size() > 1",
    "response.tool_calls.exists(t, t.name == 'shell')",
    "response.tool_calls.exists(t, t.name == 'shell' && t.arguments.contains('rm'))",
    "response.tool_calls.exists(t, t.name in params.dear)",
    "response.tool_calls.filter(t, t.name == 'shell').size() > 1",
    "'length' in response.finish_reasons",
    "response.finish_reasons.exists(f, f == 'length')",
    "has(response.ttft_ms)",
    "response.ttft_ms > 50",
    "now > timestamp('2026-01-01T00:00:00Z')",
    "response.status == 200",
    "request.tools.exists(t, t.name == 'shell')",
    "variables.dear",
    "cel.bind(c, response.cost_usd, c > 2)",
]

NO = [
    "response.cost_usd < 2",
    "!(response.cost_usd > 2)",
    "2 > response.cost_usd",
    "response.cost_usd == 2",
    "response.events % 2 == 0",
    "response.events != 3",
    "session.cost_usd - response.cost_usd > 2",
    "response.cost_usd * -1 > -5",
    "response.cost_usd > response.elapsed_ms",
    "response.events > 3 && response.events < 9",
    "response.events > 3 ? response.elapsed_ms > 30 : request.stream",
    "counters.spend.remaining < 1",
    "counters.spend.available",
    "!counters.spend.exceeded",
    "!response.text.contains('ab')",
    "response.text.contains('a\\nb')",
    "response.text.matches('ab$')",
    "response.text.matches('^ab')",
    "response.text.matches(r'\\bab')",
    "response.text == 'ab'",
    "response.text.endsWith('ab')",
    "response.text.startsWith('ab')",
    "response.text > 'ab'",
    "response.delta.contains('ab')",
    "response.tool_calls.all(t, t.name == 'shell')",
    "response.tool_calls.exists_one(t, t.name == 'shell')",
    "!response.tool_calls.exists(t, t.name == 'shell')",
    "response.tool_calls.exists(t, t.arguments == 'rm')",
    "response.tool_calls.exists(t, t.arguments.size() < 3)",
    "response.tool_calls[0].name == 'shell'",
    "response.tool_calls.size() < 2",
    "response.finish_reasons[0] == 'stop'",
    "response.input_tokens > 3",
    "response.model == 'gpt-4o'",
    "response.inspection == 'full'",
    "dyn(response).events > 3",
    "[response.events].exists(e, e > 3 && e < 5)",
    "response.tool_calls.map(t, true, response.events).exists(e, e == 3)",
]


def program(source: str) -> CompiledProgram:
    return compiled(source, into=scope(("dear", "request.model in params.dear && response.cost_usd > 2")))


@pytest.mark.parametrize("source", YES)
def test_what_stays_true_is_known_to(source: str) -> None:
    assert program(source).monotone


@pytest.mark.parametrize("source", NO)
def test_what_may_turn_back_is_not_called_monotone(source: str) -> None:
    assert not program(source).monotone


@pytest.mark.parametrize(
    ("pattern", "anchored"),
    [
        ("ab", False),
        ("^ab", True),
        ("ab$", True),
        (r"\bab", True),
        (r"a\Bb", True),
        (r"\Aab", True),
        (r"ab\z", True),
        (r"a\$b\^", False),
        ("[$^]", False),
        ("[^$]", False),
        ("[]$]", False),
        ("[^]$]", False),
        (r"[\]$]", False),
        ("[a]$", True),
        (r"\Q^$\b\Eab", False),
        (r"\Q^\E$", True),
        (r"\Q^$", False),
        (r"\\b", False),
        ("[[:alpha:]$]", False),
        ("[[:alpha:][]^x", True),
    ],
)
def test_anchors(pattern: str, anchored: bool) -> None:
    assert has_anchor(pattern) is anchored


# ---- the property ---------------------------------------------------------------------------------------------------

WITHOUT_WATCHERS = [source for source in YES if not program(source).watchers]


@st.composite
def growing_answers(draw: st.DrawFn) -> list[tuple[Facts, CounterFacts]]:
    """The same answer at several moments, each at least as far as the one before."""
    steps = draw(st.integers(2, 8))
    facts, counter, moments = Facts(), CounterFacts(limit=2.0), []
    request, response = facts.request, facts.response
    request.model, request.stream = draw(st.sampled_from(["gpt-4o", "o3", ""])), draw(st.booleans())
    request.max_tokens, response.status = draw(st.none() | st.integers(0, 5)), 200
    grow = st.integers(0, 3)
    for _ in range(steps):
        response.events += draw(grow)
        response.output_tokens += draw(grow)
        response.cost_nano += draw(grow) * 400_000_000
        response.elapsed_ms += draw(grow) * 10.0
        response.texts.setdefault(0, []).append(draw(st.text("ab^$\n", max_size=3)))
        response.text_chars = len(response.text())
        if response.ttft_ms is None and draw(st.booleans()):
            response.ttft_ms = response.elapsed_ms
        if response.tool_calls:
            response.tool_calls[-1].arguments += draw(st.sampled_from(["r", "m", "rm"]))
        if draw(st.booleans()):
            response.tool_calls.append(ToolCall(draw(st.sampled_from(["shell", "o3", "x"]))))
        if draw(st.booleans()):
            response.finish_reasons.append(draw(st.sampled_from(["stop", "length"])))
        counter.value += draw(grow) * 0.5
        counter.used, counter.exceeded = counter.value / 2, counter.exceeded or draw(st.booleans())
        moments.append((deepcopy(facts), deepcopy(counter)))
    return moments


SPEND: CounterRef = (POLICY, "spend")
BATCH = CelEngine().batch([program(source) for source in WITHOUT_WATCHERS])


@given(growing_answers())
@settings(max_examples=size(300), deadline=None)
def test_no_monotone_condition_ever_turns_back(moments: list[tuple[Facts, CounterFacts]]) -> None:
    before: list[object] = [False] * len(WITHOUT_WATCHERS)
    for facts, counter in moments:
        now = BATCH.evaluate(facts, {SPEND: counter}, Hits())
        pairs = zip(WITHOUT_WATCHERS, before, now, strict=True)
        assert [source for source, was, still in pairs if was is True and still is not True] == []
        before = now
