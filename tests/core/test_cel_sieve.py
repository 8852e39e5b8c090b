"""Loops over lists of the facts see only elements that matter: never another value, and far less work."""

from __future__ import annotations

import random
from typing import Any

import pytest

from policyd.core.compile import cel_lower
from policyd.core.compile.cel import CelEngine, Scope, Want
from policyd.core.model.facts import Facts, Message, ToolCall, ToolResult
from tests.growth import LINEAR, grows

TEXTS = ["", "ab", "abc", "bcx", "AB", "a\0b", "é", "\ud83d", "tool", "user", "x" * 50]
CONDITIONS = [
    'request.messages.exists(m, m.text.contains("b"))',
    'request.messages.exists(m, m.role == "tool" && m.text.matches("(?i)^AB"))',
    'request.messages.exists(m, "tool" == m.role && (m.text.matches("x$") || m.name.startsWith("a")))',
    'request.messages.exists(m, m.text.matches("") && m.name != "ab")',
    'request.messages.exists(m, !m.text.contains("b"))',
    'request.messages.exists(m, m.text.contains("b") || m.role != "x")',
    'request.messages.all(m, m.text.contains("b"))',
    'request.messages.all(m, !m.text.contains("b"))',
    'request.messages.filter(m, m.text.endsWith("c")).size() == 1',
    'request.messages.exists_one(m, m.text.contains("b"))',
    'request.messages.map(m, m.role == "tool", m.text).exists(t, t == "ab")',
    'request.messages.exists(m, m.text.contains("b") && int(m.text) > 1)',
    'request.messages.exists(m, int(m.text) > 1 && m.text.contains("zzz"))',
    'request.messages.exists(m, m.text.contains("c") && request.messages.exists(n, n.role == "x" && n.text == m.text))',
    'request.messages[0].text.contains("b") && request.messages.exists(m, m.text == "ab")',
    'request.tool_results.exists(r, r.text.matches("b.?$") && !r.is_error)',
    'response.tool_calls.exists(c, c.name == "ab" && c.strings.exists(s, s.matches("^b")))',
    'response.tool_calls.exists(c, c.strings.exists(s, s.contains("b") && s.size() > 2))',
    'response.tool_calls.exists(c, c.strings.all(s, s.contains("b")))',
    'response.tool_calls.exists(c, c.arguments.contains("b"))',
    'response.tool_calls.exists(c, c.arguments == "")',
]  # fmt: skip


def facts(rng: random.Random) -> Facts:
    found = Facts()

    def text() -> str:
        return rng.choice(TEXTS)

    many = range(rng.randint(0, 5))
    found.request.messages = [Message(text(), text(), rng.choice([None, text()])) for _ in many]
    found.request.tool_results = [ToolResult(text(), "", text(), rng.random() < 0.5) for _ in many]
    for _ in many:
        call = ToolCall(text(), text(), strings=[text() for _ in range(rng.randint(0, 3))])
        call.open = rng.random() < 0.3
        found.response.tool_calls.append(call)
    return found


def batch(condition: str) -> Any:
    program = Scope(policy="p", counters=(), params={}, variables=()).compile(condition, Want.BOOL)
    assert not isinstance(program, tuple), program
    return CelEngine().batch([program])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_loop_gives_what_it_gives_over_the_whole_list(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, sieved = random.Random(condition), batch(condition)
    monkeypatch.setattr(cel_lower, "sieve", lambda _: None)
    whole = batch(condition)
    for _ in range(120):
        given = facts(rng)
        assert sieved.evaluate(given, {}, None) == whole.evaluate(given, {}, None)


def test_patterns_over_many_messages_are_cheap() -> None:
    judged = batch('request.messages.exists(m, m.text.matches("(?i)ignore (all|previous) instructions"))')

    def work(size: int) -> None:
        given = Facts()
        given.request.messages = [Message("tool", f"hello {n}") for n in range(size)]
        assert judged.evaluate(given, {}, None) == [False]

    assert grows(work, 8000) < LINEAR
