"""Two engines, one meaning: cel-expr-python and cel-python agree on what both of them offer."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyd.core.compile.cel import CelEngine, CompiledProgram, Want
from policyd.core.compile.cel_celpy import CelpyEngine
from policyd.core.compile.policyset import CelFailure, CounterRef
from policyd.core.model.facts import CounterFacts, Facts, Message, ToolCall, functions
from policyd.core.stream.hits import Hits
from tests.expressions import POLICY, compiled, scope
from tests.sizes import size

sys.setrecursionlimit(2500)  # what cel-python sets for the whole process: once, before Hypothesis looks
SCOPE = scope()
COUNTERS: dict[CounterRef, CounterFacts] = {
    (POLICY, "spend"): CounterFacts(value=1.5, limit=2.0, used=0.75, remaining=0.5),
    (POLICY, "requests"): CounterFacts(exceeded=True),
}


def facts() -> Facts:
    made = Facts(now=1.7e9)
    made.request.model, made.request.max_tokens, made.request.stream = "gpt-4o", 7, True
    made.request.tags, made.request.tools = {"a": "b", "é": "ü"}, functions(["shell", "b"])
    made.request.messages = [Message("user", "b", "ann"), Message("system", "é")]
    made.caller.team, made.session.calls, made.session.similarity = "research", 3, [0.5, 0.25]
    made.session.age_s, made.session.cost_nano = 90.0, 1_500_000_000
    made.response.output_tokens, made.response.finish_reasons = 12, ["stop", "b"]
    made.response.tool_calls = [ToolCall("shell", "{}")]
    return made


def both(program: CompiledProgram) -> tuple[object, object]:
    engines = (CelEngine(), CelpyEngine())
    answers = [engine.batch([program]).evaluate(facts(), COUNTERS, Hits())[0] for engine in engines]
    return answers[0], answers[1]


def agree(one: object, other: object) -> bool:
    """The same value, or a failure on both sides: their reasons differ in words."""
    if isinstance(one, CelFailure) or isinstance(other, CelFailure):
        return isinstance(one, CelFailure) and isinstance(other, CelFailure)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12) or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other


# ---- expressions over the types that both know ----------------------------------------------------------------------

ints = st.sampled_from(
    ["0", "1", "7", "(-3)", "9223372036854775807", "request.max_tokens", "session.calls", "response.output_tokens"]
)
strings = st.sampled_from(
    [
        "''",
        "'b'",
        "'ü'",
        "'gpt-4o'",
        "request.model",
        "caller.team",
        "request.tags['a']",
        "request.tags['none']",
    ]
)
doubles = st.sampled_from(
    [
        "0.0",
        "1.5",
        "(-0.5)",
        "session.cost_usd",
        "counters.spend.used",
        "session.similarity[0]",
        "session.similarity[9]",
    ]
)
truths = st.sampled_from(
    [
        "true",
        "false",
        "request.stream",
        "counters.requests.exceeded",
        "has(request.max_tokens)",
        "has(request.temperature)",
        "has(request.tags.a)",
        "has(counters.requests.limit)",
    ]
)
string_lists = st.sampled_from(
    [
        "['a', 'b']",
        "response.finish_reasons",
        "request.tools.map(t, t.name)",
        "request.messages.filter(m, m.role == 'user').map(m, m.text)",
    ]
)


def numbers(leaf: st.SearchStrategy[str], operators: list[str]) -> st.SearchStrategy[str]:
    def bigger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.builds("({} {} {})".format, inner, st.sampled_from(operators), inner) | st.builds(
            "({} ? {} : {})".format, truths, inner, inner
        )

    return st.recursive(leaf, bigger, max_leaves=4)


int_terms = numbers(ints | st.builds("size({})".format, strings | string_lists), ["+", "-", "*", "/", "%"])
double_terms = numbers(doubles | st.builds("double({})".format, ints), ["+", "-", "*"])
text_terms = numbers(strings | st.builds("string({})".format, ints), ["+"])
orders = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
atoms = st.one_of(
    truths,
    st.builds("({} {} {})".format, int_terms, orders, int_terms),
    st.builds("({} {} {})".format, double_terms, orders, double_terms),
    st.builds("({} {} {})".format, text_terms, orders, text_terms),
    st.builds("{}.{}({})".format, strings, st.sampled_from(["contains", "startsWith", "endsWith"]), strings),
    st.builds("{}.matches({})".format, strings, st.sampled_from(["'b'", "'^g.*o$'", "'[a-z]+'"])),
    st.builds("({} in {})".format, strings, string_lists),
    st.builds("('{}' in request.tags)".format, st.sampled_from(["a", "none", "é"])),
    st.builds("{}.{}(x, {})".format, string_lists, st.sampled_from(["exists", "all"]),
              st.builds("x {} {}".format, orders, strings)),
    st.builds("[1, 2, 7].{}(n, n {} {})".format, st.sampled_from(["exists", "all", "exists_one"]), orders, ints),
    st.builds("(session.age {} duration('{}s'))".format, orders, st.integers(89, 91)),
    st.builds("(now {} timestamp('2023-11-14T22:13:{}Z'))".format, orders, st.sampled_from(["19", "20", "21"])),
)  # fmt: skip
conditions = st.recursive(
    atoms,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["&&", "||"]), inner)
        | st.builds("!{}".format, inner)
        | st.builds("({} ? {} : {})".format, truths, inner, inner)
    ),
    max_leaves=4,
)


@given(conditions)
@settings(max_examples=size(400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_both_engines_give_the_same_truth(source: str) -> None:
    one, other = both(compiled(source, into=SCOPE))
    assert agree(one, other), (source, one, other)


@given(int_terms | double_terms)
@settings(max_examples=size(150), deadline=None)
def test_both_engines_give_the_same_number(source: str) -> None:
    one, other = both(compiled(source, Want.NUMBER, SCOPE))
    assert agree(one, other), (source, one, other)


@given(text_terms)
@settings(max_examples=100, deadline=None)
def test_both_engines_give_the_same_text(source: str) -> None:
    one, other = both(compiled(source, Want.STRING, SCOPE))
    assert agree(one, other), (source, one, other)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("request.model == 'gpt-4o' && counters.spend.value > 1", True),
        ("response.tool_calls.exists(t, t.name == 'shell' && t.arguments == '{}')", True),
        ("request.messages.exists(m, m.name == '')", True),
        ("request.tags['none'] == 'a'", CelFailure("no such key in a map")),
    ],
)
def test_the_second_engine_is_an_engine(source: str, expected: object) -> None:
    assert CelpyEngine().batch([compiled(source)]).evaluate(facts(), COUNTERS, Hits()) == [expected]


@pytest.mark.parametrize("source", ["request.?model.orValue('a') == 'a'", "cel.bind(x, 1, x > session.calls)"])
def test_what_the_second_engine_does_not_offer_fails_and_says_so(source: str) -> None:
    (answer,) = CelpyEngine().batch([compiled(source)]).evaluate(facts(), COUNTERS, Hits())
    assert answer == CelFailure("the second engine does not offer what this expression uses")
